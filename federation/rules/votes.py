"""Votes in the log: a change is proposed, weights are taken down at that moment, and a majority of them all decides.

Rules: whoever proposes takes part or keeps the log; one proposal of a party is open at a time. The snapshot is made
when the proposal is logged: whoever comes by weight later has no more, whoever leaves has no less. A vote is one signed
answer and stays. A change is accepted with the vote that takes it above the plan's threshold of *all* weights, so that
nobody decides when to count; it holds from the next round on. What is not accepted by its time has lapsed.

Nothing is announced: every replica computes the same from the same entries.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from federation.rules.ballots import Proposal, Vote, changed, unfit
from federation.rules.documents import open_signed
from federation.rules.entries import ChangeProposed, Entry, VoteCast
from federation.rules.stakes import stake_account
from federation.rules.state import Ballot, StudyState, require
from federation.rules.terms import Voting


def snapshot(state: StudyState) -> dict[str, int]:
    """Did -> weight of those who may vote on what is proposed now."""
    terms = _terms_of(state)
    if terms.weights == "cohort":
        return {did: state.weights[did] for did in state.active}
    there = {*state.active, state.coordinator.did}
    held = {did: state.ledger.available(stake_account(state, did)) for did in sorted(state.stakes) if did in there}
    return {did: amount for did, amount in held.items() if amount}


def is_open(ballot: Ballot, now: datetime) -> bool:
    """Whether votes are still taken."""
    return not ballot.accepted and now <= ballot.closes


def _proposed(state: StudyState, entry: Entry, body: ChangeProposed) -> StudyState:
    terms = _terms_of(state)
    proposal, envelope = open_signed(Proposal, body.envelope.encode("utf-8"))
    did = envelope.signer.did
    require(entry.party == did and entry.round is None, "the proposal is by another party")
    require(
        proposal.study == state.study and proposal.plan_hash == state.plan.plan_hash, "the proposal is for another plan"
    )
    require(bool(state.weights), "the study has not started")
    require(not state.complete, "no round is to come any more")
    require(did in {*state.active, state.coordinator.did}, "the party takes no part in the study")
    require(
        not any(each.proposer == did and is_open(each, entry.at) for each in state.ballots.values()),
        "a proposal of this party is open already",
    )
    why = unfit(proposal.change, plan=state.plan.rounds, now=state.rounds, begun=_begun(state))
    require(not why, why)
    weights = snapshot(state)
    require(bool(weights), "nobody has a weight to vote with")
    closes = entry.at + timedelta(seconds=terms.open_s)
    ballot = Ballot(proposer=did, change=proposal.change, weights=weights, closes=closes)
    return replace(state, ballots={**state.ballots, entry.id: ballot})


def _voted(state: StudyState, entry: Entry, body: VoteCast) -> StudyState:
    terms = _terms_of(state)
    vote, envelope = open_signed(Vote, body.envelope.encode("utf-8"))
    did = envelope.signer.did
    require(entry.party == did and entry.round is None, "the vote is by another party")
    require(vote.study == state.study and vote.proposal in state.ballots, "there is no such proposal in this study")
    ballot = state.ballots[vote.proposal]
    require(did in ballot.weights, "the party is not in the proposal's snapshot")
    require(did not in ballot.votes, "the party has voted already")
    require(not ballot.accepted, "the change is accepted already")
    require(entry.at <= ballot.closes, "the time to vote has ended")
    require(not state.complete, "no round is to come any more")
    ballot = replace(ballot, votes={**ballot.votes, did: vote.choice == "yes"})
    if ballot.yes <= terms.threshold * ballot.total:
        return replace(state, ballots={**state.ballots, vote.proposal: ballot})
    return replace(
        state,
        ballots={**state.ballots, vote.proposal: replace(ballot, accepted=True)},
        voted=changed(state.rounds, ballot.change, begun=_begun(state)),
    )


def _begun(state: StudyState) -> int:
    return len(state.closed) + (state.round is not None)


def _terms_of(state: StudyState) -> Voting:
    require(state.plan.voting is not None, "the plan lets nobody change anything")
    return cast("Voting", state.plan.voting)


_Rule = Callable[[StudyState, Entry, Any], StudyState]
VOTE_RULES: Final[Mapping[str, _Rule]] = cast(
    "Mapping[str, _Rule]", {"change-proposed": _proposed, "vote-cast": _voted}
)
