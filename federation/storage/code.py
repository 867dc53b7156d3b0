"""Which code runs here: one hash over the sources of the three packages.

A plan lists the hashes that may contribute; an update names the hash that made it. That a site really ran this code is
its signed statement, checkable on site, not a proof.
"""

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_PACKAGES: Final = ("clients", "consent", "federation")


@cache
def code_hash() -> str:
    """SHA-256 over (path, SHA-256 of the file) of every Python source, in order of path; hexadecimal."""
    digest = hashlib.sha256(b"accord/code\0")
    for package in _PACKAGES:
        for path, data in sorted(_sources(package, resources.files(package))):
            digest.update(path.encode("utf-8") + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()


def _sources(prefix: str, folder: Traversable) -> list[tuple[str, bytes]]:
    found = []
    for item in folder.iterdir():
        name = f"{prefix}/{item.name}"
        if item.is_dir():
            found += _sources(name, item)
        elif item.name.endswith(".py"):
            found.append((name, item.read_bytes()))
    return found
