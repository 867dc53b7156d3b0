"""How sure a value is: the standard error that a plan with ``pay = "lower-bound"`` takes off.

Two things could have come out otherwise, and neither is a site's merit (and a third where a round's table is a sample:
which coalitions were drawn; the variance of its estimate is added):

- **who is in the validation set**: a value is a mean over its subjects of what each gained, summed over the rounds. A
  bootstrap of a mean needs no drawing: its standard error is known (Efron and Tibshirani 1993, section 5.3). Subjects
  with and without a positive record are strata (Cochran 1977, section 5.6), as the set's rule fixes how many there are;
- **the noise of the site's own updates**: what random updates as long as the site's, in independent directions, would
  have gained. A step of length d in a random direction changes the utility by d times the slope in that direction; mean
  squares add up over the rounds. The length is that of the update as it was admitted, so that nothing rests on a site's
  word for its noise, and whoever sends noise only has exactly this error.

Directions are hashed from all admitted updates of the study, each of which was committed to before another was shown:
nobody chooses them. Other machines get the same figures up to the last bits of floating point: verifiers allow for the
tolerance of utilities.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from types import MappingProxyType
from typing import Final

import numpy as np

from federation.learning.evaluation import UTILITY_BITS, models_at_once, subject_utilities, utilities
from federation.rules import audit
from federation.rules.aggregation import Coalitions, aggregate, rule_of
from federation.rules.canonical import tagged_hash
from federation.rules.clusters import Groups, Quotient, blocks, quotient
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import STANDARD_ERROR_MAX
from federation.rules.fixedpoint import Floats, Integers, from_fixed
from federation.rules.orders import HashedOrders
from federation.rules.sampled_values import antithetic_factors
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.rules.valuation import size_shares
from federation.rules.value_sample import redraw

DIRECTIONS: Final = 128
"""Random directions in which a round's slope is measured: its mean square is then known to an eighth (sqrt(2/128))."""

_STEP: Final = 2.0**-9
"""How far to either side of the model a slope is measured: curvature and rounding both stay below 1e-5 of it."""

Round = tuple[Integers, Mapping[str, Integers]]
"""The base model, int64 [P], and the admitted updates: site -> int64 [P]."""


def study_errors(
    state: StudyState, tables: Sequence[ValueTable], batch: SubjectBatch, blobs: audit.Blobs
) -> dict[str, int]:
    """The standard error of every party's value over a complete study, in 2^-40 nats.

    Args:
        state: the study.
        tables: of its closed rounds.
        batch: the validation set, by subject.
        blobs: models and updates.

    Raises:
        PeerError: a blob is missing or altered.
    """
    rounds = (audit.round_vectors(done, state, blobs) for done in state.closed)
    sampled = {place: table for place, table in enumerate(tables) if table.seed is not None}
    clusters, seed = state.overlap.clusters, seed_of(state)
    return standard_errors(rounds, state.weights, batch, state.plan, seed=seed, clusters=clusters, sampled=sampled)


def seed_of(state: StudyState) -> bytes:
    """What the directions are hashed from: the study and every update in it, 32 bytes."""
    updates = [
        part
        for done in state.closed
        for did, update in sorted(done.admitted.items())
        for part in (str(done.number).encode("ascii"), did.encode("ascii"), bytes.fromhex(update.update))
    ]
    return tagged_hash("standard-error", state.study.encode("utf-8"), *updates)


def standard_errors(
    rounds: Iterable[Round],
    weights: Mapping[str, int],
    batch: SubjectBatch,
    plan: StudyPlan,
    *,
    seed: bytes,
    clusters: Groups = (),
    sampled: Mapping[int, ValueTable] = MappingProxyType({}),
) -> dict[str, int]:
    """The standard error of each site's value over these rounds, in 2^-40 nats.

    Args:
        rounds: in order; one without updates adds nothing.
        weights: site -> weight, all sites of the study.
        batch: the validation set, by subject.
        plan: model, rule of aggregation, method of valuation.
        seed: of the directions (:func:`seed_of`).
        clusters: who counts as one institution: each has its part of the error of their value together.
        sampled: place in ``rounds``, from 0 -> the round's table, where that is a sampled one.

    Raises:
        OperatorError: the set is empty.
        PeerError: an update does not fit the model or the study.
    """
    gained = {site: np.zeros(len(batch.subjects)) for site in sorted(weights)}
    chance = dict.fromkeys(gained, 0.0)
    for number, (base, updates) in enumerate(rounds):
        players = sorted(updates)
        if not players:
            continue
        made, factors, variances = _weighed(players, sampled.get(number), clusters, weights, plan)
        gains = _gains(base, updates, weights, players, made, factors, batch, plan)
        for site, own, variance in zip(players, gains, variances, strict=True):
            gained[site] += own
            chance[site] += variance
        slope = _mean_square_slope(base, updates, weights, batch, plan, tagged_hash("round", seed, b"%d" % number))
        parts = _parts(weights, players, linear=rule_of(plan).linear)
        drawn = {site: float(parts[site] * np.linalg.norm(from_fixed(updates[site]))) ** 2 for site in players}
        for group in blocks(players, clusters):
            together, whole = sum(drawn[site] for site in group), sum(weights[site] for site in group)
            for site in group:
                chance[site] += (weights[site] / whole) ** 2 * together * slope
    errors = {site: math.sqrt(_variance_of_mean(gained[site], batch) + chance[site]) for site in gained}
    return {site: min(round(error * (1 << UTILITY_BITS)), STANDARD_ERROR_MAX) for site, error in errors.items()}


def subject_gains(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    game: Quotient,
    batch: SubjectBatch,
    plan: StudyPlan,
) -> Floats:
    """What each player's presence was worth for each subject in one round; a player's mean is its value there.

    Args:
        base: int64 [P].
        updates: site -> int64 [P].
        weights: site -> weight, all sites of the study.
        game: of at most 14 sites of ``updates``, and who of them counts as one.
        batch: S subjects, at least one.
        plan: model, rule of aggregation, method of valuation.

    Returns:
        float64 [N, S], nats.

    Raises:
        OperatorError, PeerError: as :func:`federation.learning.evaluation.utility`.
    """
    everybody, factors = range(1 << len(game.players)), _factors_of(game, plan.valuation.method)
    return _gains(base, updates, weights, game.players, everybody, factors, batch, plan)


def _gains(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    coalitions: Sequence[int],
    factors: Floats,
    batch: SubjectBatch,
    plan: StudyPlan,
) -> Floats:
    """As :func:`subject_gains`, of these coalitions (bit masks), each with its factor in each player's value [N, C]."""
    block = models_at_once(batch, plan.model)
    result: Floats = np.zeros((len(players), len(batch.subjects)))
    made = Coalitions(base, updates, weights, players, rule_of(plan))
    for start in range(0, len(coalitions), block):
        models = made.models(coalitions[start : start + block])
        result += factors[:, start : start + block] @ subject_utilities(
            from_fixed(models), batch, plan.valuation.loss_bound, plan.model
        )
    return result


def _weighed(
    players: Sequence[str],
    table: ValueTable | None,
    clusters: Groups,
    weights: Mapping[str, int],
    plan: StudyPlan,
) -> tuple[Sequence[int], Floats, list[float]]:
    """The coalitions of a round, their weights in each player's value, and the variance of its estimate in nats^2."""
    count = len(players)
    if table is None:
        game = quotient(players, clusters, weights)
        return range(1 << count), _factors_of(game, plan.valuation.method), [0.0] * count
    sample = redraw(table, plan.valuation)
    orders = HashedOrders(bytes.fromhex(table.seed or ""))
    factors = antithetic_factors(sample.coalitions, count, orders, sample.values.samples)
    return sample.coalitions, factors, [float(each) / 4.0**UTILITY_BITS for each in sample.values.variances]


def _factors_of(game: Quotient, method: str) -> Floats:
    """As :func:`_factors`, of the table's players in the quotient game: float64 [N, 2^N]."""
    count = len(game.players)
    result: Floats = np.zeros((count, 1 << count))
    of_blocks = _factors(method, len(game.blocks))
    for place in range(count):
        result[place, list(game.coalitions)] = float(game.shares[place]) * of_blocks[game.block_of(place)]
    return result


def _factors(method: str, players: int) -> Floats:
    """How much each coalition's utility counts in each player's value: float64 [N, 2^N], rows of sum zero."""
    shares = size_shares(method, players)
    weight = np.array([float(share / comb(players - 1, size)) for size, share in enumerate(shares)])
    coalitions = np.arange(1 << players)
    sizes = np.array([mask.bit_count() for mask in range(1 << players)])
    inside = (coalitions[None, :] >> np.arange(players)[:, None]) & 1 == 1
    result: Floats = np.where(inside, weight[np.maximum(sizes - 1, 0)], -weight[np.minimum(sizes, players - 1)])
    return result


def _mean_square_slope(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    batch: SubjectBatch,
    plan: StudyPlan,
    seed: bytes,
) -> float:
    """The mean square of the utility's slope over random directions, half way of the round's step, in nats^2."""
    middle = (from_fixed(base) + from_fixed(aggregate(base, updates, weights, rule_of(plan)))) / 2
    size = len(middle)
    block = min(DIRECTIONS, models_at_once(batch, plan.model))
    total = 0.0
    for start in range(0, DIRECTIONS, block):
        steps = np.stack([_direction(seed, at, size) for at in range(start, min(start + block, DIRECTIONS))]) * _STEP
        ahead, behind = (
            utilities(models, batch, plan.valuation.loss_bound, plan.model)
            for models in (middle + steps, middle - steps)
        )
        total += float((((ahead - behind) / (2 * _STEP)) ** 2).sum())
    return total / DIRECTIONS


def _direction(seed: bytes, number: int, size: int) -> Floats:
    """A vector of length 1 whose numbers are equal but for their hashed signs: float64 [size]."""
    drawn = hashlib.shake_256(seed + b"%d" % number).digest((size + 7) // 8)
    bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=size).astype(np.float64)
    return (2 * bits - 1) / math.sqrt(size)


def _parts(weights: Mapping[str, int], players: Sequence[str], *, linear: bool) -> dict[str, float]:
    """By which part a player's update moves the model; under a robust rule each is one voice among those present."""
    total = sum(weights.values())
    if linear:
        return {site: weights[site] / total for site in players}
    return dict.fromkeys(players, sum(weights[site] for site in players) / (len(players) * total))


def _variance_of_mean(gains: Floats, batch: SubjectBatch) -> float:
    """The variance of the mean of float64 [S] over validation sets with as many positive subjects as this one.

    A stratum of one subject says nothing about its spread, and adds none.
    """
    positive = (batch.y * batch.mask).max(axis=1) > 0
    strata = [gains[kind] for kind in (positive, ~positive) if kind.sum() > 1]
    return math.fsum(float(each.var(ddof=1)) * each.size for each in strata) / gains.size**2
