from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.squared_loss import noise_bias, squared_loss_values
from federation.rules.valuation import METHODS, shapley


def case(seed: int, sites: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.column_stack((rng.uniform(-1, 1, (12, 3)), np.ones(12)))
    return x, rng.integers(0, 2, 12).astype(float), rng.normal(0, 0.5, 4), rng.normal(0, 0.4, (sites, 4))


def utilities(x: np.ndarray, y: np.ndarray, base: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Minus the mean squared error of every coalition, [2^N]."""
    members = (np.arange(1 << len(steps))[:, None] >> np.arange(len(steps))) & 1
    return -(((base + members @ steps) @ x.T - y) ** 2).mean(axis=1)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_closed_values_are_those_of_the_whole_table(seed: int, sites: int) -> None:
    given_case = case(seed, sites)
    table = [round(Fraction(float(value)) * 2**40) for value in utilities(*given_case)]
    expected = [float(value) / 2**40 for value in shapley(table)]
    assert squared_loss_values(*given_case) == pytest.approx(expected, abs=1e-10)


def test_forty_sites_share_the_improvement() -> None:
    x, y, base, steps = case(3, 40)
    ends = [-(((base + part) @ x.T - y) ** 2).mean() for part in (steps.sum(axis=0), 0)]
    assert squared_loss_values(x, y, base, steps).sum() == pytest.approx(ends[0] - ends[1], abs=1e-10)


@pytest.mark.parametrize("method", ["shapley", "banzhaf", "beta-4-1", "leave-one-out"])
def test_values_less_the_bias_have_the_mean_of_values_without_noise(method: str) -> None:
    """By simulation, within five standard errors; the bias itself is outside seven."""
    x, y, base, steps = case(5, 3)
    spreads, rng, draws = np.array([0.3, 0.6, 0.9]), np.random.default_rng(1), 4000
    signs = np.array([[float(value) for value in METHODS[method](unit)] for unit in np.eye(8, dtype=int).tolist()]).T
    noisy = np.stack(
        [signs @ utilities(x, y, base, steps + spreads[:, None] * rng.normal(0, 1, steps.shape)) for _ in range(draws)]
    )
    bias = noise_bias(x, (spreads**2).tolist())
    error = noisy.std(axis=0) / np.sqrt(draws)
    clean = signs @ utilities(x, y, base, steps)
    assert np.all(np.abs(noisy.mean(axis=0) - bias - clean) < 5 * error)
    assert np.all(np.abs(bias) > 7 * error)


def test_with_a_logistic_link_the_same_correction_is_wrong() -> None:
    """Why no plan offers it: the bias there depends on the model that nobody knows without noise."""
    x, y, base, steps = case(5, 1)
    rng, spread, draws = np.random.default_rng(2), 2.0, 4000

    def brier(model: np.ndarray) -> np.ndarray:
        return -((1 / (1 + np.exp(-(model @ x.T))) - y) ** 2).mean(axis=-1)

    for far in (1.0, 20.0):
        model = far * (base + steps[0])
        noisy = brier(model + spread * rng.normal(0, 1, (draws, 4)))
        bias, error = noisy.mean() - brier(model), noisy.std() / np.sqrt(draws)
        assert abs(bias - noise_bias(x, [spread**2])[0] / 16) > 20 * error, "not even with the slope 1/4 of the link"


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, y, base, steps = case(1, 2)
    with pytest.raises(PeerError, match="do not fit"):
        squared_loss_values(x, y, base[:-1], steps)
