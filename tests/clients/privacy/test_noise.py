"""The noise has exactly the right law, cannot be seeded, and its absence cannot be reached from what ships."""

import ast
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clients.privacy.noise import STD_MAX, NoNoise, SecureNoise, below_exponential, successes

# A sound source fails one of these assertions once in about a hundred thousand runs.
UNLIKELY = 1e-6
FINE = Fraction(1 << 40)


def test_noise_on_a_fine_lattice_is_gaussian_with_its_standard_deviation() -> None:
    std = FINE * Fraction("1.3")
    draws = SecureNoise().discrete_gaussian(200_000, std)
    assert draws.dtype == np.int64
    scaled = draws / float(std)
    assert stats.kstest(scaled, "norm").pvalue > UNLIKELY
    squares = float((scaled**2).sum())
    assert 2 * min(stats.chi2.cdf(squares, len(draws)), stats.chi2.sf(squares, len(draws))) > UNLIKELY
    assert stats.chi2.sf(float(((scaled * 0.97) ** 2).sum()), len(draws)) > 1 - UNLIKELY  # 3 % less is seen


@pytest.mark.parametrize("std", ["0.25", "0.7", "1", "1.5", "2.83", "9"])
def test_noise_of_few_steps_has_the_law_of_the_discrete_gaussian(std: str) -> None:
    """Every whole number as often as exp(-x^2 / 2 std^2) says: a continuous Gaussian, rounded, is seen."""
    count, spread = 200_000, int(6 * float(std)) + 2
    draws = SecureNoise().discrete_gaussian(count, Fraction(std))
    places = np.arange(-spread, spread + 1)
    weights = np.exp(-(places**2) / (2 * float(std) ** 2))
    expected = count * weights / weights.sum()
    seen = np.array([(draws == place).sum() for place in places])
    common = expected > 10
    seen, expected = seen[common], expected[common]
    assert stats.chi2.sf(float(((seen - expected) ** 2 / expected).sum()), len(seen) - 1) > UNLIKELY
    assert stats.binomtest(count - int(seen.sum()), count, 1 - float(expected.sum()) / count).pvalue > UNLIKELY


def test_noise_has_gaussian_tails() -> None:
    draws = np.abs(SecureNoise().discrete_gaussian(400_000, FINE))
    beyond = int((draws > 4 * FINE).sum())
    assert stats.binomtest(beyond, len(draws), 2 * stats.norm.sf(4)).pvalue > UNLIKELY


def test_the_last_bits_of_noise_are_uniform() -> None:
    """A floating-point Gaussian, scaled to steps, has gaps there, which tell what it was added to."""
    draws = SecureNoise().discrete_gaussian(100_000, Fraction(STD_MAX))
    for bits in (1, 4, 8):
        counts = np.bincount(draws & ((1 << bits) - 1), minlength=1 << bits)
        assert stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(1, 16), Fraction(999, 1000)])
def test_coins_fall_at_their_rate(rate: Fraction) -> None:
    drawn = SecureNoise().coins(100_000, rate)
    assert stats.binomtest(int(drawn.sum()), len(drawn), float(rate)).pvalue > UNLIKELY


def test_coins_of_rate_one_always_fall_and_there_may_be_none() -> None:
    assert SecureNoise().coins(7, Fraction(1)).all()
    assert SecureNoise().coins(0, Fraction(1, 2)).shape == (0,)


@given(word=st.integers(0, 2**64 - 1), gamma=st.fractions(0, 60))
def test_a_comparison_with_an_exponential_is_that_of_real_numbers(word: int, gamma: Fraction) -> None:
    """Away from the limit floating point decides as well, and must agree."""
    limit = math.exp(-gamma) * 2.0**64
    if abs(word - limit) > limit * 2.0**-40 + 2:
        assert below_exponential(word, gamma) is (word < limit)


@given(gamma=st.fractions(0, 44), more=st.integers(0, 2**64 - 1))
def test_a_comparison_at_the_limit_is_decided_by_further_digits(gamma: Fraction, more: int) -> None:
    """The 64 bits in which the limit itself falls: what comes after them decides, as mpmath has it."""
    import mpmath

    with mpmath.workdps(80):
        limit = mpmath.exp(-mpmath.mpf(gamma.numerator) / gamma.denominator) * mpmath.mpf(2) ** 128
    digits = int(limit)
    word, rest = digits >> 64, digits & (2**64 - 1)
    if gamma == 0 or abs(rest - more) <= 1:
        return
    asked: list[int] = []

    def further() -> int:
        asked.append(more)
        return more

    assert below_exponential(word, gamma, further) is (more < rest)
    assert len(asked) == 1


@given(st.integers(2**40, 2**64 - 1))
def test_a_uniform_s_count_of_successes_is_its_logarithm(word: int) -> None:
    """Away from the limits, where floating point knows as well: floor(-ln u)."""
    exact = -math.log((word + 0.5) / 2**64)
    if abs(exact - round(exact)) > 1e-9:
        assert successes(word) == math.floor(exact)


def test_a_count_of_successes_goes_on_with_the_same_digits_below_the_last_bit() -> None:
    """All 64 bits zero: the next ones decide, and every comparison must see the same."""
    asked: list[int] = []

    def digits() -> int:
        asked.append(len(asked))
        return 1 << 60

    assert successes(0, digits) == math.floor(-math.log(2.0**-68))
    assert asked == [0]


def test_seeding_every_known_generator_changes_nothing() -> None:
    def draw() -> bytes:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the legacy generator is one of those that must not matter
        torch.manual_seed(1)
        return SecureNoise().discrete_gaussian(8, FINE).tobytes()

    assert draw() != draw()


def test_two_rounds_of_noise_are_not_correlated() -> None:
    first, second = (SecureNoise().discrete_gaussian(100_000, FINE) for _ in range(2))
    assert stats.pearsonr(first, second).pvalue > UNLIKELY


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_there_are_as_many_numbers_as_were_asked_for(count: int) -> None:
    assert SecureNoise().discrete_gaussian(count, FINE).shape == (count,)
    assert NoNoise().discrete_gaussian(count, FINE).shape == (count,)


@pytest.mark.parametrize("wrong", [Fraction(0), Fraction(-1), Fraction(STD_MAX + 1)])
def test_a_standard_deviation_that_is_nonsense_is_refused(wrong: Fraction) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        SecureNoise().discrete_gaussian(4, wrong)


def test_no_noise_draws_everybody_and_adds_nothing() -> None:
    assert not NoNoise().discrete_gaussian(4, FINE).any()
    assert NoNoise().coins(4, Fraction(1, 100)).all()


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
