"""Canonical JSON (RFC 8785) and strict parsing of JSON from strangers.

Two rules: what we sign or hash is in canonical form; what we receive is bounded, then parsed so strictly that two
parsers cannot read it differently. Decimals travel as strings: there is no float in any signed document.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import rfc8785

from federation.errors import PeerError

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | bool | None"

INTEGER_MAX: Final = 2**53 - 1
DEPTH_MAX: Final = 32
SIZE_MAX_BYTES: Final = 1 << 20


class JsonError(PeerError):
    """A JSON document is refused; ``reason`` says why, for machines.

    One of ``not-json``, ``oversize``, ``too-deep``, ``duplicate-key``, ``float``, ``integer-too-large``,
    ``lone-surrogate``, ``not-canonical``, ``not-a-json-type``.
    """

    def __init__(self, message: str, *, remedy: str, reason: str) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason

    @property
    def code(self) -> str:
        """As its parent: whoever handles errors by class sees one class of peers' errors."""
        return PeerError.__name__


class _RefusedValueError(ValueError):
    """Raised inside the parser's hooks; carries the reason out."""

    def __init__(self, why: str, reason: str) -> None:
        super().__init__(why)
        self.reason = reason


def canonical_bytes(value: Any) -> bytes:
    """The RFC 8785 form of ``value``, UTF-8 bytes.

    Raises:
        PeerError: a float, an integer beyond 2^53 - 1, a lone surrogate, or a type that JSON does not have.
    """
    check_values(value, depth=0)
    return rfc8785.dumps(value)


def parse(data: bytes, *, max_bytes: int = SIZE_MAX_BYTES) -> Any:
    """Parse JSON from an untrusted source.

    Refused: more than ``max_bytes``; invalid UTF-8; a byte order mark; duplicate keys; floats; integers beyond
    2^53 - 1; NaN and infinities; lone surrogates; nesting deeper than 32.

    Raises:
        PeerError: always this type, whatever is wrong.
    """
    if len(data) > max_bytes:
        raise _refused(f"it has {len(data)} bytes, more than the {max_bytes} allowed", "oversize")
    if data.count(b"[") + data.count(b"{") > DEPTH_MAX:
        _check_depth(data)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_bounded_int,
        )
    except _RefusedValueError as error:
        raise _refused(str(error), error.reason) from error
    except RecursionError as error:
        raise _refused(str(error), "too-deep") from error
    except ValueError as error:
        raise _refused(str(error), "not-json") from error
    check_values(value, depth=0)
    return value


def parse_canonical(data: bytes, *, max_bytes: int = SIZE_MAX_BYTES) -> Any:
    """As :func:`parse`, and the bytes must already be the canonical form.

    Raises:
        PeerError: malformed, or not canonical.
    """
    value = parse(data, max_bytes=max_bytes)
    if rfc8785.dumps(value) != data:
        raise _refused("it is not in canonical form (RFC 8785)", "not-canonical")
    return value


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """SHA-256 with domain separation, 32 bytes: ``accord/TAG``, zero byte, each part behind its 8-byte length."""
    digest = hashlib.sha256(b"accord/" + tag.encode("ascii") + b"\0")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of ``data``, 64 lower-case hexadecimal digits: a blob's name."""
    return hashlib.sha256(data).hexdigest()


def _refused(why: str, reason: str) -> JsonError:
    return JsonError(
        f"The JSON document is refused: {why}.", remedy="Ask its author for a well-formed document.", reason=reason
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _RefusedValueError(f"the key {key!r} appears twice", "duplicate-key")
        result[key] = value
    return result


def _no_float(text: str) -> Any:
    raise _RefusedValueError(f"the number {text[:40]} is not an integer (decimals travel as strings)", "float")


def _bounded_int(text: str) -> int:
    if len(text) > len(str(INTEGER_MAX)) + 1:
        raise _RefusedValueError("an integer is beyond 2^53 - 1", "integer-too-large")
    return int(text)


def _check_depth(data: bytes) -> None:
    """Bound nesting before the recursive parser sees it (brackets inside strings do not count)."""
    depth, in_string, escaped = 0, False, False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == ord("\\"):
                escaped = True
            elif byte == ord('"'):
                in_string = False
        elif byte == ord('"'):
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise _refused(f"it nests deeper than {DEPTH_MAX}", "too-deep")
        elif byte in b"]}":
            depth -= 1


def check_values(value: Any, *, depth: int) -> None:
    """Refuse what canonical JSON of ours may not hold.

    Raises:
        PeerError: see :func:`canonical_bytes`.
    """
    if depth > DEPTH_MAX:
        raise _refused(f"it nests deeper than {DEPTH_MAX}", "too-deep")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise _refused("an integer is beyond 2^53 - 1", "integer-too-large")
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _refused("a string holds a lone surrogate", "lone-surrogate") from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _refused("a key is not a string", "not-a-json-type")
            check_values(key, depth=depth + 1)
            check_values(item, depth=depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for item in value:
            check_values(item, depth=depth + 1)
    else:
        raise _refused(f"a value of type {type(value).__name__} has no canonical form here", "not-a-json-type")
