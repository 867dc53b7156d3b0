"""The pages' files (styles, scripts, pictures), held in memory under a name that changes with their content.

All of them live below ``/static/FINGERPRINT/``, so that modules import each other by relative names and a browser may
keep them for good. Text is also held compressed; it is public, so that compression reveals nothing.
"""

import gzip
import hashlib
import posixpath
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.responses import PlainTextResponse, Response

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
_FINGERPRINT_DIGITS: Final = 16
_IMPORT: Final = re.compile(rb'^import [^("]*"(\./[^"]+)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, plain and compressed."""

    media_type: str
    data: bytes
    compressed: bytes


@cache
def assets() -> tuple[str, dict[str, Asset]]:
    """The fingerprint of all files together, and the files by their relative names."""
    found: dict[str, Asset] = {}
    digest = hashlib.sha256()
    for name, file in sorted(_walk(files("consent.web") / "static")):
        suffix = name[name.rfind(".") :]
        if suffix not in _TYPES:
            continue
        data = file.read_bytes()
        digest.update(f"{name}\n{len(data)}\n".encode() + data)
        found[name] = Asset(_TYPES[suffix], data, gzip.compress(data, mtime=0))
    return digest.hexdigest()[:_FINGERPRINT_DIGITS], found


def asset_path(name: str) -> str:
    """Where a file is served.

    Raises:
        KeyError: there is no such file (a mistake in a template).
    """
    fingerprint, found = assets()
    if name not in found:
        raise KeyError(name)
    return f"/static/{fingerprint}/{name}"


@cache
def imports_of(name: str) -> tuple[str, ...]:
    """The modules that a script imports when it starts, directly or not, nearest first (not those it asks for later).

    Raises:
        KeyError: there is no such file, or a script imports one that is not there.
    """
    _, found = assets()
    met: dict[str, None] = {}
    waiting = [name]
    for at in waiting:
        for given in _IMPORT.findall(found[at].data):
            imported = posixpath.normpath(posixpath.join(posixpath.dirname(at), given.decode()))
            if imported not in met:
                met[imported] = None
                waiting.append(imported)
    return tuple(met)


def serve_asset(fingerprint: str, name: str, *, compressed: bool) -> Response:
    """Answer ``/static/{fingerprint}/{name}``; an old fingerprint is gone."""
    newest, found = assets()
    asset = found.get(name)
    if asset is None or fingerprint != newest:
        return PlainTextResponse("There is no such file.\n", status_code=404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if compressed:
        return Response(asset.compressed, media_type=asset.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(asset.data, media_type=asset.media_type, headers=headers)


def _walk(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        found += _walk(entry, name + "/") if entry.is_dir() else [(name, entry)]
    return found
