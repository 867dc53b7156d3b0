"""The harness behind the benchmarks on real data, on small made-up tables: its figures obey the laws they must."""

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.privacy.noise import NoNoise, SecureNoise
from federation.rules.accounting import epsilon, study_event

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
COLUMNS = {"dose": (0, 10), "kind": "a b c"}


def benchmark(name: str) -> Any:
    """A module of tests/benchmarks, found as it is when its script runs."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


tables: Any = benchmark("site_tables")
harness: Any = benchmark("federated_sites")
reports: Any = benchmark("site_report")
RECIPE = harness.Recipe(6, "2", "2")


def made_up(sites: int, people: int) -> Any:
    """A table whose label follows the dose: every site sees the same law."""
    rng = np.random.default_rng(5)
    rows: dict[str, list[dict[str, str]]] = {}
    for site in range(sites):
        doses = rng.uniform(-1, 11, people)
        sick = rng.random(people) < 1 / (1 + np.exp(-(doses - 5)))
        rows[f"site {site}"] = [
            {"subject": f"{number:04d}", "dose": f"{dose:.4f}", "kind": "abc"[number % 3], "label": str(int(ill))}
            for number, (dose, ill) in enumerate(zip(doses, sick, strict=True))
        ]
    return tables.table_of("made up", COLUMNS, rows)


@pytest.fixture(scope="module")
def table() -> Any:
    return made_up(2, 80)


@pytest.fixture(scope="module")
def figures(table: Any) -> Any:
    return harness.measure(table, range(2), {"3": RECIPE}, {"3": RECIPE}, measured_by=harness.auc_or_nan)


def test_values_beyond_the_public_bounds_are_cut_to_them_and_words_become_indicators(table: Any) -> None:
    batch = table.sites["site 0"]
    assert batch.x.shape == (80, 1, 3)
    assert batch.x[..., 0].min() == -1
    assert batch.x[..., 0].max() == 1
    assert [tuple(row) for row in batch.x[:3, 0, 1:]] == [(-1, -1), (1, -1), (-1, 1)]


def test_a_split_is_repeatable_and_keeps_the_share_of_each_label(table: Any) -> None:
    first, again, other = (harness.held_out(table, seed)["site 0"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    labels = table.sites["site 0"].y[:, 0]
    for label in (0, 1):
        assert first[labels == label].sum() == round(harness.TEST_SHARE * (labels == label).sum())


def test_blocks_are_held_out_whole_and_at_every_site(table: Any) -> None:
    blocks = {site: np.arange(len(batch.subjects)) // 7 for site, batch in table.sites.items()}
    aside = harness.held_out(tables.Table("", table.schema, table.sites, blocks=blocks), 3)
    drawn = {site: set(own[aside[site]].tolist()) for site, own in blocks.items()}
    assert drawn["site 0"] == drawn["site 1"] != set()
    assert all(drawn[site].isdisjoint(own[~aside[site]].tolist()) for site, own in blocks.items())


def test_the_plan_of_a_study_keeps_its_epsilon(table: Any) -> None:
    plan = harness.plan_of(table.schema, RECIPE, "3")
    spent = epsilon([study_event(plan)], delta=plan.privacy.delta, order=plan.privacy.order)
    assert 2.9 < spent <= 3


def test_noise_reaches_the_model_and_its_absence_makes_runs_equal(table: Any) -> None:
    plan = harness.plan_of(table.schema, RECIPE, "3")
    quiet = [harness.federate(plan, table.sites, NoNoise(), seed=1) for _ in range(2)]
    loud = [harness.federate(plan, table.sites, SecureNoise(), seed=1) for _ in range(2)]
    assert np.array_equal(*quiet)
    assert not np.array_equal(*loud)
    assert quiet[0][0] > 0.5  # the label follows the dose


def test_every_way_to_learn_is_measured_at_every_site(figures: Any) -> None:
    assert list(figures) == ["alone", "alone at 3", "federated at 3", "pooled"]
    assert all(found.shape == (2, 2) and np.all((found >= 0) & (found <= 1)) for found in figures.values())
    assert min(figures["alone"].mean(), figures["pooled"].mean()) > 0.8


def test_a_way_less_itself_is_nothing(figures: Any) -> None:
    found = harness.interval(figures["pooled"][:, 0] - figures["pooled"][:, 0])
    assert (found.mean, found.half, found.half_new) == (0, 0, 0)
    every = np.ones(2, dtype=bool)
    ways = {"alone": np.zeros((2, 2)), "same": np.ones((2, 2)), "pooled": np.ones((2, 2))}
    assert harness.gap_closed(ways, "same", every) == (1, 1, 1)
    assert harness.gap_closed(ways, "alone", every) == (0, 0, 0)


def test_an_interval_covers_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(7)
    found = [harness.interval(rng.normal(0.3, 1, 10)) for _ in range(2000)]
    covered = np.mean([abs(one.mean - 0.3) <= one.half for one in found])
    assert abs(covered - 0.95) < 0.02
    assert all(one.half < one.half_new for one in found)


def test_seeds_without_a_value_are_passed_over() -> None:
    assert harness.interval(np.array([0.1, math.nan, 0.3])).mean == pytest.approx(0.2)
    assert math.isinf(harness.interval(np.array([0.1, math.nan])).half)


def test_concordance_counts_the_pairs_whose_order_is_known() -> None:
    days, seen = np.array([1.0, 2.0, 3.0, 3.0]), np.array([True, False, True, True])
    assert harness.concordance(np.array([4.0, 3.0, 2.0, 1.0]), days, seen) == 1
    assert harness.concordance(np.array([1.0, 2.0, 3.0, 4.0]), days, seen) == 0
    assert harness.concordance(np.zeros(4), days, seen) == 0.5
    assert math.isnan(harness.concordance(np.zeros(4), days, np.zeros(4, dtype=bool)))


def test_a_report_names_losers_and_says_whether_a_goal_is_met(table: Any) -> None:
    spread = np.array([[0.0, 0.01], [0.01, 0.0], [0.0, 0.0]])
    ways = {
        "alone": 0.7 + spread,
        "federated at 3": 0.7 + spread + np.array([0.1, -0.05]) + spread / 10,
        "pooled": 0.8 + spread * 1.1,
    }
    text = reports.report(table, ways)
    assert "better 1 sites, undecided 0, **worse 1** (site 1)" in text
    assert "Goal, epsilon 3 beats alone without privacy on the mean: **met**" in text
    worse = reports.report(table, {**ways, "federated at 3": ways["alone"] - 0.01 - spread / 10})
    assert "Goal, epsilon 3 beats alone without privacy on the mean: **MISSED**" in worse
    assert "no gap to close" in reports.report(table, {**ways, "pooled": ways["alone"]})
