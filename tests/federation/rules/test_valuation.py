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

from federation.errors import OperatorError, PeerError
from federation.rules.terms import Valuation
from federation.rules.valuation import (
    BETAS,
    METHODS,
    banzhaf,
    beta_shapley,
    beta_weights,
    leave_one_out,
    method_named,
    named_values,
    shapley,
    size_shares,
)

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
    for name, method in METHODS.items():
        assert method(without)[dummy] == 0, name


@given(st.integers(1, 4), st.data())
def test_values_of_a_sum_of_games_are_the_sums_of_values(count: int, data: st.DataObject) -> None:
    entries = st.lists(st.integers(-(2**40), 2**40), min_size=2**count, max_size=2**count)
    one, two = data.draw(entries), data.draw(entries)
    both = [first + second for first, second in zip(one, two, strict=True)]
    for method in METHODS.values():
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
    for method in METHODS:
        assert named_values([names[player] for player in order], moved, method) == named_values(names, table, method)


@given(st.integers(2, 5), st.data())
def test_players_who_bring_the_same_are_worth_the_same(count: int, data: st.DataObject) -> None:
    table = data.draw(st.lists(st.integers(-(2**40), 2**40), min_size=2**count, max_size=2**count))
    one, two = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))

    def swapped(mask: int) -> int:
        rest = mask & ~(1 << one | 1 << two)
        return rest | (mask >> one & 1) << two | (mask >> two & 1) << one

    symmetric = [table[min(mask, swapped(mask))] for mask in range(2**count)]
    for name, method in METHODS.items():
        values = method(symmetric)
        assert values[one] == values[two], name


@given(st.integers(1, 5), st.data())
def test_who_brings_more_to_every_group_is_not_worth_less(count: int, data: st.DataObject) -> None:
    """Strong monotonicity (Young 1985): a value rises with every gain of the player."""
    entries = st.lists(st.integers(-(2**40), 2**40), min_size=2**count, max_size=2**count)
    table, player = data.draw(entries), data.draw(st.integers(0, count - 1))
    more = data.draw(st.lists(st.integers(0, 2**20), min_size=2**count, max_size=2**count))
    raised = [value + (more[mask] if mask >> player & 1 else 0) for mask, value in enumerate(table)]
    for name, method in METHODS.items():
        assert method(raised)[player] >= method(table)[player], name


@given(tables(players_max=4))
def test_beta_shapley_is_its_integral(table: list[int]) -> None:
    """Word for word: with t from Beta(beta, alpha), every other player joins with chance t; the mean gain of i."""
    count = len(table).bit_length() - 1
    for alpha, beta in ((1, 1), (4, 1), (1, 16), (2, 3)):
        density = math.factorial(alpha + beta - 1) // (math.factorial(alpha - 1) * math.factorial(beta - 1))
        for player in range(count):
            total = Fraction(0)
            for mask in range(2**count):
                if mask >> player & 1:
                    continue
                ones, zeros = mask.bit_count() + beta - 1, count - 1 - mask.bit_count() + alpha - 1
                # The integral of t^a (1 - t)^b over 0 .. 1 is a! b! / (a + b + 1)!
                integral = Fraction(math.factorial(ones) * math.factorial(zeros), math.factorial(ones + zeros + 1))
                total += density * integral * (table[mask | 1 << player] - table[mask])
            assert beta_shapley(table, alpha, beta)[player] == total


@given(tables(players_max=5, bits=70))
def test_beta_one_one_is_shapley(table: list[int]) -> None:
    assert beta_shapley(table) == beta_shapley(table, Fraction(1), 1) == shapley(table)


@given(st.integers(1, 14), st.fractions(min_value="1/8", max_value=20), st.fractions(min_value="1/8", max_value=20))
def test_weights_of_all_coalitions_add_up_to_one(players: int, alpha: Fraction, beta: Fraction) -> None:
    weights = beta_weights(players, alpha, beta)
    assert sum(math.comb(players - 1, size) * weight for size, weight in enumerate(weights)) == 1
    assert beta_weights(players, beta, alpha) == weights[::-1]
    for method in METHODS:
        assert sum(size_shares(method, players)) == 1


@given(tables(players_max=5))
def test_leaving_one_out_asks_only_what_is_missing_from_all(table: list[int]) -> None:
    full = len(table) - 1
    assert leave_one_out(table) == [table[full] - table[full & ~(1 << at)] for at in range(full.bit_length())]


@given(tables(players_max=5))
def test_a_method_s_shares_of_sizes_give_its_values(table: list[int]) -> None:
    count = len(table).bit_length() - 1
    for name, method in METHODS.items():
        for player, value in enumerate(method(table)):
            total = Fraction(0)
            for size, share in enumerate(size_shares(name, count)):
                gains = [
                    table[mask | 1 << player] - table[mask]
                    for mask in range(2**count)
                    if not mask >> player & 1 and mask.bit_count() == size
                ]
                total += share * Fraction(sum(gains), len(gains))
            assert total == value


def test_a_large_alpha_looks_at_few_and_a_large_beta_at_many() -> None:
    first = {name: beta_weights(5, *parameters)[0] for name, parameters in BETAS.items()}
    assert first["beta-16-1"] > first["beta-4-1"] > Fraction(1, 5) > first["beta-1-4"] > first["beta-1-16"]


def test_a_plan_names_every_method_and_no_other() -> None:
    for name in METHODS:
        Valuation(method=name, utility="negative-log-loss")  # type: ignore[arg-type] # read from a plan, a text
    for call in (method_named, lambda name: size_shares(name, 3), lambda name: named_values([], [1], name)):
        with pytest.raises(OperatorError, match="no method of valuation"):
            call("owen")
    for alpha, beta in ((0, 1), (1, -1)):
        with pytest.raises(OperatorError, match="not a distribution"):
            beta_shapley([0, 1], alpha, beta)


@pytest.mark.parametrize("bits", [40, 80])
def test_fourteen_players_are_exact(bits: int) -> None:
    # v(S) = (sum of weights)^2 has phi_i = w_i * (sum of all weights); a large factor leaves the 64-bit path.
    weights = [3**player for player in range(14)]
    sums = [sum(weight for player, weight in enumerate(weights) if mask >> player & 1) for mask in range(2**14)]
    table = [total**2 << (bits - 40) for total in sums]
    assert shapley(table) == [weight * sum(weights) << (bits - 40) for weight in weights]


@pytest.mark.parametrize("length", [0, 3, 5, 2**15])
def test_incomplete_or_too_large_tables_are_refused(length: int) -> None:
    for method in METHODS.values():
        with pytest.raises(PeerError, match="table"):
            method([0] * length)


def test_a_table_of_other_players_is_refused() -> None:
    with pytest.raises(PeerError):
        named_values(["a", "b"], [0, 1])
    with pytest.raises(PeerError):
        named_values(["a", "a"], [0, 1, 1, 1])
    assert named_values([], [5]) == {}
