"""Institutions that are one for the value of their data: copies of one data set, and several names of one owner.

Who has much of the same people is a **copy** of the other; copies, and institutions that both declared a common owner,
are one **cluster**. A cluster enters the game of coalitions as one player, the quotient game of Owen ("Values of games
with a priori unions", 1977): its members come together or not at all. So what three copies can bring is
counted once, and not three times in three orders. A cluster's copies weigh in the model as the largest of them would
alone; what has one owner weighs as its parts together. A cluster's value is shared by its members' weights, exactly.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

from federation.errors import PeerError
from federation.rules.aggregation import integer_weights
from federation.rules.valuation import method_named

Groups: TypeAlias = tuple[tuple[str, ...], ...]
"""Groups of two or more names, sorted; nobody is in two of them."""
Pair: TypeAlias = tuple[str, str]


def connected(names: Collection[str], pairs: Iterable[Pair]) -> Groups:
    """The connected components of two or more: who is paired with whom, over any number of steps."""
    group = {name: frozenset({name}) for name in names}
    for first, second in pairs:
        together = group[first] | group[second]
        group.update(dict.fromkeys(together, together))
    return tuple(sorted({tuple(sorted(each)) for each in group.values() if len(each) > 1}))


def blocks(names: Iterable[str], groups: Groups) -> Groups:
    """Every one of ``names`` in exactly one block: those of a group together, the others alone; in order of name."""
    ordered = sorted(names)
    of = {name: group for group in groups for name in group}
    found = {of.get(name, (name,)): None for name in ordered}
    return tuple(tuple(name for name in group if name in ordered) for group in found)


def cluster_weights(nominal: Mapping[str, int], cap: Decimal, *, clusters: Groups, copies: Groups) -> dict[str, int]:
    """Each site's integer weight: as ``aggregation.integer_weights`` where every cluster is one institution.

    Copies count as the largest of them, in equal parts; a cluster as all that its members count. The cap holds for
    clusters. Without clusters it is ``integer_weights`` itself.

    Args:
        nominal: site -> nominal cohort, positive.
        cap: the largest share of one cluster.
        clusters: groups of ``nominal``'s sites.
        copies: groups within the clusters.

    Raises:
        OperatorError: as ``aggregation.integer_weights``.
    """
    if not clusters:
        return integer_weights(nominal, cap)
    counted: dict[str, Fraction] = {}
    for group in blocks(nominal, copies):
        counted |= dict.fromkeys(group, Fraction(max(nominal[name] for name in group), len(group)))
    together = {group[0]: sum((counted[name] for name in group), Fraction(0)) for group in blocks(nominal, clusters)}
    whole = integer_weights({name: int(size) for name, size in together.items()}, cap)
    exact = {
        name: whole[group[0]] * counted[name] / together[group[0]]
        for group in blocks(nominal, clusters)
        for name in group
    }
    scale = math.lcm(*(part.denominator for part in exact.values()))
    scaled = {name: int(exact[name] * scale) for name in nominal}
    divisor = math.gcd(*scaled.values())
    return {name: weight // divisor for name, weight in scaled.items()}


@dataclass(frozen=True, slots=True)
class Quotient:
    """The game of a table's players in which clusters are players.

    Attributes:
        players: the table's, in its order.
        blocks: of players' places; B of them, each a player of this game.
        coalitions: for each of its 2^B coalitions the number of the table's coalition that it is.
        shares: each player's part of its block's value; a block's add up to 1.
    """

    players: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    coalitions: tuple[int, ...]
    shares: tuple[Fraction, ...]

    def values(self, utilities: Sequence[int], method: str = "shapley") -> list[Fraction]:
        """Each player's value by ``method``, in the table's unit: its part of its block's value in this game.

        Args:
            utilities: 2^N integers, N the number of players.
            method: a key of ``valuation.METHODS``.

        Raises:
            PeerError: not a table of these players.
            OperatorError: an unknown method.
        """
        if len(utilities) != 1 << len(self.players):
            raise PeerError(
                f"A table of {len(utilities)} utilities is not one of {len(self.players)} players.",
                remedy="Keep it as evidence, and ask the coordinator for the whole table.",
            )
        if not self.players or len(self.blocks) == len(self.players):
            return method_named(method)(utilities)
        worth = method_named(method)([utilities[coalition] for coalition in self.coalitions])
        return [worth[self.block_of(place)] * self.shares[place] for place in range(len(self.players))]

    def block_of(self, place: int) -> int:
        """Which block the player at ``place`` belongs to."""
        return next(number for number, block in enumerate(self.blocks) if place in block)


def quotient(players: Sequence[str], clusters: Groups, weights: Mapping[str, int]) -> Quotient:
    """The quotient game of a table's players; of a cluster those count who are players.

    Args:
        players: of the table, sorted.
        clusters: of the study.
        weights: site -> positive weight: a cluster's value is shared by them.
    """
    places = {name: place for place, name in enumerate(players)}
    found = tuple(tuple(places[name] for name in group) for group in blocks(players, clusters))
    masks = [sum(1 << place for place in block) for block in found]
    coalitions = [0]
    for mask in masks:
        coalitions += [mask | before for before in coalitions]
    shares = [Fraction(0)] * len(players)
    for block in found:
        whole = sum(weights[players[place]] for place in block)
        for place in block:
            shares[place] = Fraction(weights[players[place]], whole)
    return Quotient(players=tuple(players), blocks=found, coalitions=tuple(coalitions), shares=tuple(shares))
