"""Values of more players than a table of all coalitions can hold: sampled, with intervals, until precise enough.

Two ways. **Antithetic permutations**: orders of arrival in pairs, each with its reverse (Mitchell, Cooper, Frank and
Holmes 2022, "Sampling permutations for Shapley value estimation", JMLR 23:43, section 3); every pair adds up to what
all achieve together, so the estimates do too. **Stratified**: for each player and each coalition size a mean of its own
(Maleki, Tran-Thanh, Hines, Rahwan and Rogers 2013, "Bounding the estimation error of sampling-based Shapley value
approximation"), strata that are small enough counted whole, further draws where they narrow the interval most (Neyman's
allocation, as Castro, Gomez, Molina and Tejada 2017 use it); it serves every method of ``valuation``.

Rules kept: randomness is an argument; estimates are exact fractions of integer sums; intervals are integers in the
table's unit, rounded outwards, by integer and decimal arithmetic alone. So every peer that draws the same orders (see
:class:`orders.HashedOrders`) gets the same figures on any machine.

An interval is Student's (per player, at the confidence asked for). It is checked at sample sizes that double, and the
k-th look spends ``6 / (pi k)^2`` of the allowed error, so that stopping early does not cost coverage. Where gains are
rare and large, no sample tells that it missed one: give ``spread`` (the largest possible difference of two gains) and
the interval is empirical Bernstein (Maurer and Pontil 2009, theorem 4), which holds for any game and is much wider.
That is proved for permutations, whose sample sizes are fixed beforehand; strata get further draws where earlier ones
varied, which the theorem does not cover.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import comb, isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import OperatorError
from federation.rules.orders import Orders
from federation.rules.quantiles import error_of_look, natural_log, student
from federation.rules.terms import DRAWS_FIRST, PAIRS_FIRST
from federation.rules.valuation import size_shares

Utilities = Callable[[Sequence[int]], Sequence[int]]
"""Bitmasks of coalitions -> their utilities; each coalition that is met is asked for once, many in one call."""

PAIRS_MAX: Final = 1 << 20
_PAIRS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class SampledValues:
    """Estimates and how sure they are.

    Attributes:
        estimates: one fraction for each player, in the table's unit.
        half_widths: of each player's interval, integers in the same unit, rounded up.
        variances: of each estimate (its standard error squared), in the unit squared.
        confidence: of each interval.
        samples: pairs of orders, or draws from strata.
        evaluations: different coalitions whose utility was asked for.
        reached: whether every half-width is at most the precision that was asked for.
    """

    estimates: tuple[Fraction, ...]
    half_widths: tuple[int, ...]
    variances: tuple[Fraction, ...]
    confidence: Fraction
    samples: int
    evaluations: int
    reached: bool

    def interval(self, player: int) -> tuple[Fraction, Fraction]:
        """(low, high) of one player."""
        return (
            self.estimates[player] - self.half_widths[player],
            self.estimates[player] + self.half_widths[player],
        )


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to stop.

    Attributes:
        precision: the half-width that is wanted, an integer in the table's unit, positive.
        confidence: that an interval holds the value, between 0 and 1.
        samples_max: pairs of orders (permutations) or draws (strata) after which to stop in any case.
        spread: the largest possible difference between two gains of one player, where it is known.
    """

    precision: int
    confidence: Fraction = Fraction(95, 100)
    samples_max: int = PAIRS_MAX
    spread: int | None = None

    def check(self) -> None:
        """Raise where these are no terms.

        Raises:
            OperatorError: a precision or limit below 1, a confidence outside 0 to 1, a negative spread.
        """
        wrong = self.precision < 1 or self.samples_max < 1 or not 0 < self.confidence < 1
        if wrong or (self.spread is not None and self.spread < 0):
            raise OperatorError(
                "Sampling needs a precision of at least 1, a confidence between 0 and 1, and a limit of at least 1.",
                remedy="Mend the terms of the sampling.",
            )


def antithetic_shapley(utilities: Utilities, players: int, orders: Orders, stopping: Stopping) -> SampledValues:
    """Shapley values from orders of arrival in antithetic pairs.

    Args:
        utilities: bitmasks -> integers.
        players: N, at least 1; no upper bound but patience: a pair asks for up to 2 N utilities.
        orders: the source of randomness.
        stopping: precision, confidence, limit.

    Returns:
        estimates that add up to ``v(all) - v(empty)`` exactly.

    Raises:
        OperatorError: no player, or terms that cannot be met.
    """
    _check(players, stopping)
    known = _Remembered(utilities)
    doubled = [_Mean() for _ in range(players)]
    done, look, halves = 0, 0, [0] * players
    while done < stopping.samples_max:
        look += 1
        wanted = min(stopping.samples_max, max(PAIRS_FIRST, 2 * done))
        while done < wanted:
            pairs = [_prefixes(orders, players) for _ in range(min(_PAIRS_AT_ONCE, wanted - done))]
            known.meet(mask for pair in pairs for _, before, after in pair for mask in (before, after))
            for pair in pairs:
                gains = [0] * players
                for player, before, after in pair:
                    gains[player] += known[after] - known[before]
                for mean, gain in zip(doubled, gains, strict=True):
                    mean.add(gain)
            done += len(pairs)
        error = error_of_look(stopping.confidence, look)
        # A pair's sum is twice a gain, so its spread is twice a gain's, and so is its half-width.
        spread = None if stopping.spread is None else 2 * stopping.spread
        halves = [-(-_half_width([(mean, Fraction(1))], error, spread) // 2) for mean in doubled]
        if max(halves) <= stopping.precision:
            break
    return SampledValues(
        estimates=tuple(Fraction(mean.total, 2 * mean.count) for mean in doubled),
        half_widths=tuple(halves),
        variances=tuple(mean.variance / (4 * mean.count) for mean in doubled),
        confidence=stopping.confidence,
        samples=done,
        evaluations=known.count,
        reached=max(halves) <= stopping.precision,
    )


def antithetic_factors(coalitions: Sequence[int], players: int, orders: Orders, pairs: int) -> NDArray[np.float64]:
    """How much each coalition's utility counts in each estimate of :func:`antithetic_shapley`.

    Args:
        coalitions: at least those that the pairs meet.
        players: N.
        orders: the source that the estimates were drawn from, at its beginning.
        pairs: how many pairs of orders were drawn.

    Returns:
        float64 [N, C], rows of sum zero.
    """
    places = {mask: place for place, mask in enumerate(coalitions)}
    result = np.zeros((players, len(coalitions)))
    for _ in range(pairs):
        for player, before, after in _prefixes(orders, players):
            result[player, places[after]] += 1
            result[player, places[before]] -= 1
    return result / (2 * pairs)


def stratified_values(
    utilities: Utilities, players: int, orders: Orders, stopping: Stopping, method: str = "shapley"
) -> SampledValues:
    """Values by any method, from a mean for each player and each coalition size.

    Args:
        utilities: bitmasks -> integers.
        players: N, at least 1.
        orders: the source of randomness.
        stopping: precision, confidence, limit (draws of all strata together, not counting those that are whole).
        method: a key of ``valuation.METHODS``.

    Returns:
        estimates; they add up to ``v(all) - v(empty)`` only within their intervals.

    Raises:
        OperatorError: no player, an unknown method, or terms that cannot be met.
    """
    _check(players, stopping)
    shares = size_shares(method, players)
    known = _Remembered(utilities)
    strata, sampled = _strata(players, shares, known)
    done, look, halves = 0, 0, [0] * players
    wanted = dict.fromkeys(sampled, DRAWS_FIRST)
    while True:
        draws = []
        for player, size in sampled:
            for _ in range(min(wanted[player, size], max(0, stopping.samples_max - done))):
                draws.append(((player, size), _others(orders, players, player, size)))
                done += 1
        _count(strata, known, draws)
        look += 1
        error = error_of_look(stopping.confidence, look)
        halves = [
            _half_width(
                [(mean, shares[size]) for (owner, size), mean in strata.items() if owner == player],
                error,
                stopping.spread,
            )
            for player in range(players)
        ]
        if max(halves) <= stopping.precision or done >= stopping.samples_max:
            break
        late = {player for player in range(players) if halves[player] > stopping.precision}
        wanted = _neyman(strata, sampled, shares, late)
    return SampledValues(
        estimates=tuple(
            sum((mean.value * shares[size] for (owner, size), mean in strata.items() if owner == player), Fraction(0))
            for player in range(players)
        ),
        half_widths=tuple(halves),
        variances=tuple(_variance(strata, shares, player) for player in range(players)),
        confidence=stopping.confidence,
        samples=done,
        evaluations=known.count,
        reached=max(halves) <= stopping.precision,
    )


class _Remembered:
    """Utilities that are asked for once for each coalition."""

    def __init__(self, utilities: Utilities) -> None:
        self._utilities = utilities
        self._found: dict[int, int] = {}

    def meet(self, masks: Iterable[int]) -> None:
        """Ask for those that are new, in the order in which they are met."""
        new = list(dict.fromkeys(mask for mask in masks if mask not in self._found))
        if new:
            self._found |= zip(new, map(int, self._utilities(new)), strict=True)

    def __getitem__(self, mask: int) -> int:
        return self._found[mask]

    @property
    def count(self) -> int:
        return len(self._found)


class _Mean:
    """Integer sums of what was drawn; ``whole`` where every member of the stratum was counted."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.squares = 0
        self.whole = False

    def add(self, value: int) -> None:
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def value(self) -> Fraction:
        return Fraction(self.total, self.count) if self.count else Fraction(0)

    @property
    def variance(self) -> Fraction:
        """The unbiased sample variance; 0 where the stratum is whole or has one draw."""
        if self.whole or self.count <= 1:
            return Fraction(0)
        return Fraction(self.count * self.squares - self.total**2, self.count * (self.count - 1))


def _check(players: int, stopping: Stopping) -> None:
    stopping.check()
    if players < 1:
        raise OperatorError("There is no player to value.", remedy="Sample values of at least one player.")


def _prefixes(orders: Orders, players: int) -> list[tuple[int, int, int]]:
    """One order of arrival, then its reverse: (player, who was there before, who is there after) of each arrival."""
    order = [int(player) for player in orders.permutation(players)]
    result = []
    for arrivals in (order, order[::-1]):
        present = 0
        for player in arrivals:
            result.append((player, present, present | 1 << player))
            present |= 1 << player
    return result


def _strata(
    players: int, shares: list[Fraction], known: _Remembered
) -> tuple[dict[tuple[int, int], _Mean], list[tuple[int, int]]]:
    """The means by (player, size), the small ones counted whole; and which are to be sampled."""
    strata = {(player, size): _Mean() for player in range(players) for size in range(players) if shares[size]}
    sampled = [key for key in strata if comb(players - 1, key[1]) > DRAWS_FIRST]
    whole = [key for key in strata if comb(players - 1, key[1]) <= DRAWS_FIRST]
    groups = [
        (key, sum(1 << other for other in others))
        for key in whole
        for others in combinations([other for other in range(players) if other != key[0]], key[1])
    ]
    _count(strata, known, groups)
    for key in whole:
        strata[key].whole = True
    return strata, sampled


def _variance(strata: dict[tuple[int, int], _Mean], shares: list[Fraction], player: int) -> Fraction:
    own = ((shares[size], mean) for (owner, size), mean in strata.items() if owner == player)
    return sum((share**2 * mean.variance / max(1, mean.count) for share, mean in own), Fraction(0))


def _count(
    strata: dict[tuple[int, int], _Mean], known: _Remembered, draws: Sequence[tuple[tuple[int, int], int]]
) -> None:
    """Add to each stratum what its player adds to each of these groups of others."""
    known.meet(mask for (player, _), others in draws for mask in (others, others | 1 << player))
    for (player, size), others in draws:
        strata[player, size].add(known[others | 1 << player] - known[others])


def _others(orders: Orders, players: int, player: int, size: int) -> int:
    """``size`` of the other players, each such coalition equally likely; its bitmask."""
    drawn = [int(number) for number in orders.permutation(players - 1)][:size]
    return sum(1 << (number + (number >= player)) for number in drawn)


def _neyman(
    strata: dict[tuple[int, int], _Mean], sampled: list[tuple[int, int]], shares: list[Fraction], late: set[int]
) -> dict[tuple[int, int], int]:
    """As many further draws as there were, for players whose interval is too wide, where share x deviation is large.

    Each stratum gets at least one: a deviation that looks like 0 may have been chance.
    """
    wanted = dict.fromkeys(sampled, 0)
    for player in sorted(late):
        own = [key for key in sampled if key[0] == player]
        # Deviations as integers, in 2^-20 of the unit: the allocation is the same on every machine.
        weights = [isqrt(int(strata[key].variance * shares[key[1]] ** 2 * (1 << 40))) for key in own]
        total, before = sum(weights), sum(strata[key].count for key in own)
        for key, weight in zip(own, weights, strict=True):
            wanted[key] = 1 + (before * weight // total if total else before // len(own))
    return wanted


def _half_width(parts: Sequence[tuple[_Mean, Fraction]], error: Decimal, spread: int | None) -> int:
    """Half the interval of a weighted sum of independent means, rounded up to an integer."""
    drawn = [(mean, share) for mean, share in parts if not mean.whole]
    if not drawn:
        return 0
    if min(mean.count for mean, _ in drawn) <= 1:
        return 1 << 256  # nothing is known yet
    if spread is not None:
        return _bernstein(drawn, error, spread)
    variances = [(share**2 * mean.variance / mean.count, mean.count - 1) for mean, share in drawn]
    total = sum((variance for variance, _ in variances), Fraction(0))
    if total == 0:
        return 0
    # Welch and Satterthwaite's degrees of freedom, rounded down.
    freedom = max(1, int(total**2 / sum((variance**2 / count for variance, count in variances), Fraction(0))))
    quantile = student(error, freedom)
    return _root_up(total * quantile**2)


def _bernstein(drawn: Sequence[tuple[_Mean, Fraction]], error: Decimal, spread: int) -> int:
    """Maurer and Pontil's theorem 4 for each mean, both sides, the error shared out among the means."""
    log = natural_log(4 * len(drawn) / error)
    result = Fraction(0)
    for mean, share in drawn:
        root = _root_up(2 * mean.variance * log / mean.count)
        result += share * (root + 7 * spread * log / (3 * (mean.count - 1)))
    return -int(-result // 1)


def _root_up(square: Fraction) -> int:
    """The square root of a fraction, rounded up to an integer."""
    whole = isqrt(square.numerator // square.denominator)
    return whole if whole * whole == square else whole + 1
