"""A panel's scores -> values and shares of the pool: institutions score each other, and own scores do not count.

Every member scores all players on people whom it held back: one number a player, its Shapley value over the whole
study on those people, noised. A table is one member's numbers; none counts beyond the plan's clip, which no mean of
clipped vectors exceeds. From the tables that were shown:

- **value** of a player: the others' numbers, each cut to within the plan's band around their weighted lower median,
  and averaged by weight. Its own table is not among them. A weight counts at most as much as the other scorers'
  together, so that one alone never makes a median.
- **whole**: what a player's value is a part of. The others' totals (of their positive numbers) estimate what all
  achieved together; the largest counts, up to twice their weighted upper median. Where the values that the player could
  bring about at most, by any table of its own or by none, add up to more, that counts instead.
- **share** of the pool: value over whole. Shares add up to at most 1. What is missing is nobody's, and is burned: so
  the values are *efficient* with the unattributed rest, and pushing others down does not push anybody up.

Proved, and tested: a member's own table changes nothing about its own share, whatever is in it, nor does showing none
while there is a quorum. So scoring oneself, scoring at random, copying somebody and withholding gain nothing. One liar
among three or more scorers moves a value at most to the largest or smallest of the honest numbers (and by the band).
Only measured (``docs/benchmarks.md``): what two members gain who agree. It is bounded by how far honest members
disagree, and is not nothing. Not prevented: one of four that scores everybody high takes much of the others' pay (as
far as the clip goes), two can take all of it; it is burned, and the tables stay in the log for all to see.

Impartial shares of a pool: de Clippel, Moulin and Tideman (2008), "Impartial division of a dollar", Journal of Economic
Theory 139:176. There all of it is divided; here the rest is burned, in exchange for medians.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias

from federation.rules.rewards import Payments
from federation.rules.terms import Panel

UTILITY_UNIT: Final = 1 << 40
_TOTALS_APART_MAX: Final = 2
"""A total counts up to this many times their median, so that one high total alone does not decide."""

Tables: TypeAlias = Mapping[str, Mapping[str, int]]
"""Member -> player -> score in 2^-40 nats; a member is a player, and scores all players."""

_Scores: TypeAlias = Sequence[tuple[int, int]]
"""(score, weight) of one player."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a panel found.

    Attributes:
        values: player -> value in nats.
        wholes: player -> what its value is a part of, in nats.
        shares: player -> share of the pool, 0 to 1; together at most 1.
    """

    values: dict[str, Fraction]
    wholes: dict[str, Fraction]
    shares: dict[str, Fraction]


def score(players: Sequence[str], tables: Tables, weights: Mapping[str, int], terms: Panel) -> Scored:
    """Combine the tables that were shown.

    Args:
        players: everybody who may be paid.
        tables: of those members who showed theirs.
        weights: player -> weight, positive; the plan's.
        terms: the plan's ``valuation.panel``. With fewer tables than its quorum every value and share is 0; it is at
            least 3, so that a player has two scorers or more.
    """
    names = sorted(players)
    zero = dict.fromkeys(names, Fraction(0))
    if len(tables) < terms.quorum:
        return Scored(values=zero, wholes=dict(zero), shares=dict(zero))
    limit, band = int(Fraction(terms.clip) * UTILITY_UNIT), Fraction(terms.band) * UTILITY_UNIT
    within = {
        member: {name: max(-limit, min(limit, each)) for name, each in table.items()}
        for member, table in tables.items()
    }
    values = {name: _value(_of(name, within, weights), band) for name in names}
    wholes: dict[str, Fraction] = {}
    shares: dict[str, Fraction] = {}
    for name in names:
        others = {member: table for member, table in within.items() if member != name}
        highest = others | {name: dict.fromkeys(names, limit)}
        reached = max(_sum(names, each, weights, band) for each in (others, highest))
        wholes[name] = max(reached, Fraction(_total(others, weights)))
        shares[name] = max(Fraction(0), values[name]) / wholes[name] if wholes[name] else Fraction(0)
    return Scored(
        values={name: value / UTILITY_UNIT for name, value in values.items()},
        wholes={name: whole / UTILITY_UNIT for name, whole in wholes.items()},
        shares=shares,
    )


def pay_shares(shares: Mapping[str, Fraction], pool: int, minimum_share: Decimal) -> Payments:
    """Pay out shares that add up to at most 1, each rounded down; the rest is burned.

    Args:
        shares: name -> share of the pool.
        pool: micro-credits.
        minimum_share: whoever has less gets nothing.
    """
    minimum = Fraction(minimum_share)
    rewards = {
        name: share.numerator * pool // share.denominator if share >= minimum else 0
        for name, share in sorted(shares.items())
    }
    return Payments(rewards=rewards, burned=pool - sum(rewards.values()), shares=dict(sorted(shares.items())))


def lower_median(scores: _Scores) -> int:
    """The smallest score at which half of the weight is reached."""
    return _weighted(scores, beyond=False)


def upper_median(scores: _Scores) -> int:
    """The smallest score at which more than half of the weight is reached."""
    return _weighted(scores, beyond=True)


def capped(scores: _Scores) -> list[tuple[int, int]]:
    """The same with no weight above that of all others together (of a single one: its own)."""
    whole = sum(weight for _, weight in scores)
    return [(each, min(weight, whole - weight) or weight) for each, weight in scores]


def _of(player: str, tables: Tables, weights: Mapping[str, int]) -> list[tuple[int, int]]:
    """The others' scores of a player, with their weights."""
    return capped([(table[player], weights[member]) for member, table in tables.items() if member != player])


def _value(scores: _Scores, band: Fraction) -> Fraction:
    """Cut to the band around the median, and averaged; in the scores' unit."""
    middle = Fraction(lower_median(scores))
    if not band:
        return middle
    cut = (min(max(Fraction(each), middle - band), middle + band) * weight for each, weight in scores)
    return sum(cut, Fraction(0)) / sum(weight for _, weight in scores)


def _sum(names: Sequence[str], tables: Tables, weights: Mapping[str, int], band: Fraction) -> Fraction:
    """All positive values together."""
    found = (_value(_of(name, tables, weights), band) for name in names)
    return sum((max(Fraction(0), value) for value in found), Fraction(0))


def _total(tables: Tables, weights: Mapping[str, int]) -> int:
    """What all achieved together, as these members saw it; in 2^-40 nats."""
    totals = [(sum(max(0, each) for each in table.values()), weights[member]) for member, table in tables.items()]
    return min(max(total for total, _ in totals), _TOTALS_APART_MAX * upper_median(capped(totals)))


def _weighted(scores: _Scores, *, beyond: bool) -> int:
    half = sum(weight for _, weight in scores)
    reached = 0
    for each, weight in sorted(scores):
        reached += 2 * weight
        if reached > half or (reached == half and not beyond):
            return each
    raise ValueError("there is no score")
