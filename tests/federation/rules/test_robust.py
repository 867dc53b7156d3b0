"""Robust rules beside their definitions in other arithmetic, their symmetries, and what hostile updates can do."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from federation.errors import PeerError
from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate, coalition_models
from federation.rules.fixedpoint import SCALE, to_fixed
from federation.rules.lattice_sums import divide_half_even, dot, inner_products, squared_distances, weighted_mean
from federation.rules.robust import LOCATIONS, Gathered, median_coefficients, trust_anchored

FIFTH, THIRD = Decimal("0.2"), Decimal("0.34")
LENGTH = 3
Vectors = np.ndarray


def sets(bits_of: tuple[int, ...] = (4, 28, 61)) -> st.SearchStrategy[Vectors]:
    # Small numbers meet ties, large ones leave the 64-bit paths.
    return st.sampled_from(bits_of).flatmap(
        lambda bits: hnp.arrays(
            np.int64, st.tuples(st.integers(1, 9), st.just(LENGTH)), elements=st.integers(-(2**bits), 2**bits)
        )
    )


def by_definition(name: str, vectors: Vectors, tolerated: Decimal) -> list[int]:
    """The rules word for word in Python's fractions, one coordinate or pair at a time."""
    rows = sorted([[int(value) for value in row] for row in vectors], key=lambda row: np.array(row, "<i8").tobytes())
    count = len(rows)
    faulty = math.floor(Fraction(tolerated) * count)
    kept = count - faulty

    def apart(one: list[int], two: list[int]) -> int:
        return sum((a - b) ** 2 for a, b in zip(one, two, strict=True))

    def trimmed(points: list[list[Fraction]]) -> list[int]:
        middles = [sorted(point[at] for point in points)[faulty : count - faulty] for at in range(LENGTH)]
        return [round(sum(middle) / len(middle)) for middle in middles]

    def mean(points: list[list[int]]) -> list[Fraction]:
        return [Fraction(sum(point[at] for point in points), len(points)) for at in range(LENGTH)]

    if name == "trimmed-mean":
        return trimmed([[Fraction(value) for value in row] for row in rows])
    if name == "nnm-trimmed-mean":
        order = [
            sorted(range(count), key=lambda other, at=at: (apart(rows[at], rows[other]), other)) for at in range(count)
        ]
        return trimmed([mean([rows[other] for other in near[:kept]]) for near in order])
    scores = [
        sum(sorted(apart(row, other) for at, other in enumerate(rows) if at != own)[: max(1, kept - 2)])
        for own, row in enumerate(rows)
    ]
    best = sorted(range(count), key=lambda at: (scores[at], at))[:kept]
    return [round(value) for value in mean([rows[at] for at in best])]


BY_POSITION = set(LOCATIONS) - {"aligned-trimmed-mean"}


@pytest.mark.parametrize("name", ["trimmed-mean", "multi-krum", "nnm-trimmed-mean"])
@pytest.mark.parametrize("tolerated", [FIFTH, THIRD, Decimal("0.49")])
@given(vectors=sets())
@settings(max_examples=40)
def test_a_rule_is_its_definition_in_exact_fractions(name: str, tolerated: Decimal, vectors: Vectors) -> None:
    found = LOCATIONS[name](Gathered(vectors, tolerated), range(len(vectors)))
    assert found.tolist() == by_definition(name, vectors, tolerated)


@pytest.mark.parametrize("name", sorted(LOCATIONS))
@given(vectors=sets(), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_arrival_changes_no_byte(name: str, vectors: Vectors, shuffle: Random) -> None:
    order = list(range(len(vectors)))
    shuffle.shuffle(order)
    one = LOCATIONS[name](Gathered(vectors, THIRD), range(len(vectors)))
    two = LOCATIONS[name](Gathered(vectors[order], THIRD), order)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("name", sorted(BY_POSITION))
@given(vectors=sets((4, 20)), shift=hnp.arrays(np.int64, LENGTH, elements=st.integers(-(2**40), 2**40)))
@settings(max_examples=40)
def test_moving_all_moves_the_place_with_them(name: str, vectors: Vectors, shift: Vectors) -> None:
    here = LOCATIONS[name](Gathered(vectors, THIRD), range(len(vectors)))
    there = LOCATIONS[name](Gathered(vectors + shift, THIRD), range(len(vectors)))
    # Ties of content, and ties to even, may fall another way: by less than the set is wide, and by one step.
    wide = int(vectors.max() - vectors.min()) if name in {"multi-krum", "nnm-trimmed-mean"} else 1
    assert np.abs(there - shift - here).max() <= max(1, wide)


@pytest.mark.parametrize("name", sorted(BY_POSITION))
@given(vectors=sets())
@settings(max_examples=40)
def test_the_place_lies_within_the_set_in_every_coordinate(name: str, vectors: Vectors) -> None:
    place = LOCATIONS[name](Gathered(vectors, THIRD), range(len(vectors)))
    assert np.all(vectors.min(axis=0) <= place)
    assert np.all(place <= vectors.max(axis=0))


@pytest.mark.parametrize("name", sorted(LOCATIONS))
def test_who_agrees_is_followed_however_far_the_tolerated_others_go(name: str) -> None:
    good = to_fixed(np.array([1.0, -2.0, 0.5]))
    for far in (1, 10**6, 2**61):
        for bad in (np.array([far, far, far]), np.array([-far, far, 0])):
            vectors = np.stack([good, bad, good, good, good])
            place = LOCATIONS[name](Gathered(vectors, FIFTH), range(5))
            assert np.abs(place - good).max() <= (1 if name == "geometric-median" else 0)


@given(hnp.arrays(np.float64, st.tuples(st.integers(3, 8), st.just(2)), elements=st.floats(-8, 8, width=32)))
@settings(max_examples=40)
def test_the_geometric_median_is_nearly_the_least_sum_of_distances(points: Vectors) -> None:
    place = Gathered(to_fixed(points), FIFTH).geometric_median(range(len(points))) / SCALE

    def total(at: Vectors) -> float:
        return float(np.linalg.norm(points - at, axis=1).sum())

    rival = min(
        (optimize.minimize(total, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun)
        for start in (points.mean(axis=0), np.median(points, axis=0))
    )
    best = min(rival, *(total(point) for point in points))
    # 64 steps come within a quarter of a percent where a point itself is nearly the median, and closer elsewhere.
    assert total(place) <= best * 1.01 + 1e-5


@given(sets((4, 61)))
@settings(max_examples=40)
def test_the_median_s_coefficients_are_shares_and_alike_for_like_vectors(vectors: Vectors) -> None:
    twice = np.concatenate([vectors, vectors])
    coefficients = median_coefficients(squared_distances(twice))
    assert abs(sum(coefficients) - 2**30) <= len(twice)
    assert min(coefficients) >= 0
    assert coefficients[: len(vectors)] == coefficients[len(vectors) :]


@given(sets((4, 28)), hnp.arrays(np.int64, LENGTH, elements=st.integers(-(2**28), 2**28)))
def test_trust_is_its_definition_in_floats(vectors: Vectors, anchor: Vectors) -> None:
    found = trust_anchored(vectors, anchor)
    length = float(np.linalg.norm(anchor.astype(float)))
    total, weights, least = np.zeros(LENGTH), 0.0, 1.0
    for vector in vectors.astype(float):
        own = float(np.linalg.norm(vector))
        if own and length:
            trust = max(0.0, float(vector @ anchor) / own / length)
            total, weights = total + trust * vector * length / own, weights + trust
            least = min(least, trust) if trust else least
    wanted = total / weights if weights else total
    assume(least > 1e-4)  # trust is counted in steps of 2^-30: what points nearly across is coarse, and may be nothing
    assert np.abs(found - wanted).max() <= 2 + 1e-4 * length


@given(sets(), hnp.arrays(np.int64, LENGTH, elements=st.integers(-(2**60), 2**60)), st.randoms(use_true_random=False))
def test_trust_does_not_depend_on_the_order_nor_on_what_points_away(
    vectors: Vectors, anchor: Vectors, shuffle: Random
) -> None:
    order = list(range(len(vectors)))
    shuffle.shuffle(order)
    found = trust_anchored(vectors, anchor)
    assert trust_anchored(vectors[order], anchor).tobytes() == found.tobytes()
    along = np.array([dot(vector, anchor) > 0 for vector in vectors])
    assert np.array_equal(trust_anchored(vectors[along].reshape(-1, LENGTH), anchor), found)
    assert dot(found, found) <= (math.isqrt(dot(anchor, anchor)) + 3) ** 2, "never longer than the anchor"


def test_an_anchor_of_another_study_is_refused() -> None:
    with pytest.raises(PeerError, match="does not fit"):
        trust_anchored(np.zeros((2, 3), np.int64), np.zeros(4, np.int64))


@given(sets())
def test_inner_products_and_distances_are_exact(vectors: Vectors) -> None:
    apart = squared_distances(vectors)
    for one, two in combinations(range(len(vectors)), 2):
        a, b = ([int(value) for value in vectors[row]] for row in (one, two))
        assert dot(vectors[one], vectors[two]) == sum(x * y for x, y in zip(a, b, strict=True))
        assert apart[one][two] == apart[two][one] == sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    weights = list(range(1, len(vectors) + 1))
    mean = weighted_mean(vectors, weights, sum(weights))
    for at in range(LENGTH):
        column = (weight * int(vector[at]) for weight, vector in zip(weights, vectors, strict=True))
        assert mean[at] == round(Fraction(sum(column), sum(weights)))
    assert divide_half_even(np.array([5, -5, 3]), 2).tolist() == [2, -2, 2]


SITES = ("ash", "birch", "cedar", "elm", "fir")
WEIGHTS = dict(zip(SITES, (100, 200, 300, 150, 250), strict=True))


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Vectors, dict[str, Vectors]]:
    bits = draw(st.sampled_from([5, 30, 58]))
    numbers = hnp.arrays(np.int64, LENGTH, elements=st.integers(-(2**bits), 2**bits))
    present = draw(st.lists(st.sampled_from(SITES), unique=True, min_size=1))
    return draw(numbers), {name: draw(numbers) for name in present}


@pytest.mark.parametrize("name", sorted(LOCATIONS))
@given(case=rounds(), tolerated=st.sampled_from([FIFTH, THIRD]))
@settings(max_examples=25)
def test_each_coalition_has_the_model_that_its_updates_alone_would_give(
    name: str, case: tuple[Vectors, dict[str, Vectors]], tolerated: Decimal
) -> None:
    base, updates = case
    rule = Rule(name, tolerated)
    players = sorted(updates)
    models = coalition_models(base, updates, WEIGHTS, players, rule=rule)
    total = sum(WEIGHTS.values())
    for mask in range(2 ** len(players)):
        members = {site: updates[site] for at, site in enumerate(players) if mask >> at & 1}
        alone = aggregate(base, members, WEIGHTS, rule)
        assert np.array_equal(models[mask], alone)
        if members:
            place = LOCATIONS[name](Gathered(np.stack(list(members.values())), tolerated), range(len(members)))
            part = sum(WEIGHTS[site] for site in members)
            step = [round(Fraction(int(value) * part, total)) for value in place]
            assert (alone - base).tolist() == step
    assert np.array_equal(models[0], base)
    assert np.array_equal(coalition_models(base, updates, WEIGHTS, players, start=1, stop=2, rule=rule), models[1:2])


@given(rounds())
@settings(max_examples=25)
def test_a_rule_of_one_site_is_the_weighted_mean(case: tuple[Vectors, dict[str, Vectors]]) -> None:
    base, updates = case
    site = next(iter(updates))
    for name in LOCATIONS:
        alone = {site: updates[site]}
        assert np.array_equal(aggregate(base, alone, WEIGHTS, Rule(name, FIFTH)), aggregate(base, alone, WEIGHTS))


def test_a_player_without_update_is_not_there() -> None:
    base = np.zeros(LENGTH, np.int64)
    updates = {"ash": np.array([10, 20, 30]), "birch": np.array([30, 20, 10])}
    for name in LOCATIONS:
        models = coalition_models(base, updates, WEIGHTS, ("ash", "birch", "cedar"), rule=Rule(name, FIFTH))
        assert np.array_equal(models[:4], models[4:])


@pytest.mark.parametrize("change", [lambda _: {"zoo": np.zeros(3, np.int64)}, lambda _: {"ash": np.zeros(2, np.int64)}])
def test_what_does_not_fit_the_study_is_refused(change: Callable[[None], dict[str, Vectors]]) -> None:
    with pytest.raises(PeerError):
        aggregate(np.zeros(3, np.int64), change(None), WEIGHTS, Rule("trimmed-mean", FIFTH))


def test_an_unknown_rule_and_a_model_beyond_the_lattice_are_refused() -> None:
    base = np.array([2**61, 0, 0])
    with pytest.raises(PeerError, match="no rule of aggregation"):
        aggregate(base, {}, WEIGHTS, Rule("median-of-means"))
    with pytest.raises(PeerError, match="range of the lattice"):
        aggregate(base, {"ash": base}, {"ash": 1}, Rule("trimmed-mean", FIFTH))
    assert WEIGHTED_MEAN.linear
    assert not Rule("trimmed-mean", FIFTH).linear


@given(rounds())
@settings(max_examples=25)
def test_a_trust_anchored_coalition_is_anchored_to_the_round_s_reference(
    case: tuple[Vectors, dict[str, Vectors]],
) -> None:
    base, updates = case
    anchor = next(iter(updates.values()), base + 1) // 2 + 3
    rule, players = Rule("trust-anchored", anchor=anchor), tuple(sorted(updates))
    models = coalition_models(base, updates, WEIGHTS, players, rule=rule)
    for mask, model in enumerate(models):
        members = {name: updates[name] for at, name in enumerate(players) if mask >> at & 1}
        assert np.array_equal(model, aggregate(base, members, WEIGHTS, rule))
        if members:
            place = trust_anchored(np.stack(list(members.values())), anchor)
            part = Fraction(sum(WEIGHTS[name] for name in members), sum(WEIGHTS.values()))
            assert model.tolist() == [int(old) + round(part * int(step)) for old, step in zip(base, place, strict=True)]


def test_a_trust_anchored_round_needs_a_reference_of_the_model_s_length() -> None:
    base = np.zeros(3, np.int64)
    for anchor in (None, np.ones(2, np.int64)):
        with pytest.raises(PeerError, match="needs a reference update of 3"):
            aggregate(base, {"ash": base}, {"ash": 1}, Rule("trust-anchored", anchor=anchor))


@pytest.mark.parametrize("back", [0.2, 0.5, 1.5, 10.0])
def test_small_steps_backwards_are_told_by_their_direction(back: float) -> None:
    """Inner product manipulation: what points against the honest mean takes no part, however short it is."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        honest = rng.normal(0, 1, 60) + rng.normal(0, 1.5, (16, 60))
        vectors = np.concatenate((honest, -back * np.tile(honest.mean(axis=0), (4, 1))))
        place = Gathered(to_fixed(vectors), FIFTH).aligned_trimmed_mean(range(20))
        lengths = np.linalg.norm(vectors, axis=1)
        equal = honest * (np.sort(lengths)[9] / lengths[:16])[:, None]
        expected = Gathered(to_fixed(equal), Decimal("0.25")).trimmed_mean(range(16))
        assert np.abs(place - expected).max() <= 2


@given(vectors=sets())
@settings(max_examples=40)
def test_an_aligned_place_is_no_longer_than_the_median_update(vectors: Vectors) -> None:
    place = Gathered(vectors, THIRD).aligned_trimmed_mean(range(len(vectors)))
    lengths = sorted(math.hypot(*map(float, vector)) for vector in vectors)
    longest = lengths[(len(lengths) - 1) // 2] * math.sqrt(LENGTH) + LENGTH
    assert math.hypot(*map(float, place)) <= longest * (1 + 1e-9)


@given(sets())
@settings(max_examples=40)
def test_inner_products_of_a_set_are_those_of_its_vectors(vectors: Vectors) -> None:
    expected = [sum(int(one) * int(two) for one, two in zip(each, vectors[0], strict=True)) for each in vectors]
    assert inner_products(vectors, vectors[0]) == expected
