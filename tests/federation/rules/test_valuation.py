import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.valuation import banzhaf, named_values, shapley

OWN = Path(__file__).parents[2] / "vectors" / "games.json"
Game = dict[str, list[str]]


def tables(players_max: int = 5, bits: int = 45) -> st.SearchStrategy[list[int]]:
    return st.integers(0, players_max).flatmap(
        lambda count: st.lists(st.integers(-(2**bits), 2**bits), min_size=2**count, max_size=2**count)
    )


def check(method: Callable[[list[int]], list[Fraction]], game: Game, name: str) -> None:
    wanted = [Fraction(text) for text in game[name]]
    table = [Fraction(text) for text in game["values_by_bitmask"]]
    # Values are linear: a table of fractions is a table of integers over one denominator.
    scale = math.lcm(*(value.denominator for value in table))
    found = [value / scale for value in method([int(value * scale) for value in table])]
    assert found == wanted
    assert all(abs(float(one) - float(two)) <= 1e-12 for one, two in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", sorted(json.loads(OWN.read_text(encoding="utf-8"))))
def test_closed_forms_of_textbook_games(name: str) -> None:
    game = json.loads(OWN.read_text(encoding="utf-8"))[name]
    check(shapley, game, "shapley")
    check(banzhaf, game, "banzhaf")


def test_published_games(shared_dir: Path) -> None:
    games = json.loads((shared_dir / "vectors" / "games.json").read_text(encoding="utf-8"))
    assert games
    for game in games.values():
        check(shapley, game, "shapley")
        check(banzhaf, game, "banzhaf")


@given(tables(players_max=4))
def test_shapley_is_the_mean_gain_over_all_orders_of_arrival(table: list[int]) -> None:
    count = len(table).bit_length() - 1
    sums, orders = [0] * count, list(permutations(range(count)))
    for order in orders:
        present = 0
        for player in order:
            sums[player] += table[present | 1 << player] - table[present]
            present |= 1 << player
    assert shapley(table) == [Fraction(total, len(orders)) for total in sums]


@given(tables(bits=70))
def test_values_add_up_to_what_all_achieve_exactly(table: list[int]) -> None:
    assert sum(shapley(table), Fraction(0)) == table[-1] - table[0]


@given(st.integers(1, 5), st.data())
def test_a_player_that_changes_nothing_is_worth_nothing(count: int, data: st.DataObject) -> None:
    table = data.draw(st.lists(st.integers(-(2**40), 2**40), min_size=2**count, max_size=2**count))
    dummy = data.draw(st.integers(0, count - 1))
    without = [table[mask & ~(1 << dummy)] for mask in range(2**count)]
    assert shapley(without)[dummy] == 0
    assert banzhaf(without)[dummy] == 0


@given(st.integers(1, 4), st.data())
def test_values_of_a_sum_of_games_are_the_sums_of_values(count: int, data: st.DataObject) -> None:
    entries = st.lists(st.integers(-(2**40), 2**40), min_size=2**count, max_size=2**count)
    one, two = data.draw(entries), data.draw(entries)
    both = [first + second for first, second in zip(one, two, strict=True)]
    for method in (shapley, banzhaf):
        assert method(both) == [a + b for a, b in zip(method(one), method(two), strict=True)]


@given(tables(players_max=4), st.randoms(use_true_random=False))
def test_names_decide_not_positions(table: list[int], shuffle: Random) -> None:
    count = len(table).bit_length() - 1
    order = list(range(count))
    shuffle.shuffle(order)
    moved = [0] * len(table)
    for mask, value in enumerate(table):
        moved[sum(1 << order.index(player) for player in range(count) if mask >> player & 1)] = value
    names = [f"site{player}" for player in range(count)]
    assert named_values([names[player] for player in order], moved) == named_values(names, table)


@pytest.mark.parametrize("bits", [40, 80])
def test_fourteen_players_are_exact(bits: int) -> None:
    # v(S) = (sum of weights)^2 has phi_i = w_i * (sum of all weights); a large factor leaves the 64-bit path.
    weights = [3**player for player in range(14)]
    sums = [sum(weight for player, weight in enumerate(weights) if mask >> player & 1) for mask in range(2**14)]
    table = [total**2 << (bits - 40) for total in sums]
    assert shapley(table) == [weight * sum(weights) << (bits - 40) for weight in weights]


@pytest.mark.parametrize("length", [0, 3, 5, 2**15])
def test_incomplete_or_too_large_tables_are_refused(length: int) -> None:
    for method in (shapley, banzhaf):
        with pytest.raises(PeerError, match="table"):
            method([0] * length)


def test_a_table_of_other_players_is_refused() -> None:
    with pytest.raises(PeerError):
        named_values(["a", "b"], [0, 1])
    with pytest.raises(PeerError):
        named_values(["a", "a"], [0, 1, 1, 1])
    assert named_values([], [5]) == {}
