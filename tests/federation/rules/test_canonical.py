"""Canonical JSON: one text for one document, and strangers' texts read in one way or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    canonical_bytes,
    parse,
    parse_canonical,
    sha256_hex,
    tagged_hash,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "jcs.json").read_text("utf-8"))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-INTEGER_MAX, INTEGER_MAX)
documents = st.recursive(
    st.none() | st.booleans() | integers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def by_the_letter(value: Any) -> str:
    """RFC 8785 written out independently: sections 3.2.2.2 (strings) and 3.2.3 (sorting by UTF-16 code units)."""
    if isinstance(value, str):
        short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
        escaped = (short.get(ord(c)) or (f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in value)
        return '"' + "".join(escaped) + '"'
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{by_the_letter(key)}:{by_the_letter(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(by_the_letter, value)) + "]"
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


@given(documents)
def test_canonical_bytes_are_those_of_the_standard(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value) == by_the_letter(value).encode("utf-8")


@given(documents)
def test_what_is_written_reads_back_and_is_canonical(value: Any) -> None:
    data = canonical_bytes(value)
    assert parse(data) == parse_canonical(data) == value
    assert canonical_bytes(parse(data)) == data


@given(documents, st.integers(0, 4), st.booleans())
def test_white_space_and_escapes_do_not_change_the_canonical_form(value: Any, indent: int, ascii_only: bool) -> None:
    loose = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8")
    assert canonical_bytes(parse(loose)) == canonical_bytes(value)


@given(documents)
def test_any_other_text_of_a_document_is_not_canonical(value: Any) -> None:
    loose = b" " + canonical_bytes(value)
    assert parse(loose) == value
    with pytest.raises(PeerError, match="not in canonical form"):
        parse_canonical(loose)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_garbage_leaks_only_the_peer_s_error(data: bytes) -> None:
    try:
        value = parse(data)
    except PeerError:
        return
    assert parse_canonical(canonical_bytes(value)) == value


@pytest.mark.parametrize("vector", VECTORS["canonical"], ids=lambda vector: vector["name"])
def test_vector_has_these_canonical_bytes(vector: dict[str, str]) -> None:
    value = parse(vector["input"].encode("utf-8"))
    assert canonical_bytes(value).hex() == vector["hex"]
    assert parse_canonical(bytes.fromhex(vector["hex"])) == value


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_vector_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(PeerError) as refused:
        parse(vector["input"].encode("utf-8"))
    assert vector["because"] in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_published_vector(name: str, shared_dir: Path) -> None:
    folder = shared_dir / "vectors" / "jcs"
    data = (folder / "input" / f"{name}.json").read_bytes()
    expected = bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text())
    assert rfc8785.dumps(json.loads(data)) == expected
    if name in {"structures", "values"}:  # they hold fractions, which nothing of ours signs
        with pytest.raises(PeerError, match="not an integer"):
            parse(data)
    else:
        assert canonical_bytes(parse(data)) == expected


def test_the_size_is_bounded_before_anything_is_read() -> None:
    assert parse(b'"' + b"x" * 8 + b'"', max_bytes=10) == "x" * 8
    with pytest.raises(PeerError, match="more than the 10 allowed"):
        parse(b'"' + b"x" * 9 + b'"', max_bytes=10)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    allowed = (opening * DEPTH_MAX + "1" + closing * DEPTH_MAX).encode()
    assert canonical_bytes(parse(allowed)) == allowed
    for depth in (DEPTH_MAX + 1, 100_000):
        with pytest.raises(PeerError, match="deeper than 32"):
            parse((opening * depth + "1" + closing * depth).encode())


def test_brackets_inside_a_text_do_not_count_as_nesting() -> None:
    text = "[{" * 100 + '\\"' + "[" * 100
    assert parse(json.dumps([text, "\\", "["]).encode()) == [text, "\\", "["]


def test_a_byte_order_mark_and_other_encodings_are_refused() -> None:
    for data in (b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b'"\xc3\x28"', b'"\xed\xa0\x80"'):
        with pytest.raises(PeerError):
            parse(data)


@pytest.mark.parametrize("value", [1.0, float("nan"), b"bytes", {1: "number as a key"}, {"a": {2, 3}}, object()])
def test_what_json_does_not_have_cannot_be_signed(value: Any) -> None:
    with pytest.raises(PeerError):
        canonical_bytes(value)


def test_an_integer_beyond_the_bound_and_a_lone_surrogate_cannot_be_signed() -> None:
    for value in (INTEGER_MAX + 1, -INTEGER_MAX - 1, "\ud800", {"\ud800": 1}):
        with pytest.raises(PeerError):
            canonical_bytes({"value": value})


def test_an_endless_document_cannot_be_signed() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PeerError, match="deeper"):
        canonical_bytes(endless)


def test_a_tagged_hash_is_sha_256_over_tag_and_framed_parts() -> None:
    expected = hashlib.sha256(b"accord/test\0" + (2).to_bytes(8, "big") + b"ab" + (0).to_bytes(8, "big")).digest()
    assert tagged_hash("test", b"ab", b"") == expected


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_parts_of_a_tagged_hash_cannot_be_shifted(left: list[bytes], right: list[bytes]) -> None:
    assert (tagged_hash("t", *left) == tagged_hash("t", *right)) == (left == right)
    assert tagged_hash("t", *left) != tagged_hash("u", *left)


def test_a_blob_s_name_is_its_sha_256() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
