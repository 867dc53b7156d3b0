"""The receipt credential: what it says, and that nothing in it can be changed."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from consent_people import ANNA, BEN, HOSPITAL, NOW, chain, person, record, terms
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.commitment import batch_bytes, commitment
from consent.rules.guardian import issue_authority
from consent.rules.proof import add_proof
from consent.rules.receipt import (
    LogPlace,
    ModelMention,
    Receipt,
    RoundInFlight,
    build_receipt,
    open_note,
    open_receipt,
)
from consent.rules.record import Action, build, open_record, sign_record
from consent.rules.refusal import RefusedRecordError
from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes
from federation.rules.checkpoint import Checkpoint, cosign, sign_checkpoint
from federation.rules.instant import format_instant
from federation.rules.merkle import inclusion_proof, leaf_hash, root

GRANT, WITHDRAW = chain(Action.GRANT, Action.WITHDRAW, attested=True)
WITNESSES = [person("first witness"), person("second witness")]
ROUNDS = (RoundInFlight("heart-0123456789ab", 4), RoundInFlight("weather-0123456789ab", 1))
MODELS = (ModelMention("heart-0123456789ab", 3, "6d" * 32, Decimal(3), Decimal("0.00001")),)


def short(data: bytes, **changes: Any) -> Receipt:
    known = open_record(data)
    parts: dict[str, Any] = {
        "institution": HOSPITAL.public.did,
        "subject_ref": "p1",
        "subject": known.subject,
        "record": known.digest,
        "action": known.action,
        "seq": known.seq,
        "received_at": format_instant(NOW),
    }
    return Receipt(**{**parts, **changes})


def place(data: bytes, *, index: int = 2, entries: int = 5) -> LogPlace:
    salt = b"s" * 32
    padding = [bytes([number]) * 32 for number in range(3)]
    batch = batch_bytes([commitment(salt, data)], size=4, padding=padding, appended_at=NOW)
    leaves = [leaf_hash(bytes([number])) for number in range(entries)]
    leaves[index] = leaf_hash(batch)
    checkpoint = Checkpoint("hospital/consent", entries, root(leaves))
    by = [cosign(checkpoint, witness, timestamp=1_800_000_000) for witness in WITNESSES]
    note = sign_checkpoint(checkpoint, HOSPITAL).with_cosignatures(by)
    return LogPlace(salt, index, batch, inclusion_proof(leaves, index), note)


def made(data: bytes = WITHDRAW, **parts: Any) -> bytes:
    usual: dict[str, Any] = {"created": NOW, "logged": place(data)}
    return build_receipt(short(data), data, HOSPITAL, **{**usual, **parts})


def test_a_receipt_is_read_as_it_was_built() -> None:
    known = open_receipt(made(rounds_in_flight=ROUNDS, models=MODELS))
    assert known.receipt == short(WITHDRAW)
    assert known.record == open_record(WITHDRAW)
    assert (known.rounds_in_flight, known.models) == (ROUNDS, MODELS)
    assert known.place == place(WITHDRAW)
    assert sorted(item.witness.did for item in known.cosignatures) == sorted(one.public.did for one in WITNESSES)
    assert known.signed_at == NOW
    assert open_receipt(known.canonical) == known


def test_a_receipt_can_wait_for_its_batch() -> None:
    known = open_receipt(made(GRANT, logged=None))
    assert (known.place, known.cosignatures) == (None, ())


def test_what_does_not_belong_together_makes_no_receipt() -> None:
    other = record(subject=BEN)
    for parts in (
        {"receipt": short(GRANT), "record": WITHDRAW},
        {"receipt": short(GRANT), "record": other},
        {"receipt": short(WITHDRAW, seq=1), "record": WITHDRAW},
        {"receipt": short(WITHDRAW, action=Action.REFUSE), "record": WITHDRAW},
        {"receipt": short(WITHDRAW, institution=BEN.public.did), "record": WITHDRAW},
        {"receipt": short(GRANT), "record": GRANT, "models": MODELS},
        {"receipt": short(GRANT), "record": GRANT, "rounds_in_flight": ROUNDS},
        {"receipt": short(GRANT), "record": GRANT, "logged": place(other)},
    ):
        with pytest.raises(RefusedRecordError):
            build_receipt(key=HOSPITAL, created=NOW, **parts)  # type: ignore[arg-type]  # the parts vary
    with pytest.raises(RefusedRecordError) as caught:
        build_receipt(short(GRANT), GRANT, ANNA, created=NOW)
    assert caught.value.reason == "issuer-not-signer"


@given(st.data())
def test_a_changed_receipt_is_refused_or_says_the_same(data: st.DataObject) -> None:
    good = made(rounds_in_flight=ROUNDS, models=MODELS)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        known = open_receipt(bytes(changed))
    except RefusedRecordError:
        return
    assert known.canonical == good


def test_a_receipt_without_a_cosignature_is_valid_and_says_so() -> None:
    logged = place(GRANT)
    bare = sign_checkpoint(logged.checkpoint.checkpoint, HOSPITAL)
    lone = LogPlace(logged.salt, logged.index, logged.batch, logged.proof, bare)
    assert open_receipt(made(GRANT, logged=lone)).cosignatures == ()


def test_a_note_of_another_signer_or_with_a_broken_line_is_refused() -> None:
    note = place(GRANT).checkpoint.to_bytes()
    assert open_note(note, HOSPITAL.public).checkpoint.size == 5
    for bad in (note.replace(b"\n5\n", b"\n6\n"), note[:-9] + b"AAAAAAA=\n", b"", note + b"more\n"):
        with pytest.raises(PeerError):
            open_note(bad, HOSPITAL.public)
    with pytest.raises(PeerError):
        open_note(note, BEN.public)


def test_a_guardians_record_is_taken_on_the_institutions_word_only_if_asked() -> None:
    court, parent = person("court"), person("parent")
    held = issue_authority(
        issuer=court,
        guardian=parent.public,
        ward=ANNA.public,
        valid_from=NOW - timedelta(days=1),
        majority=NOW + timedelta(days=900),
    )
    document = build(
        subject=ANNA.public,
        institution=HOSPITAL.public,
        action=Action.GRANT,
        seq=1,
        prev=None,
        valid_from=NOW,
        terms=terms(),
        guardian=held,
    )
    data = sign_record(document, parent, created=NOW)
    known = open_record(data, authorities=(court.public.did,))
    receipt = Receipt(
        institution=HOSPITAL.public.did,
        subject_ref="p1",
        subject=known.subject,
        record=known.digest,
        action=known.action,
        seq=1,
        received_at=format_instant(NOW),
    )
    made_of_it = build_receipt(receipt, data, HOSPITAL, created=NOW)
    assert open_receipt(made_of_it, trust_guardian=True).record == known
    assert open_receipt(made_of_it, authorities=(court.public.did,)).record == known
    with pytest.raises(RefusedRecordError) as caught:
        open_receipt(made_of_it)
    assert caught.value.reason == "wrong-authority"


@pytest.mark.parametrize("batch", ["é", "A", "AA=A", "\u0660"])
def test_a_batch_that_is_not_base64_is_refused(batch: str) -> None:
    document = json.loads(made())
    del document["proof"]
    document["credentialSubject"]["log"]["batch"] = batch
    with pytest.raises(RefusedRecordError, match="not base64"):
        open_receipt(canonical_bytes(add_proof(document, HOSPITAL, created=NOW)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"type":[]}', GRANT])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedRecordError):
        open_receipt(data)


def test_a_receipt_holds_the_record_as_it_was_signed() -> None:
    assert json.loads(made())["credentialSubject"]["recordDocument"] == json.loads(WITHDRAW)
