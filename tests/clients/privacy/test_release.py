"""The one door: bounded, on the lattice, exactly the plan's parameters."""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from clients.privacy.release import release
from federation.errors import PrivacyError
from federation.rules.aggregation import norm_within
from federation.rules.fixedpoint import from_fixed
from federation.rules.study import StudyPlan

PARAMETERS = 6


def test_a_short_update_is_only_rounded(plan: StudyPlan) -> None:
    delta = np.array([0.5, -0.25, 1 / 3, 0.0, 2.0, -1.0])
    update = release(delta, plan)
    assert update.dtype == np.int64
    np.testing.assert_allclose(from_fixed(update), delta, rtol=0, atol=2.0**-25)


@given(
    delta=arrays(np.float64, PARAMETERS, elements=st.floats(-1e12, 1e12)),
    bound=st.sampled_from(["0.5", "10", "1000"]),
)
def test_whatever_leaves_is_within_the_bound(
    make_plan: Callable[..., StudyPlan], delta: NDArray[np.float64], bound: str
) -> None:
    plan = make_plan(aggregation={"norm_bound": bound})
    update = release(delta, plan)
    assert norm_within(update, Decimal(bound))
    direction = from_fixed(update)
    if np.linalg.norm(delta) > 1:
        assert direction @ delta > 0


@pytest.mark.parametrize("length", [0, PARAMETERS - 1, PARAMETERS + 1])
def test_another_number_of_parameters_stays_inside(plan: StudyPlan, length: int) -> None:
    with pytest.raises(PrivacyError, match="may not leave"):
        release(np.zeros(length), plan)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_inside(plan: StudyPlan, value: float) -> None:
    delta = np.zeros(PARAMETERS)
    delta[2] = value
    with pytest.raises(PrivacyError, match="not finite"):
        release(delta, plan)


def test_another_type_or_shape_stays_inside(plan: StudyPlan, make_plan: Callable[..., StudyPlan]) -> None:
    for wrong in (np.zeros(PARAMETERS, dtype=np.float32), np.zeros((1, PARAMETERS))):
        with pytest.raises(PrivacyError, match="may not leave"):
            release(wrong, plan)
    assert release(np.zeros(PARAMETERS), make_plan(aggregation={"norm_bound": "0.00000001"})).sum() == 0
