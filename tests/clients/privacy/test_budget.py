"""The privacy budget: its transitions, its cap, and what survives."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.rdp import RdpAccountant
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.engine import Engine
from sqlmodel import select

from clients.privacy.budget import BudgetLedger, State
from clients.privacy.budget_chain import verified_rows
from clients.storage import BudgetEntry, StoredUpdate, memory_node, open_node
from federation.errors import OperatorError, PeerError, PrivacyError
from federation.rules.accounting import count_event, epsilon, round_event, study_event
from federation.rules.study import StudyPlan
from federation.storage.database import read, write

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DELTA = Decimal("1e-5")
STUDY = "heart-0123456789ab"


def clock() -> datetime:
    return NOW


def gaussian(noise: str) -> dict[str, Any]:
    return {"type": "gaussian", "noise_multiplier": noise}


def new_ledger(engine: Engine | None = None, *, cap: str = "3") -> BudgetLedger:
    return BudgetLedger.create(engine or memory_node(), epsilon=Decimal(cap), delta=DELTA, clock=clock)


@pytest.fixture
def engine() -> Engine:
    return memory_node()


@pytest.fixture
def ledger(engine: Engine) -> BudgetLedger:
    return new_ledger(engine)


def complete(ledger: BudgetLedger, study: str, number: int, event: dict[str, Any]) -> None:
    ledger.reserve(study, number, event)
    ledger.start(study, number)
    ledger.commit(study, number)


def test_a_new_ledger_has_spent_nothing(ledger: BudgetLedger) -> None:
    assert (ledger.spent(), ledger.remaining(), ledger.events(), ledger.charges()) == (0.0, 3.0, (), ())
    assert [row.state for row in ledger.history()] == ["created"]


def test_a_whole_study_fits_its_own_epsilon_and_not_a_round_more(ledger: BudgetLedger, plan: StudyPlan) -> None:
    for number in range(1, plan.rounds.count + 1):
        complete(ledger, plan.study_id, number, round_event(plan))
    assert 2.99 < ledger.spent() <= 3
    assert ledger.spent() == pytest.approx(epsilon([study_event(plan)], delta=DELTA, order=8), abs=1e-9)
    with pytest.raises(PrivacyError, match="does not fit the privacy budget") as refusal:
        ledger.reserve(plan.study_id, 16, round_event(plan))
    assert "nothing more fits" in refusal.value.remedy.lower()
    assert not ledger.would_fit(round_event(plan))


def on(part: str, noise: str) -> dict[str, Any]:
    return {"type": "part", "part": part, "event": gaussian(noise)}


def test_studies_on_other_people_spend_other_budgets(ledger: BudgetLedger) -> None:
    strong = "1.6"
    complete(ledger, "left-0123456789ab", 1, on("0", strong))
    once = ledger.spent()
    complete(ledger, "right-0123456789ab", 1, on("1", strong))
    assert ledger.spent() == once
    assert ledger.spent_by_part() == {"0": once, "1": once}
    for part in ("0", "01", "1"):
        with pytest.raises(PrivacyError, match=f"part {part}'s people"):
            ledger.reserve("again-0123456789ab", 1, on(part, strong))
    with pytest.raises(PrivacyError, match="does not fit the privacy budget:"):
        ledger.reserve("all-0123456789ab", 1, gaussian(strong))


def test_a_part_that_is_spent_leaves_the_others_what_they_have(ledger: BudgetLedger) -> None:
    ledger.record("restored-0123456789ab", 1, on("00", "0.5"))  # far beyond the cap: it has happened elsewhere
    assert ledger.remaining() == 0
    assert not ledger.would_fit(on("0", "9"))
    assert ledger.would_fit(on("01", "9"))
    complete(ledger, STUDY, 1, on("01", "9"))
    assert ledger.spent_by_part()["01"] < 3


def test_a_round_cannot_end_on_other_people_than_it_was_reserved_for(ledger: BudgetLedger) -> None:
    ledger.reserve(STUDY, 1, on("0", "6"))
    ledger.start(STUDY, 1)
    for other in (on("1", "6"), on("01", "6"), gaussian("6")):
        with pytest.raises(PrivacyError, match="not reserved"):
            ledger.commit(STUDY, 1, other)
    ledger.commit(STUDY, 1, on("0", "6"))


def test_spent_is_what_dp_accounting_says_of_the_logged_events(ledger: BudgetLedger) -> None:
    complete(ledger, "a", 1, {"type": "composed", "events": [gaussian("6"), gaussian("20")]})
    complete(ledger, "b", 1, gaussian("9.5"))
    accountant = RdpAccountant(orders=[8])
    for noise in (6, 20, 9.5):
        accountant.compose(GaussianDpEvent(noise))
    assert ledger.spent() == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-9)
    assert ledger.spent("b") == pytest.approx(epsilon([gaussian("9.5")], delta=DELTA, order=8), abs=1e-12)
    assert 0 < ledger.spent_pld() < ledger.spent()


def test_the_refusal_says_what_is_spent_and_what_would_fit(ledger: BudgetLedger) -> None:
    complete(ledger, STUDY, 1, gaussian("2"))
    with pytest.raises(PrivacyError) as refusal:
        ledger.reserve(STUDY, 2, gaussian("1.5"))
    assert "2.2141 of epsilon 3 is spent" in refusal.value.message
    assert "2 times the noise would fit" in refusal.value.remedy
    assert ledger.would_fit(gaussian("3"))
    assert ledger.charge(STUDY, 2) is None
    assert len(ledger.history()) == 4


def test_reserved_and_started_rounds_count_in_full(ledger: BudgetLedger) -> None:
    ledger.reserve(STUDY, 1, gaussian("2"))
    reserved = ledger.spent()
    ledger.start(STUDY, 1)
    assert reserved == ledger.spent() == epsilon([gaussian("2")], delta=DELTA, order=8) > 0


def test_an_aborted_reservation_counts_nothing_and_can_be_made_again(ledger: BudgetLedger) -> None:
    ledger.reserve(STUDY, 1, gaussian("2"))
    assert ledger.abort(STUDY, 1).state is State.ABORTED
    assert ledger.abort(STUDY, 1).state is State.ABORTED
    assert ledger.spent() == 0.0
    assert ledger.reserve(STUDY, 1, gaussian("3")).state is State.RESERVED
    assert [row.state for row in ledger.history()] == ["created", "reserved", "aborted", "reserved"]


def test_a_retry_of_a_committed_round_gets_its_row_and_charges_nothing(ledger: BudgetLedger) -> None:
    complete(ledger, STUDY, 1, gaussian("2"))
    before = ledger.spent()
    again = ledger.reserve(STUDY, 1, gaussian("2"))
    assert (again.state, ledger.spent(), len(ledger.history())) == (State.COMMITTED, before, 4)
    assert ledger.commit(STUDY, 1).state is State.COMMITTED
    with pytest.raises(PrivacyError, match="cannot become"):
        ledger.start(STUDY, 1)


def test_a_round_that_crashed_after_its_start_can_be_run_again_on_the_same_charge(ledger: BudgetLedger) -> None:
    ledger.reserve(STUDY, 1, gaussian("2"))
    ledger.start(STUDY, 1)
    spent = ledger.spent()
    assert ledger.reserve(STUDY, 1, gaussian("2")).state is State.STARTED
    assert ledger.start(STUDY, 1).state is State.STARTED
    ledger.commit(STUDY, 1)
    assert ledger.spent() == spent


def test_a_round_that_only_counted_pays_for_the_count(ledger: BudgetLedger, plan: StudyPlan) -> None:
    ledger.reserve(STUDY, 1, round_event(plan))
    ledger.start(STUDY, 1)
    charge = ledger.commit(STUDY, 1, count_event(plan))
    assert charge.event == count_event(plan)
    assert ledger.events() == (count_event(plan),)
    assert ledger.reserve(STUDY, 1, round_event(plan)).state is State.COMMITTED
    assert ledger.commit(STUDY, 1, count_event(plan)) == charge


@pytest.mark.parametrize(
    "event", [gaussian("1.9"), gaussian("2.1"), {"type": "repeated", "count": 2, "event": gaussian("2")}]
)
def test_nothing_but_a_part_of_the_reservation_can_be_committed(ledger: BudgetLedger, event: dict[str, Any]) -> None:
    ledger.reserve(STUDY, 1, gaussian("2"))
    ledger.start(STUDY, 1)
    with pytest.raises(PrivacyError, match="not reserved"):
        ledger.commit(STUDY, 1, event)
    charge = ledger.charge(STUDY, 1)
    assert charge is not None
    assert charge.state is State.STARTED


def test_a_round_cannot_be_reserved_with_another_event(ledger: BudgetLedger) -> None:
    ledger.reserve(STUDY, 1, gaussian("5"))
    with pytest.raises(PrivacyError, match="another privacy event"):
        ledger.reserve(STUDY, 1, gaussian("6"))


@pytest.mark.parametrize(
    ("done", "wanted"),
    [
        ([], "start"),
        ([], "commit"),
        ([], "abort"),
        (["reserve"], "commit"),
        (["reserve", "start"], "abort"),
        (["reserve", "start", "commit"], "abort"),
        (["reserve", "start", "commit"], "start"),
        (["reserve", "abort"], "start"),
        (["reserve", "abort"], "commit"),
    ],
)
def test_illegal_transitions_raise_and_change_nothing(ledger: BudgetLedger, done: list[str], wanted: str) -> None:
    for step in done:
        if step == "reserve":
            ledger.reserve(STUDY, 1, gaussian("5"))
        else:
            getattr(ledger, step)(STUDY, 1)
    before = ledger.history()
    with pytest.raises(PrivacyError, match="cannot become"):
        getattr(ledger, wanted)(STUDY, 1)
    assert ledger.history() == before


def test_what_is_not_an_event_is_refused(ledger: BudgetLedger) -> None:
    with pytest.raises(PeerError):
        ledger.reserve(STUDY, 1, {"type": "laplace"})
    assert len(ledger.history()) == 1


def test_payload_and_commit_are_stored_together_or_not_at_all(engine: Engine, ledger: BudgetLedger) -> None:
    def update(number: int) -> StoredUpdate:
        return StoredUpdate(study=STUDY, round=number, base_sha256="0", update_sha256="1", nonce="2", payload=b"x")

    ledger.reserve(STUDY, 1, gaussian("5"))
    with pytest.raises(PrivacyError):
        ledger.commit(STUDY, 1, together_with=[update(1)])  # not started
    with read(engine) as session:
        assert session.exec(select(StoredUpdate)).all() == []
    ledger.start(STUDY, 1)
    ledger.commit(STUDY, 1, together_with=[update(1)])
    with read(engine) as session:
        assert session.exec(select(StoredUpdate)).one().payload == b"x"


def test_terms_are_fixed_for_ever(engine: Engine, ledger: BudgetLedger) -> None:
    assert new_ledger(engine).terms == ledger.terms
    assert len(ledger.history()) == 1
    for changes in ({"epsilon": Decimal(4)}, {"delta": Decimal("1e-6")}, {"order": 16}):
        terms: dict[str, Any] = {"epsilon": Decimal(3), "delta": DELTA, "order": 8, **changes}
        with pytest.raises(OperatorError, match="cannot become"):
            BudgetLedger.create(engine, clock=clock, **terms)


@pytest.mark.parametrize(
    "terms",
    [{"epsilon": Decimal(9)}, {"epsilon": Decimal(0)}, {"delta": Decimal("1e-4")}, {"delta": Decimal(0)}, {"order": 1}],
)
def test_terms_out_of_range_are_refused(engine: Engine, terms: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match="out of range"):
        BudgetLedger.create(engine, clock=clock, **{"epsilon": Decimal(3), "delta": DELTA, **terms})


def test_a_node_without_a_budget_is_told_how_to_make_one(engine: Engine) -> None:
    with pytest.raises(OperatorError, match="no privacy budget") as error:
        BudgetLedger(engine, clock=clock)
    assert "accord node init" in error.value.remedy


def _change(field: str, value: Any) -> Callable[[BudgetEntry], None]:
    return lambda row: setattr(row, field, value)


@pytest.mark.parametrize(
    "tamper",
    [
        _change("state", "aborted"),
        _change("state", "dreamt"),
        _change("event", '{"noise_multiplier":"50","type":"gaussian"}'),
        _change("event", "{"),
        _change("round", 9),
        _change("study", "other"),
        _change("at", "2020-01-01T00:00:00Z"),
        _change("previous", "0" * 64),
        _change("previous", "not hexadecimal"),
        _change("hash", "0" * 64),
    ],
)
@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_changed_row_breaks_the_chain(
    engine: Engine, ledger: BudgetLedger, tamper: Callable[[BudgetEntry], None], seq: int
) -> None:
    complete(ledger, STUDY, 1, gaussian("2"))
    with write(engine) as session:
        row = session.get(BudgetEntry, seq)
        assert row is not None
        tamper(row)
        session.add(row)
    with pytest.raises(OperatorError, match="damaged: row") as error:
        ledger.reserve(STUDY, 2, gaussian("9"))
    assert "must not train" in error.value.remedy
    with pytest.raises(OperatorError, match="damaged"):
        BudgetLedger(engine, clock=clock)


@pytest.mark.parametrize("seq", [0, 1, 3])
def test_a_dropped_row_breaks_the_chain(engine: Engine, ledger: BudgetLedger, seq: int) -> None:
    complete(ledger, STUDY, 1, gaussian("2"))
    with write(engine) as session:
        session.delete(session.get(BudgetEntry, seq))
    with pytest.raises(OperatorError, match="damaged"):
        ledger.spent()


def test_two_threads_at_once_do_not_overdraw(tmp_path: Path) -> None:
    """Room for one of two; whoever comes first gets it."""
    new_ledger(open_node(tmp_path))
    outcomes: list[str] = []

    def attempt(study: str) -> None:
        try:
            BudgetLedger(open_node(tmp_path), clock=clock).reserve(study, 1, gaussian("1.6"))
            outcomes.append("reserved")
        except PrivacyError:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt, args=(f"study-{name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "reserved"]


CHILD = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from clients.privacy.budget import BudgetLedger
from clients.storage import open_node
ledger = BudgetLedger(open_node(Path(sys.argv[1])), clock=lambda: datetime.now(UTC))
for step in sys.argv[2].split(","):
    if step == "reserve":
        ledger.reserve("s", 1, {"type": "gaussian", "noise_multiplier": "1.6"})
    else:
        getattr(ledger, step)("s", 1)
if sys.argv[3] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def child(folder: Path, steps: str, end: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), steps, end], stderr=subprocess.PIPE, env={**os.environ}
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ("reserve", State.RESERVED),
        ("reserve,start", State.STARTED),
        ("reserve,start,commit", State.COMMITTED),
        ("reserve,abort", State.ABORTED),
    ],
)
def test_killed_at_any_state_nothing_is_lost(tmp_path: Path, steps: str, state: State) -> None:
    new_ledger(open_node(tmp_path))
    process = child(tmp_path, steps, "die")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    ledger = BudgetLedger(open_node(tmp_path), clock=clock)
    charge = ledger.charge("s", 1)
    assert charge is not None
    assert charge.state is state
    expected = 0.0 if state is State.ABORTED else epsilon([gaussian("1.6")], delta=DELTA, order=8)
    assert ledger.spent() == expected


@pytest.mark.processes
def test_two_processes_with_one_round_charge_it_once(tmp_path: Path) -> None:
    new_ledger(open_node(tmp_path))
    processes = [child(tmp_path, "reserve,start,commit", "live") for _ in range(2)]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    ledger = BudgetLedger(open_node(tmp_path), clock=clock)
    # The slower one may find the round committed and be told that it cannot start again; no other error may occur.
    assert all(not error or "cannot become started" in error for error in errors), errors
    assert [row.state for row in ledger.history()] == ["created", "reserved", "started", "committed"]
    assert ledger.spent() == epsilon([gaussian("1.6")], delta=DELTA, order=8)


class Spending(RuleBasedStateMachine):
    """Any order of calls: the ledger follows a plain model, never exceeds its cap, and its chain holds."""

    rounds = Bundle("rounds")

    @initialize(cap=st.sampled_from(["1.5", "3", "8"]))
    def open(self, cap: str) -> None:
        self.engine = memory_node()
        self.ledger = new_ledger(self.engine, cap=cap)
        self.cap = float(cap)
        self.model: dict[tuple[str, int], tuple[State, dict[str, Any]]] = {}
        self.now = NOW

    @rule(target=rounds, study=st.sampled_from("abc"), number=st.integers(1, 5))
    def a_round(self, study: str, number: int) -> tuple[str, int]:
        return study, number

    @rule(key=rounds, noise=st.sampled_from(["1.2", "2", "3.5", "9"]))
    def reserve(self, key: tuple[str, int], noise: str) -> None:
        self.now += timedelta(seconds=1)
        state, event = self.model.get(key, (State.ABORTED, gaussian(noise)))
        counted = [found for status, found in self.model.values() if status is not State.ABORTED]
        if state is State.ABORTED:
            if epsilon([*counted, gaussian(noise)], delta=DELTA, order=8) > self.cap:
                with pytest.raises(PrivacyError, match="does not fit"):
                    self.ledger.reserve(*key, gaussian(noise), now=self.now)
                return
            assert self.ledger.reserve(*key, gaussian(noise), now=self.now).state is State.RESERVED
            self.model[key] = (State.RESERVED, gaussian(noise))
        elif event == gaussian(noise):
            assert self.ledger.reserve(*key, gaussian(noise), now=self.now).state is state
        else:
            with pytest.raises(PrivacyError, match="another privacy event"):
                self.ledger.reserve(*key, gaussian(noise), now=self.now)

    @rule(key=rounds)
    def start(self, key: tuple[str, int]) -> None:
        self._move(key, "start", {State.RESERVED, State.STARTED}, State.STARTED)

    @rule(key=rounds)
    def commit(self, key: tuple[str, int]) -> None:
        self._move(key, "commit", {State.STARTED, State.COMMITTED}, State.COMMITTED)

    @rule(key=rounds)
    def abort(self, key: tuple[str, int]) -> None:
        self._move(key, "abort", {State.RESERVED, State.ABORTED}, State.ABORTED)

    @rule()
    def reopen(self) -> None:
        self.ledger = BudgetLedger(self.engine, clock=clock)

    def _move(self, key: tuple[str, int], name: str, allowed: set[State], to: State) -> None:
        state, event = self.model.get(key, (None, None))
        if state in allowed and event is not None:
            assert getattr(self.ledger, name)(*key, now=self.now).state is to
            self.model[key] = (to, event)
        else:
            with pytest.raises(PrivacyError, match="cannot become"):
                getattr(self.ledger, name)(*key, now=self.now)

    @invariant()
    def follows_the_model(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert {(c.study, c.round): (c.state, c.event) for c in self.ledger.charges()} == self.model
        counted = [event for state, event in self.model.values() if state is not State.ABORTED]
        assert self.ledger.spent() == pytest.approx(epsilon(counted, delta=DELTA, order=8), abs=1e-12)
        assert self.ledger.spent() <= self.cap
        with read(self.engine) as session:
            verified_rows(session, name="test")


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
