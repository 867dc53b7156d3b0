from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.rules.rewards import lower_bounds, pay

names = st.sampled_from(["cleveland", "hungary", "switzerland", "va_long_beach", "ewr", "jfk"])
values = st.dictionaries(names, st.fractions(min_value=-10, max_value=10))
pools = st.integers(0, 10**15)
minimums = st.decimals(min_value=0, max_value=1, places=3)


@given(values, pools, minimums)
def test_rewards_and_burned_credits_add_up_to_the_pool(worth: dict[str, Fraction], pool: int, minimum: Decimal) -> None:
    payments = pay(worth, pool, minimum)
    assert sum(payments.rewards.values()) + payments.burned == pool == payments.pool
    assert payments.burned >= 0
    assert all(isinstance(reward, int) and reward >= 0 for reward in payments.rewards.values())
    assert set(payments.rewards) == set(worth)


@given(values, pools, minimums)
def test_each_reward_is_its_exact_share_within_one_or_nothing(
    worth: dict[str, Fraction], pool: int, minimum: Decimal
) -> None:
    payments = pay(worth, pool, minimum)
    total = sum(max(Fraction(0), value) for value in worth.values())
    for name, reward in payments.rewards.items():
        if worth[name] <= 0 or worth[name] / total < Fraction(minimum):
            assert reward == 0
        else:
            assert abs(reward - pool * worth[name] / total) < 1


@given(values, pools, minimums)
def test_more_value_never_earns_less(worth: dict[str, Fraction], pool: int, minimum: Decimal) -> None:
    rewards = pay(worth, pool, minimum).rewards
    rising = [rewards[name] for name in sorted(worth, key=lambda name: (worth[name], rewards[name]))]
    assert rising == sorted(rising)


@given(values, pools, minimums, st.fractions(min_value="1/1000", max_value=1000))
def test_the_unit_of_value_does_not_matter(
    worth: dict[str, Fraction], pool: int, minimum: Decimal, factor: Fraction
) -> None:
    scaled = {name: value * factor for name, value in reversed(worth.items())}
    assert pay(scaled, pool, minimum) == pay(worth, pool, minimum)


def test_without_any_improvement_all_is_burned() -> None:
    payments = pay({"a": Fraction(-1), "b": Fraction(0)}, 100, Decimal(0))
    assert payments.rewards == {"a": 0, "b": 0}
    assert payments.burned == 100
    assert pay({}, 7, Decimal(0)).burned == 7


def test_what_is_below_the_minimum_is_burned_and_not_handed_to_the_others() -> None:
    payments = pay({"a": Fraction(96), "b": Fraction(4)}, 1000, Decimal("0.05"))
    assert payments.rewards == {"a": 960, "b": 0}
    assert payments.burned == 40
    assert payments.shares == {"a": Fraction(24, 25), "b": Fraction(1, 25)}


def test_a_share_of_exactly_the_minimum_is_paid() -> None:
    assert pay({"a": Fraction(19), "b": Fraction(1)}, 100, Decimal("0.05")).rewards == {"a": 95, "b": 5}


def test_the_largest_remainder_gets_the_odd_credit_and_names_break_ties() -> None:
    third = Fraction(1, 3)
    assert pay({"c": third, "a": third, "b": third}, 100, Decimal(0)).rewards == {"a": 34, "b": 33, "c": 33}
    assert pay({"a": Fraction(1), "b": Fraction(2)}, 10, Decimal(0)).rewards == {"a": 3, "b": 7}


@pytest.mark.parametrize(("pool", "minimum"), [(-1, "0"), (1, "-0.1"), (1, "1.1")])
def test_impossible_terms_are_refused(pool: int, minimum: str) -> None:
    with pytest.raises(OperatorError):
        pay({"a": Fraction(1)}, pool, Decimal(minimum))


certain = st.dictionaries(
    names, st.tuples(st.fractions(min_value=-10, max_value=10), st.fractions(min_value=0, max_value=5))
)
zs = st.decimals(min_value=0, max_value=10, places=2)


@given(certain, zs, pools, minimums)
def test_a_lower_bound_is_never_above_the_value_and_no_improvement_is_never_paid(
    worth: dict[str, tuple[Fraction, Fraction]], z: Decimal, pool: int, minimum: Decimal
) -> None:
    of = {name: value for name, (value, _) in worth.items()}
    bounds = lower_bounds(of, {name: error for name, (_, error) in worth.items()}, z)
    payments = pay(bounds, pool, minimum)
    assert sum(payments.rewards.values()) <= pool
    assert payments.pool == pool
    for name, bound in bounds.items():
        assert bound <= of[name]
        assert of[name] > 0 or payments.rewards[name] == 0


@given(certain, st.tuples(zs, zs).map(sorted))
def test_more_standard_errors_taken_off_never_raise_a_bound(
    worth: dict[str, tuple[Fraction, Fraction]], two: list[Decimal]
) -> None:
    of = {name: value for name, (value, _) in worth.items()}
    errors = {name: error for name, (_, error) in worth.items()}
    less, more = (lower_bounds(of, errors, z) for z in two)
    assert all(more[name] <= less[name] for name in worth)
    assert lower_bounds(of, errors, Decimal(0)) == of
    assert lower_bounds({"zero": Fraction(0)}, {"zero": Fraction(0)}, two[1]) == {"zero": 0}
