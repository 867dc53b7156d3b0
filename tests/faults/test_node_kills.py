"""A slice of ``make soak``: a node killed at a dozen random moments; and the checks catch what they are for."""

import copy
import random
from pathlib import Path

import pytest
from node_kills import Found, Sent, Soak, violations

from federation.rules.accounting import count_event, epsilon, round_event
from federation.rules.study import StudyPlan
from tests.federation.learning.test_models import plan

KILLS = 12


@pytest.mark.processes
def test_a_node_killed_at_random_moments_releases_nothing_uncharged_and_needs_nobody(tmp_path: Path) -> None:
    soak = Soak(tmp_path, random.Random())
    for _ in range(KILLS):
        assert soak.kill_once() == []
    assert soak.killed == KILLS
    assert soak.found.charges


@pytest.fixture
def study() -> StudyPlan:
    return plan()


def sound(study: StudyPlan) -> tuple[Sent, Found]:
    """Round 1 was released, round 2 had too few people, round 3 was interrupted."""
    sent = Sent()
    for line in (
        '[1, "commitment", "aa", ""]',
        '[1, "update", "bb", ""]',
        '[2, "refusal", "cc", "cohort"]',
        '[3, "refusal", "dd", "interrupted"]',
    ):
        sent.take(line)
    whole, count = round_event(study), count_event(study)
    charges = [(1, "committed", whole), (2, "committed", count), (3, "started", whole)]
    spent = epsilon([event for _, _, event in charges], delta=study.privacy.delta, order=8)
    return sent, Found(charges, {1: "bb"}, spent)


def test_what_is_sound_is_not_accused(study: StudyPlan) -> None:
    assert violations(*sound(study), study, killed=1) == []


def test_every_violation_is_caught(study: StudyPlan) -> None:
    sent, found = sound(study)
    whole = round_event(study)
    spoilt: dict[str, tuple[Sent, Found]] = {}

    def spoil(word: str) -> tuple[Sent, Found]:
        spoilt[word] = copy.deepcopy(sent), copy.deepcopy(found)
        return spoilt[word]

    spoil("was released")[1].charges[0] = (1, "started", whole)
    spoil("charged twice")[1].charges.append((1, "committed", whole))
    spoil("otherwise than it is stored")[1].stored[1] = "ee"
    spoil("in 2 ways")[0].take('[1, "update", "ff", ""]')
    spoil("committed and refused")[0].take('[1, "refusal", "ff", "interrupted"]')
    spoil("refused (cohort)")[1].charges[1] = (2, "committed", whole)
    spoil("what ran is")[1].spent += 0.1
    for word, (left, on_disk) in spoilt.items():
        assert any(word in wrong for wrong in violations(left, on_disk, study, killed=1)), word
    assert "more rounds are under way than processes were killed" in violations(sent, found, study, killed=0)
