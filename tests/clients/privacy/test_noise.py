"""The noise has the right law, cannot be seeded, and its absence cannot be reached from what ships."""

import ast
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from clients.privacy.noise import NoNoise, SecureNoise

# A sound source fails one of these assertions once in about a hundred thousand runs.
UNLIKELY = 1e-6


def test_secure_noise_is_gaussian_with_its_standard_deviation() -> None:
    draws = SecureNoise().normal((200_000,), 1.3)
    assert draws.dtype == np.float64
    assert stats.kstest(draws / 1.3, "norm").pvalue > UNLIKELY
    scaled = float((draws**2).sum()) / 1.3**2
    assert 2 * min(stats.chi2.cdf(scaled, len(draws)), stats.chi2.sf(scaled, len(draws))) > UNLIKELY
    assert stats.chi2.sf(float(((draws * 0.97) ** 2).sum()) / 1.3**2, len(draws)) > 1 - UNLIKELY  # 3 % less is seen


def test_secure_noise_has_gaussian_tails() -> None:
    draws = np.abs(SecureNoise().normal((400_000,), 1.0))
    beyond = int((draws > 4).sum())
    assert stats.binomtest(beyond, len(draws), 2 * stats.norm.sf(4)).pvalue > UNLIKELY
    assert np.all(np.isfinite(draws))


def test_secure_uniforms_fill_the_unit_interval_and_never_reach_one() -> None:
    draws = SecureNoise().uniform(200_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > UNLIKELY
    assert np.all(draws * 2.0**53 % 1 == 0)


def test_seeding_every_known_generator_changes_nothing() -> None:
    def draw() -> bytes:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the legacy generator is one of those that must not matter
        torch.manual_seed(1)
        return SecureNoise().normal((8,), 1.0).tobytes()

    assert draw() != draw()


def test_two_rounds_of_noise_are_not_correlated() -> None:
    first, second = SecureNoise().normal((2, 100_000), 2.0)
    assert stats.pearsonr(first, second).pvalue > UNLIKELY


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5)])
def test_noise_has_the_shape_that_was_asked_for(shape: tuple[int, ...]) -> None:
    assert SecureNoise().normal(shape, 1.0).shape == shape
    assert NoNoise().normal(shape, 1.0).shape == shape


def test_a_standard_deviation_of_zero_is_silence_and_nonsense_is_refused() -> None:
    assert not SecureNoise().normal((4,), 0.0).any()
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="standard deviation"):
            SecureNoise().normal((4,), wrong)


def test_no_noise_draws_everybody_and_adds_nothing() -> None:
    assert not NoNoise().normal((4,), 7.0).any()
    assert bool((NoNoise().uniform(4) < 1e-9).all())


def test_nothing_that_ships_refers_to_no_noise(repository: Path) -> None:
    """No flag, setting or variable reaches it: outside its own module the name does not occur."""
    found = []
    for package in ("federation", "consent", "clients"):
        for path in sorted((repository / package).rglob("*.py")):
            if path == repository / "clients" / "privacy" / "noise.py":
                continue
            names = {
                name
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for name in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
            }
            found += [str(path)] * ("NoNoise" in names)
    assert found == []
