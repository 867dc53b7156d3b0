"""Which coalitions a round's value table holds where there are too many for all: by a public rule, from the log.

A round with more than 14 admitted updates has a *sampled* table. Its coalitions are those that ``sampled_values`` asks
for, one after the other, with orders of arrival hashed from a seed: the study, the round, and every commitment that was
in the log when commitments closed. No update had been shown then, so whoever could still move the seed (a site that
commits late, a coordinator that drops a commitment) did not know what any sample would be worth.

When to stop follows from the utilities themselves, by the terms of the plan's ``valuation.sampling``. So the seed and
the committed integers give the coalitions, the values and their intervals again, to the last digit, on any machine. A
table lists utilities alone, in the order in which they are asked for; nobody's comes first and everybody's last, as in
a table of all coalitions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import tagged_hash
from federation.rules.documents import ValueTable
from federation.rules.orders import HashedOrders
from federation.rules.sampled_values import (
    SampledValues,
    Stopping,
    Utilities,
    antithetic_shapley,
    stratified_values,
)
from federation.rules.terms import DRAWS_FIRST, TABLE_PLAYERS_MAX, Valuation, coalitions_needed, coalitions_whole
from federation.rules.valuation import method_named


@dataclass(frozen=True, slots=True)
class ValueSample:
    """The coalitions of a sampled table, in the table's order, and what follows from their utilities."""

    coalitions: tuple[int, ...]
    utilities: tuple[int, ...]
    values: SampledValues


def is_sampled(players: int) -> bool:
    """Whether a round of so many admitted updates has a sampled table."""
    return players > TABLE_PLAYERS_MAX


def seed_of(study: str, number: int, commitments: Mapping[str, str]) -> str:
    """What a round's sample is drawn from, 64 hexadecimal digits.

    Args:
        study: the study's id.
        number: the round's.
        commitments: did -> commitment (hexadecimal), all that were in the log when commitments closed.
    """
    parts = [part for did, value in sorted(commitments.items()) for part in (did.encode("ascii"), bytes.fromhex(value))]
    return tagged_hash("value-sample", study.encode("utf-8"), b"%d" % number, *parts).hex()


def draw(players: int, utilities: Utilities, valuation: Valuation, seed: str) -> ValueSample:
    """Draw a round's coalitions until the values are as precise as the plan asks, or its limit is met.

    Args:
        players: N, more than a table of all coalitions can hold.
        utilities: bitmasks -> integers; nobody (0) and everybody are asked for first.
        valuation: the plan's, with its ``sampling``.
        seed: the round's (:func:`seed_of`).

    Raises:
        OperatorError: the plan has no terms of sampling.
    """
    everybody = (1 << players) - 1
    nobodys, everybodys = map(int, utilities((0, everybody)))
    asked = {0: nobodys}

    def known(masks: Sequence[int]) -> list[int]:
        new = [mask for mask in masks if mask not in (0, everybody)]
        asked.update(zip(new, map(int, utilities(new)), strict=True))
        return [everybodys if mask == everybody else asked[mask] for mask in masks]

    orders = HashedOrders(bytes.fromhex(seed))
    stopping = _stopping(players, valuation)
    if valuation.method == "shapley":
        values = antithetic_shapley(known, players, orders, stopping)
    else:
        values = stratified_values(known, players, orders, stopping, valuation.method)
    return ValueSample((*asked, everybody), (*asked.values(), everybodys), values)


def redraw(table: ValueTable, valuation: Valuation) -> ValueSample:
    """The sample of a table as it was drawn: each utility is taken for the coalition whose turn it is.

    Raises:
        PeerError: the table holds more or fewer utilities than are asked for, or is not a sampled one.
    """
    if table.seed is None or not is_sampled(len(table.players)):
        raise _refused(table.round, "it is not a sampled one")
    middle = iter(table.utilities[1:-1])
    everybody = (1 << len(table.players)) - 1

    def take(mask: int) -> int:
        if mask in (0, everybody):
            return table.utilities[-1 if mask else 0]
        following = next(middle, None)
        if following is None:
            raise _refused(table.round, "it ends before the plan's precision or limit is met")
        return following

    try:
        sample = draw(len(table.players), lambda masks: [take(mask) for mask in masks], valuation, table.seed)
    except OperatorError as error:
        raise _refused(table.round, error.message) from error
    if sample.utilities != table.utilities:
        raise _refused(table.round, "it goes on after the plan's precision or limit is met")
    return sample


def values_of(table: ValueTable, valuation: Valuation) -> tuple[Fraction, ...]:
    """What each of a round's players brought, in the table's order of players, in 2^-40 nats.

    Exact fractions from a table of all coalitions. From a sample the estimates: orders of arrival give fractions that
    add up to the measured improvement; strata give fractions that are rounded to the unit, half to even.

    Raises:
        PeerError: the table is not one of its players, or not as its seed asks for.
    """
    if table.seed is None:
        return tuple(method_named(valuation.method)(table.utilities))
    estimates = redraw(table, valuation).values.estimates
    return estimates if valuation.method == "shapley" else tuple(Fraction(round(value)) for value in estimates)


def coalitions_of(table: ValueTable, valuation: Valuation) -> Sequence[int]:
    """The bitmasks of a table's coalitions, in its order."""
    return range(len(table.utilities)) if table.seed is None else redraw(table, valuation).coalitions


def place_of(table: ValueTable, valuation: Valuation, coalition: int) -> int | None:
    """Where a coalition's utility is in a table; None where it was not drawn."""
    found = coalitions_of(table, valuation)
    return found.index(coalition) if coalition in found else None


def _stopping(players: int, valuation: Valuation) -> Stopping:
    terms = valuation.sampling
    if terms is None or terms.coalitions_max < coalitions_needed(valuation.method, players):
        raise OperatorError(
            f"The plan has no terms for sampling the values of {players} institutions.",
            remedy="Write a section [valuation.sampling] into the plan.",
        )
    left = terms.coalitions_max - coalitions_whole(valuation.method, players)
    each = 2 * (players - 1) if valuation.method == "shapley" else 2
    return Stopping(
        precision=terms.half_width,
        confidence=Fraction(terms.confidence),
        samples_max=max(DRAWS_FIRST, left // each),
    )


def _refused(number: int, why: str) -> PeerError:
    return PeerError(f"The value table of round {number} is refused: {why}.", remedy="Keep it as evidence.")
