"""Lower bounds for epsilon: valid where the truth is known, and near it."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from clients.privacy.audit.canary_attack import gaussian_epsilon, lower_bounds

DELTA = 1e-5


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
def test_the_epsilon_of_a_gaussian_is_that_of_its_loss_distribution(mu: float) -> None:
    expected = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4).get_epsilon_for_delta(DELTA)
    assert gaussian_epsilon(mu, DELTA) == pytest.approx(expected, abs=2e-3, rel=1e-4)


def test_no_difference_gives_no_epsilon() -> None:
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    assert gaussian_epsilon(1e-9, DELTA) == 0.0


def scores(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian scores of a mechanism that is exactly mu-GDP; present canaries lie around 1."""
    generator = np.random.default_rng(seed)
    taken = generator.random(count) < 0.5
    return taken + generator.normal(0, 1 / mu, count), taken


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_bounds_hold_as_often_as_they_say_and_grow_with_the_trials(mu: float) -> None:
    truth = gaussian_epsilon(mu, DELTA)
    found = [lower_bounds(*scores(mu, 2000, seed), delta=DELTA, level=0.05) for seed in range(100)]
    assert sum(plain > truth for plain, _ in found) <= 8  # at 2.5 % each: 8 of 100 once in 600 seeds
    assert sum(gaussian > truth for _, gaussian in found) <= 8
    _, many = lower_bounds(*scores(mu, 50_000, 1), delta=DELTA, level=0.05)
    assert many > np.median([gaussian for _, gaussian in found])
    assert many > 0.85 * truth


def test_randomised_response_is_bounded_by_its_epsilon_and_nearly_reaches_it() -> None:
    """A mechanism that is no Gaussian: it tells the truth with probability e / (1 + e)."""
    generator = np.random.default_rng(3)
    taken = generator.random(40_000) < 0.5
    honest = generator.random(40_000) < math.e / (1 + math.e)
    plain, _ = lower_bounds(np.where(honest, taken, ~taken).astype(float), taken, delta=1e-12, level=0.05)
    assert 0.9 < plain <= 1.0


def test_separate_scores_prove_much() -> None:
    plain, gaussian = lower_bounds(*scores(1000.0, 2000, 1), delta=DELTA, level=0.05)
    assert plain > 4
    assert gaussian > 20
