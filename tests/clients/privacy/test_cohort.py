"""The floor on the cohort is judged with noise."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from clients.privacy.cohort import judge_cohort
from clients.privacy.noise import NoNoise, SecureNoise
from federation.rules.study import StudyPlan


@pytest.mark.parametrize(("eligible", "enough"), [(0, False), (49, False), (50, True), (500, True)])
def test_without_noise_the_minimum_decides(make_plan: Callable[..., StudyPlan], eligible: int, enough: bool) -> None:
    plan = make_plan(cohort={"minimum": 50})
    assert judge_cohort(eligible, plan, NoNoise()).large_enough is enough


def test_the_count_carries_the_plan_s_noise(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(privacy={"cohort_noise_multiplier": "7"})
    counts = np.array([judge_cohort(100, plan, SecureNoise()).noisy_count for _ in range(2000)])
    between = np.random.default_rng(1).uniform(-0.5, 0.5, len(counts))  # whole numbers, spread over their steps
    assert stats.kstest((counts - 100 + between) / 7, "norm").pvalue > 1e-6
