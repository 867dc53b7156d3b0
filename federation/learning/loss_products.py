"""Utilities of many models at once, by matrix products and one logarithm for many records.

``evaluation.utilities`` adds everything up in one fixed order, so that a figure never depends on what else is in the
call. That order is slow. A table of coalitions is worked out here first; where a figure comes so near to the middle
between two committed integers that the last bits of floating point decide, ``evaluation`` works it out again in the
fixed order. Tables are then those of the fixed order, and laws that need equal integers for equal models (a zero update
is worth nothing, tables of following rounds join) hold as they did.

Two things save the time. A matrix product takes the inputs of all records and many models together. And losses need no
logarithm each: ``min(log(1 + e^t), B) = log(min(1 + e^t, e^B))``, and a sum of logarithms is the logarithm of a
product, of as many factors as surely fit below 2^1023.

Logits of coalitions are not added up from the sites' own: each coalition's model is rounded to the lattice, and what
rounding takes (2^-25 in every parameter) can come to more than verifiers allow (2^-28 nats).
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from federation.rules.encoding import SubjectBatch
from federation.rules.families import LogisticModel, MlpModel, Model
from federation.rules.fixedpoint import Floats

BOUND_MAX: Final = Decimal(64)
"""The largest loss bound, in nats, that is worked on here: at least eleven factors fit in one product."""

_PRODUCT_NATS: Final = 704.0
_BLOCK_NUMBERS: Final = 1 << 17
_MODEL_NUMBERS: Final = 1 << 19
_SLACK: Final = 4 * float(np.finfo(np.float64).eps)
_LAYERED_DOUBT: Final = 2.0**-48


@dataclass(frozen=True, slots=True)
class Estimated:
    """Utilities of some models, and how far from the fixed order's they may be.

    Attributes:
        values: float64 [C], nats.
        doubt: nats. Measured differences are a hundredth of it; it is a margin, not a proof.
    """

    values: Floats
    doubt: float


def serves(batch: SubjectBatch, loss_bound: Decimal, model: Model) -> bool:
    """Whether this module can: a logistic model or a perceptron, a bound up to 64, a record for every subject."""
    return (
        isinstance(model, LogisticModel | MlpModel) and loss_bound <= BOUND_MAX and bool(np.all(batch.mask.any(axis=1)))
    )


def models_at_once(parameters: int, batch: SubjectBatch, model: Model) -> int:
    """How many models to give :meth:`LossProducts.utilities` in one call, at least 1."""
    at_once = max(1, _MODEL_NUMBERS // parameters)
    return min(at_once, max(1, _BLOCK_NUMBERS // batch.mask.size)) if isinstance(model, LogisticModel) else at_once


class LossProducts:
    """A validation set made ready: its records by their subjects' divisors, each with the sign of its label.

    Args:
        batch: by subject; :func:`serves` is true of it.
        loss_bound: in nats.
        model: what the parameters belong to; the plan's.
    """

    def __init__(self, batch: SubjectBatch, loss_bound: Decimal, model: Model) -> None:
        subject, record = np.nonzero(batch.mask)
        divisors = batch.divisors[subject]
        order = np.argsort(divisors, kind="stable")
        self._rows = np.ascontiguousarray(batch.x[subject, record][order])
        self._signs = 1.0 - 2.0 * batch.y[subject, record][order]
        self._subjects = len(batch.subjects)
        self._ceiling = math.exp(float(loss_bound))
        factors = max(1, int(_PRODUCT_NATS / float(loss_bound)))
        self._chunks: list[tuple[slice, float]] = []
        found, starts = np.unique(divisors[order], return_index=True)
        for divisor, start, stop in zip(found, starts, [*starts[1:], len(order)], strict=True):
            for at in range(start, stop, factors):
                self._chunks.append((slice(at, min(at + factors, stop)), float(divisor)))
        self._model = model
        self._signed = np.column_stack((self._rows, np.ones(len(order)))) * self._signs[:, None]
        self._typical = np.abs(self._signed).mean(axis=0)

    def utilities(self, models: Floats) -> Estimated:
        """Minus the mean bounded log loss: float64 [C, P] -> [C]."""
        if isinstance(self._model, MlpModel):
            logits = np.concatenate([self._layered(each, self._model) for each in models], axis=1)
            size = float(np.abs(logits).mean(axis=0).max())
            logits *= self._signs[:, None]
            return Estimated(self._means(logits), _LAYERED_DOUBT * max(1.0, size))
        size = float(self._typical @ np.abs(models).max(axis=0))
        return Estimated(self._means(self._signed @ models.T), _SLACK * (1 + size))

    def _means(self, exponents: Floats) -> Floats:
        """float64 [n, C], each record's logit against its label -> minus the mean losses, [C]. Overwrites its input."""
        with np.errstate(over="ignore"):
            odds = np.exp(exponents, out=exponents)
        odds += 1.0
        np.minimum(odds, self._ceiling, out=odds)
        total = np.zeros(odds.shape[1])
        for rows, divisor in self._chunks:
            total += np.log(np.multiply.reduce(odds[rows], axis=0)) / divisor
        result: Floats = -total / self._subjects
        return result

    def _layered(self, parameters: Floats, model: MlpModel) -> Floats:
        """A perceptron's logits: float64 [P] -> [n, 1]."""
        signals, start = self._rows, 0
        for units in model.hidden:
            inputs = signals.shape[1]
            weights = parameters[start : start + units * inputs].reshape(units, inputs)
            start += units * (inputs + 1)
            signals = signals @ weights.T
            signals += parameters[start - units : start]
            if model.activation == "tanh":
                np.tanh(signals, out=signals)
            else:
                np.maximum(signals, 0.0, out=signals)
        logits: Floats = signals @ parameters[start:-1, None] + parameters[-1]
        return logits
