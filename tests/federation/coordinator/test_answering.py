"""What a coordinator says against a case by itself: two studies under one log name, and nothing else."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from federation.coordinator.answering import answer_to
from federation.coordinator.history import StudyHistory
from federation.coordinator.submissions import Submissions
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.entries import SlashAppealed, StakeBurned, StakeReleased
from federation.rules.equivocation import two_roots
from federation.rules.pledges import Accusation, SplitView

Staked = Callable[..., Any]


class Office:
    """The coordinator of a settled study, its clock, and the logs in its folder."""

    def __init__(self, study: Any, other: Any) -> None:
        self.study, self.now = study, study.now
        self.history = StudyHistory(
            plan=study.plan,
            plan_blob=sha256_hex(study.plan_bytes),
            key=study.key,
            log=study.log,
            clock=lambda: self.now,
        )
        self.submissions = Submissions(self.history, study.blobs)
        self.answer = partial(answer_to, logs=lambda: [study.log, other.log])
        size = other.log.size
        trees = (Checkpoint(study.plan.origin, size, each.log.root(size)) for each in (study, other))
        evidence = two_roots(*(sign_checkpoint(tree, study.key) for tree in trees))
        assert evidence is not None
        accusation = Accusation(
            study=study.plan.study_id,
            accused=study.key.public.did,
            case=SplitView(evidence=evidence.to_bytes().decode()),
            signed_at="now",
        )
        ash = study.institutions["ash"]
        self.submissions.handle(ash.public, accusation.sign(ash).to_bytes())

    def due(self, after_s: float) -> list[type]:
        self.now += timedelta(seconds=after_s)
        return [type(body) for body in self.submissions.due(self.answer)]


def test_two_studies_of_its_folder_are_told_apart(staked: Staked) -> None:
    other = staked(edits={'name = "small"': 'name = "other"'})
    other.start()
    office = Office(staked().played(), other)
    assert office.due(1) == [SlashAppealed]
    assert office.due(0) == []
    assert office.history.state.ledger.held == {}
    assert office.due(3000) == [StakeReleased] * 4
    assert office.history.state.ledger.pledged == 0


def test_two_histories_of_one_study_burn_the_stake_after_the_appeal_window(staked: Staked) -> None:
    fork = staked(seed=8)
    fork.start()
    fork.play_round(1)
    office = Office(staked().played(), fork)
    assert office.due(50) == []
    assert office.due(60) == [StakeBurned]
    assert office.due(3000) == [StakeReleased] * 3
    assert office.history.state.ledger.pledged == 500
