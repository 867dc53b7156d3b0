"""A panel member's scores: how far one person can move them, by brute force; and what leaves."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.demo.studies import HEART
from clients.privacy.lattice import clip_steps, noise_std, sensitivity, step_of
from clients.privacy.noise import NoNoise, SecureNoise
from clients.privacy.release import held_out_cohort, release_scores
from clients.privacy.scoring import longest, noisy_scores
from federation.errors import PrivacyError
from federation.rules.accounting import derive_scores_noise, epsilon, scores_event
from federation.rules.documents import SCORE_MAX
from federation.rules.fixedpoint import Integers
from federation.rules.study import StudyPlan
from federation.rules.terms import Panel
from federation.rules.valuation import shapley

CLIP = Decimal("0.3")


def scored(gains: Any, clip: Decimal = CLIP) -> Integers:
    return noisy_scores(np.array(gains, dtype=float), clip=clip, noise_multiplier=Decimal(2), noise=NoNoise())


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 9), st.integers(-6, 4))
def test_no_person_moves_the_sum_farther_than_the_clip(seed: int, players: int, people: int, exponent: int) -> None:
    gains = np.random.default_rng(seed).normal(0, 10.0**exponent, (players, people + 1))
    whole = scored(gains)
    for person in range(people + 1):
        moved = whole - scored(np.delete(gains, person, axis=1))
        assert sum(int(part) ** 2 for part in moved) <= clip_steps(CLIP) ** 2
    assert clip_steps(CLIP) < sensitivity(CLIP, players)
    assert clip_steps(CLIP) * Fraction(step_of(CLIP)) <= Fraction(CLIP)


@pytest.mark.parametrize("players", [2, 3, 4])
def test_without_a_clip_no_game_s_vector_is_longer_than_the_bound(players: int) -> None:
    """Every vertex of the cube of utilities: the length is convex, so that the longest is at one."""
    coalitions = 1 << players
    unit = [[int(mask == at) for mask in range(coalitions)] for at in range(coalitions)]
    columns = np.array([[float(value) for value in shapley(table)] for table in unit])
    vertices = (np.arange(1 << coalitions)[:, None] >> np.arange(coalitions) & 1).astype(float)
    found = float(np.linalg.norm(vertices @ columns, axis=1).max())
    bound = longest(players, rounds=1, loss_bound=Decimal(1))
    assert found <= bound * (1 + 1e-12)
    assert bound <= found * 1.1, "it is not much too long"
    assert longest(players, rounds=3, loss_bound=Decimal(4)) == pytest.approx(12 * bound)


def test_a_bound_for_one_player_is_its_whole_range() -> None:
    assert longest(1, rounds=2, loss_bound=Decimal(4)) == 8


def test_nobody_held_back_looks_like_noise_and_noise_has_the_stated_size() -> None:
    nobody = np.zeros((3000, 0))
    drawn = noisy_scores(nobody, clip=CLIP, noise_multiplier=Decimal(2), noise=SecureNoise())
    wanted = float(noise_std(CLIP, 3000, Decimal(2)))
    assert drawn.std() == pytest.approx(wanted, rel=0.1)
    assert not scored(nobody).any()


def test_more_people_than_one_part_are_added_up_the_same() -> None:
    gains = np.random.default_rng(1).normal(0, 0.05, (3, 5000))
    halves = scored(gains[:, :2500]) + scored(gains[:, 2500:])
    assert np.array_equal(scored(gains), halves)


def with_panel(held_out: str = "00", clip: Decimal = CLIP, epsilon: float = 1.0) -> StudyPlan:
    plan = HEART.plan(epsilon=epsilon)
    panel = Panel(held_out=held_out, clip=clip, quorum=3)
    return plan.model_copy(update={"valuation": plan.valuation.model_copy(update={"panel": panel})})


def test_what_leaves_is_a_mean_over_a_public_number_of_people() -> None:
    plan = with_panel()
    steps = scored(np.full((4, 50), 0.1))
    left = release_scores(steps, plan, players=4, nominal_cohort=150)
    for value in left:
        assert value / 2**40 == pytest.approx(0.1, rel=1e-6)
    with pytest.raises(PrivacyError, match="4 institutions"):
        release_scores(steps[:3], plan, players=4, nominal_cohort=150)
    with pytest.raises(PrivacyError, match="may not leave"):
        release_scores(steps, HEART.plan(), players=4, nominal_cohort=150)


def test_what_leaves_fits_into_a_document() -> None:
    far = np.array([2**62, -(2**62)], dtype=np.int64)
    plan = with_panel(clip=Decimal(1000))
    assert release_scores(far, plan, players=2, nominal_cohort=1) == (SCORE_MAX, -SCORE_MAX)


@pytest.mark.parametrize(("held_out", "people"), [("0", 90), ("01", 30), ("011", 12), ("0110", 6)])
def test_for_each_held_out_person_so_many_are_trained_on(held_out: str, people: int) -> None:
    assert held_out_cohort(with_panel(held_out).valuation.panel, 90) == people  # type: ignore[arg-type]  # it has one
    assert math.isclose(90 / people, 2 ** len(held_out) - 1, rel_tol=0.1)


def test_one_release_costs_the_people_held_back_at_most_the_plan_s_epsilon() -> None:
    plan = with_panel(epsilon=1.0)
    privacy = plan.privacy
    assert epsilon([scores_event(plan)], delta=privacy.delta, order=privacy.order) <= 1
    weaker = {"type": "gaussian", "noise_multiplier": str(derive_scores_noise(plan) - Decimal("0.01"))}
    assert epsilon([weaker], delta=privacy.delta, order=privacy.order) > 1
    assert scores_event(plan)["part"] == "00"


def test_more_noise_than_a_sum_holds_is_refused() -> None:
    with pytest.raises(PrivacyError, match="so much noise"):
        noisy_scores(np.zeros((2, 1)), clip=CLIP, noise_multiplier=Decimal(10**6), noise=NoNoise())
