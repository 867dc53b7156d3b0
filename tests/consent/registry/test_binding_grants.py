"""A grant waits for its witnesses, a withdrawal for nobody."""

from datetime import datetime, timedelta

import pytest
from consent_people import ANNA, BEN, NOW, person, record
from registry_parts import Clock, again, status
from sqlalchemy import Engine, text

from consent.registry import Registry
from consent.rules.decision import Status
from consent.rules.record import Action
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules.checkpoint import Cosignature, cosign
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.storage.database import write
from federation.storage.log import MemoryLog

WITNESSES = [person(f"witness {number}") for number in range(3)]
DIDS = [key.public.did for key in WITNESSES]
HOUR = timedelta(hours=1)


def word(registry: Registry, witness: PrivateKey, at: datetime, size: int | None = None) -> tuple[int, Cosignature]:
    checkpoint = registry.checkpoint(size).checkpoint
    return checkpoint.size, cosign(checkpoint, witness, timestamp=int(at.timestamp()))


@pytest.fixture
def witnessed(registry: Registry) -> Registry:
    registry.set_witnesses(DIDS, 2)
    return registry


def test_a_grant_binds_once_enough_have_cosigned_its_batch(witnessed: Registry) -> None:
    witnessed.submit(record(), "anna")
    assert status(witnessed) is Status.PENDING
    witnessed.append_batch(NOW)
    witnessed.add_cosignature(*word(witnessed, WITNESSES[0], NOW))
    assert status(witnessed) is Status.PENDING
    witnessed.add_cosignature(*word(witnessed, WITNESSES[0], NOW + timedelta(seconds=1)))
    assert status(witnessed) is Status.PENDING  # one witness is one witness
    witnessed.add_cosignature(*word(witnessed, WITNESSES[2], NOW))
    assert status(witnessed) is Status.PERMITTED
    witnessed.submit(record(subject=BEN), "ben")
    assert status(witnessed, "ben") is Status.PENDING
    assert status(witnessed) is Status.PERMITTED


def test_a_withdrawal_or_a_refusal_waits_for_nobody(witnessed: Registry) -> None:
    witnessed.submit(record(), "anna")
    witnessed.submit(record(Action.REFUSE, subject=BEN), "ben")
    witnessed.withdraw("anna")
    assert status(witnessed) is Status.WITHDRAWN
    assert status(witnessed, "ben") is Status.REFUSED


def test_words_for_different_sizes_do_not_add_up_and_a_later_size_covers_earlier_batches(witnessed: Registry) -> None:
    witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    witnessed.add_cosignature(*word(witnessed, WITNESSES[0], NOW))
    witnessed.append_batch(NOW)
    witnessed.add_cosignature(*word(witnessed, WITNESSES[1], NOW))
    assert status(witnessed) is Status.PENDING
    witnessed.add_cosignature(*word(witnessed, WITNESSES[2], NOW))
    assert status(witnessed) is Status.PERMITTED
    assert witnessed.health().cosigned_size == 2


def test_only_named_witnesses_and_only_over_this_log_count(witnessed: Registry) -> None:
    witnessed.append_batch(NOW)
    size, good = word(witnessed, WITNESSES[0], NOW)
    with pytest.raises(PeerError, match="not a witness"):
        witnessed.add_cosignature(*word(witnessed, ANNA, NOW))
    for wrong in (
        Cosignature(good.witness, good.timestamp + 1, good.signature),
        Cosignature(WITNESSES[1].public, good.timestamp, good.signature),
    ):
        with pytest.raises(PeerError, match="does not match"):
            witnessed.add_cosignature(size, wrong)
    with pytest.raises(PeerError):
        witnessed.add_cosignature(0, good)
    with pytest.raises(UnavailableError):
        witnessed.add_cosignature(2, good)


def test_other_witnesses_have_to_say_it_again(witnessed: Registry) -> None:
    witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    for key in WITNESSES[:2]:
        witnessed.add_cosignature(*word(witnessed, key, NOW))
    assert status(witnessed) is Status.PERMITTED
    witnessed.set_witnesses([BEN.public.did], 1)
    assert status(witnessed) is Status.PENDING
    witnessed.add_cosignature(*word(witnessed, BEN, NOW))
    assert status(witnessed) is Status.PERMITTED
    witnessed.set_witnesses([], 0)
    assert witnessed.witnesses() == (frozenset(), 0)
    assert status(witnessed) is Status.PERMITTED


def test_a_cosignature_that_somebody_wrote_into_the_table_does_not_count(
    engine: Engine, clock: Clock, log: MemoryLog, witnessed: Registry
) -> None:
    witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    witnessed.add_cosignature(*word(witnessed, WITNESSES[0], NOW))
    forged = "INSERT INTO consent_cosignature (size, witness, cosigned_at, signature) SELECT size, :did, cosigned_at,"
    with write(engine) as session:
        session.connection().execute(text(f"{forged} signature FROM consent_cosignature"), {"did": DIDS[1]})
    assert status(witnessed) is Status.PENDING
    assert status(again(engine, clock, log)) is Status.PENDING


def test_an_earlier_word_does_not_replace_a_later_one(witnessed: Registry) -> None:
    witnessed.append_batch(NOW)
    for key, at in ((WITNESSES[0], NOW), (WITNESSES[1], NOW), (WITNESSES[0], NOW - HOUR)):
        witnessed.add_cosignature(*word(witnessed, key, at))
    assert witnessed.health().cosigned_at == NOW


def test_the_inclusion_proof_leads_to_what_the_witnesses_cosigned(witnessed: Registry) -> None:
    receipt = witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    for key in WITNESSES[:2]:
        witnessed.add_cosignature(*word(witnessed, key, NOW))
    witnessed.append_batch(NOW)
    inclusion = witnessed.inclusion(receipt.record)
    checkpoint = inclusion.checkpoint.checkpoint
    assert checkpoint.size == 1
    assert {item.witness.did for item in inclusion.checkpoint.cosignatures} == set(DIDS[:2])
    verify_inclusion(
        leaf=leaf_hash(inclusion.batch), index=inclusion.index, size=1, proof=inclusion.proof, root=checkpoint.root
    )


# --- time


def test_nothing_is_permitted_on_a_word_that_is_too_old(witnessed: Registry, clock: Clock) -> None:
    witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    for key in WITNESSES[:2]:
        witnessed.add_cosignature(*word(witnessed, key, NOW))
    clock.now = NOW + 24 * HOUR
    assert status(witnessed, now=clock.now) is Status.PERMITTED
    clock.now += timedelta(seconds=1)
    assert witnessed.health().stale
    decision = status(witnessed, now=clock.now)
    assert decision is Status.INVALID
    assert witnessed.withdraw("anna").action is Action.WITHDRAW  # withdrawing never depends on witnesses
    assert status(witnessed, now=clock.now) is Status.WITHDRAWN


def test_a_clock_far_behind_the_witnesses_decides_nothing_and_takes_withdrawals(
    witnessed: Registry, clock: Clock
) -> None:
    witnessed.submit(record(valid_until=NOW + HOUR), "anna")
    witnessed.append_batch(NOW)
    for key in WITNESSES[:2]:
        witnessed.add_cosignature(*word(witnessed, key, NOW + 2 * HOUR))
    with pytest.raises(UnavailableError, match="clock"):
        status(witnessed)
    assert witnessed.withdraw("anna").received_at == "2026-11-22T12:00:00Z"
    clock.now = NOW + 2 * HOUR - timedelta(minutes=10)
    assert witnessed.now() == NOW + 2 * HOUR  # a small lead of the witnesses is taken over


def test_one_witness_who_lies_about_the_time_moves_nothing(witnessed: Registry) -> None:
    witnessed.submit(record(), "anna")
    witnessed.append_batch(NOW)
    witnessed.add_cosignature(*word(witnessed, WITNESSES[0], NOW + 9999 * HOUR))
    witnessed.add_cosignature(*word(witnessed, WITNESSES[1], NOW))
    assert status(witnessed) is Status.PERMITTED
    assert witnessed.now() == NOW


# --- what is rolled back


class ShorterLog(MemoryLog):
    """A log whose storage was put back to an older state."""

    @classmethod
    def of(cls, log: MemoryLog, size: int) -> "ShorterLog":
        shorter = cls()
        for index in range(size):
            shorter.append(f"consent-batch/{index + 1}", log.entry(index))
        return shorter


def test_a_log_that_is_shorter_than_what_was_cosigned_is_refused(
    engine: Engine, clock: Clock, log: MemoryLog, witnessed: Registry
) -> None:
    witnessed.append_batch(NOW)
    witnessed.append_batch(NOW)
    for key in WITNESSES[:2]:
        witnessed.add_cosignature(*word(witnessed, key, NOW))
    rolled_back = again(engine, clock, ShorterLog.of(log, 1))
    with pytest.raises(OperatorError, match="rolled back"):
        status(rolled_back)


def test_a_log_that_does_not_extend_its_newest_signed_checkpoint_is_refused(
    engine: Engine, clock: Clock, log: MemoryLog, registry: Registry
) -> None:
    registry.append_batch(NOW)
    signed = registry.checkpoint()
    for entries in ([], [b"another entry"]):
        other = MemoryLog()
        for entry in entries:
            other.append("consent-batch/1", entry)
        other._notes[1] = signed.to_bytes()
        with pytest.raises(OperatorError, match="does not extend"):
            again(engine, clock, other)
    again(engine, clock, log)
