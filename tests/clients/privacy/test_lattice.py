"""Clipped sums in whole numbers: the bound holds in exact arithmetic, and the order of subjects does not matter."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.privacy.gradients import Engine, per_subject_gradients
from clients.privacy.lattice import (
    AT_ONCE,
    SUBJECTS_MAX,
    clip_steps,
    from_steps,
    noise_std,
    sensitivity,
    step_of,
)
from clients.privacy.lattice import clipped_sum as clipped_sum_of_tensors
from federation.learning.torch_models import build_module
from federation.rules.admission import parameter_count
from federation.rules.fixedpoint import Floats, Integers
from federation.rules.study import StudyPlan

clips = st.decimals("1e-9", "1e6", places=9).filter(lambda clip: clip > 0)
vectors = st.builds(
    lambda seed, size, exponent: np.random.default_rng(seed).normal(0, 10.0**exponent, (1, size)),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(-300, 150),
)


def clipped_sum(gradients: Floats, clip: Decimal) -> Integers:
    return clipped_sum_of_tensors(torch.from_numpy(np.ascontiguousarray(gradients)), clip)


@given(gradient=vectors, clip=clips)
def test_one_subject_s_vector_is_no_longer_than_the_clip_in_exact_arithmetic(gradient: Floats, clip: Decimal) -> None:
    squares = sum(int(part) ** 2 for part in clipped_sum(gradient, clip))
    assert squares <= clip_steps(clip) ** 2
    assert squares * Fraction(step_of(clip)) ** 2 <= Fraction(clip) ** 2


@given(gradient=vectors, clip=clips)
def test_cutting_changes_a_vector_by_less_than_its_parts_steps(gradient: Floats, clip: Decimal) -> None:
    norm = float(np.linalg.norm(gradient))
    wanted = gradient[0] * min(1.0, float(clip) / norm) if norm else gradient[0]
    found = from_steps(clipped_sum(gradient, clip), clip)
    assert float(np.abs(found - wanted).max()) <= step_of(clip) + float(clip) * 2.0**-29


@given(seed=st.integers(0, 1000), count=st.integers(0, 30), cut=st.integers(0, 30))
def test_a_sum_is_the_same_in_any_order_and_in_any_parts(seed: int, count: int, cut: int) -> None:
    generator = np.random.default_rng(seed)
    gradients = generator.normal(0, 1, (count, 7)) * 10.0 ** generator.integers(-8, 8, (count, 1))
    whole = clipped_sum(gradients, Decimal("0.3"))
    assert np.array_equal(whole, clipped_sum(generator.permutation(gradients), Decimal("0.3")))
    parts = clipped_sum(gradients[:cut], Decimal("0.3")) + clipped_sum(gradients[cut:], Decimal("0.3"))
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e200])
def test_a_vector_that_is_not_finite_counts_as_nothing(poison: float) -> None:
    gradients = np.array([[1.0, 2.0], [poison, 0.5]])
    assert np.array_equal(clipped_sum(gradients, Decimal(1)), clipped_sum(gradients[:1], Decimal(1)))


def test_as_many_subjects_as_fit_add_up_exactly_and_no_more_are_taken() -> None:
    """The largest numbers there are, all of one sign: float64 holds every partial sum."""
    clip = Decimal(1) - Decimal(2) ** -41
    one = clipped_sum(np.ones((1, 1)), clip)
    assert 2**39 < int(one[0]) <= 2**40
    assert clipped_sum(np.ones((AT_ONCE, 1)), clip).tolist() == [AT_ONCE * int(one[0])]
    with pytest.raises(ValueError, match="at most 4096 subjects"):
        clipped_sum(np.ones((AT_ONCE + 1, 1)), clip)


@given(clip=clips)
def test_the_clip_has_between_two_to_the_39_and_two_to_the_40_steps(clip: Decimal) -> None:
    assert 2**39 - 1 <= clip_steps(clip) <= 2**40
    assert math.frexp(step_of(clip))[0] == 0.5


@pytest.mark.parametrize(("parameters", "most"), [(1, 1e-5), (31, 5e-5), (100_000, 2.5e-3), (1 << 20, 4e-3)])
def test_what_rounding_adds_to_the_sensitivity_is_little(parameters: int, most: float) -> None:
    clip = Decimal("0.51")  # just above a power of two: the fewest steps
    extra = sensitivity(clip, parameters) / clip_steps(clip) - 1
    assert 0 < extra <= most
    assert noise_std(clip, parameters, Decimal("2.5")) == Fraction(5, 2) * sensitivity(clip, parameters)


@pytest.mark.parametrize("engine", ["opacus", "torch-func"])
@pytest.mark.parametrize("hidden", [None, [16, 8]])
def test_the_arithmetic_of_a_batch_moves_others_by_less_than_what_is_counted(
    make_plan: Callable[..., StudyPlan], engine: Engine, hidden: list[int] | None
) -> None:
    """Sums with and without one more subject differ by that subject's own vector, and by at most two steps for each
    other subject and coordinate."""
    changes = {"model": {"family": "mlp", "hidden": hidden}} if hidden else {}
    plan = make_plan(**changes)
    generator = np.random.default_rng(3)
    clip, contract = plan.privacy.clip, plan.schema_contract
    gradients = per_subject_gradients(plan, build_module(plan), engine)
    flat = torch.from_numpy(generator.normal(0, 1, parameter_count(plan)))
    for count in (1, 2, 7, 33, 150):
        shape = (count + 1, contract.records_per_subject_max, contract.inputs)
        x = torch.from_numpy(generator.normal(0, 3, shape))
        y = torch.ones(x.shape[:2], dtype=torch.float64)
        parts = (x, y, torch.ones_like(y))
        everybody, others = (gradients(flat, *(part[: count + more] for part in parts)).numpy() for more in (1, 0))
        own = clipped_sum(everybody[count:], clip)
        moved = clipped_sum(everybody, clip) - clipped_sum(others, clip) - own
        assert int(np.abs(moved).max()) <= 2 * count
        assert count < SUBJECTS_MAX
