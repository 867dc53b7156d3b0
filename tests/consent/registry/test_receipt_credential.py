"""The receipt credential as the registry signs it: from waiting for its batch to what a withdrawal cannot undo."""

from datetime import timedelta
from decimal import Decimal

import pytest
from consent_people import ANNA, HOSPITAL, NOW, person, record, use
from registry_parts import Clock

from consent.registry import Registry, RoundOf
from consent.rules.receipt import ModelMention, RoundInFlight, open_receipt
from consent.rules.record import Action
from federation.errors import UnavailableError
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import cosign

GRANT = record()


def test_a_receipt_grows_with_the_log(registry: Registry, clock: Clock) -> None:
    receipt = registry.submit(GRANT, "anna")
    waiting = open_receipt(registry.receipt_credential(receipt.record))
    assert (waiting.receipt, waiting.place, waiting.record.canonical) == (receipt, None, GRANT)
    index = registry.append_batch(NOW)
    clock.now = NOW + timedelta(minutes=1)
    logged = open_receipt(registry.receipt_credential(receipt.record))
    assert (logged.receipt, logged.signed_at, logged.cosignatures) == (receipt, clock.now, ())
    assert logged.place is not None
    assert logged.place.index == index
    witness = person("witness")
    registry.set_witnesses([witness.public.did], 1)
    checkpoint = logged.place.checkpoint
    cosignature = cosign(checkpoint.checkpoint, witness, timestamp=int(NOW.timestamp()) + 60)
    registry.add_cosignature(checkpoint.checkpoint.size, cosignature)
    cosigned = open_receipt(registry.receipt_credential(receipt.record))
    assert [item.witness.did for item in cosigned.cosignatures] == [witness.public.did]


def test_a_withdrawals_receipt_names_rounds_and_models(registry: Registry) -> None:
    registry.submit(GRANT, "anna")
    registry.note_study("heart", title="Heart", plan_bytes=b"{}", epsilon="3", delta="0.00001")
    for number in (1, 2):
        registry.decide_all(use(), NOW, ["anna"], round_use=RoundOf("heart", number))
        if number == 1:
            registry.finish_round(RoundOf("heart", 1), released=True)
            registry.note_model(RoundOf("heart", 1), "6d" * 32)
    withdrawn = registry.withdraw("anna")
    known = open_receipt(registry.receipt_credential(withdrawn.record))
    assert known.record.attested
    assert known.rounds_in_flight == (RoundInFlight("heart", 2),)
    assert known.models == (ModelMention("heart", 1, "6d" * 32, Decimal(3), Decimal("0.00001")),)
    granted = open_receipt(registry.receipt_credential(sha256_hex(GRANT)))
    assert (granted.rounds_in_flight, granted.models) == ((), ())


def test_what_is_not_stored_or_was_erased_has_no_receipt(registry: Registry) -> None:
    receipt = registry.submit(GRANT, "anna")
    assert registry.erase("anna")
    for digest in (receipt.record, "0" * 64):
        with pytest.raises(UnavailableError):
            registry.receipt_credential(digest)


def test_a_refusal_that_ends_a_consent_lists_them_too(registry: Registry) -> None:
    registry.submit(GRANT, "anna")
    registry.decide_all(use(), NOW, ["anna"], round_use=RoundOf("heart", 1))
    refusal = record(Action.REFUSE, after=GRANT, subject=ANNA, institution=HOSPITAL)
    receipt = registry.submit(refusal, "anna")
    assert open_receipt(registry.receipt_credential(receipt.record)).rounds_in_flight == (RoundInFlight("heart", 1),)
