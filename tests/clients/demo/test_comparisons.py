from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.demo.comparisons import Linear, _resample, _weighted_auc, compare, fit, network_model
from clients.demo.split import Split, split_rows
from clients.demo.studies import HEART, WEATHER
from federation.errors import OperatorError
from federation.learning.evaluation import auc
from federation.learning.models import initial_model, parameter_count
from federation.rules.encoding import Rows, parse_rows
from federation.rules.fixedpoint import to_fixed


def rows_of(labels: np.ndarray, features: np.ndarray) -> Rows:
    return Rows(tuple(f"s{number}" for number in range(len(labels))), features, labels)


@given(
    labels=st.lists(st.booleans(), min_size=2, max_size=60).filter(lambda found: 0 < sum(found) < len(found)),
    seed=st.integers(0, 2**32),
    ties=st.booleans(),
)
def test_weighted_auc_is_the_auc_of_the_repeated_rows(labels: list[bool], seed: int, *, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    y = np.array(labels, dtype=np.float64)
    scores = rng.integers(0, 4, len(y)).astype(np.float64) if ties else rng.normal(size=len(y))
    times = rng.integers(1, 4, (3, len(y)))
    values = _weighted_auc(scores, y, times)
    for drawn, value in zip(times, values, strict=True):
        assert value == pytest.approx(auc(np.repeat(scores, drawn), np.repeat(y, drawn)), abs=1e-12)


def test_resampling_draws_whole_subjects_and_keeps_both_labels() -> None:
    rows = Rows(("a", "a", "b", "c", "c", "d"), np.zeros((6, 1)), np.array([1.0, 0, 0, 0, 0, 1]))
    times = _resample(rows, seed=1)
    assert (times[:, 0] == times[:, 1]).all()
    assert (times[:, 3] == times[:, 4]).all()
    assert (times[:, [0, 5]].sum(axis=1) == 2).all(), "subjects with a positive are drawn apart"
    assert (times[:, [2, 3]].sum(axis=1) == 2).all()


def test_fit_finds_the_direction_of_plain_data() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(-1, 1, (400, 3))
    labels = (features @ np.array([3.0, -2.0, 0.0]) + rng.logistic(size=400) > 0).astype(np.float64)
    model = fit(rows_of(labels, features), seed=1)
    assert model.weight[0] > 1.5
    assert model.weight[1] < -1
    assert abs(model.weight[2]) < 0.7


def test_fit_refuses_rows_with_one_label() -> None:
    with pytest.raises(OperatorError, match="only one of the two labels"):
        fit(rows_of(np.ones(5), np.zeros((5, 2))), seed=1)


def test_network_model_reads_weights_then_bias() -> None:
    model = network_model(to_fixed(np.array([0.5, -0.25, 2.0])))
    assert model.scores(np.array([[1.0, 1.0]])) == pytest.approx([2.25])


@pytest.fixture(scope="module")
def heart_figures() -> tuple[Split, dict[str, Any]]:
    plan = HEART.plan()
    split = split_rows(HEART, plan, seed=5)
    everyone = {site: {row["patient_id"] for row in rows} for site, rows in split.training.items()}
    together = [row for rows in split.training.values() for row in rows]
    pooled: Linear = fit(parse_rows(plan.schema_contract, together, source="all"), seed=5)
    parameters = to_fixed(np.append(pooled.weight, pooled.bias))
    return split, compare(HEART, plan, split, everyone, parameters, seed=5)


def test_network_is_judged_exactly_as_its_rivals_are(heart_figures: tuple[Split, dict[str, Any]]) -> None:
    _, figures = heart_figures
    for site in figures["sites"].values():
        for end in ("", "_low", "_high"):
            assert site[f"auc_federated{end}"] == pytest.approx(site[f"auc_pooled_nonprivate{end}"], abs=1e-9)
        assert site["gain"] == pytest.approx(site["auc_federated"] - site["auc_alone_nonprivate"])
        assert site["gain_low"] <= site["gain"] <= site["gain_high"]
        assert site["auc_federated_low"] <= site["auc_federated"] <= site["auc_federated_high"]
    summary = figures["summary"]
    assert summary["gain"] == pytest.approx(summary["mean_federated"] - summary["mean_alone"])
    assert figures["baselines"] == []


def test_sponsor_s_rows_are_counted(heart_figures: tuple[Split, dict[str, Any]]) -> None:
    split, figures = heart_figures
    counts = {site: found["validation_rows"] for site, found in figures["sites"].items()}
    assert counts == {site: len(rows) for site, rows in split.held_out.items()}


def test_weather_is_compared_with_persistence_and_climatology() -> None:
    plan = WEATHER.plan()
    split = split_rows(WEATHER, plan, seed=5)
    everyone = {site: {row["station_day"] for row in rows} for site, rows in split.training.items()}
    figures = compare(WEATHER, plan, split, everyone, initial_model(plan, 5), seed=5)
    forecasts = {line["name"]: line for line in figures["baselines"]}
    assert set(forecasts) == {"climatology", "persistence", "alone_nonprivate", "federated", "pooled_nonprivate"}
    assert forecasts["climatology"]["auc"] == 0.5
    assert 0.6 < forecasts["persistence"]["auc"] < forecasts["pooled_nonprivate"]["auc"]
    assert forecasts["federated"]["log_loss"] == pytest.approx(np.log(2), abs=0.01), "a model before any training"
    assert all("auc_persistence_low" in site for site in figures["sites"].values())
    assert parameter_count(plan) == 17
