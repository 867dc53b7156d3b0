"""A study whose institutions score each other, from its first round to its settlement, as its nodes see it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from study_in_memory import InMemoryStudy, Institution

from clients.participation import scores_round
from clients.privacy.budget import State
from clients.privacy.noise import NoNoise
from clients.scoring import Scoring
from clients.storage import COMPARISON, StoredScores
from consent.rules.record import Action
from federation.errors import PrivacyError
from federation.rules import audit
from federation.rules.accounting import epsilon, scores_event
from federation.rules.ballots import Change, Proposal, Vote
from federation.rules.parts import holds
from federation.rules.state import StudyState
from federation.rules.study import open_agreement
from federation.storage.database import read, write

PANEL = {"held_out": "0", "clip": "1", "quorum": 3}
PLANNED = 3
"""Rounds, of which a vote leaves two: scoring is the fourth, as the plan says and not as the vote."""
ROUNDS = {"count": PLANNED, "participants": 3, "quorum": 2, "deadline_s": 30, "invite": 2, "invite_every": 2}
SCORED = PLANNED + 1
AGGREGATION = {"encoding": "fewest-bytes", "compression": "int8"}
WINDOWS = {"challenge_s": 3600, "appeal_s": 3600, "unbonding_s": 7200}
STAKE = {"coordinator_microcredits": 500, "institution_microcredits": 300, **WINDOWS}


def scoring(study: InMemoryStudy, at: Institution) -> Scoring:
    """A new process's view of the same stores."""
    agreement, _ = open_agreement(at.parts().membership.agreement)
    return Scoring(
        plan=study.plan,
        agreement=agreement,
        key=at.key,
        engine=at.engine,
        registry=at.registry,
        participation=at.participation(),
        fetch=study.blobs.get,
        noise=NoNoise(),
        clock=study.clock,
    )


def gone(ash: Institution) -> tuple[str, str]:
    """One of ash's people who is held back, and one who is trained on."""
    return next(ref for ref in ash.refs if holds("0", ref)), next(ref for ref in ash.refs if holds("!0", ref))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    """Settled after two rounds of two institutions each; two of ash's people withdrew before, one of them held back."""
    made = InMemoryStudy(
        tmp_path_factory.mktemp("panel"),
        sites=3,
        rounds=ROUNDS,
        cohort={"minimum": 1},
        aggregation=AGGREGATION,
        valuation={"panel": PANEL},
        stake=STAKE,
        voting={"open_s": 3600},
    )
    with made:

        def between(closed: int) -> None:
            if closed == 0:
                end_after_two_rounds(made)
            if closed == 1:
                made["ash"].say(Action.WITHDRAW, gone(made["ash"]))

        made.run(between=between)
        yield made


def end_after_two_rounds(study: InMemoryStudy) -> None:
    """As the three institutions propose and vote."""
    name, plan, change = study.plan.study_id, study.plan.plan_hash, Change(parameter="count", value=2)
    study["birch"].submit("proposal", Proposal(study=name, plan_hash=plan, change=change, signed_at="now"))
    tick(study)
    for site in ("ash", "cedar"):
        study[site].submit("vote", Vote(study=name, proposal=next(iter(study.state.ballots)), choice="yes"))
    tick(study)


def tick(study: InMemoryStudy) -> None:
    for institution in study.institutions.values():
        assert institution.node is not None
        institution.node.tick()


def test_it_is_settled_by_scores_that_everybody_committed_to_first(study: InMemoryStudy) -> None:
    kinds = study.kinds()[study.kinds().index("panel-opened") :]
    assert kinds == [
        "panel-opened",
        *["scores-committed"] * 3,
        "scores-closed",
        *["scores-shown"] * 3,
        "study-settled",
    ]
    found = audit.panel_scores(study.state)
    for payment in study.state.payments:
        assert payment.value == str(found.values[payment.party])
        assert payment.reward == int(found.shares[payment.party] * 1_000_003)


def test_every_witness_recomputed_and_cosigned_the_settlement(study: InMemoryStudy) -> None:
    for institution in study.institutions.values():
        assert institution.node is not None
        assert institution.node.witness.state.settled
        assert institution.node.witness.state.panel == study.state.panel


def test_whoever_is_held_back_is_in_no_round_and_whoever_is_in_a_round_is_not_scored_on(study: InMemoryStudy) -> None:
    assert [len(done.participants) for done in study.state.closed] == [2, 2]
    for institution in study.institutions.values():
        uses = {number: set(json.loads(use.subjects)) for number, use in institution.uses().items()}
        invited = [done.number for done in study.state.closed if institution.did in done.participants]
        assert invited
        assert set(uses) == {*invited, SCORED}, "its rounds, and the scoring"
        assert all(holds("!0", ref) for number in invited for ref in uses[number])
        assert all(holds("0", ref) for ref in uses[SCORED])
        assert uses[SCORED]
    ash = study["ash"]
    assert not set(ash.used(SCORED)) & set(gone(ash)), "consent was asked when it scored"


def test_scoring_is_charged_under_a_number_that_nothing_else_has(study: InMemoryStudy) -> None:
    assert scores_round(study.plan) == SCORED
    assert COMPARISON < 1 <= study.plan.rounds.count < SCORED
    assert study.state.rounds.count == 2


def test_a_person_loses_the_rounds_or_the_scores_each_within_the_plan(study: InMemoryStudy) -> None:
    for institution in study.institutions.values():
        charge = institution.budget.charge(study.plan.study_id, SCORED)
        assert charge is not None
        assert charge.state is State.COMMITTED
        spent = institution.budget.spent_by_part()
        alone = epsilon([scores_event(study.plan)], delta=Decimal("1e-5"), order=8)
        assert spent["0"] == pytest.approx(alone)
        assert alone <= 3
        assert 0 < spent["1"] <= 3


def test_a_retry_is_answered_with_what_is_stored(study: InMemoryStudy) -> None:
    ash, before = study["ash"], study["ash"].budget.history()
    panel, state = study.state.panel, study.state
    assert panel is not None
    rest = {did: value for did, value in panel.commitments.items() if did != ash.did}
    open_again = state_with(state, closed=False, commitments=rest, shown={})
    with read(ash.engine) as session:
        stored = session.get_one(StoredScores, study.plan.study_id)
    again = scoring(study, ash)
    assert again.due(open_again) == (False, stored.commitment)
    assert again.due(state_with(state, shown={})) == (True, stored.envelope)
    other = {**panel.commitments, ash.did: "0" * 64}
    assert again.due(state_with(state, commitments=other, shown={})) is None, "another commitment is in the log"
    assert again.due(state_with(state)) is None
    assert ash.budget.history() == before, "nothing is charged again"


def test_scoring_that_was_interrupted_is_not_repeated(study: InMemoryStudy) -> None:
    birch = study["birch"]
    with write(birch.engine) as session:
        session.delete(session.get_one(StoredScores, study.plan.study_id))
    panel = study.state.panel
    assert panel is not None
    rest = {did: value for did, value in panel.commitments.items() if did != birch.did}
    with pytest.raises(PrivacyError, match="interrupted"):
        scoring(study, birch).due(state_with(study.state, closed=False, commitments=rest, shown={}))


def state_with(state: StudyState, **panel: object) -> StudyState:
    """The study before its settlement, with another state of its panel."""
    assert state.panel is not None
    return replace(state, settled=False, panel=replace(state.panel, **panel))  # type: ignore[arg-type]  # by name
