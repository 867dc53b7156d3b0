"""Clipped gradients as whole numbers, so that a sum and its noise are exact and the last bits of floats betray nobody.

The proof of the Gaussian mechanism is about real numbers; sums of floats depend on their order and round, and a person
can move them by more than the clip (Mironov 2012; Casacuberta et al. 2022, "Widespread underestimation of sensitivity
in differentially private libraries"). Here each subject's clipped gradient is cut, toward zero, to whole steps of a
power of two: integers add up exactly, and discrete Gaussian noise of whole steps joins them. At the integer orders that
our accountant uses, the discrete Gaussian has the Renyi divergence of the continuous one, subsampled or not, as sums
over all integers do not change under whole shifts.

What rounding is left is in the gradients themselves: arithmetic on a batch may depend, in its last bits, on who else is
in it. That is counted in the sensitivity, as :func:`sensitivity` says.
"""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
import torch

from federation.rules.fixedpoint import Floats, Integers

STEPS_BITS: Final = 40
"""The clip has between 2^39 and 2^40 steps."""

SUBJECTS_MAX: Final = 1 << 20
"""The most subjects in one sum: 2^20 times 2^40 steps, and the noise, fit into 64 bits."""

AT_ONCE: Final = 1 << 12
"""The most subjects that are added up in floating point, where 2^12 times 2^40 steps are still whole numbers."""

_SPREAD: Final = 2
"""How many steps a subject's clipped gradient may change, in each coordinate, with the others in its batch."""


def step_of(clip: Decimal) -> float:
    """The lattice's step for a clip, a power of two."""
    return math.ldexp(1.0, math.frexp(float(clip))[1] - STEPS_BITS)


def clip_steps(clip: Decimal) -> int:
    """The clip in whole steps, rounded down."""
    return int(Fraction(clip) / Fraction(step_of(clip)))


def sensitivity(clip: Decimal, parameters: int) -> int:
    """How far one subject can move the sum of :func:`clipped_sum`, in steps, L2: the clip, and the rounding of others.

    The subject's own vector has at most the clip. Each of the others, at most :data:`SUBJECTS_MAX`, may change by two
    steps in each coordinate: one for rounding to the lattice, one for the arithmetic of a batch (2^-40 of the clip,
    where float64 keeps 2^-53). For 31 parameters that adds 2 in 100,000; for 2^20, 4 in 1,000.

    Args:
        clip: of the plan, L2.
        parameters: P.
    """
    return clip_steps(clip) + _SPREAD * SUBJECTS_MAX * (math.isqrt(parameters - 1) + 1)


def noise_std(clip: Decimal, parameters: int, noise_multiplier: Decimal) -> Fraction:
    """The standard deviation of the noise on each coordinate, in steps."""
    return Fraction(noise_multiplier) * sensitivity(clip, parameters)


def clipped_sum(gradients: torch.Tensor, clip: Decimal) -> Integers:
    """The sum of the subjects' gradients, each of them no longer than the clip, in steps.

    A gradient whose squared norm is not finite counts as zero. A number is cut toward zero, which makes no vector
    longer; the norm is taken 2^-30 too long, which is more than its own rounding. Up to :data:`AT_ONCE` numbers of at
    most 2^40 steps add up exactly in float64, in any order.

    Args:
        gradients: float64 [S, P], S at most :data:`AT_ONCE`.
        clip: of the plan, L2.

    Returns:
        int64 [P].

    Raises:
        ValueError: more subjects than that (a mistake of the caller).
    """
    if len(gradients) > AT_ONCE:
        raise ValueError(f"at most {AT_ONCE} subjects add up exactly at once, not {len(gradients)}")
    step, limit = step_of(clip), float(clip_steps(clip)) * (1 - 2.0**-30)
    norms = torch.linalg.vector_norm(gradients, dim=1) / step
    finite = torch.isfinite(norms)
    if not finite.all():
        gradients, norms = torch.where(finite[:, None], gradients, 0.0), torch.where(finite, norms, 0.0)
    factors = (limit / norms.clamp(min=1.0)).clamp(max=1.0) / step
    total: Integers = (gradients * factors[:, None]).trunc_().sum(dim=0).to(torch.int64).numpy()
    return total


def from_steps(steps: Integers, clip: Decimal) -> Floats:
    """Steps as real numbers: float64, same shape. Of what is noised already; rounding it is post-processing."""
    return steps.astype(np.float64) * step_of(clip)
