"""Reading records that are alike gives what reading each with care gives, whatever the bytes."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, OTHER_HOSPITAL, person, record, terms
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.rules import alike
from consent.rules.alike import AlikeReader
from consent.rules.proof import add_proof
from consent.rules.record import Action, ConsentRecord, build, next_key_hash, open_record, sign_record
from consent.rules.refusal import RefusedRecordError
from federation.rules.canonical import canonical_bytes
from federation.rules.keys import PrivateKey

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "consent").glob("must_*/*.json"))


def rotating(subject: PrivateKey = ANNA, valid_from: datetime = NOW - DAY) -> bytes:
    document = build(
        subject=subject.public,
        institution=HOSPITAL.public,
        action=Action.GRANT,
        seq=1,
        prev=None,
        valid_from=valid_from,
        terms=terms(),
        next_key_hash=next_key_hash(subject.public.did),
    )
    return sign_record(document, subject, created=NOW - DAY)


SHAPES: dict[str, Callable[..., bytes]] = {
    "first": record,
    "later": lambda **changes: record(seq=2, prev="ab" * 32, **changes),
    "rotating": rotating,
    "bound": lambda **changes: record(rounds_max=9, code_hash="cd" * 32, **changes),
}


def said(reader: Callable[[bytes], ConsentRecord], data: bytes) -> ConsentRecord | str:
    """The record, or the reason of the refusal."""
    try:
        return reader(data)
    except RefusedRecordError as error:
        return error.reason


def quick(data: bytes, *examples: bytes) -> tuple[ConsentRecord | str, bool]:
    """What a reader says that has read ``examples``, and whether it needed to read with care."""
    reader, careful = AlikeReader(), []

    def watched(seen: bytes, **settings_: Any) -> ConsentRecord:
        careful.append(seen)
        return open_record(seen, **settings_)

    for example in examples:
        reader.open(example)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "open_record", watched)
        return said(reader.open, data), bool(careful)


@pytest.mark.parametrize("name", SHAPES)
def test_a_record_that_is_alike_is_read_quickly_and_to_the_same_fields(name: str) -> None:
    example, other = SHAPES[name](), SHAPES[name](subject=BEN, valid_from=NOW - 3 * DAY)
    assert quick(other, example) == (open_record(other), False)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_every_vector_is_read_as_with_care(path: Path) -> None:
    data = path.read_bytes()
    assert quick(data, *(make() for make in SHAPES.values()))[0] == said(open_record, data)


@settings(max_examples=300)
@given(st.data())
def test_altered_bytes_are_read_as_with_care(data: st.DataObject) -> None:
    make = SHAPES[data.draw(st.sampled_from(sorted(SHAPES)))]
    good = make(subject=BEN)
    start = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(0, 3))
    piece = data.draw(st.sampled_from([b'"', b"\\", b",", b"}", b" ", b"0", b"Z", b"f", b'"seq":1,', b"\xff", b""]))
    altered = good[:start] + piece + good[start + length :]
    assert quick(altered, make())[0] == said(open_record, altered)


ALTERATIONS: list[Callable[[dict[str, Any]], object]] = [
    lambda document: document.update(validUntil="2020-01-01T00:00:00Z"),
    lambda document: document.update(validUntil=document["validFrom"]),
    lambda document: document.update(validFrom="2026-02-30T00:00:00Z"),
    lambda document: document.update(validFrom="2026-11-21T12:00:00+"),
    lambda document: document.update(issuer=BEN.public.did),
    lambda document: document.update(issuer=HOSPITAL.public.did),
    lambda document: document["credentialSubject"].update(id=BEN.public.did),
    lambda document: document["credentialSubject"].update(institution=OTHER_HOSPITAL.public.did),
    lambda document: document["credentialSubject"].update(epsilonMax="4"),
    lambda document: document["credentialSubject"].update(seq=3),
    lambda document: document["credentialSubject"].update(prev="AB" * 32),
    lambda document: document["credentialSubject"].update(prev="ab" * 31 + "zz"),
    lambda document: document["credentialSubject"].update(nextKeyHash="-" * 64),
    lambda document: document["credentialSubject"]["statement"]["controller"].update(name=ANNA.public.did),
    lambda document: document["credentialSubject"]["statement"].update(withdrawalMethod='"issuer":"' + ANNA.public.did),
    lambda document: document["credentialSubject"]["statement"]["controller"].update(name="Hôpital"),
]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("alter", ALTERATIONS)
@pytest.mark.parametrize("signer", [ANNA, BEN], ids=["own key", "another key"])
def test_what_was_signed_otherwise_is_read_as_with_care(name: str, alter: Callable[..., object], signer: Any) -> None:
    document = json.loads(SHAPES[name]())
    del document["proof"]
    alter(document)
    signed = canonical_bytes(add_proof(document, signer, created=NOW - DAY))
    expected = said(open_record, signed)
    assert quick(signed, SHAPES[name](subject=person("carla")))[0] == expected
    if isinstance(expected, ConsentRecord):  # and it does not lead others astray
        usual = SHAPES[name](subject=BEN)
        assert quick(usual, signed)[0] == open_record(usual)


def test_a_weak_key_is_refused_and_stays_refused() -> None:
    weak = next(path for path in VECTORS if path.stem.startswith("small-order-key")).read_bytes()
    for _ in range(2):
        assert quick(weak, record(), record(subject=BEN))[0] == "small-order-key"


def test_shapes_are_bounded() -> None:
    reader = AlikeReader()
    for number in range(alike.SHAPES_MAX + 5):
        reader.open(record(rounds_max=number + 1))
    assert len(reader._shapes) == alike.SHAPES_MAX
