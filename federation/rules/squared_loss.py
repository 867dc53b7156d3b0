"""Values under the squared loss of a linear score: closed for any number of sites, with the noise's bias known exactly.

The score of a record is ``x . theta`` itself (an identity link, so with a label of 0 or 1 the Brier score of a linear
probability model), the utility minus the mean squared error, **unbounded**. Then a coalition's utility is a quadratic
function of who is in it, and

- Shapley values need the N x N Gram matrix of what each site moves on the records, and no table of 2^N;
- independent noise of mean zero in the updates lowers the expected utility by a sum over the members, so that every
  value here is too low by a number that is known before the noise is drawn.

No plan names this utility: a study's chances go through the logistic function and its losses are bounded, and with
either of them no correction is exact (docs/reference/valuation.md says why).
"""

from collections.abc import Sequence

import numpy as np

from federation.errors import PeerError
from federation.rules.fixedpoint import Floats


def squared_loss_values(x: Floats, y: Floats, base: Floats, steps: Floats) -> Floats:
    """The Shapley value of each site, ``-(2 r . m_i + m_i . sum_j m_j) / n``, with r = X base - y and m_i = X step_i.

    In a quadratic game half of each pair's interaction belongs to either of the two (Shapley 1953, by linearity and
    symmetry).

    Args:
        x: float64 [n, P]; a column of ones is the bias.
        y: float64 [n].
        base: float64 [P], the model before the round.
        steps: float64 [N, P], by what each site moves the model: its update times its part of the weights.

    Returns:
        float64 [N]; they add up to the change of minus the mean squared error.

    Raises:
        PeerError: shapes that do not fit.
    """
    _check(x, y, base, steps)
    moved = steps @ x.T
    values: Floats = -(2 * moved @ (x @ base - y) + (moved @ moved.T).sum(axis=1)) / len(y)
    return values


def noise_bias(x: Floats, variances: Sequence[float]) -> Floats:
    """By how much independent noise in the updates lowers each site's expected value: ``-v_i mean |x|^2``.

    ``E |x . (theta + e) - y|^2 = |x . theta - y|^2 + x . Cov(e) x``, and covariances of independent sites add up: the
    bias is an additive game, in which every semivalue (Shapley, Banzhaf, Beta, leave-one-out) gives a site its own
    term. Any noise of mean zero and this variance in each coordinate, Gaussian or on a lattice.

    Args:
        x: float64 [n, P], as for :func:`squared_loss_values`.
        variances: of each coordinate of each site's step: its noise's variance times its part of the weights squared.

    Returns:
        float64 [N], not positive; to be subtracted from values for ones without bias.
    """
    bias: Floats = -np.asarray(variances, dtype=np.float64) * float((x * x).sum(axis=1).mean())
    return bias


def _check(x: Floats, y: Floats, base: Floats, steps: Floats) -> None:
    records, parameters = x.shape
    if not records or y.shape != (records,) or base.shape != (parameters,) or steps.shape[1:] != (parameters,):
        raise PeerError(
            f"Records {x.shape}, labels {y.shape}, a model {base.shape} and steps {steps.shape} do not fit together.",
            remedy="They must belong to the same study plan.",
        )
