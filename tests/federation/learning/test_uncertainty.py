"""Standard errors of values: against drawing by hand, and what they must never do."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_in_memory import small_plan

from federation.learning.evaluation import UTILITY_BITS, coalition_utilities
from federation.learning.uncertainty import standard_errors
from federation.rules.aggregation import aggregate
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import to_fixed
from federation.rules.study import StudyPlan
from federation.rules.valuation import method_named

UNIT = 1 << UTILITY_BITS
SITES = ("a", "b", "c")
WEIGHTS = {"a": 3, "b": 1, "c": 4, "absent": 2}
FEATURES = 3
SEED = b"seed"


def plan(**changes: Any) -> StudyPlan:
    return small_plan(b"", sites=3, **changes)


def people(seed: int, count: int = 24) -> SubjectBatch:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 1, FEATURES))
    y = (x.sum(axis=2) + rng.normal(0, 0.7, (count, 1)) > 0).astype(np.float64)
    y[:2] = [[0.0], [1.0]]
    return SubjectBatch(tuple(f"p{at:02}" for at in range(count)), x, y, np.ones((count, 1)))


def history(seed: int, rounds: int = 2, parameters: int = FEATURES + 1) -> list[tuple[Any, dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    base, played = to_fixed(rng.normal(0, 0.1, parameters)), []
    for _ in range(rounds):
        updates = {site: to_fixed(rng.normal(0.2, 0.3, parameters)) for site in SITES}
        played.append((base, updates))
        base = aggregate(base, updates, WEIGHTS)
    return played


def value(played: list[tuple[Any, dict[str, Any]]], batch: SubjectBatch, site: str, method: str = "shapley") -> float:
    total = 0.0
    for base, updates in played:
        table = coalition_utilities(base, updates, WEIGHTS, SITES, batch, plan().valuation.loss_bound)
        total += float(method_named(method)(table)[SITES.index(site)]) / UNIT
    return total


def chosen(batch: SubjectBatch, places: Any) -> SubjectBatch:
    names = tuple(f"p{at:02}" for at in range(len(places)))
    return SubjectBatch(names, batch.x[places], batch.y[places], batch.mask[places])


@pytest.mark.parametrize("method", ["shapley", "banzhaf"])
def test_validation_people_drawn_anew_within_their_label_spread_a_value_by_its_standard_error(method: str) -> None:
    batch, played = people(1), history(1)
    still = [(base, {site: (update >> 6) for site, update in updates.items()}) for base, updates in played]
    errors = standard_errors(still, WEIGHTS, batch, plan(valuation={"method": method}), seed=SEED)
    rng, positive = np.random.default_rng(2), np.flatnonzero(batch.y[:, 0] == 1)
    negative = np.flatnonzero(batch.y[:, 0] == 0)
    drawn = [
        value(
            still,
            chosen(batch, np.concatenate([rng.choice(kind, kind.size) for kind in (positive, negative)])),
            "a",
            method,
        )
        for _ in range(200)
    ]
    noise = math.sqrt(_noise_variance(still, batch, "a"))
    people_only = math.sqrt((errors["a"] / UNIT) ** 2 - noise**2)
    assert np.std(drawn) == pytest.approx(people_only, rel=0.15)


def _noise_variance(played: list[tuple[Any, dict[str, Any]]], batch: SubjectBatch, site: str) -> float:
    """By the gradient of the utility half way, by hand, where the product asks random directions."""
    total = 0.0
    for base, updates in played:
        step = 2.0**24
        middle = (base + aggregate(base, updates, WEIGHTS)) / (2 * step)
        logits = batch.x[:, 0] @ middle[:-1] + middle[-1]
        wrong = batch.y[:, 0] - 1 / (1 + np.exp(-logits))
        gradient = np.append(wrong @ batch.x[:, 0], wrong.sum()) / len(wrong)
        length = np.linalg.norm(updates[site] / step) * WEIGHTS[site] / sum(WEIGHTS.values())
        total += length**2 * float(gradient @ gradient) / len(gradient)
    return total


def test_random_updates_of_the_same_length_spread_a_value_by_its_standard_error() -> None:
    one = people(3, 2)
    batch = chosen(one, np.array([0, 1] * 6))  # within a label all are alike: what is left is the updates' noise
    played = history(3)
    rng = np.random.default_rng(4)
    drawn, errors = [], []
    for _ in range(300):
        directions = [rng.normal(size=FEATURES + 1) for _ in played]
        noisy = [
            (base, {**updates, "b": to_fixed(0.2 * direction / np.linalg.norm(direction))})
            for (base, updates), direction in zip(played, directions, strict=True)
        ]
        drawn.append(value(noisy, batch, "b"))
    errors = standard_errors(noisy, WEIGHTS, batch, plan(), seed=SEED)
    assert errors["b"] / UNIT == pytest.approx(np.std(drawn), rel=0.15)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from(SITES))
def test_a_zero_update_has_no_error_at_all_nor_has_who_was_never_there(seed: int, site: str) -> None:
    played = [(base, {**updates, site: updates[site] * 0}) for base, updates in history(seed)]
    errors = standard_errors(played, WEIGHTS, people(seed), plan(), seed=SEED)
    assert errors[site] == errors["absent"] == 0
    assert value(played, people(seed), site) == 0
    assert all(errors[other] > 0 for other in SITES if other != site)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_the_same_rounds_have_the_same_errors_in_whatever_order_sites_are_named(seed: int) -> None:
    played = history(seed)
    turned = [(base, dict(reversed(updates.items()))) for base, updates in played]
    errors = standard_errors(played, WEIGHTS, people(seed), plan(), seed=SEED)
    assert standard_errors(iter(turned), dict(reversed(WEIGHTS.items())), people(seed), plan(), seed=SEED) == errors
    assert standard_errors([*played, (played[0][0], {})], WEIGHTS, people(seed), plan(), seed=SEED) == errors


def test_the_seed_moves_an_error_little() -> None:
    found = [standard_errors(history(5), WEIGHTS, people(5), plan(), seed=b"%d" % seed)["a"] for seed in range(8)]
    assert len(set(found)) == len(found)
    assert max(found) < 1.2 * min(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"family": "mlp", "hidden": [4], "activation": "relu"}},
        {"aggregation": {"rule": "trimmed-mean", "tolerated": "0.34"}},
    ],
)
def test_other_models_and_rules_have_errors_too(changes: dict[str, Any]) -> None:
    parameters = 4 * (FEATURES + 1) + 5 if "model" in changes else FEATURES + 1
    errors = standard_errors(history(6, parameters=parameters), WEIGHTS, people(6), plan(**changes), seed=SEED)
    assert all(0 < errors[site] < UNIT for site in SITES)


def test_one_person_of_a_kind_says_nothing_about_others_of_that_kind() -> None:
    batch = chosen(people(7, 2), np.array([0, 1, 1, 1]))
    errors = standard_errors(history(7), WEIGHTS, batch, plan(), seed=SEED)
    assert all(math.isfinite(error) and error > 0 for error in (errors[site] for site in SITES))


def test_a_cluster_shares_one_error_and_without_clusters_nothing_changes() -> None:
    batch, played = people(3), history(4)
    alone = standard_errors(played, WEIGHTS, batch, plan(), seed=SEED)
    assert standard_errors(played, WEIGHTS, batch, plan(), seed=SEED, clusters=(("absent", "b"),)) == alone
    clustered = standard_errors(played, WEIGHTS, batch, plan(), seed=SEED, clusters=(("a", "c"),))
    whole = clustered["a"] + clustered["c"]
    assert clustered["a"] == pytest.approx(whole * 3 / 7, abs=1)
    assert clustered["b"] != alone["b"]  # it comes to other groups of sites now
    merged = [
        (base, {"a": (3 * updates["a"] + 4 * updates["c"]) / 7, "b": updates["b"].astype(float)})
        for base, updates in played
    ]
    one = standard_errors(
        [(base, {site: np.rint(update).astype(np.int64) for site, update in each.items()}) for base, each in merged],
        {"a": 7, "b": 1, "absent": 2},
        batch,
        plan(),
        seed=SEED,
    )
    assert clustered["b"] == pytest.approx(one["b"], rel=1e-6)  # as if a and c had sent one update
    assert whole >= one["a"] * (1 - 1e-6)  # whose noise is that of two, which did not add up
