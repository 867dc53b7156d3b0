"""In which rounds somebody was eligible, what came of it, and how long a withdrawal took to stop."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from consent_people import ANNA, BEN, NOW, record, use
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_parts import Clock, again
from sqlalchemy import Engine
from sqlmodel import col, func, select

from consent.registry import LICENCE_REF, TABLES, Registry, RoundOf, RoundState, participation
from consent.registry.tables import ConsentEligible, ConsentRound
from consent.rules.record import Action, Mechanism
from federation.storage.database import memory_database, read, write
from federation.storage.log import MemoryLog

SECOND = timedelta(seconds=1)


def begin(registry: Registry, number: int, now: datetime = NOW, study: str = "heart") -> None:
    registry.decide_all(use(), now, ["anna", "ben", "nobody"], round_use=RoundOf(study, number))


def finish(registry: Registry, number: int, *, released: bool = True, study: str = "heart") -> None:
    registry.finish_round(RoundOf(study, number), released=released)


def rounds(registry: Registry, ref: str = "anna") -> dict[int, RoundState]:
    return {item.round: item.state for study in registry.participation(ref).studies for item in study.rounds}


@pytest.fixture
def both(registry: Registry) -> Registry:
    registry.submit(record(), "anna")
    registry.submit(record(subject=BEN), "ben")
    return registry


def test_a_person_sees_the_rounds_in_which_they_were_eligible(both: Registry) -> None:
    begin(both, 1)
    assert both.in_flight("anna") == (RoundOf("heart", 1),)
    assert both.in_flight("nobody") == ()
    finish(both, 1)
    begin(both, 2)
    finish(both, 2, released=False)
    both.withdraw("anna")
    begin(both, 3)
    assert rounds(both) == {1: RoundState.RELEASED, 2: RoundState.NOT_RELEASED}
    assert rounds(both, "ben") == {
        1: RoundState.RELEASED,
        2: RoundState.NOT_RELEASED,
        3: RoundState.IN_FLIGHT,
    }
    assert both.participation("nobody").studies == ()


def test_a_decision_without_a_round_leaves_no_trace(both: Registry) -> None:
    both.decide_all(use(), NOW, ["anna"])
    assert both.participation("anna").studies == ()


def test_rounds_of_another_process_and_rounds_in_any_order_count(
    engine: Engine, clock: Clock, log: MemoryLog, both: Registry
) -> None:
    begin(both, 5)
    begin(again(engine, clock, log), 2)
    both.withdraw("anna")
    begin(both, 1)
    begin(again(engine, clock, log), 3)
    for number in (1, 2, 3, 5):
        finish(both, number)
    assert rounds(both) == dict.fromkeys((2, 5), RoundState.RELEASED)
    assert rounds(both, "ben") == dict.fromkeys((1, 2, 3, 5), RoundState.RELEASED)


def test_who_was_eligible_at_any_decision_about_a_round_may_have_been_read_in_it(both: Registry) -> None:
    begin(both, 1)
    withdrawn = both.withdraw("anna")
    begin(both, 1)  # the round is asked for again
    assert rounds(both) == {1: RoundState.IN_FLIGHT}
    both.submit(record(seq=3, prev=withdrawn.record), "anna")
    begin(both, 1)
    begin(both, 2)
    assert rounds(both) == dict.fromkeys((1, 2), RoundState.IN_FLIGHT)


def test_a_round_in_which_nothing_changed_writes_one_row(engine: Engine, both: Registry) -> None:
    for number in range(1, 5):
        begin(both, number)
    with read(engine) as session:
        counted = [
            session.exec(select(func.count()).select_from(table)).one() for table in (ConsentRound, ConsentEligible)
        ]
    assert counted == [4, 2]


# --- models


def test_every_model_after_the_first_released_round_contains_the_contribution(both: Registry) -> None:
    both.note_study("heart", title="Hearts", plan_bytes=b"plan", epsilon="3", delta="0.00001")
    begin(both, 1)
    finish(both, 1, released=False)
    begin(both, 2)
    finish(both, 2)
    both.withdraw("anna")
    begin(both, 3)
    finish(both, 3)
    for number in (1, 2, 3):
        both.note_model(RoundOf("heart", number), f"{number:064x}")
    both.note_model(RoundOf("lungs", 1), "0" * 64)
    both.note_spent("heart", "0.75")
    [study] = both.participation("anna").studies
    assert (study.title, study.plan, study.epsilon, study.spent) == ("Hearts", b"plan", "3", "0.75")
    assert [(model.round, model.sha256) for model in both.models("anna")] == [(2, f"{2:064x}"), (3, f"{3:064x}")]
    assert {(model.epsilon, model.delta) for model in study.models} == {("3", "0.00001")}


def test_what_was_released_stays_released(both: Registry) -> None:
    begin(both, 1)
    finish(both, 1)
    finish(both, 1, released=False)
    finish(both, 7)  # never began: not known here
    assert rounds(both) == {1: RoundState.RELEASED}


# --- what is passed on


def test_a_share_is_passed_on_in_equal_whole_parts_once(both: Registry) -> None:
    begin(both, 1)
    finish(both, 1)
    both.withdraw("anna")  # what was earned stays
    begin(both, 2)
    passed = both.pass_on("heart", 1_003, 50)
    assert (passed.pool, passed.persons, passed.part, passed.remainder) == (501, 2, 250, 1)
    assert both.pass_on("heart", 9_999, 100) == passed
    assert [study.microcredits for ref in ("anna", "ben") for study in both.participation(ref).studies] == [250, 250]


def test_nothing_is_passed_on_where_nothing_was_released(both: Registry) -> None:
    begin(both, 1)
    passed = both.pass_on("heart", 1_000, 50)
    assert (passed.persons, passed.part, passed.remainder) == (0, 0, 500)
    for amount, share in ((-1, 50), (1, 101), (1, -1)):
        with pytest.raises(ValueError, match="passed on"):
            both.pass_on("other", amount, share)


def test_behind_a_whole_source_stands_its_owner(registry: Registry) -> None:
    registry.submit(record(mechanism=Mechanism.LICENCE), LICENCE_REF)
    days = [f"day-{number}" for number in range(3)]
    registry.decide_all(use(kind=Mechanism.LICENCE), NOW, days, round_use=RoundOf("weather", 1))
    finish(registry, 1, study="weather")
    assert rounds(registry, LICENCE_REF) == {1: RoundState.RELEASED}
    assert rounds(registry, "day-1") == {}
    assert registry.pass_on("weather", 100, 50).part == 50


# --- time to stop


def test_a_withdrawal_names_the_rounds_in_flight_and_when_they_were_over(both: Registry, clock: Clock) -> None:
    begin(both, 1)
    finish(both, 1)
    begin(both, 2)
    begin(both, 1, study="lungs")
    clock.now += timedelta(milliseconds=1_250)
    receipt = both.withdraw("anna")
    [found] = both.withdrawals()
    flying = (RoundOf("heart", 2), RoundOf("lungs", 1))
    assert (found.ref, found.digest, found.in_flight) == ("anna", receipt.record, flying)
    assert (found.received_at, found.time_to_stop, found.decided_at) == (clock.now, None, None)
    clock.now += SECOND
    finish(both, 2)
    assert both.withdrawals()[0].time_to_stop is None
    clock.now += SECOND
    finish(both, 1, study="lungs", released=False)
    clock.now += SECOND
    begin(both, 3, now=clock.now)
    [found] = both.withdrawals()
    assert found.time_to_stop == 2 * SECOND
    assert found.decided_at == clock.now
    assert both.in_flight("anna") == ()


def test_a_withdrawal_between_rounds_stops_at_once(both: Registry) -> None:
    begin(both, 1)
    finish(both, 1)
    both.withdraw("anna")
    both.submit(record(Action.REFUSE, subject=BEN, seq=2, prev=both.heads()["ben"].digest), "ben")
    assert [(found.in_flight, found.time_to_stop) for found in both.withdrawals()] == [((), timedelta(0))] * 2


def test_who_never_allowed_anything_has_nothing_to_withdraw(registry: Registry) -> None:
    registry.submit(record(Action.REFUSE, subject=ANNA), "anna")
    assert registry.withdrawals() == []


# --- any order of rounds

names = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))
decisions = st.lists(st.tuples(st.integers(1, 4), names), min_size=1, max_size=12)


@settings(max_examples=25)
@given(decisions=decisions, released=st.frozensets(st.integers(1, 4)), remember=st.booleans())
def test_the_stored_runs_say_what_a_plain_table_would(
    decisions: list[tuple[int, frozenset[str]]], released: frozenset[int], remember: bool
) -> None:
    engine = memory_database(*TABLES)
    expected: dict[str, set[int]] = {}
    known: frozenset[str] | None = None
    for number, eligible in decisions:
        with write(engine) as session:
            participation.begin_round(session, RoundOf("s", number), eligible, NOW, known=known)
        known = eligible if remember else None
        for name in eligible:
            expected.setdefault(name, set()).add(number)
    with write(engine) as session:
        for number in released:
            participation.finish_round(session, RoundOf("s", number), NOW, released=True)
        passed = participation.pass_on(session, "s", 1_000, 50)
    assert _stored(engine) == expected
    people = [name for name, numbers in expected.items() if numbers & released]
    assert passed.persons == len(people)
    assert passed.persons * passed.part + passed.remainder == 500


def _stored(engine: Engine) -> Mapping[str, set[int]]:
    with read(engine) as session:
        names_ = session.exec(select(ConsentEligible.ref).order_by(col(ConsentEligible.ref))).all()
        found = {name: participation.participation(session, name).studies for name in names_}
    return {name: {item.round for item in studies[0].rounds} for name, studies in found.items()}
