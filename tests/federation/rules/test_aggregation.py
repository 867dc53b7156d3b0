import math
from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import OperatorError, PeerError
from federation.rules.aggregation import aggregate, clip_to_norm, coalition_models, integer_weights, norm_within
from federation.rules.fixedpoint import SCALE, to_fixed

SITES = ("cleveland", "hungary", "switzerland", "va_long_beach")
LENGTH = 4


def vectors(bits: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.int64, LENGTH, elements=st.integers(-(2**bits), 2**bits))


@st.composite
def rounds(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    # Both ways of computing are met: sums that fit in 64 bits, and sums that do not.
    bits = draw(st.sampled_from([5, 30, 60]))
    present = draw(st.lists(st.sampled_from(SITES), unique=True))
    weights = {name: draw(st.integers(1, 10**9)) for name in SITES}
    return draw(vectors(bits)), {name: draw(vectors(bits)) for name in present}, weights


def by_fractions(base: np.ndarray, updates: dict[str, np.ndarray], weights: dict[str, int]) -> list[int]:
    total = sum(weights.values())
    # round() of a Fraction takes ties to even, in exact arithmetic: the definition, word for word.
    return [
        int(base[at]) + round(Fraction(sum(weights[name] * int(updates[name][at]) for name in updates), total))
        for at in range(LENGTH)
    ]


@given(rounds())
def test_the_aggregate_is_the_definition_in_exact_fractions(
    case: tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]],
) -> None:
    base, updates, weights = case
    assert aggregate(base, updates, weights).tolist() == by_fractions(base, updates, weights)


@given(rounds(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_byte(
    case: tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]], shuffle: Random
) -> None:
    base, updates, weights = case
    names = list(updates)
    shuffle.shuffle(names)
    again = aggregate(base, {name: updates[name] for name in names}, dict(reversed(weights.items())))
    assert again.tobytes() == aggregate(base, updates, weights).tobytes()


@given(rounds())
def test_an_absent_site_is_the_same_as_a_zero_update(
    case: tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]],
) -> None:
    base, updates, weights = case
    zeros = {name: np.zeros(LENGTH, np.int64) for name in SITES}
    assert np.array_equal(aggregate(base, updates, weights), aggregate(base, {**zeros, **updates}, weights))


@given(rounds())
def test_each_coalition_has_the_model_that_its_updates_alone_would_give(
    case: tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]],
) -> None:
    base, updates, weights = case
    players = sorted(updates)
    models = coalition_models(base, updates, weights, players)
    assert models.shape == (2 ** len(players), LENGTH)
    for mask in range(2 ** len(players)):
        members = {name: updates[name] for at, name in enumerate(players) if mask >> at & 1}
        assert np.array_equal(models[mask], aggregate(base, members, weights))
    assert np.array_equal(
        coalition_models(base, updates, weights, players, start=len(models) // 2), models[len(models) // 2 :]
    )


def test_a_long_vector_of_small_and_huge_numbers_is_summed_exactly_in_every_part() -> None:
    """Longer than what is summed at a time; only the middle needs more than 64 bits."""
    rng = np.random.default_rng(5)
    base = rng.integers(-9, 9, 100_003)
    updates = {site: rng.integers(-(2**20), 2**20, base.size) for site in SITES}
    for update in updates.values():
        update[40_000:40_007] = rng.integers(2**59, 2**60, 7)
    weights = dict(zip(SITES, (5, 7, 11, 2**40), strict=True))
    places = (0, 1, 32_767, 32_768, 39_999, 40_000, 40_006, 40_007, 65_535, 65_536, base.size - 1)
    total = sum(weights.values())
    expected = [
        int(base[at]) + round(Fraction(sum(weights[site] * int(updates[site][at]) for site in SITES), total))
        for at in places
    ]
    assert aggregate(base, updates, weights)[list(places)].tolist() == expected


def test_ties_go_to_even() -> None:
    base = np.zeros(6, np.int64)
    update = np.array([1, 3, 5, -1, -3, 2], dtype=np.int64)
    assert aggregate(base, {"a": update}, {"a": 1, "b": 1}).tolist() == [0, 2, 2, 0, -2, 1]


@pytest.mark.parametrize(
    ("updates", "weights"),
    [
        ({"a": np.zeros(3, np.int64)}, {"b": 1}),
        ({"a": np.zeros(2, np.int64)}, {"a": 1}),
        ({"a": np.zeros(3)}, {"a": 1}),
        ({"a": np.array([0, 0, -(2**63)])}, {"a": 1}),
        ({"a": np.array([2**62 - 1, 0, 0])}, {"a": 1}),
        ({}, {}),
        ({}, {"a": 0}),
    ],
)
def test_what_does_not_fit_the_study_is_refused(updates: dict[str, np.ndarray], weights: dict[str, int]) -> None:
    with pytest.raises(PeerError):
        aggregate(np.array([1, 0, 0], dtype=np.int64), updates, weights)


def test_fifteen_players_or_one_named_twice_are_refused() -> None:
    base = np.zeros(1, np.int64)
    names = [f"site{number}" for number in range(15)]
    with pytest.raises(PeerError, match="15 players"):
        coalition_models(base, {}, dict.fromkeys(names, 1), names)
    with pytest.raises(PeerError):
        coalition_models(base, {}, {"a": 1}, ["a", "a"])


sizes = st.dictionaries(st.sampled_from(SITES), st.integers(1, 10**9), min_size=1)
caps = st.decimals(min_value="0.01", max_value="1", places=2)


@given(sizes, caps)
def test_no_weight_is_above_the_cap_where_a_cap_is_possible(nominal: dict[str, int], cap: Decimal) -> None:
    weights = integer_weights(nominal, cap)
    total = sum(weights.values())
    assert list(weights) == list(nominal)
    assert all(weight > 0 for weight in weights.values())
    if cap * len(nominal) < 1:
        assert len(set(weights.values())) == 1
        return
    assert all(Fraction(weight) <= Fraction(cap) * total for weight in weights.values())
    below = [name for name in nominal if Fraction(weights[name]) < Fraction(cap) * total]
    assert len({Fraction(weights[name], nominal[name]) for name in below}) <= 1, "the others keep their proportions"
    assert all(weights[one] <= weights[two] for one in nominal for two in nominal if nominal[one] <= nominal[two])


def test_weights_are_the_nominal_sizes_where_none_is_above_the_cap() -> None:
    nominal = {"cleveland": 240, "hungary": 230, "switzerland": 100, "va_long_beach": 160}
    assert integer_weights(nominal, Decimal(1)) == nominal
    assert integer_weights(nominal, Decimal("0.35")) == nominal


def test_a_site_above_the_cap_weighs_exactly_the_cap() -> None:
    assert integer_weights({"big": 900, "small": 60, "tiny": 40}, Decimal("0.5")) == {"big": 5, "small": 3, "tiny": 2}


@pytest.mark.parametrize(("nominal", "cap"), [({}, "1"), ({"a": 0}, "1"), ({"a": 1}, "0"), ({"a": 1}, "1.1")])
def test_impossible_weights_are_refused(nominal: dict[str, int], cap: str) -> None:
    with pytest.raises(OperatorError):
        integer_weights(nominal, Decimal(cap))


@given(st.sampled_from([5, 30, 61]).flatmap(vectors))  # the sum fits in 64 bits; each square does; none does
def test_the_norm_is_compared_exactly(update: np.ndarray) -> None:
    square = sum(int(value) ** 2 for value in update)
    for length in (math.isqrt(square) - 1, math.isqrt(square), math.isqrt(square) + 1):
        with localcontext() as context:
            context.prec = 60
            bound = Decimal(length) / SCALE
        assert norm_within(update, bound) == (length >= 0 and square <= length**2)


def test_a_norm_of_exactly_the_bound_passes_and_one_step_more_does_not() -> None:
    assert norm_within(np.array([3 * SCALE, 4 * SCALE]), Decimal(5))
    assert not norm_within(np.array([3 * SCALE, 4 * SCALE + 1]), Decimal(5))
    assert not norm_within(np.array([-(2**63), 0]), Decimal(5))
    assert norm_within(np.array([], dtype=np.int64), Decimal("0.1"))


@given(
    hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e300, 1e300)),
    st.decimals(min_value="0.00000001", max_value="1000", places=8),
)
def test_what_was_clipped_passes_the_check_after_rounding(update: np.ndarray, bound: Decimal) -> None:
    assert norm_within(to_fixed(clip_to_norm(update, bound)), bound)


@given(hnp.arrays(np.float64, 7, elements=st.floats(-100, 100)))
def test_clipping_keeps_the_direction_and_nearly_the_length(update: np.ndarray) -> None:
    bound = Decimal(10)
    clipped = clip_to_norm(update, bound)
    norm = float(np.linalg.norm(update))
    if norm <= 10 - 1e-6:
        assert np.array_equal(clipped, update)
    elif norm > 10:
        assert np.linalg.norm(clipped) == pytest.approx(10, abs=1e-6)
        assert np.allclose(clipped / np.linalg.norm(clipped), update / norm, atol=1e-9)


def test_clipping_refuses_what_is_not_finite() -> None:
    with pytest.raises(OperatorError, match="finite"):
        clip_to_norm(np.array([1.0, float("nan")]), Decimal(1))


@given(st.integers(1, 2**20), st.integers(0, 2**31), st.sampled_from((40, 50, 53, 58)))
def test_coalition_models_round_halves_alike_in_every_arithmetic(total: int, seed: int, bits: int) -> None:
    """Sums below 2^52 are rounded in float64, longer ones in integers: ties to even in both."""
    draw = Random(seed)
    weight = draw.randint(1, total)
    bound = max(1, 2**bits // total)
    update = np.array([draw.randint(-bound, bound) for _ in range(20)], dtype=np.int64)
    update[:4] = [total // 2, -(total // 2), total, -total]
    model = coalition_models(np.zeros(20, np.int64), {"a": update}, {"a": weight, "b": total}, ("a",))[1]
    assert model.tolist() == [round(Fraction(weight * int(each), weight + total)) for each in update]
