"""Who is invited to a round: whoever is predicted to answer soonest, and everybody in turn."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from study_in_memory import small_plan

from federation.errors import PeerError
from federation.rules.cohorts import invited, predicted_ms, round_ms, update_bytes_max
from federation.rules.documents import Commitment
from federation.rules.entries import (
    CommitmentLate,
    CommitmentsClosed,
    Measured,
    RoundOpened,
    UpdateCommitted,
    make_entry,
)
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.replay import apply, begin
from federation.rules.state import ClosedRound, StudyState
from federation.rules.study import StudyPlan

KEYS = {key.public.did: key for key in (PrivateKey(bytes([number + 1]) * 32) for number in range(8))}
PARTIES = tuple(sorted(KEYS))
Planned = Callable[..., StudyPlan]


@pytest.fixture(scope="module")
def base_plan() -> dict[str, Any]:
    return small_plan(b"rows", sites=3).model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.fixture
def planned(base_plan: dict[str, Any]) -> Planned:
    def make(**rounds: Any) -> StudyPlan:
        known = {"count": 100, "participants": 8, "quorum": 1, "deadline_s": 60}
        return StudyPlan.model_validate(base_plan | {"rounds": known | rounds})

    return make


def state_of(plan: StudyPlan, *, answer_s: Mapping[str, int] | None = None) -> StudyState:
    coordinator = PrivateKey(b"c" * 32).public
    state = begin(plan, plan_blob="0" * 64, coordinator=coordinator)
    weights = dict.fromkeys(PARTIES[: plan.rounds.participants], 1)
    return replace(state, published=True, weights=weights, model="0" * 64, answer_s=answer_s or {})


def after(state: StudyState, participants: tuple[str, ...]) -> StudyState:
    number = len(state.closed) + 1
    done = ClosedRound(
        number=number,
        base_model="0" * 64,
        model="0" * 64,
        value_table="0" * 64,
        outcome="no-quorum",
        participants=participants,
        admitted={},
        refused={},
        entry_index=number,
    )
    return replace(state, closed=(*state.closed, done))


def notes(state: StudyState, *, away: tuple[str, ...] = (), bytes_s: int | None = None) -> tuple[Measured, ...]:
    return tuple(Measured(party=did, there=did not in away, bytes_s=bytes_s) for did in state.active)


def test_without_the_option_everybody_is_invited(planned: Planned) -> None:
    assert invited(state_of(planned()), ()) == PARTIES


def test_a_prediction_is_the_last_answer_and_the_update_s_travel(planned: Planned) -> None:
    state = state_of(planned(), answer_s={PARTIES[0]: 7})
    travel = update_bytes_max(state.plan)
    note = Measured(party=PARTIES[0], there=True, request_ms=150, bytes_s=travel)
    assert predicted_ms(state, note) == 7000 + 2 * 150 + 1000
    assert predicted_ms(state, note.model_copy(update={"party": PARTIES[1]})) is None


def test_the_quickest_that_are_there_are_invited_and_the_unknown_are_tried(planned: Planned) -> None:
    plan = planned(invite=4, invite_every=100, enough=2)
    times = {did: 10 * place for place, did in enumerate(PARTIES[:-1])}
    state = state_of(plan, answer_s=times)
    assert invited(state, notes(state)) == tuple(sorted((*PARTIES[:3], PARTIES[-1])))
    assert invited(state, notes(state, away=PARTIES[:2])) == tuple(sorted((*PARTIES[2:5], PARTIES[-1])))


def test_who_is_predicted_to_be_late_or_away_is_invited_only_as_far_as_enough_are_missing(planned: Planned) -> None:
    plan = planned(invite=5, invite_every=100, enough=3)
    state = state_of(plan, answer_s={did: 10 if place < 2 else 600 + place for place, did in enumerate(PARTIES)})
    assert invited(state, notes(state)) == PARTIES[:3]
    assert len(invited(state, notes(state, away=PARTIES))) == 3


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_nobody_waits_longer_than_the_plan_says(base_plan: dict[str, Any], data: st.DataObject) -> None:
    sites = data.draw(st.integers(2, 8))
    invite = data.draw(st.integers(1, sites))
    every = data.draw(st.integers(-(-sites // invite), 6 + -(-sites // invite)))
    rounds = {"count": 100, "participants": sites, "quorum": 1, "deadline_s": 60}
    plan = StudyPlan.model_validate(base_plan | {"rounds": rounds | {"invite": invite, "invite_every": every}})
    rng, state, gaps = random.Random(data.draw(st.integers(0, 99))), state_of(plan), dict.fromkeys(PARTIES[:sites], 0)
    for _ in range(3 * every):
        state = replace(state, answer_s={did: rng.randint(0, 200) for did in state.active if rng.random() < 0.8})
        away = tuple(did for did in state.active if rng.random() < 0.3)
        chosen = invited(state, notes(state, away=away))
        assert 1 <= len(chosen) <= invite
        gaps = {did: 0 if did in chosen else gap + 1 for did, gap in gaps.items()}
        assert max(gaps.values()) < every
        state = after(state, chosen)


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ({"invite": 4}, "belong together"),
        ({"invite_every": 2}, "belong together"),
        ({"invite": 3, "invite_every": 2}, "some are left out"),
        ({"invite": 9, "invite_every": 2}, "quorum <= enough <= invite <= participants"),
        ({"invite": 4, "invite_every": 2, "enough": 5}, "quorum <= enough <= invite <= participants"),
        ({"enough": 2, "quorum": 3}, "quorum <= enough <= invite <= participants"),
    ],
)
def test_a_plan_whose_numbers_do_not_fit_is_refused(planned: Planned, rounds: dict[str, int], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        planned(**rounds)


# In a log.


class Log:
    """The entries of one round of three institutions, of which a round invites two and needs one."""

    def __init__(self, plan: StudyPlan) -> None:
        self.state = state_of(plan)
        self.now = datetime(2026, 11, 22, tzinfo=UTC)

    def append(self, body: Any, party: str | None = None) -> None:
        self.now += timedelta(seconds=2)
        key = KEYS[party].public if party else None
        entry = make_entry(body, study=self.state.study, now=self.now, round_number=1, party=key)
        self.state = apply(self.state, entry)

    def opening(self, **changes: Any) -> RoundOpened:
        measured = notes(self.state)
        fields = {
            "base_model": self.state.model,
            "participants": invited(self.state, measured),
            "deadline": format_instant(self.now + timedelta(seconds=60)),
            "measured": measured,
        }
        return RoundOpened(**{**fields, **changes})

    def commitment(self, party: str) -> str:
        document = Commitment(study=self.state.study, round=1, commitment="a" * 64)
        return document.sign(KEYS[party]).to_bytes().decode("utf-8")


@pytest.fixture
def log(planned: Planned) -> Log:
    return Log(planned(participants=3, invite=2, invite_every=2, enough=1))


def test_an_opening_invites_whom_the_rule_invites_and_nobody_else(log: Log) -> None:
    first, second = log.opening().participants
    third = next(did for did in log.state.active if did not in (first, second))
    for participants in ((first,), tuple(sorted((first, third))), log.state.active):
        with pytest.raises(PeerError, match="rule invites"):
            log.append(log.opening(participants=participants))
    for measured in (None, notes(log.state)[1:], notes(log.state)[::-1]):
        with pytest.raises(PeerError, match="the measurements are not of the active institutions"):
            log.append(log.opening(measured=measured))
    log.append(log.opening())
    assert log.state.measured[third].there


def test_a_plan_that_invites_everybody_takes_no_measurements(planned: Planned) -> None:
    log = Log(planned())
    with pytest.raises(PeerError, match="nothing to measure"):
        log.append(log.opening())


def test_commitments_close_when_enough_are_there_and_a_later_one_is_logged_as_late(log: Log) -> None:
    log.append(log.opening())
    quick, slow = log.state.round.participants if log.state.round else ()
    with pytest.raises(PeerError, match="somebody may still answer"):
        log.append(CommitmentsClosed())
    late = CommitmentLate(envelope=log.commitment(slow))
    with pytest.raises(PeerError, match="commitments are not closed"):
        log.append(late, slow)
    log.append(UpdateCommitted(envelope=log.commitment(quick)), quick)
    assert log.state.answer_s[quick] >= 2
    assert round_ms(log.state) == 1000 * log.state.answer_s[quick]
    log.append(CommitmentsClosed())
    with pytest.raises(PeerError, match="commitments are closed"):
        log.append(UpdateCommitted(envelope=log.commitment(slow)), slow)
    with pytest.raises(PeerError, match="answered already"):
        log.append(CommitmentLate(envelope=log.commitment(quick)), quick)
    log.append(late, slow)
    assert log.state.round is not None
    assert log.state.round.late == {slow}
