"""A signed document from a stranger: bounded, parsed strictly, taken apart, made canonical. Nothing is believed yet.

The rules are those of :func:`federation.rules.canonical.parse` and RFC 8785. Most documents arrive in canonical form
already, and for them there is a quick way to the same result: parse with the standard library's scanner in C, write
the result in canonical form with its encoder in C, and compare. If the two texts are equal, nothing was lost on the
way: no key stood twice, nothing was spelled in a second way; and the part that was signed can be cut out of the text.
If they differ, or anything at all is unusual, the strict parser decides, and names the reason. A property test holds
the two ways against each other.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from consent.rules.refusal import refused
from federation.errors import PeerError
from federation.rules.canonical import DEPTH_MAX, INTEGER_MAX, canonical_bytes, parse

# Up to here, RFC 8785's order of keys (UTF-16) is Python's (code points).
_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Received:
    """A parsed document and its canonical forms.

    ``unsecured`` is the document without its ``proof``, ``content`` the canonical bytes of that, ``config`` those of
    the proof without its ``proofValue`` (empty if there is no such proof), ``canonical`` those of the whole.
    """

    unsecured: dict[str, Any]
    proof: Any
    content: bytes
    config: bytes
    canonical: bytes


def receive(data: bytes, *, bytes_max: int) -> Received:
    """Parse a document of ``bytes_max`` bytes at most.

    Raises:
        ConsentError: it is not a JSON object in the strict sense; ``reason`` is the parser's.
    """
    if len(data) <= bytes_max and data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        quick = _quickly(data)
        if quick is not None:
            return quick
    try:
        document = parse(data, max_bytes=bytes_max)
        if not isinstance(document, dict):
            raise refused("it is not a JSON object", reason="malformed")
        proof = document.get("proof")
        unsecured = {name: value for name, value in document.items() if name != "proof"}
        config = canonical_bytes(_without_value(proof)) if isinstance(proof, dict) else b""
        return Received(unsecured, proof, canonical_bytes(unsecured), config, canonical_bytes(document))
    except PeerError as error:
        raise refused(error.message.rstrip("."), reason=getattr(error, "reason", "malformed")) from error


def refuse_nulls(document: Mapping[str, Any], content: bytes) -> None:
    """Refuse a document (whose canonical bytes are ``content``) that holds a null anywhere: a field is there or not.

    Raises:
        ConsentError: it holds one.
    """
    if b"null" in content and _has_null(document):
        raise refused("it holds a null", reason="null")


def _quickly(data: bytes) -> Received | None:
    """The same result for a canonical document, None for every other."""
    try:
        text = data.decode("utf-8")
        document = _decoder.decode(text)
        if _encoder.encode(document) != text or (not text.isascii() and _ASTRAL.search(text)):
            return None
        proof = document.pop("proof")
        proof_text = _encoder.encode(proof)
        value = f',"proofValue":"{proof["proofValue"]}"'
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    content, config = _cut(text, f',"proof":{proof_text}'), _cut(proof_text, value)
    if content is None or config is None:
        return None
    return Received(document, proof, content.encode("utf-8"), config.encode("utf-8"), data)


def _cut(text: str, member: str) -> str | None:
    """The canonical text of an object without one of its members; None unless the member stands there exactly once.

    A quote inside a string is escaped, so what looks like a member of an object is one.
    """
    start = text.find(member)
    end = start + len(member)
    return None if start < 0 or text.find(member, end) >= 0 else text[:start] + text[end:]


def _without_value(proof: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in proof.items() if name != "proofValue"}


def _has_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_null(item) for item in value)
    return value is None


def _no_float(text: str) -> Any:
    raise ValueError(text)


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > INTEGER_MAX:
        raise ValueError(text)
    return value


_decoder: Final = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float, parse_int=_integer)
_encoder: Final = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False
)
