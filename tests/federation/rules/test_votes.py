"""Votes in the log: a snapshot at the proposal, a majority of all weights, and nothing that costs privacy."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.errors import PeerError
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.admission import consent_origin
from federation.rules.ballots import Change, Proposal, Vote, changed, unfit
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.documents import Revocation
from federation.rules.entries import (
    AgreementRevoked,
    ChangeProposed,
    RoundOpened,
    StakeSlashed,
    VoteCast,
    make_entry,
)
from federation.rules.equivocation import two_roots
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.pledges import SplitView
from federation.rules.replay import apply, replay
from federation.rules.terms import Rounds

STRANGER = PrivateKey(bytes([55]) * 32)
Staked = Callable[..., Any]


def proposal(study: Any, key: PrivateKey, parameter: str, value: int, **changes: Any) -> ChangeProposed:
    fields = {
        "study": study.plan.study_id,
        "plan_hash": study.plan.plan_hash,
        "change": Change(parameter=parameter, value=value),  # type: ignore[arg-type] # one of three
        "signed_at": format_instant(study.now),
    }
    return ChangeProposed(envelope=Proposal(**{**fields, **changes}).sign(key).to_bytes().decode())


def propose(study: Any, site: str, parameter: str, value: int) -> str:
    """The id of the proposal's entry."""
    study.append(proposal(study, study.institutions[site], parameter, value), party=study.institutions[site])
    return list(study.state.ballots)[-1]


def vote(study: Any, key: PrivateKey, name: str, choice: Any = "yes") -> VoteCast:
    document = Vote(study=study.plan.study_id, proposal=name, choice=choice)
    return VoteCast(envelope=document.sign(key).to_bytes().decode())


def cast(study: Any, site: str, name: str, choice: str = "yes") -> None:
    study.append(vote(study, study.institutions[site], name, choice), party=study.institutions[site])


def refused(study: Any, body: Any, party: PrivateKey, because: str) -> None:
    before = study.state
    entry = make_entry(body, study=before.study, now=study.now + timedelta(seconds=1), party=party.public)
    with pytest.raises(PeerError, match=because):
        apply(before, entry)


def revoke(study: Any, site: str) -> None:
    document = Revocation(study=study.plan.study_id, plan_hash=study.plan.plan_hash, site=site, signed_at="x")
    key = study.institutions[site]
    study.append(AgreementRevoked(envelope=document.sign(key).to_bytes().decode()), party=key)


@pytest.fixture
def started(staked: Staked) -> Any:
    """Started, with weights 100, 200 and 300."""
    study = staked()
    study.start()
    return study


def test_more_than_half_of_all_weights_change_the_next_round(started: Any) -> None:
    name = propose(started, "ash", "quorum", 3)
    cast(started, "ash", name)
    cast(started, "birch", name)
    ballot = started.state.ballots[name]
    assert (ballot.yes, ballot.total, ballot.accepted) == (300, 600, False), "half is not more than half"
    opening = RoundOpened(
        base_model=started.state.model,
        participants=started.state.active,
        deadline=format_instant(started.now + timedelta(seconds=60)),
    )
    started.append(opening, 1)
    cast(started, "cedar", name)
    state = started.state
    assert state.ballots[name].accepted
    assert state.rounds.quorum == 3
    assert state.round is not None
    assert state.round.quorum == 2, "a round that has begun keeps its quorum"
    assert state.plan.rounds.quorum == 2, "the plan never changes"


def test_a_changed_quorum_decides_whether_a_round_counts(started: Any) -> None:
    name = propose(started, "ash", "quorum", 3)
    for site in ("ash", "cedar"):
        cast(started, site, name)
    started.play_round(1)
    with pytest.raises(PeerError, match="does not follow from the quorum"):
        started.play_round(2, declining="birch")


def test_fewer_rounds_end_the_study_and_leave_the_noise_as_it_was(started: Any) -> None:
    noise = derive_noise_multiplier(started.plan)
    name = propose(started, "ash", "count", 1)
    for site in ("ash", "cedar"):
        cast(started, site, name)
    started.play_round(1)
    assert started.state.complete
    assert derive_noise_multiplier(started.state.plan) == noise
    started.settle()
    assert started.state.settled
    begun = type(started)(edits=started.edits).state
    assert replay(begun, started.log.entries()).rounds == started.state.rounds


def test_rounds_that_came_meanwhile_are_not_undone(started: Any) -> None:
    name = propose(started, "ash", "count", 1)
    cast(started, "ash", name)
    started.play_round(1)
    started.play_round(2)
    refused(started, vote(started, started.institutions["cedar"], name), started.institutions["cedar"], "no round is")


def test_only_those_of_the_snapshot_vote_and_each_once(started: Any) -> None:
    ash, birch = started.institutions["ash"], started.institutions["birch"]
    revoke(started, "birch")
    name = propose(started, "ash", "deadline_s", 120)
    assert set(started.state.ballots[name].weights) == {ash.public.did, started.institutions["cedar"].public.did}
    for key in (birch, STRANGER, started.key):
        refused(started, vote(started, key, name), key, "not in the proposal's snapshot")
    cast(started, "ash", name, "no")
    refused(started, vote(started, ash, name), ash, "has voted already")
    refused(started, vote(started, ash, "0" * 64), ash, "no such proposal")
    elsewhere = Vote(study="other", proposal=name, choice="yes").sign(ash).to_bytes().decode()
    refused(started, VoteCast(envelope=elsewhere), ash, "no such proposal")
    refused(started, vote(started, STRANGER, name), ash, "by another party")


def test_whoever_leaves_later_keeps_the_weight_of_the_snapshot(started: Any) -> None:
    name = propose(started, "ash", "deadline_s", 120)
    revoke(started, "cedar")
    cast(started, "ash", name)
    cast(started, "birch", name)
    assert not started.state.ballots[name].accepted, "half of what was there"
    cast(started, "cedar", name)
    assert started.state.rounds.deadline_s == 120


def test_votes_end_with_their_time_or_with_the_decision(started: Any) -> None:
    cedar = started.institutions["cedar"]
    name = propose(started, "ash", "deadline_s", 120)
    started.now += timedelta(seconds=500)
    refused(started, vote(started, cedar, name), cedar, "the time to vote has ended")
    name = propose(started, "ash", "deadline_s", 180)
    cast(started, "ash", name)
    cast(started, "cedar", name)
    birch = started.institutions["birch"]
    refused(started, vote(started, birch, name), birch, "accepted already")
    assert started.state.rounds.deadline_s == 180


@pytest.mark.parametrize(
    ("parameter", "value", "why"),
    [
        ("deadline_s", 59, "60 .. 604800"),
        ("deadline_s", 60, "60 already"),
        ("quorum", 1, "2 .. 3"),
        ("quorum", 4, "2 .. 3"),
        ("count", 2, "1 .. 1"),
        ("count", 3, "1 .. 1"),
    ],
)
def test_a_change_out_of_its_bounds_is_refused(started: Any, parameter: str, value: int, why: str) -> None:
    ash = started.institutions["ash"]
    refused(started, proposal(started, ash, parameter, value), ash, why)


@pytest.mark.parametrize("parameter", ["epsilon", "delta", "clip", "participants", "pool_microcredits", "minimum"])
def test_what_costs_privacy_or_money_is_no_change_at_all(parameter: str) -> None:
    with pytest.raises(ValidationError):
        Change(parameter=parameter, value=5)  # type: ignore[arg-type] # the point of the test


def test_a_proposal_is_a_party_s_own_one_at_a_time_while_rounds_are_to_come(started: Any, staked: Staked) -> None:
    ash, birch = started.institutions["ash"], started.institutions["birch"]
    refused(started, proposal(started, STRANGER, "quorum", 3), STRANGER, "takes no part")
    refused(started, proposal(started, ash, "quorum", 3), birch, "by another party")
    refused(started, proposal(started, ash, "quorum", 3, plan_hash="0" * 64), ash, "for another plan")
    propose(started, "ash", "quorum", 3)
    refused(started, proposal(started, ash, "deadline_s", 70), ash, "open already")
    started.append(proposal(started, started.key, "deadline_s", 70), party=started.key)
    fresh = staked()
    fresh.publish()
    refused(fresh, proposal(fresh, ash, "quorum", 3), ash, "has not started")
    over = staked().played()
    refused(over, proposal(over, ash, "quorum", 3), ash, "settled already")


def test_a_plan_without_votes_lets_nobody_change_anything(play: Callable[[], Any]) -> None:
    study = play()
    study.start()
    ash = study.institutions["ash"]
    refused(study, proposal(study, ash, "quorum", 3), ash, "lets nobody change anything")


def test_stakes_weigh_as_they_are_held_at_the_proposal(staked: Staked) -> None:
    study = staked(edits={"[validation]": _BY_STAKE})
    study.start()
    ash = study.institutions["ash"]
    trees = (Checkpoint(consent_origin(ash.public), 7, bytes([number]) * 32) for number in (1, 2))
    evidence = two_roots(*(sign_checkpoint(tree, ash) for tree in trees))
    assert evidence is not None
    study.append(StakeSlashed(case=SplitView(evidence=evidence.to_bytes().decode())), party=ash)
    name = propose(study, "birch", "deadline_s", 120)
    ballot = study.state.ballots[name]
    names = {key.public.did: site for site, key in study.institutions.items()}
    weights = {names.get(did, "coordinator"): weight for did, weight in ballot.weights.items()}
    assert weights == {"coordinator": 500, "birch": 300, "cedar": 300}, "a slashed stake has no voice"
    study.append(vote(study, study.key, name), party=study.key)
    assert not study.state.ballots[name].accepted
    cast(study, "cedar", name)
    assert study.state.ballots[name].accepted


_BY_STAKE = """[stake]
coordinator_microcredits = 500
institution_microcredits = 300
challenge_s = 1000
appeal_s = 100
unbonding_s = 2000
[voting]
weights = "stake"
open_s = 500
[validation]"""


@settings(max_examples=200)
@given(
    count=st.integers(1, 9),
    participants=st.integers(1, 5),
    data=st.data(),
    changes=st.lists(st.tuples(st.sampled_from(["deadline_s", "quorum", "count"]), st.integers(1, 700)), max_size=6),
)
def test_no_sequence_of_changes_adds_a_round_or_leaves_the_bounds(
    count: int, participants: int, data: st.DataObject, changes: list[tuple[Any, int]]
) -> None:
    quorum = data.draw(st.integers(1, participants))
    enough = data.draw(st.none() | st.integers(quorum, participants))
    plan = Rounds(count=count, participants=participants, quorum=quorum, deadline_s=60, enough=enough)
    now, begun = plan, 0
    for parameter, value in changes:
        begun = data.draw(st.integers(begun, now.count))
        change = Change(parameter=parameter, value=value)
        if unfit(change, plan=plan, now=now, begun=begun):
            continue
        begun = data.draw(st.integers(begun, now.count))  # rounds may come between proposal and decision
        before, now = now, changed(now, change, begun=begun)
        assert begun <= now.count <= before.count
        assert now.deadline_s >= plan.deadline_s
        assert min(2, plan.quorum) <= now.quorum <= (plan.enough or plan.participants)
        assert now.participants == plan.participants
