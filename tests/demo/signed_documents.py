"""The documents of an export, read with nothing but the standard library: what anybody sees who is given the folder."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENVELOPE = {"payload", "payloadType", "signature", "signer"}
Place = tuple[str, ...]


def payload_of(envelope: bytes | str) -> dict[str, Any]:
    """What a signed envelope says."""
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return document


def log_entries(export: Path) -> list[dict[str, Any]]:
    """The log, in order."""
    return [payload_of(path.read_bytes()) for path in sorted((export / "log").iterdir())]


def updates_by_site(export: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Site -> round -> the update that the log admitted."""
    sites: dict[str, str] = {}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for entry in log_entries(export):
        body = entry["body"]
        if body["kind"] == "agreement-admitted":
            sites[entry["party"]] = payload_of(body["envelope"])["site"]
        if body["kind"] == "update-admitted":
            found.setdefault(sites[entry["party"]], {})[entry["round"]] = payload_of(body["envelope"])
    return found


def every_document(export: Path) -> Iterator[tuple[str, Any]]:
    """Every JSON document of the export, with the envelopes inside opened: (file, document)."""
    for path in sorted(export.rglob("*")):
        if path.is_file() and path.parent.name != "validation":
            try:
                document = json.loads(path.read_bytes())
            except ValueError:
                continue  # a model, an update, a checkpoint
            yield str(path.relative_to(export)), _opened(document)


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every number, string and truth value of a document, and the keys that lead to it (a list's members share one)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, (*place, "[]"))
    else:
        yield place, value


def _opened(value: Any) -> Any:
    """Envelopes replaced by what they say, wherever they are, also inside strings."""
    if isinstance(value, str) and value.startswith("{"):
        return _opened(json.loads(value))
    if isinstance(value, list):
        return [_opened(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == ENVELOPE:
        return {"signer": value["signer"], "says": _opened(json.loads(base64.b64decode(value["payload"])))}
    return {key: _opened(inner) for key, inner in value.items()}
