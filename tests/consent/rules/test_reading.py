"""The quick way and the strict way of reading lead to the same place, whatever the bytes."""

import json
from typing import Any

import base58
import pytest
from consent_people import ANNA, NOW, record
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.rules import reading
from consent.rules.proof import add_proof
from consent.rules.reading import Received, receive
from consent.rules.refusal import RefusedRecordError
from consent.rules.signature import base58 as decode
from federation.rules.canonical import canonical_bytes, parse

BYTES_MAX = 16 * 1024
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    ["proof", '"proof":{}', "\U0001f600"]
)
values = st.recursive(
    st.booleans() | st.none() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(texts.filter(lambda name: name not in {"proof", "@context"}), values, max_size=4)


def strictly(data: bytes) -> Received:
    document = parse(data, max_bytes=BYTES_MAX)
    proof = document["proof"]
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    config = {name: value for name, value in proof.items() if name != "proofValue"}
    return Received(unsecured, proof, canonical_bytes(unsecured), canonical_bytes(config), canonical_bytes(document))


@given(members, st.booleans(), st.sampled_from([None, 1]))
def test_both_ways_give_the_same_parts(drawn: dict[str, Any], canonical: bool, indent: int | None) -> None:
    signed = add_proof({"@context": ["https://example.org"], **drawn}, ANNA, created=NOW)
    inner = {**signed, "inside": signed}
    for document in (signed, inner):
        data = canonical_bytes(document) if canonical else json.dumps(document, indent=indent).encode()
        assert receive(data, bytes_max=BYTES_MAX) == strictly(data)


@settings(max_examples=200)
@given(st.data())
def test_an_altered_record_is_read_strictly_or_not_at_all(data: st.DataObject) -> None:
    good = record()
    place = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(0, 3))
    piece = data.draw(st.sampled_from([b'"', b"\\", b",", b"}", b"{", b" ", b"0", b'"seq":1,', b"1.5", b"\xff", b""]))
    altered = good[:place] + piece + good[place + length :]
    try:
        received = receive(altered, bytes_max=BYTES_MAX)
    except RefusedRecordError:
        return
    assert canonical_bytes(parse(altered)) == received.canonical


def test_the_quick_way_is_taken_for_canonical_records_and_only_for_them() -> None:
    good = record()
    assert reading._quickly(good) is not None
    for bad in (
        good + b" ",
        good.replace(b'"seq":1', b'"seq":1.0'),
        good.replace(b'"seq":1', b'"seq":9007199254740993'),
        good.replace(b'"seq":1', b'"seq":1,"seq":1'),
        good.replace(b'"type":[', b'"type": ['),
        good.replace(b"did:", b"di\\u0064:", 1),
        b"{}",
        b"null",
        b'"proof"',
        b'{"proof":"z"}',
    ):
        assert reading._quickly(bad) is None


@given(st.binary(max_size=70))
def test_base58_is_read_as_the_library_writes_it(data: bytes) -> None:
    text = base58.b58encode(data).decode()
    assert decode(text, length=len(data)) == data
    assert decode("1" + text, length=len(data)) is None
    assert decode(text + " ", length=len(data)) is None
    assert decode(text + "é", length=len(data)) is None
    assert decode(text + "z", length=len(data)) != data


@pytest.mark.parametrize("text", ["0", "O", "I", "l", "z" * 200])
def test_what_is_no_base58_of_that_length_is_refused(text: str) -> None:
    assert decode(text, length=32) is None
