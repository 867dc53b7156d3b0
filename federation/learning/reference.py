"""The sponsor's reference update of a round: the steps that a node takes, on the root set, without noise.

A trust-anchored rule (Cao et al. 2021, FLTrust, algorithm 2) measures every site's update by it. It follows from the
plan, the round's base model and the root set's rows alone, so that whoever has the rows finds a false one.
"""

from typing import Final

import numpy as np

from federation.learning.models import logits
from federation.rules.aggregation import clip_to_norm
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats, Integers, from_fixed, to_fixed
from federation.rules.study import StudyPlan

LATTICE_STEPS: Final = 1 << 8
"""How far, in each parameter, a verifier's own reference may be from the committed one: 2^-16 in the model's units.

Other machines differ in the last bits of floating point; a direction that far off is the same direction.
"""


def reference_update(plan: StudyPlan, base: Integers, root: SubjectBatch) -> Integers:
    """Full-batch steps of the plan's training on the root set, from the base model, within the norm bound.

    As at a node, each subject's gradient is clipped; here to its mean over all subjects and without noise.

    Args:
        plan: of a logistic model.
        base: int64 [P], the round's base model.
        root: the root set, by subject.

    Returns:
        int64 [P].
    """
    begin = from_fixed(base)
    current, rate, l2 = begin.copy(), float(plan.training.learning_rate), float(plan.training.l2)
    for _ in range(plan.training.local_steps):
        current = current - rate * (_mean_gradient(current, root, float(plan.privacy.clip)) + l2 * current)
    return to_fixed(clip_to_norm(current - begin, plan.aggregation.norm_bound))


def same_reference(committed: Integers, recomputed: Integers) -> bool:
    """Whether two references are within :data:`LATTICE_STEPS` of each other in every parameter."""
    return bool(np.all(np.abs(committed - recomputed) <= LATTICE_STEPS))


def _mean_gradient(params: Floats, root: SubjectBatch, clip: float) -> Floats:
    """The mean over subjects of the clipped gradient of each one's mean log loss, float64 [P]."""
    chances = 1 / (1 + np.exp(-np.clip(logits(params, root.x), -500, 500)))
    errors = (chances - root.y) * root.mask / root.divisors[:, None]
    ones = np.ones((*root.mask.shape, 1))
    gradients = (errors[:, :, None] * np.concatenate((root.x, ones), axis=2)).sum(axis=1)
    lengths = np.linalg.norm(gradients, axis=1)
    mean: Floats = (gradients * np.minimum(1.0, clip / np.maximum(lengths, 1e-300))[:, None]).mean(axis=0)
    return mean
