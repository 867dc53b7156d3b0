"""How updates become the next model: by an exact weighted mean on lattice integers, or by a robust rule.

Weights are fixed for the whole study, from the nominal cohort sizes in the Agreements: what a site says about its own
size in a round is never used, and weights are **not** renormalised over the sites that are present. Under the weighted
mean a zero update, an absent site and a site outside a coalition are then the same thing, a zero update is worth
exactly nothing, and coalition values telescope to the measured improvement of the study.

A robust rule (see ``robust``) locates the updates that are present, each as one voice; the model then moves there by
the present sites' part of all weights, so that absent sites still hold it back. Such a rule is not linear: every
coalition's model is the rule run anew on the coalition's updates. Values telescope all the same, but a zero update is a
voice, and is not worth exactly nothing.

All sums are exact. The weighted mean rounds once, half-even, a robust rule twice (the place, then the step).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np

from federation.errors import OperatorError, PeerError
from federation.rules.fixedpoint import SCALE, Floats, Integers, in_range
from federation.rules.lattice_sums import INT64_SAFE, divide_half_even, magnitude, squared_length, weighted_mean
from federation.rules.robust import LOCATIONS, Gathered, trust_anchored
from federation.rules.study import StudyPlan
from federation.rules.terms import TABLE_PLAYERS_MAX as PLAYERS_MAX

_BLOCK: Final = 1 << 15
"""Numbers worked on at a time: 256 KiB, which a core's own cache holds."""
_FLOAT_EXACT: Final = 1 << 52
"""Integers below it add up exactly in float64, in any order. A quotient of two lies at least 1 / (2 d) from any other
half, d the divisor, and its float64 is nearer to it than that: rounding it gives what rounding the fraction gives."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a plan aggregates.

    Attributes:
        name: ``weighted-mean``, a key of ``robust.LOCATIONS`` or ``trust-anchored``.
        tolerated: the share of the present sites that may be hostile, for the rules that ask.
        anchor: under ``trust-anchored``, the sponsor's update of this round, int64 [P].
    """

    name: str = "weighted-mean"
    tolerated: Decimal = Decimal(0)
    anchor: Integers | None = field(default=None, compare=False)

    @property
    def linear(self) -> bool:
        """Whether a coalition's model is the base model and a sum over the coalition."""
        return self.name == WEIGHTED_MEAN.name


WEIGHTED_MEAN: Final = Rule()
TRUST_ANCHORED: Final = "trust-anchored"


def rule_of(plan: StudyPlan, anchor: Integers | None = None) -> Rule:
    """The rule that a plan names; ``anchor``: the round's, for a trust-anchored one."""
    return Rule(name=plan.aggregation.rule, tolerated=plan.aggregation.tolerated or Decimal(0), anchor=anchor)


def integer_weights(nominal: Mapping[str, int], cap: Decimal) -> dict[str, int]:
    """Each site's weight in the mean: its nominal cohort size, cut down where it would exceed ``cap`` of the total.

    The cap is a share of the total **after** cutting: no weight is above ``cap`` times the sum of all weights. Sites
    above it get exactly that share; the others keep their proportions to each other. With ``cap = p/q``, ``m`` sites
    cut and the others' sizes adding up to ``U``, the cut sites weigh ``p U`` and the others ``size * (q - m p)``:
    integers without any rounding. A cap that nobody can keep (``cap * number of sites < 1``) gives equal weights, the
    nearest. Weights mean something only relative to their sum.

    Args:
        nominal: site -> nominal cohort size (subjects), positive.
        cap: the largest share of the total, in (0, 1].

    Returns:
        site -> positive integer weight, in the order of ``nominal``; the sizes themselves when none is cut.

    Raises:
        OperatorError: no site, a size that is not positive, or a cap outside (0, 1].
    """
    if not nominal or min(nominal.values()) < 1 or not 0 < cap <= 1:
        raise OperatorError(
            "Weights need at least one site, nominal cohorts of one subject or more, and a cap above 0 and up to 1.",
            remedy="Mend `aggregation.weight_cap` in the plan or the nominal cohorts in the agreements.",
        )
    sizes = sorted(nominal.values(), reverse=True)
    share = Fraction(cap)
    p, q = share.numerator, share.denominator
    rest, cut = sum(sizes), 0
    while cut < len(sizes) and sizes[cut] * (q - cut * p) > p * rest:
        rest -= sizes[cut]
        cut += 1
    if cut == 0:
        return dict(nominal)
    if cut == len(sizes):
        return dict.fromkeys(nominal, 1)
    smallest_cut = sizes[cut - 1]
    weights = {name: p * rest if size >= smallest_cut else size * (q - cut * p) for name, size in nominal.items()}
    divisor = math.gcd(*weights.values())
    return {name: weight // divisor for name, weight in weights.items()}


def aggregate(
    base: Integers, updates: Mapping[str, Integers], weights: Mapping[str, int], rule: Rule = WEIGHTED_MEAN
) -> Integers:
    """The next model: ``base + round_half_even(sum_i W_i d_i / sum_j W_j)``.

    The sum in the denominator runs over **all** sites of the study, present or not. Under a robust rule the sum of the
    updates present is ``R sum_i W_i``, with R the place that the rule finds for them.

    Args:
        base: int64 [P], the model of this round.
        updates: site -> int64 [P], the admitted updates; any order, the result is the same to the last bit.
        weights: site -> positive integer, every site of the study.
        rule: the plan's.

    Returns:
        int64 [P].

    Raises:
        PeerError: an update of a site without weight, of another length, or a result beyond the lattice's range.
    """
    players = sorted(updates)
    if not rule.linear:
        everyone = np.ones((1, len(players)), dtype=np.int64)
        result: Integers = _Located(base, updates, weights, players, rule).models(everyone)[0]
        return result
    _check(base, updates, weights, players)
    if not players:
        return base.copy()
    model = base + weighted_mean(updates.values(), (weights[name] for name in updates), sum(weights.values()))
    if not in_range(model):
        raise _refused("the next model leaves the range of the lattice")
    return model


def coalition_models(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    *,
    start: int = 0,
    stop: int | None = None,
    rule: Rule = WEIGHTED_MEAN,
) -> Integers:
    """The model of every coalition: what :func:`aggregate` gives when only the coalition's updates had come.

    The weighted mean takes one product for all coalitions; a robust rule is run anew for each.

    Args:
        base: int64 [P].
        updates: site -> int64 [P]; a player without update contributes zero (under a robust rule: is not there).
        weights: site -> positive integer, every site of the study.
        players: bit ``i`` of a coalition's number stands for ``players[i]``; at most 14.
        start: first coalition wanted (for working in blocks).
        stop: one past the last coalition wanted; all by default.
        rule: the plan's.

    Returns:
        int64 [stop - start, P]; by default [2^N, P], row 0 the base model, the last row the aggregate of all players.

    Raises:
        PeerError: as :func:`aggregate`; also too many players, or one named twice.
    """
    if len(players) > PLAYERS_MAX:
        raise _refused(f"{len(players)} players; at most {PLAYERS_MAX} different ones have an exact table")
    coalitions = range(start, (1 << len(players)) if stop is None else stop)
    return Coalitions(base, updates, weights, players, rule).models(coalitions)


class Coalitions:
    """A round's updates made ready, for the models of any of its coalitions, block by block.

    Args:
        base: int64 [P].
        updates: as for :func:`coalition_models`.
        weights: site -> positive integer, every site of the study.
        players: of any number.
        rule: the plan's.

    Raises:
        PeerError: as :func:`aggregate`; also a player named twice.
    """

    def __init__(
        self,
        base: Integers,
        updates: Mapping[str, Integers],
        weights: Mapping[str, int],
        players: Sequence[str],
        rule: Rule = WEIGHTED_MEAN,
    ) -> None:
        if len(set(players)) != len(players):
            raise _refused(f"{len(players)} players are named, and one of them twice")
        self._count = len(players)
        ready = _Summed if rule.linear else _Located
        self._ready: _Summed | _Located = ready(base, updates, weights, players, rule)

    def models(self, coalitions: Sequence[int]) -> Integers:
        """The models of these coalitions (bitmasks), in their order: int64 [C, P]."""
        width = -(-self._count // 8)
        packed = np.frombuffer(b"".join(each.to_bytes(width, "little") for each in coalitions), np.uint8)
        members = np.unpackbits(packed.reshape(len(coalitions), width), axis=1, count=self._count, bitorder="little")
        return self._ready.models(members.astype(np.int64))


def norm_within(update: Integers, bound: Decimal) -> bool:
    """Whether the L2 norm of a lattice vector is at most ``bound``, decided in exact integers.

    Args:
        update: int64 [P].
        bound: in the model's own units (not lattice steps).
    """
    return bound >= 0 and squared_length(update) <= (Fraction(bound) * SCALE) ** 2


def clip_to_norm(update: Floats, bound: Decimal) -> Floats:
    """Scale a vector down so that its lattice form passes :func:`norm_within`.

    Rounding P numbers to the lattice can lengthen a vector by ``sqrt(P) / 2`` steps, so the target is shorter by that,
    and by a few units in the last place of the norm.

    Args:
        update: float64 [P].
        bound: the largest L2 norm, positive.

    Returns:
        float64 [P]: the vector itself where it is short enough, else the same direction at the target length.

    Raises:
        OperatorError: a value is not finite.
    """
    if not np.all(np.isfinite(update)):
        raise OperatorError(
            "The update holds a number that is not finite: training has diverged.",
            remedy="Lower training.learning_rate or raise training.l2 in the study plan.",
        )
    largest = float(np.max(np.abs(update), initial=0.0))
    if largest == 0.0:
        return update.copy()
    rounding = (math.sqrt(update.size) / 2 + 1) / SCALE
    ulps = 1e-12
    target = float(bound) * (1 - ulps) - rounding
    if target <= 0:
        return np.zeros_like(update)
    norm = largest * float(np.linalg.norm(update / largest))
    return update.copy() if norm <= target else (update / largest) * (target / (norm / largest))


class _Summed:
    """Models of coalitions under the weighted mean."""

    def __init__(
        self,
        base: Integers,
        updates: Mapping[str, Integers],
        weights: Mapping[str, int],
        players: Sequence[str],
        _rule: Rule = WEIGHTED_MEAN,
    ) -> None:
        _check(base, updates, weights, players)
        self._base, self._total = base, sum(weights.values())
        stacked = np.stack([updates.get(name, np.zeros_like(base)) for name in players]) if players else base[None] * 0
        factors = [weights[name] for name in players] or [0]
        bound = max(self._total, magnitude(stacked) * sum(factors))
        # float64 (the usual case, and fast) or int64 where no sum can leave them, else Python integers: all are exact.
        self._kind: Any = np.float64 if bound < _FLOAT_EXACT else np.int64 if 2 * bound < INT64_SAFE else object
        self._weighted = stacked.astype(self._kind) * np.array(factors, dtype=self._kind)[:, None]

    def models(self, members: Integers) -> Integers:
        """``members`` int64 [C, N] of zeros and ones -> int64 [C, P]."""
        chosen = members if members.shape[1] else np.zeros((len(members), 1), dtype=np.int64)
        chosen = chosen.astype(self._kind)
        models = np.empty((len(members), self._base.size), dtype=np.int64)
        width = max(1, _BLOCK // max(1, len(members)))
        for start in range(0, self._base.size, width):
            block = slice(start, start + width)
            sums = chosen @ self._weighted[:, block]
            if self._kind is np.float64:
                change = np.rint(np.divide(sums, self._total, out=sums), out=sums).astype(np.int64)
                np.add(change, self._base[block], out=models[:, block])
            else:
                models[:, block] = self._base[block].astype(self._kind) + divide_half_even(sums, self._total)
        if not in_range(models):
            raise _refused("the next model leaves the range of the lattice")
        return models


class _Located:
    """Models of coalitions under a robust rule, which is run anew on each one's updates."""

    def __init__(
        self,
        base: Integers,
        updates: Mapping[str, Integers],
        weights: Mapping[str, int],
        players: Sequence[str],
        rule: Rule,
    ) -> None:
        if rule.name not in LOCATIONS and rule.name != TRUST_ANCHORED:
            raise _refused(f"there is no rule of aggregation called {rule.name}")
        if rule.name == TRUST_ANCHORED and (rule.anchor is None or rule.anchor.shape != base.shape):
            raise _refused(f"a trust-anchored round needs a reference update of {base.size} lattice integers")
        _check(base, updates, weights, players)
        self._base, self._total, self._rule = base, sum(weights.values()), rule
        rows = [name for name in players if name in updates]
        self._row = [rows.index(name) if name in updates else None for name in players]
        self._weights = [weights[name] for name in rows]
        self._vectors = np.stack([updates[name] for name in rows]) if rows else base[None, :][:0]
        self._gathered = Gathered(self._vectors, rule.tolerated)

    def models(self, members: Integers) -> Integers:
        """As :meth:`_Summed.models`."""
        models = np.empty((len(members), self._base.size), dtype=np.int64)
        for at, chosen in enumerate(members):
            present = [row for row, member in zip(self._row, chosen, strict=True) if member and row is not None]
            models[at] = self._base
            if present:
                place = self._place(present)
                part = sum(self._weights[row] for row in present)
                fits = 2 * max(self._total, magnitude(place) * part) < INT64_SAFE
                step = place.astype(np.int64 if fits else object) * part
                models[at] += divide_half_even(step, self._total).astype(np.int64)
        if not in_range(models):
            raise _refused("the next model leaves the range of the lattice")
        return models

    def _place(self, present: Sequence[int]) -> Integers:
        if self._rule.anchor is not None:
            return trust_anchored(self._vectors[present], self._rule.anchor)
        return LOCATIONS[self._rule.name](self._gathered, present)


def _check(base: Integers, updates: Mapping[str, Integers], weights: Mapping[str, int], players: Sequence[str]) -> None:
    if not weights or min(weights.values()) < 1:
        raise _refused("every site of the study needs a positive weight")
    for name in (*updates, *players):
        if name not in weights:
            raise _refused(f"{name} has no weight in this study")
    for name, update in (("the base model", base), *updates.items()):
        if update.dtype != np.int64 or update.shape != base.shape or base.ndim != 1:
            raise _refused(f"{name} is not a vector of {base.size} lattice integers")
        if not in_range(update):
            raise _refused(f"{name} leaves the range of the lattice")


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The updates cannot be aggregated: {why}.",
        remedy="Refuse the update with this reason; its sender needs the same study plan and base model.",
    )
