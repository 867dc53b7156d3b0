"""The one door: whatever is learnt from data leaves a site through :func:`release`, and in no other form.

What goes in is already differentially private; bounding the norm and rounding to the lattice are post-processing. What
comes out holds exactly the plan's trainable parameters and nothing else: no buffers, no metrics, no counts.
"""

import numpy as np

from federation.errors import PrivacyError
from federation.learning.models import parameter_count
from federation.rules.aggregation import clip_to_norm, norm_within
from federation.rules.fixedpoint import Floats, Integers, to_fixed
from federation.rules.study import StudyPlan


def release(delta: Floats, plan: StudyPlan) -> Integers:
    """The update as it may leave: within the plan's norm bound, on the lattice 2^-24.

    Args:
        delta: float64 [P], from ``clients.privacy.dp_training.train``.
        plan: the study's plan.

    Returns:
        int64 [P], P the plan's parameter count.

    Raises:
        PrivacyError: another length or type than the plan's parameters, a value that is not finite.
    """
    expected = (parameter_count(plan),)
    if delta.dtype != np.float64 or delta.shape != expected:
        raise _refused(f"it has shape {delta.shape} of {delta.dtype} where the plan has {expected[0]} parameters")
    if not np.all(np.isfinite(delta)):
        raise _refused("a value is not finite")
    update = to_fixed(clip_to_norm(delta, plan.aggregation.norm_bound))
    if not norm_within(update, plan.aggregation.norm_bound):
        raise _refused("it is longer than the plan's bound after clipping")
    return update


def _refused(why: str) -> PrivacyError:
    return PrivacyError(
        f"The update may not leave this site: {why}.",
        remedy="Nothing was sent. Check learning_rate and l2 of the plan; if they are sound, please report this.",
    )
