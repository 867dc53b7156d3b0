"""Batches at fixed times of the clock, over restarts and among processes; and the registry's health."""

from datetime import timedelta

from consent_people import BEN, NOW, record
from registry_parts import Clock, again
from sqlalchemy import Engine

from consent.registry import LOG_NAME, Registry
from federation.storage.log import MemoryLog, SqliteLog

MINUTE = timedelta(minutes=1)


def test_a_batch_is_due_once_in_each_interval_of_the_clock(registry: Registry) -> None:
    seconds = [0, 1, 59, 60, 61, 119, 300, 301]
    found = [registry.append_due(NOW + timedelta(seconds=second), every_s=60) for second in seconds]
    assert found == [0, None, None, 1, None, None, 2, None]


def test_when_it_is_due_does_not_depend_on_who_asks_or_when_it_was_started(
    engine: Engine, clock: Clock, log: MemoryLog, registry: Registry
) -> None:
    early = NOW + timedelta(seconds=50)
    assert registry.append_due(early, every_s=60) == 0
    other = again(engine, clock, log)
    assert other.append_due(early + timedelta(seconds=9), every_s=60) is None
    assert other.append_due(early + timedelta(seconds=10), every_s=60) == 1
    assert registry.append_due(early + timedelta(seconds=11), every_s=60) is None


def test_a_clock_that_is_put_back_brings_no_batch_forward(registry: Registry) -> None:
    assert registry.append_due(NOW, every_s=60) == 0
    assert registry.append_due(NOW - 3 * MINUTE, every_s=60) is None
    assert registry.append_due(NOW + MINUTE, every_s=60) == 1


def test_health_says_what_is_pending_and_what_is_remembered(registry: Registry) -> None:
    empty = registry.health()
    assert (empty.subjects, empty.records, empty.pending, empty.log_size, empty.batched_at) == (0, 0, 0, 0, None)
    assert (empty.quorum, empty.cosigned_at, empty.cosigned_age, empty.stale) == (0, None, None, False)
    registry.submit(record(), "anna")
    registry.append_batch(NOW)
    registry.submit(record(subject=BEN), "ben")
    registry.withdraw("ben")
    found = registry.health()
    assert (found.subjects, found.records, found.pending, found.log_size) == (2, 3, 2, 1)
    assert found.batched_at == NOW
    assert found.verified == 3


def test_two_registries_on_one_database_append_beside_each_other(engine: Engine, clock: Clock) -> None:
    first, second = (again(engine, clock, SqliteLog(engine, LOG_NAME)) for _ in range(2))
    receipt = first.submit(record(), "anna")
    assert [first.append_batch(NOW), second.append_batch(NOW), first.append_batch(NOW)] == [0, 1, 2]
    assert first.checkpoint().checkpoint == second.checkpoint().checkpoint
    assert second.inclusion(receipt.record).index == 0
