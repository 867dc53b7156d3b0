"""How good a model is on the sponsor's validation set: the utility that values rest on, and the area under the ROC.

Utility is minus the bounded log loss (nats), averaged over a subject's records and then over subjects, so that a person
with many records counts as one; with a survival label it is the sum over the intervals lived through, divided by all
intervals. Committed utilities are integers, ``round(u * 2^40)``: values and payments follow from the integers alone,
and a verifier with the rows compares them with its own floating-point figures within a tolerance.

Every figure is added up in one fixed order; tables of coalitions get there sooner by way of ``loss_products``.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from federation.errors import OperatorError, PeerError
from federation.learning import loss_products
from federation.learning.models import batched_logits
from federation.rules.aggregation import WEIGHTED_MEAN, Coalitions, Rule
from federation.rules.encoding import SubjectBatch
from federation.rules.families import LOGISTIC, Model, widest
from federation.rules.fixedpoint import Floats, Integers, from_fixed
from federation.rules.terms import TABLE_PLAYERS_MAX

UTILITY_BITS: Final = 40

_BLOCK_NUMBERS: Final = 1 << 18
"""Coalition logits worked on at once: 2 MiB of float64, so that blocks stay in the cache."""


def utility(params: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model = LOGISTIC) -> float:
    """Minus the mean over subjects of the mean over records of ``min(log loss, loss_bound)``, in nats (-bound .. 0).

    Args:
        params: float64 [P].
        batch: the validation set, by subject.
        loss_bound: the plan's ``valuation.loss_bound``, in nats.
        model: what the parameters belong to; the plan's.

    Raises:
        OperatorError: the set is empty.
        PeerError: the model does not fit the set's features.
    """
    return float(utilities(params[None, :], batch, loss_bound, model)[0])


def committed_utility(params: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model = LOGISTIC) -> int:
    """:func:`utility` as the integer that is committed: ``round(u * 2^40)``, ties to even."""
    return _integers(utilities(params[None, :], batch, loss_bound, model))[0]


def coalition_utilities(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    batch: SubjectBatch,
    loss_bound: Decimal,
    rule: Rule = WEIGHTED_MEAN,
    model: Model = LOGISTIC,
) -> tuple[int, ...]:
    """The committed utility of every coalition of ``players``; index = bitmask, bit ``i`` = ``players[i]``.

    Each coalition's model is the one that would have been published had only its updates come, on the lattice to the
    last bit. So the last entry of a round's table is the first entry of the next round's.

    Args:
        base: int64 [P].
        updates: site -> int64 [P].
        weights: site -> weight, all sites of the study.
        players: at most 14 sites.
        batch: the validation set, by subject.
        loss_bound: in nats.
        rule: the plan's rule of aggregation; one that is not linear is run anew for every coalition.
        model: what the parameters belong to; the plan's.

    Returns:
        2^N integers, ``round(u * 2^40)``.

    Raises:
        OperatorError: the set is empty.
        PeerError: an update does not fit the model or the study.
    """
    if len(players) > TABLE_PLAYERS_MAX:
        raise PeerError(
            f"{len(players)} players have no table of all coalitions; at most {TABLE_PLAYERS_MAX} different ones do.",
            remedy="Values of more players are sampled.",
        )
    return utilities_of(range(1 << len(players)), base, updates, weights, players, batch, loss_bound, rule, model)


def utilities_of(
    coalitions: Sequence[int],
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    batch: SubjectBatch,
    loss_bound: Decimal,
    rule: Rule = WEIGHTED_MEAN,
    model: Model = LOGISTIC,
) -> tuple[int, ...]:
    """As :func:`coalition_utilities`, of these coalitions (bitmasks), of any number of players; in their order."""
    made = Coalitions(base, updates, weights, players, rule)
    quick = loss_products.serves(batch, loss_bound, model)
    ready = loss_products.LossProducts(batch, loss_bound, model) if quick else None
    block = loss_products.models_at_once(base.size, batch, model) if quick else models_at_once(batch, model)
    result: list[int] = []
    for start in range(0, len(coalitions), block):
        models = from_fixed(made.models(coalitions[start : start + block]))
        if ready is None:
            values = utilities(models, batch, loss_bound, model)
        else:
            values = _settled(ready.utilities(models), models, batch, loss_bound, model)
        result += _integers(values)
    return tuple(result)


def auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    The Mann-Whitney statistic (Hanley and McNeil 1982, Radiology 143:29-36).

    Args:
        scores: float64 [n]; only their order matters.
        labels: float64 [n] of zeros and ones.

    Raises:
        OperatorError: there is not at least one of each label, or a score is not a number.
    """
    bins, positive, bin_count = _by_score(scores, labels)
    return _auc_of_counts(
        np.bincount(bins[positive], minlength=bin_count), np.bincount(bins[~positive], minlength=bin_count)
    )


def bootstrap_auc(scores: Floats, labels: Floats, *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """A 95 % percentile interval for :func:`auc` (Efron and Tibshirani 1993, chapter 13).

    Positives and negatives are drawn separately: no resample is without one of the labels, also in a set with a single
    negative, whose interval is then too narrow to be trusted (say so where it is shown).

    Args:
        scores: float64 [n].
        labels: float64 [n] of zeros and ones.
        seed: of the resampling alone; the same seed gives the same interval.
        resamples: how many.

    Returns:
        (low, high), each in [0, 1].

    Raises:
        OperatorError: as :func:`auc`.
    """
    bins, positive, bin_count = _by_score(scores, labels)
    positives, negatives = bins[positive], bins[~positive]
    rng = np.random.default_rng(seed)
    figures = np.empty(resamples, dtype=np.float64)
    for index in range(resamples):
        drawn_positives = positives[rng.integers(0, positives.size, positives.size)]
        drawn_negatives = negatives[rng.integers(0, negatives.size, negatives.size)]
        figures[index] = _auc_of_counts(
            np.bincount(drawn_positives, minlength=bin_count), np.bincount(drawn_negatives, minlength=bin_count)
        )
    low, high = np.quantile(figures, (0.025, 0.975))
    return float(low), float(high)


def utilities(models: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model = LOGISTIC) -> Floats:
    """:func:`utility` of many models, float64 [C, P] -> [C]; a figure does not depend on what else is in the call."""
    means: Floats = subject_utilities(models, batch, loss_bound, model).sum(axis=1) / len(batch.subjects)
    return means


def subject_utilities(models: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model = LOGISTIC) -> Floats:
    """What :func:`utility` is the mean of: each subject's own, float64 [C, P] -> [C, S], in nats.

    Raises:
        OperatorError, PeerError: as :func:`utility`.
    """
    subjects, records = batch.mask.shape
    if subjects == 0:
        raise OperatorError(
            "The validation set has no subjects.", remedy="Give the sponsor's file with at least one record."
        )
    x = batch.x.reshape(subjects * records, -1)
    signs = 1.0 - 2.0 * batch.y.reshape(-1)
    # log(1 + exp(-z)) for a positive label, log(1 + exp(z)) for a negative one, without overflow.
    losses = np.minimum(np.logaddexp(0.0, signs * batched_logits(models, x, model)), float(loss_bound))
    by_subject = (losses.reshape(-1, subjects, records) * batch.mask).sum(axis=2) / batch.divisors
    return -np.ascontiguousarray(by_subject)


def models_at_once(batch: SubjectBatch, model: Model) -> int:
    """How many models to evaluate in one call, at least 1."""
    return max(1, _BLOCK_NUMBERS // (max(1, batch.mask.size) * widest(model)))


def _settled(
    found: loss_products.Estimated, models: Floats, batch: SubjectBatch, loss_bound: Decimal, model: Model
) -> Floats:
    """Estimated utilities, worked out in the fixed order where it may decide which integer is the nearest."""
    values = found.values.copy()
    scaled = values * (1 << UTILITY_BITS)
    from_middle = 0.5 - np.abs(scaled - np.rint(scaled))
    # Written so that a figure that is no number is in doubt as well.
    doubtful = ~(from_middle > found.doubt * (1 << UTILITY_BITS))
    if doubtful.any():
        values[doubtful] = utilities(models[doubtful], batch, loss_bound, model)
    return values


def _integers(values: Floats) -> list[int]:
    # A multiple by 2^40 is exact, and rint takes ties to even: the only rounding is the committed one.
    return [int(value) for value in np.rint(values * (1 << UTILITY_BITS)).tolist()]


def _by_score(scores: Floats, labels: Floats) -> tuple[Integers, "np.ndarray[tuple[int], np.dtype[np.bool_]]", int]:
    """Each score's rank among the different scores, which are positive, and how many different scores there are."""
    scores, labels = np.asarray(scores, dtype=np.float64).reshape(-1), np.asarray(labels).reshape(-1)
    positive = labels == 1
    if scores.size != labels.size or not 0 < int(positive.sum()) < labels.size or np.any(np.isnan(scores)):
        raise OperatorError(
            "The area under the curve needs a score for every label, and both labels.",
            remedy="Use a larger evaluation set, with at least one positive and one negative record.",
        )
    different, bins = np.unique(scores, return_inverse=True)
    return bins.astype(np.int64), positive, different.size


def _auc_of_counts(positives: Integers, negatives: Integers) -> float:
    """Counts by rising score -> AUC; sums in integers, one division."""
    below = np.cumsum(negatives) - negatives
    doubled = int((positives * (2 * below + negatives)).sum())
    return doubled / (2 * int(positives.sum()) * int(negatives.sum()))
