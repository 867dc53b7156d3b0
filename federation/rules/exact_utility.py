"""The utility of a logistic model in exact arithmetic: what a stake may hang on, as floating point may differ.

Parameters and features are binary fractions, so that a logit is a fraction without rounding. The
log loss ln(1 + e^z) of it is computed by the decimal module, whose ``exp`` and ``ln`` are rounded correctly
everywhere, with 50 digits. So whoever computes it gets the same integer, which floating point does not promise. It is
slow (some 10^4 records a second) and meant for one entry of a table that is in dispute.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Final

from federation.errors import PeerError
from federation.rules.encoding import SubjectBatch
from federation.rules.families import LOGISTIC, LogisticModel, Model
from federation.rules.fixedpoint import Floats

_CONTEXT: Final = Context(prec=50, Emin=-999_999, Emax=999_999)
_UNIT: Final = 2**40
_STEEP: Final = 200
"""Beyond it ln(1 + e^z) is z, or 0, to more than 80 digits."""


def exact_utility(params: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model = LOGISTIC) -> int:
    """``round(u * 2^40)`` of ``learning.evaluation.utility``, half to even.

    Args:
        params: float64 [F + 1], one weight per feature, then the bias; taken as the fractions that they are.
        batch: the validation set, by subject.
        loss_bound: in nats.
        model: what the parameters belong to.

    Raises:
        PeerError: the model is of another family, does not fit the rows, or the set is empty.
    """
    if not isinstance(model, LogisticModel) or len(params) != batch.x.shape[2] + 1 or not batch.subjects:
        raise PeerError(
            "This utility cannot be computed exactly.",
            remedy="Only logistic models on a set with subjects have an exact utility.",
        )
    weights = [Fraction(float(number)) for number in params]
    total = Decimal(0)
    for x, y, mask, divisor in zip(batch.x, batch.y, batch.mask, batch.divisors, strict=True):
        losses = Decimal(0)
        for record in range(len(mask)):
            if mask[record]:
                logit = _logit(weights, x[record])
                losses = _CONTEXT.add(losses, _loss(logit if y[record] == 0 else -logit, loss_bound))
        total = _CONTEXT.add(total, _CONTEXT.divide(losses, Decimal(int(divisor))))
    mean = _CONTEXT.divide(total, Decimal(len(batch.subjects)))
    return -int(_CONTEXT.multiply(mean, Decimal(_UNIT)).to_integral_value(rounding=ROUND_HALF_EVEN))


def _logit(weights: list[Fraction], features: Floats) -> Fraction:
    pairs = zip(weights[:-1], features, strict=True)
    return weights[-1] + sum((weight * Fraction(float(value)) for weight, value in pairs if value), Fraction(0))


def _loss(z: Fraction, bound: Decimal) -> Decimal:
    """``min(ln(1 + e^z), bound)``."""
    if z > _STEEP:
        return bound
    if z < -_STEEP:
        return Decimal(0)
    exact = _CONTEXT.divide(Decimal(z.numerator), Decimal(z.denominator))
    return min(_CONTEXT.ln(_CONTEXT.add(Decimal(1), _CONTEXT.exp(exact))), bound)
