"""The one door: what is learnt from data leaves a site through :func:`release`, or, once, :func:`release_scores`.

What goes in is already differentially private; bounding the norm and rounding to the lattice are post-processing. What
comes out holds exactly the plan's trainable parameters, or one score for each institution, and nothing else: no
buffers, no metrics, no counts.
"""

from fractions import Fraction

import numpy as np

from federation.errors import PrivacyError
from federation.learning.models import parameter_count
from federation.rules.aggregation import clip_to_norm, norm_within
from federation.rules.audit import UTILITY_UNIT
from federation.rules.documents import SCORE_MAX
from federation.rules.fixedpoint import Floats, Integers, to_fixed
from federation.rules.study import StudyPlan
from federation.rules.terms import Panel


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


def release_scores(steps: Integers, plan: StudyPlan, *, players: int, nominal_cohort: int) -> tuple[int, ...]:
    """A panel member's scores as they may leave: means over the nominal number of held-out people.

    Rounding and bounding here is post-processing. ``nominal_cohort`` is that of the people who are trained on; a part
    of ``b`` bits is held out, and has one person for ``2^b - 1`` of those.

    Args:
        steps: int64 [players], from ``clients.privacy.scoring.noisy_scores``.
        plan: the study's plan, with a panel.
        players: how many institutions the study has.
        nominal_cohort: of the institution's agreement.

    Returns:
        Integers in 2^-40 nats, one for each player.

    Raises:
        PrivacyError: another length or type than one number for each player, or a plan without a panel.
    """
    from clients.privacy.lattice import step_of  # torch: only here, where it is needed

    panel = plan.valuation.panel
    if panel is None or steps.dtype != np.int64 or steps.shape != (players,):
        raise _refused(f"scores have shape {steps.shape} of {steps.dtype} where the study has {players} institutions")
    people = held_out_cohort(panel, nominal_cohort)
    unit = Fraction(step_of(panel.clip)) * UTILITY_UNIT / people
    return tuple(max(-SCORE_MAX, min(SCORE_MAX, round(int(each) * unit))) for each in steps)


def held_out_cohort(panel: Panel, nominal_cohort: int) -> int:
    """The public number that held-out people count as, at least 1."""
    return max(1, nominal_cohort // ((1 << len(panel.held_out)) - 1))


def _refused(why: str) -> PrivacyError:
    return PrivacyError(
        f"The update may not leave this site: {why}.",
        remedy="Nothing was sent. Check learning_rate and l2 of the plan; if they are sound, please report this.",
    )
