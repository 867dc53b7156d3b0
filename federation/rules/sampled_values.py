"""Values of more players than a table of all coalitions can hold: sampled, with intervals, until precise enough.

Two ways. **Antithetic permutations**: orders of arrival in pairs, each with its reverse (Mitchell, Cooper, Frank and
Holmes 2022, "Sampling permutations for Shapley value estimation", JMLR 23:43, section 3); every pair adds up to what
all achieve together, so the estimates do too. **Stratified**: for each player and each coalition size a mean of its own
(Maleki, Tran-Thanh, Hines, Rahwan and Rogers 2013, "Bounding the estimation error of sampling-based Shapley value
approximation"), strata that are small enough counted whole, further draws where they narrow the interval most (Neyman's
allocation, as Castro, Gomez, Molina and Tejada 2017 use it); it serves every method of ``valuation``.

Rules kept: randomness is an argument; estimates are exact fractions of integer sums; intervals are integers in the
table's unit, rounded outwards, by integer and decimal arithmetic alone. So every peer that draws the same orders (see
:class:`HashedOrders`) gets the same figures on any machine.

An interval is Student's (per player, at the confidence asked for). It is checked at sample sizes that double, and the
k-th look spends ``6 / (pi k)^2`` of the allowed error, so that stopping early does not cost coverage. Where gains are
rare and large, no sample tells that it missed one: give ``spread`` (the largest possible difference of two gains) and
the interval is empirical Bernstein (Maurer and Pontil 2009, theorem 4), which holds for any game and is much wider.
That is proved for permutations, whose sample sizes are fixed beforehand; strata get further draws where earlier ones
varied, which the theorem does not cover.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import comb, isqrt
from typing import Final, Protocol

from federation.errors import OperatorError
from federation.rules.canonical import tagged_hash
from federation.rules.quantiles import error_of_look, natural_log, student
from federation.rules.valuation import size_shares

Utility = Callable[[int], int]
"""A coalition's bitmask -> its utility; called once for each coalition that is met."""

PAIRS_FIRST: Final = 32
"""Pairs of orders before the first look: fewer say too little about the spread."""
DRAWS_FIRST: Final = 16
"""Draws of each stratum before the first look; a stratum with no more coalitions than that is counted whole."""
PAIRS_MAX: Final = 1 << 20


class Orders(Protocol):
    """Where orders of arrival come from; a ``numpy.random.Generator`` is one."""

    def permutation(self, x: int, /) -> Sequence[int]:
        """The numbers 0 .. x - 1 in a random order."""
        ...


class HashedOrders:
    """Orders that everybody can draw again: from SHA-256 over a seed (a log's root, say) and a counter.

    Args:
        seed: any bytes that were settled before the utilities were known.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def permutation(self, x: int, /) -> Sequence[int]:
        """The numbers 0 .. x - 1 in the next order (Fisher and Yates; the bias of the remainder is below 2^-56)."""
        order = list(range(x))
        for last in range(x - 1, 0, -1):
            draw = tagged_hash("sampled-order", self._seed, self._count.to_bytes(8, "big"))
            self._count += 1
            other = int.from_bytes(draw[:8], "big") % (last + 1)
            order[last], order[other] = order[other], order[last]
        return order


@dataclass(frozen=True, slots=True)
class SampledValues:
    """Estimates and how sure they are.

    Attributes:
        estimates: one fraction for each player, in the table's unit.
        half_widths: of each player's interval, integers in the same unit, rounded up.
        confidence: of each interval.
        samples: pairs of orders, or draws from strata.
        evaluations: different coalitions whose utility was asked for.
        reached: whether every half-width is at most the precision that was asked for.
    """

    estimates: tuple[Fraction, ...]
    half_widths: tuple[int, ...]
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


def antithetic_shapley(utility: Utility, players: int, orders: Orders, stopping: Stopping) -> SampledValues:
    """Shapley values from orders of arrival in antithetic pairs.

    Args:
        utility: bitmask -> integer.
        players: N, at least 1; no upper bound but patience: a pair asks for up to 2 N utilities.
        orders: the source of randomness.
        stopping: precision, confidence, limit.

    Returns:
        estimates that add up to ``v(all) - v(empty)`` exactly.

    Raises:
        OperatorError: no player, or terms that cannot be met.
    """
    _check(players, stopping)
    known = _Remembered(utility)
    doubled = [_Mean() for _ in range(players)]
    done, look, halves = 0, 0, [0] * players
    while done < stopping.samples_max:
        look += 1
        wanted = min(stopping.samples_max, max(PAIRS_FIRST, 2 * done))
        while done < wanted:
            order = [int(player) for player in orders.permutation(players)]
            gains = [0] * players
            for arrival in (order, order[::-1]):
                present = 0
                for player in arrival:
                    gains[player] += known(present | 1 << player) - known(present)
                    present |= 1 << player
            for mean, gain in zip(doubled, gains, strict=True):
                mean.add(gain)
            done += 1
        error = error_of_look(stopping.confidence, look)
        # A pair's sum is twice a gain, so its spread is twice a gain's, and so is its half-width.
        spread = None if stopping.spread is None else 2 * stopping.spread
        halves = [-(-_half_width([(mean, Fraction(1))], error, spread) // 2) for mean in doubled]
        if max(halves) <= stopping.precision:
            break
    return SampledValues(
        estimates=tuple(Fraction(mean.total, 2 * mean.count) for mean in doubled),
        half_widths=tuple(halves),
        confidence=stopping.confidence,
        samples=done,
        evaluations=known.count,
        reached=max(halves) <= stopping.precision,
    )


def stratified_values(
    utility: Utility, players: int, orders: Orders, stopping: Stopping, method: str = "shapley"
) -> SampledValues:
    """Values by any method, from a mean for each player and each coalition size.

    Args:
        utility: bitmask -> integer.
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
    known = _Remembered(utility)
    strata = {(player, size): _Mean() for player in range(players) for size in range(players) if shares[size]}
    sampled = []
    for (player, size), mean in strata.items():
        if comb(players - 1, size) <= DRAWS_FIRST:
            for others in combinations([other for other in range(players) if other != player], size):
                mean.add(_gain(known, player, others))
            mean.whole = True
        else:
            sampled.append((player, size))
    done, look, halves = 0, 0, [0] * players
    wanted = dict.fromkeys(sampled, DRAWS_FIRST)
    while True:
        for player, size in sampled:
            for _ in range(min(wanted[player, size], max(0, stopping.samples_max - done))):
                strata[player, size].add(_gain(known, player, _others(orders, players, player, size)))
                done += 1
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
        confidence=stopping.confidence,
        samples=done,
        evaluations=known.count,
        reached=max(halves) <= stopping.precision,
    )


class _Remembered:
    """A utility that is asked once for each coalition."""

    def __init__(self, utility: Utility) -> None:
        self._utility = utility
        self._found: dict[int, int] = {}

    def __call__(self, mask: int) -> int:
        if mask not in self._found:
            self._found[mask] = int(self._utility(mask))
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


def _gain(known: _Remembered, player: int, others: Sequence[int]) -> int:
    present = sum(1 << other for other in others)
    return known(present | 1 << player) - known(present)


def _others(orders: Orders, players: int, player: int, size: int) -> list[int]:
    """``size`` of the other players, each such coalition equally likely."""
    drawn = [int(number) for number in orders.permutation(players - 1)][:size]
    return [number + (number >= player) for number in drawn]


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
