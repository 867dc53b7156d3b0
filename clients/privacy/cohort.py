"""Whether enough people may be used: judged on a noisy count, because an exact one would name the last to leave.

"Below the minimum" is visible outside (the node takes no part), so a floor on the exact count could be flipped by one
person. The count gets discrete Gaussian noise of the plan's ``cohort_noise_multiplier`` (sensitivity 1: a subject
counts once); its charge is part of every round's DP event.
"""

from dataclasses import dataclass
from fractions import Fraction

from clients.privacy.noise import NoiseSource
from federation.rules.study import StudyPlan


@dataclass(frozen=True, slots=True)
class Cohort:
    """A noisy count of the eligible subjects, and whether it reaches the plan's minimum."""

    noisy_count: int
    large_enough: bool


def judge_cohort(eligible: int, plan: StudyPlan, noise: NoiseSource) -> Cohort:
    """Count the eligible subjects with noise; the caller has started the round's charge before.

    Args:
        eligible: the exact number of subjects that may be used now; it does not appear in the result.
        plan: the study's plan.
        noise: the node's noise source.
    """
    std = Fraction(plan.privacy.cohort_noise_multiplier)
    noisy_count = eligible + int(noise.discrete_gaussian(1, std)[0])
    return Cohort(noisy_count=noisy_count, large_enough=noisy_count >= plan.cohort.minimum)
