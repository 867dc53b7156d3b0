"""Clusters: one player, one weight, one value that its members share; laws of the quotient game."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.aggregation import integer_weights
from federation.rules.clusters import Groups, blocks, cluster_weights, connected, quotient
from federation.rules.valuation import METHODS, shapley

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def games(draw: Any) -> tuple[tuple[str, ...], Groups, dict[str, int], list[int]]:
    """Players (some absent), clusters of all names, weights, and a table of the players."""
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=4))
    players = tuple(sorted(draw(st.sets(st.sampled_from(NAMES)))))
    weights = {name: draw(st.integers(1, 50)) for name in NAMES}
    size = 1 << len(players)
    utilities = draw(st.lists(st.integers(-(10**9), 10**9), min_size=size, max_size=size))
    return players, connected(NAMES, pairs), weights, utilities


def test_pairs_connect_over_any_number_of_steps() -> None:
    assert connected(NAMES, [("a", "b"), ("d", "c"), ("b", "e")]) == (("a", "b", "e"), ("c", "d"))
    assert connected(NAMES, [("a", "a")]) == ()
    assert blocks(NAMES, (("b", "d"),)) == (("a",), ("b", "d"), ("c",), ("e",))
    assert blocks(("c", "d"), (("b", "d"),)) == (("c",), ("d",))


@given(games())
def test_shapley_values_of_clusters_add_up_to_what_all_achieve(game: Any) -> None:
    players, clusters, weights, utilities = game
    values = quotient(players, clusters, weights).values(utilities)
    assert sum(values) == utilities[-1] - utilities[0]


@given(games(), st.sampled_from(sorted(METHODS)))
def test_without_clusters_it_is_the_game_itself(game: Any, method: str) -> None:
    players, _, weights, utilities = game
    assert quotient(players, (), weights).values(utilities, method) == METHODS[method](utilities)


@given(games())
def test_a_cluster_shares_by_weight_and_one_cluster_of_all_shares_everything(game: Any) -> None:
    players, clusters, weights, utilities = game
    values = dict(zip(players, quotient(players, clusters, weights).values(utilities), strict=True))
    for group in clusters:
        present = [name for name in group if name in players]
        assert len({values[name] / weights[name] for name in present}) <= 1
    if players:
        whole = quotient(players, (NAMES,), weights).values(utilities)
        total = sum(weights[name] for name in players)
        assert whole == [Fraction(weights[name], total) * (utilities[-1] - utilities[0]) for name in players]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=8, max_size=8), st.integers(2, 4))
def test_copies_that_are_one_player_have_together_what_one_has(utilities: list[int], copies: int) -> None:
    """A game of a, b, c; in the larger one c comes under several names, and brings nothing before all of them came."""
    names = ("a", "b", *(f"c{number}" for number in range(copies)))
    all_of_c = sum(1 << place for place in range(2, 2 + copies))
    table = [utilities[(mask & 3) | (4 if mask & all_of_c == all_of_c else 0)] for mask in range(1 << len(names))]
    game = quotient(names, (names[2:],), dict.fromkeys(names, 1))
    values, single = game.values(table), shapley(utilities)
    assert values[:2] == single[:2]
    assert sum(values[2:]) == single[2]


def test_a_table_of_other_players_is_refused() -> None:
    with pytest.raises(PeerError):
        quotient(("a", "b"), (), {"a": 1, "b": 1}).values([0, 1])


def test_copies_weigh_as_the_largest_of_them_and_owners_as_all_their_parts() -> None:
    nominal = {"a": 300, "b": 300, "c": 240, "d": 100, "e": 60}
    copies = cluster_weights(nominal, Decimal(1), clusters=(("a", "b", "c"),), copies=(("a", "b", "c"),))
    assert copies == {"a": 5, "b": 5, "c": 5, "d": 5, "e": 3}  # 300 between three
    owner = cluster_weights(nominal, Decimal(1), clusters=(("d", "e"),), copies=())
    assert owner == {"a": 15, "b": 15, "c": 12, "d": 5, "e": 3}
    both = cluster_weights(nominal, Decimal(1), clusters=(("a", "b", "e"),), copies=(("a", "b"),))
    assert both == {"a": 15, "b": 15, "c": 24, "d": 10, "e": 6}


def test_the_cap_is_on_the_cluster() -> None:
    nominal = dict.fromkeys(("a", "b", "c", "d"), 100)
    capped = cluster_weights(nominal, Decimal("0.4"), clusters=(("a", "b"),), copies=())
    assert capped == {"a": 2, "b": 2, "c": 3, "d": 3}  # 200 of 400, cut to 40 %


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 10**6), min_size=1), st.sampled_from(["1", "0.3"]))
def test_without_clusters_weights_are_what_they_always_were(nominal: dict[str, int], cap: str) -> None:
    assert cluster_weights(nominal, Decimal(cap), clusters=(), copies=()) == integer_weights(nominal, Decimal(cap))
