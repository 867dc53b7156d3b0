"""How updates become the next model: an exact weighted mean on lattice integers.

Weights are fixed for the whole study, from the nominal cohort sizes in the Agreements: what a site says about its own
size in a round is never used, and weights are **not** renormalised over the sites that are present. A zero update, an
absent site and a site outside a coalition are then the same thing, a zero update is worth exactly nothing, and
coalition values telescope to the measured improvement of the study.

All sums are exact. The only rounding is one half-even division by the total weight.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import OperatorError, PeerError
from federation.rules.fixedpoint import SCALE, Floats, Integers, in_range

PLAYERS_MAX: Final = 14
_INT64_SAFE: Final = 1 << 62


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


def aggregate(base: Integers, updates: Mapping[str, Integers], weights: Mapping[str, int]) -> Integers:
    """The next model: ``base + round_half_even(sum_i W_i d_i / sum_j W_j)``.

    The sum in the denominator runs over **all** sites of the study, present or not.

    Args:
        base: int64 [P], the model of this round.
        updates: site -> int64 [P], the admitted updates; any order, the result is the same to the last bit.
        weights: site -> positive integer, every site of the study.

    Returns:
        int64 [P].

    Raises:
        PeerError: an update of a site without weight, of another length, or a result beyond the lattice's range.
    """
    players = sorted(updates)
    everyone = np.ones((1, len(players)), dtype=np.int64)
    result: Integers = _models(base, updates, weights, players, everyone)[0]
    return result


def coalition_models(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    *,
    start: int = 0,
    stop: int | None = None,
) -> Integers:
    """The model of every coalition: what :func:`aggregate` gives when only the coalition's updates had come.

    Args:
        base: int64 [P].
        updates: site -> int64 [P]; a player without update contributes zero.
        weights: site -> positive integer, every site of the study.
        players: bit ``i`` of a coalition's number stands for ``players[i]``; at most 14.
        start: first coalition wanted (for working in blocks).
        stop: one past the last coalition wanted; all by default.

    Returns:
        int64 [stop - start, P]; by default [2^N, P], row 0 the base model, the last row the aggregate of all players.

    Raises:
        PeerError: as :func:`aggregate`; also too many players, or one named twice.
    """
    if len(players) > PLAYERS_MAX or len(set(players)) != len(players):
        raise _refused(f"{len(players)} players; at most {PLAYERS_MAX} different ones have an exact table")
    coalitions = np.arange(start, (1 << len(players)) if stop is None else stop, dtype=np.int64)
    members = (coalitions[:, None] >> np.arange(len(players), dtype=np.int64)) & 1
    return _models(base, updates, weights, players, members)


def norm_within(update: Integers, bound: Decimal) -> bool:
    """Whether the L2 norm of a lattice vector is at most ``bound``, decided in exact integers.

    Args:
        update: int64 [P].
        bound: in the model's own units (not lattice steps).
    """
    limit = (Fraction(bound) * SCALE) ** 2
    largest = _largest(update)
    exact = update if largest * largest * max(update.size, 1) < _INT64_SAFE else update.astype(object)
    return bound >= 0 and int((exact * exact).sum()) <= limit


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


def _models(
    base: Integers,
    updates: Mapping[str, Integers],
    weights: Mapping[str, int],
    players: Sequence[str],
    members: Integers,
) -> Integers:
    """``members`` int64 [C, N] of zeros and ones -> models int64 [C, P]."""
    _check(base, updates, weights, players)
    total = sum(weights.values())
    stacked = np.stack([updates.get(name, np.zeros_like(base)) for name in players]) if players else base[None, :] * 0
    factors = [weights[name] for name in players] or [0]
    # int64 where no sum can overflow (the usual case, and fast), Python integers otherwise: both are exact.
    fits = 2 * max(total, _largest(stacked) * sum(factors)) < _INT64_SAFE
    kind: Any = np.int64 if fits else object
    weighted = stacked.astype(kind) * np.array(factors, dtype=kind)[:, None]
    chosen = members.astype(kind) if players else np.zeros((members.shape[0], 1), dtype=kind)
    change = _divide_half_even(chosen @ weighted, total)
    models: Integers = (base.astype(kind) + change).astype(np.int64)
    if not in_range(models):
        raise _refused("the next model leaves the range of the lattice")
    return models


def _divide_half_even(numerators: NDArray[Any], denominator: int) -> NDArray[Any]:
    """Integer division, ties to even, elementwise; ``denominator`` positive."""
    quotient = numerators // denominator
    twice = 2 * (numerators - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient % 2 == 1))
    rounded: NDArray[Any] = quotient + up.astype(numerators.dtype)
    return rounded


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


def _largest(values: Integers) -> int:
    """The largest magnitude as a Python integer (exact also for -2^63)."""
    return max(abs(int(values.min(initial=0))), abs(int(values.max(initial=0))))


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The updates cannot be aggregated: {why}.",
        remedy="Refuse the update with this reason; its sender needs the same study plan and base model.",
    )
