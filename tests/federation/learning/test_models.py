from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import PeerError
from federation.learning.models import (
    batched_logits,
    initial_model,
    logits,
    parameter_count,
    parameter_names,
    parameter_shapes,
)
from federation.rules.fixedpoint import from_fixed, pack
from federation.rules.study import StudyPlan


def plan(**changes: Any) -> StudyPlan:
    document = {
        "name": "heart",
        "title": "A study",
        "sponsor": "sponsor",
        "origin": "example/heart",
        "purpose": {"duo": "DUO:0000006", "statement": "To predict heart disease."},
        "schema": {
            "subject": "patient_id",
            "columns": [
                {"type": "number", "name": "age", "low": 20, "high": 100, "missing": True},
                {"type": "category", "name": "sex", "categories": ["female", "male"]},
            ],
            "label": {"name": "disease", "negative": "no", "positive": "yes"},
        },
        "model": {"family": "logistic"},
        "privacy": {"unit": "subject", "epsilon": 3, "delta": "0.00001", "clip": 1},
        "training": {"learning_rate": 1},
        "rounds": {"count": 2, "participants": 4, "quorum": 2, "deadline_s": 10},
        "cohort": {"minimum": 10},
        "aggregation": {"rule": "weighted-mean", "norm_bound": 10},
        "valuation": {"method": "shapley", "utility": "negative-log-loss"},
        "reward": {"pool_microcredits": 1000},
        "validation": {"rule": "a fifth", "commitment": "0" * 64},
        "code_approved": ["0" * 64],
    }
    return StudyPlan.model_validate({**document, **changes})


def test_a_logistic_model_has_a_weight_for_each_feature_and_a_bias() -> None:
    assert parameter_names(plan()) == ("age", "age:missing", "sex=female", "sex=male", "bias")
    assert parameter_count(plan()) == len(parameter_names(plan())) == 5
    assert parameter_shapes(plan()) == {"weight": (4,), "bias": (1,)}
    assert sum(int(np.prod(shape)) for shape in parameter_shapes(plan()).values()) == parameter_count(plan())


def test_the_first_model_follows_from_the_seed() -> None:
    first = initial_model(plan(), 7)
    assert pack(first) == pack(initial_model(plan(), 7))
    assert first.shape == (5,)
    assert not np.array_equal(first, initial_model(plan(), 8))
    assert np.all(np.abs(from_fixed(first)) <= 2**-10)
    assert initial_model(plan(), -1).shape == (5,)
    # These figures are the format: another version of Accord must begin with the same model.
    assert first.tolist() == [-2265, 2702, -4491, 15882, -4331]


finite = st.floats(-100, 100)


@given(hnp.arrays(np.float64, 4, elements=finite), hnp.arrays(np.float64, (3, 2, 3), elements=finite))
def test_logits_are_the_weighted_sum_and_the_bias(params: np.ndarray, x: np.ndarray) -> None:
    assert logits(params, x).shape == (3, 2)
    assert np.allclose(logits(params, x), x @ params[:3] + params[3], atol=1e-9)


@given(hnp.arrays(np.float64, (5, 4), elements=finite), hnp.arrays(np.float64, (6, 3), elements=finite))
def test_a_models_logits_do_not_depend_on_its_company(models: np.ndarray, x: np.ndarray) -> None:
    together = batched_logits(models, x)
    for row, params in enumerate(models):
        assert together[row].tobytes() == batched_logits(params[None, :], x)[0].tobytes()
        assert together[row, 2:].tobytes() == logits(params, x[2:]).tobytes()


def test_a_model_of_another_study_is_refused() -> None:
    with pytest.raises(PeerError, match="do not fit"):
        logits(np.zeros(4), np.zeros((2, 5)))
