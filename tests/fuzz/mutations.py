"""One step away from a real document: a changed field, a moved value, a flipped byte; drawn from a random source."""

import json
from copy import deepcopy
from random import Random
from typing import Any

# What parsers stumble over: bounds, other types, texts that look like numbers, names and times.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, 10**30, 0.5, 1e308, [], {}, [[]], {"": None}),
    *("", "0", "-0", "1e999999999999999999999", "NaN", "sNaN", "Infinity", "٣", "0." + "0" * 50 + "1", "9" * 5000),
    *("\x00", "\n", "\u2028", "\ud800", "\U0001f600", "é", "%", "a" * 300, "/p2p/", "accord1.", "did:key:z6Mk", "{}"),
    *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "==", "AAAA", "00" * 32, "ff" * 32),
)
PIECES = (b"\x00", b"\xff", b"\n", b'"', b"{", b"[", b"-", b"9" * 20, b"\r\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b",")
DEEP = 2000


def mutated(data: bytes, rng: Random) -> bytes:
    """``data`` after one to three changes: of its JSON where it is some, else (or one time in three) of its bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            changed = _json(data, rng) if rng.random() < 2 / 3 else None
        except RecursionError:  # nested too deeply for us
            changed = None
        data = _bytes(data, rng) if changed is None else changed
    return data


def _json(data: bytes, rng: Random) -> bytes | None:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    places = list(_places(document))
    if not places:
        return None
    holder, place = rng.choice(places)
    match rng.randrange(6):
        case 0 | 1:
            holder[place] = deepcopy(rng.choice(STRANGE))
        case 2:
            del holder[place]
        case 3:
            other, there = rng.choice(places)
            holder[place] = deepcopy(other[there])
        case 4 if isinstance(holder, list):
            holder.insert(place, holder[place])
        case 4:
            holder[str(rng.choice(STRANGE)) if rng.random() < 1 / 3 else "more"] = holder[place]
        case _:
            holder[place] = _near(holder[place], rng)
    spaced = rng.random() < 1 / 10
    try:
        text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=None if spaced else (",", ":"))
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _places(value: Any) -> Any:
    """Every (container, key or index) in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, item in inner:
        yield value, place
        yield from _places(item)


def _near(value: Any, rng: Random) -> Any:
    """A value like this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 2**32, -(2 * value)))
    if isinstance(value, str):
        return _bytes(value.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    return [value] * rng.choice((1, 2, 65))


def _bytes(data: bytes, rng: Random) -> bytes:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 8, 64)))
    piece = data[start:end]
    match rng.randrange(6):
        case 0:
            return data[:start] + bytes([rng.randrange(256)]) + data[min(len(data), start + 1) :]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + piece * rng.choice((1, 2, 40)) + data[end:]
        case 3:
            return data[:start] + rng.choice(PIECES) + data[start:]
        case 4:
            return data[:start] if rng.random() < 1 / 2 else data[start:]
        case _ if rng.random() < 1 / 10:
            return data[:start] + rng.choice((b"[", b"(", b'{"a":')) * DEEP + data[start:]
        case _:
            return data[:start] + data[end:] + piece
