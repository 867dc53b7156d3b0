"""A coordinator that dies and comes back: it goes on where its log ends, and nothing is charged, paid or said twice."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy, key_of

from clients import node
from clients.flower import runtime
from clients.privacy.budget import State
from federation.coordinator import rounds
from federation.errors import PeerError, UnavailableError
from federation.flower.messages import REPLY
from federation.network.memory import Delivery, Fate
from federation.rules.entries import open_entry
from federation.storage.blobs import MemoryBlobStore
from federation.storage.log import MemoryLog

TWO_ROUNDS = {"count": 2}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience only: what is lost is sent again sooner than over a real network."""
    monkeypatch.setattr(node, "_REFUSED_AGAIN_S", 0)
    monkeypatch.setattr(runtime, "_PAUSE_S_MAX", 0.1)
    monkeypatch.setattr(rounds, "_RESEND_S", 0.2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path_factory.mktemp("undisturbed"), rounds=TWO_ROUNDS) as study:
        study.run()
        yield study


def check_nothing_twice(study: InMemoryStudy, undisturbed: InMemoryStudy) -> None:
    """The same models, utilities and payments, and each thing was done once."""
    assert study.state.settled
    assert study.models() == undisturbed.models()
    assert [table.utilities for table in study.tables()] == [table.utilities for table in undisturbed.tables()]
    assert [payment.reward for payment in study.state.payments] == [p.reward for p in undisturbed.state.payments]
    said = Counter((entry.body.kind, entry.round, entry.party) for entry in study.entries())
    reopened = {key: count for key, count in said.items() if key[0] == "round-reopened"}
    assert set((said - Counter(reopened)).values()) == {1}
    ledger = study.state.ledger
    assert ledger.minted == 1_000_003
    assert sum(ledger.balances.values()) + ledger.burned == 1_000_003
    for institution in study.institutions.values():
        charges = institution.budget.charges()
        assert [(charge.round, charge.state) for charge in charges] == [(1, State.COMMITTED), (2, State.COMMITTED)]
        assert len(institution.budget.history()) == 1 + 3 * 2  # the terms; reserved, started, committed
        assert institution.budget.spent() == undisturbed[institution.site].budget.spent()


@pytest.mark.parametrize(("phase", "pause_s"), [("open", 0), ("open", 300), ("revealing", 300)])
def test_a_restart_in_the_middle_of_a_round(
    tmp_path: Path, undisturbed: InMemoryStudy, phase: str, pause_s: int
) -> None:
    stopped: list[Any] = []

    def stop_after_the_first_answer(delivery: Delivery) -> Fate:
        current = study.state.round if delivery.protocol == REPLY else None
        if current is not None and current.number == 2 and current.phase == phase and not stopped:
            answers = current.commitments if phase == "open" else current.admitted
            if answers:
                stopped.append(current)
                study.stop.set()
        return Fate.REQUEST_LOST if stopped and study.stop.is_set() else Fate.DELIVERED

    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS) as study:
        # Answers come one after the other, so that the second finds the first in the log.
        study.network.courier = one_by_one(study, stop_after_the_first_answer)
        study.run()
        assert stopped
        assert not study.state.settled
        assert study.state.round is not None
        study.clock.forward(seconds=pause_s)
        study.restart()
        study.run()
        check_nothing_twice(study, undisturbed)
        assert ("round-reopened" in study.kinds()) == (pause_s > 0 and phase == "open")


def one_by_one(study: InMemoryStudy, then: Callable[[Delivery], Fate]) -> Callable[[Delivery], Fate]:
    """A courier that lets an answer travel only when the answers of the sites before it are in the log."""
    order = list(study.institutions.values())

    def there() -> set[str]:
        current = study.state.round
        if current is None:
            return set(study.state.agreements)
        return set(current.commitments if current.phase == "open" else current.admitted)

    def courier(delivery: Delivery) -> Fate:
        if delivery.protocol == REPLY:
            place = next(i for i, site in enumerate(order) if site.key.public == delivery.sender)
            before, end = {site.did for site in order[:place]}, time.monotonic() + 10
            while not before <= there() and not study.stop.is_set() and time.monotonic() < end:
                time.sleep(0.005)
        return then(delivery)

    return courier


class CrashError(Exception):
    """The process dies here."""


class Fragile:
    """Breaks each thing that is stored twice: first before it is stored, then after it, without a word."""

    def __init__(self, name: Callable[[bytes], Any]) -> None:
        self.name = name
        self.tries: Counter[Any] = Counter()

    def store(self, data: bytes, put: Callable[[], Any]) -> Any:
        what = self.name(data)
        self.tries[what] += 1
        if self.tries[what] == 1:
            raise CrashError(f"before {what}")
        result = put()
        if self.tries[what] == 2:
            raise CrashError(f"after {what}")
        return result


class FragileLog(MemoryLog):
    def __init__(self) -> None:
        super().__init__("fragile")
        self.fragile = Fragile(self.what)

    @staticmethod
    def what(data: bytes) -> tuple[str, int | None, str | None]:
        entry = open_entry(data, signer=key_of("coordinator").public)
        return entry.body.kind, entry.round, entry.party

    def append(self, entry_id: str, data: bytes) -> int:
        index: int = self.fragile.store(data, lambda: MemoryLog.append(self, entry_id, data))
        return index


class FragileBlobs(MemoryBlobStore):
    """Names change with the salt of a value table, so here it is the number of the call that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.fragile = Fragile(lambda _data: self.calls // 3)

    def put(self, data: bytes) -> str:
        name: str = self.fragile.store(data, lambda: MemoryBlobStore.put(self, data))
        self.calls += 1
        return name


def run_through_crashes(study: InMemoryStudy) -> int:
    """Start the coordinator again whenever it dies; how often it died."""
    for crashes in range(500):
        try:
            study.run()
        except CrashError:
            study.restart()
        else:
            return crashes
    raise AssertionError("it never came through")


def test_a_crash_before_and_after_every_entry_of_the_log(tmp_path: Path, undisturbed: InMemoryStudy) -> None:
    log = FragileLog()
    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS, log=log) as study:
        assert run_through_crashes(study) >= 2 * (log.size - 3)  # agreements break their sender's request, not the loop
        assert set(log.fragile.tries.values()) <= {2, 3}
        check_nothing_twice(study, undisturbed)
        assert study.history.checkpoint().checkpoint.size == log.size


def test_a_crash_before_and_after_models_and_value_tables_are_stored(
    tmp_path: Path, undisturbed: InMemoryStudy
) -> None:
    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS, sealed=FragileBlobs()) as study:
        study.blobs = fragile = FragileBlobs()
        MemoryBlobStore.put(fragile, study.envelope)
        study.restart()
        assert run_through_crashes(study) > 5
        check_nothing_twice(study, undisturbed)


def test_a_settled_study_stays_as_it_is(tmp_path: Path, undisturbed: InMemoryStudy) -> None:
    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS) as study:
        study.run()
        before = study.log.entries()
        study.restart()
        study.run()
        assert study.log.entries() == before
        check_nothing_twice(study, undisturbed)


def test_a_lost_value_table_is_said_and_nothing_is_settled(tmp_path: Path) -> None:
    """Without the table the round's value cannot be opened: better to stop than to invent one."""
    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS) as study:

        def lose(closed: int) -> None:
            if closed == 2:
                study.sealed._blobs.clear()  # type: ignore[attr-defined]  # the twin's own store

        with pytest.raises(UnavailableError, match="is not here"):
            study.run(between=lose)
        assert not study.state.settled
        assert study.state.ledger.escrow == 1_000_003


def test_a_clock_that_was_put_back_does_not_stop_the_log(tmp_path: Path, undisturbed: InMemoryStudy) -> None:
    with InMemoryStudy(tmp_path, rounds=TWO_ROUNDS) as study:

        def put_back(closed: int) -> None:
            if closed == 1:
                study.clock.forward(seconds=-2)

        study.run(between=put_back)
        check_nothing_twice(study, undisturbed)
        times = [entry.at for entry in study.entries()]
        assert times == sorted(times)


def test_a_log_that_was_tampered_with_is_not_opened(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, rounds={"count": 1}) as study:
        study.run()
        del study.log._data[2], study.log._hashes[2]  # type: ignore[attr-defined]  # the twin's own store
        with pytest.raises(PeerError, match="breaks a rule"):
            study.restart()
