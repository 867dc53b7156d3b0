import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import OperatorError, PeerError
from federation.learning.evaluation import (
    UTILITY_BITS,
    auc,
    bootstrap_auc,
    coalition_utilities,
    committed_utility,
    utilities_of,
    utility,
)
from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate, coalition_models
from federation.rules.audit import UTILITY_TOLERANCE
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import from_fixed
from federation.rules.valuation import shapley

BOUND = Decimal(4)
SITES = ("a", "b", "c", "d")


def batch(seed: int = 1, subjects: int = 9, records: int = 3, features: int = 4) -> SubjectBatch:
    rng = np.random.default_rng(seed)
    mask = (np.arange(records)[None, :] < rng.integers(1, records + 1, subjects)[:, None]).astype(np.float64)
    x = rng.uniform(-1, 1, (subjects, records, features)) * mask[:, :, None]
    y = rng.integers(0, 2, (subjects, records)) * mask
    return SubjectBatch(tuple(f"s{number:02}" for number in range(subjects)), x, y, mask)


def by_hand(params: np.ndarray, data: SubjectBatch, bound: float) -> float:
    """The definition with plain loops and another form of the loss."""
    total = 0.0
    for subject in range(len(data.subjects)):
        losses = []
        for record in np.flatnonzero(data.mask[subject]):
            z = float(data.x[subject, record] @ params[:-1] + params[-1])
            chance = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
            right = chance if data.y[subject, record] == 1 else 1 - chance
            losses.append(min(-math.log(right) if right > 0 else math.inf, bound))
        total += sum(losses) / len(losses)
    return -total / len(data.subjects)


def case(seed: int, bits: int = 24) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    rng = np.random.default_rng(seed)
    base = rng.integers(-(2**bits), 2**bits, 5)
    return base, {name: rng.integers(-(2**bits), 2**bits, 5) for name in SITES}, {"a": 3, "b": 1, "c": 4, "d": 2}


@given(hnp.arrays(np.float64, 5, elements=st.floats(-20, 20)), st.integers(0, 50))
def test_utility_is_minus_the_bounded_log_loss_per_subject(params: np.ndarray, seed: int) -> None:
    found = utility(params, batch(seed), BOUND)
    assert found == pytest.approx(by_hand(params, batch(seed), 4.0), abs=1e-9)
    assert -4 <= found <= 0


def test_a_model_that_knows_nothing_loses_ln_2() -> None:
    assert utility(np.zeros(5), batch(), BOUND) == pytest.approx(-math.log(2), abs=1e-15)
    assert committed_utility(np.zeros(5), batch(), BOUND) == round(-math.log(2) * 2**UTILITY_BITS)


def test_a_certain_and_wrong_model_loses_the_bound_and_no_more() -> None:
    one = SubjectBatch(("s",), np.ones((1, 1, 4)), np.zeros((1, 1)), np.ones((1, 1)))
    assert utility(np.full(5, 1e6), one, BOUND) == -4
    assert utility(np.full(5, -1e6), one, BOUND) == 0


def test_a_subject_with_many_records_counts_as_one() -> None:
    x = np.zeros((2, 3, 1))
    y, mask = np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[1.0, 0, 0], [1, 1, 1]])
    two = SubjectBatch(("s", "t"), x, y, mask)
    bias = math.log(3)  # a chance of 3/4 for everybody
    assert utility(np.array([0.0, bias]), two, BOUND) == pytest.approx((math.log(0.75) + math.log(0.25)) / 2)


@given(st.integers(0, 1000), st.sampled_from([0, 1, 2, 3, 4]))
def test_every_coalition_has_the_utility_of_its_published_model(seed: int, count: int) -> None:
    base, updates, weights = case(seed)
    players = SITES[:count]
    table = coalition_utilities(base, updates, weights, players, batch(seed), BOUND)
    models = coalition_models(base, updates, weights, players)
    assert table == tuple(committed_utility(from_fixed(model), batch(seed), BOUND) for model in models)
    tolerance = float(UTILITY_TOLERANCE)
    for entry, model in zip(table, models, strict=True):
        assert entry / 2**UTILITY_BITS == pytest.approx(by_hand(from_fixed(model), batch(seed), 4.0), abs=tolerance)


def test_coalitions_in_any_order_have_the_utilities_of_the_table() -> None:
    base, updates, weights = case(3)
    table = coalition_utilities(base, updates, weights, SITES, batch(3), BOUND)
    drawn = (11, 0, 6, 6, 15)
    assert utilities_of(drawn, base, updates, weights, SITES, batch(3), BOUND) == tuple(table[mask] for mask in drawn)


@pytest.mark.parametrize("rule", [WEIGHTED_MEAN, Rule("trimmed-mean", Decimal("0.2"))], ids=["mean", "trimmed"])
def test_coalitions_of_more_players_than_a_word_has_bits_have_the_utilities_of_their_models(rule: Rule) -> None:
    rng = np.random.default_rng(5)
    sites = [f"s{number:03}" for number in range(128)]
    updates = {name: rng.integers(-(2**24), 2**24, 5) for name in sites}
    base, weights = rng.integers(-(2**24), 2**24, 5), {name: 1 + number for number, name in enumerate(sites)}
    drawn = ((1 << 128) - 1, 1 << 127, (1 << 100) + (1 << 63) + 5)
    expected = []
    for mask in drawn:
        members = {name: updates[name] for place, name in enumerate(sites) if mask >> place & 1}
        model = aggregate(base, members, weights, rule)
        expected.append(committed_utility(from_fixed(model), batch(5), BOUND))
    assert utilities_of(drawn, base, updates, weights, sites, batch(5), BOUND, rule) == tuple(expected)
    with pytest.raises(PeerError, match="no table of all coalitions"):
        coalition_utilities(base, updates, weights, sites, batch(5), BOUND, rule)
    with pytest.raises(PeerError, match="one of them twice"):
        utilities_of(drawn, base, updates, weights, [*sites[:-1], "s000"], batch(5), BOUND, rule)


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(0, 4))
def test_tables_of_following_rounds_join_to_the_last_bit(seed: int, first: int, second: int) -> None:
    data = batch(seed, subjects=23)
    base, updates, weights = case(seed)
    present = {name: updates[name] for name in SITES[:first]}
    one = coalition_utilities(base, present, weights, sorted(present), data, BOUND)
    following = aggregate(base, present, weights)
    two = coalition_utilities(following, updates, weights, SITES[:second], data, BOUND)
    assert one[-1] == two[0]
    gained = sum(shapley(one), Fraction(0)) + sum(shapley(two), Fraction(0))
    assert gained == two[-1] - one[0]


def test_a_zero_update_is_worth_exactly_nothing() -> None:
    base, updates, weights = case(3)
    table = coalition_utilities(base, {**updates, "b": updates["b"] * 0}, weights, SITES, batch(), BOUND)
    assert shapley(table)[1] == 0


def test_fourteen_players_are_worked_on_in_blocks() -> None:
    rng = np.random.default_rng(5)
    names = [f"site{number:02}" for number in range(14)]
    updates = {name: rng.integers(-(2**24), 2**24, 5) for name in names}
    weights = {name: 1 + number for number, name in enumerate(names)}
    base = np.zeros(5, np.int64)
    table = coalition_utilities(base, updates, weights, names, batch(subjects=60), BOUND)
    assert len(table) == 2**14
    for mask in (0, 1, 4711, 2**14 - 1):
        members = {name: updates[name] for at, name in enumerate(names) if mask >> at & 1}
        model = aggregate(base, members, weights)
        assert table[mask] == committed_utility(from_fixed(model), batch(subjects=60), BOUND)


def test_an_empty_validation_set_or_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(OperatorError, match="no subjects"):
        utility(np.zeros(5), batch().select(()), BOUND)
    with pytest.raises(PeerError, match="do not fit"):
        utility(np.zeros(6), batch(), BOUND)


labelled = st.integers(2, 40).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.float64, count, elements=st.sampled_from([-1.5, 0.0, 0.25, 1.0, 7.0])),
        hnp.arrays(np.float64, count, elements=st.sampled_from([0.0, 1.0])).filter(lambda y: 0 < y.sum() < y.size),
    )
)


@given(labelled)
def test_auc_is_the_chance_that_a_positive_scores_higher(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = data
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative).sum() + (positive[:, None] == negative).sum() / 2
    assert auc(scores, labels) == pytest.approx(wins / (positive.size * negative.size), abs=1e-12)
    assert auc(-scores, labels) == pytest.approx(1 - auc(scores, labels), abs=1e-12)
    assert auc(scores, labels) == auc(np.exp(scores), labels)


def test_auc_agrees_with_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 300).astype(np.float64)
    scores = np.round(rng.normal(labels, 1.5), 1)
    assert auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)


def test_the_bootstrap_interval_is_reproducible_and_near_theory() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0.0, 1.0], 200)
    scores = rng.normal(labels, 1.0)
    low, high = bootstrap_auc(scores, labels, seed=9)
    assert (low, high) == bootstrap_auc(scores, labels, seed=9)
    assert (low, high) != bootstrap_auc(scores, labels, seed=10)
    assert 0 <= low < auc(scores, labels) < high <= 1
    # Standard error by Hanley and McNeil (1982), equation 1.
    area = auc(scores, labels)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + 199 * (q1 - area**2) + 199 * (q2 - area**2)) / 200**2)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_a_perfect_ranking_has_no_spread() -> None:
    assert bootstrap_auc(np.array([0.0, 1, 2, 3]), np.array([0.0, 0, 1, 1]), seed=1, resamples=50) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([1.0, 2.0], [1.0, 1.0]), ([1.0, 2.0], [0.0, 0.0]), ([], []), ([1.0], [0.0, 1.0]), ([math.nan, 1.0], [0.0, 1.0])],
)
def test_an_undefined_area_is_refused(scores: list[float], labels: list[float]) -> None:
    with pytest.raises(OperatorError, match="area under the curve"):
        auc(np.array(scores), np.array(labels))
