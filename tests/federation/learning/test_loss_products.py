from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.learning import evaluation
from federation.learning.loss_products import LossProducts, models_at_once, serves
from federation.rules.encoding import SubjectBatch
from federation.rules.families import LOGISTIC, CnnModel, MlpModel, Model, size

MODELS: tuple[Model, ...] = (
    LOGISTIC,
    MlpModel(family="mlp", hidden=(5,)),
    MlpModel(family="mlp", hidden=(4, 3), activation="relu"),
)


def people(seed: int, *, intervals: int = 0, subjects: int = 40, features: int = 6) -> SubjectBatch:
    rng = np.random.default_rng(seed)
    mask = (np.arange(3)[None, :] < rng.integers(1, 4, subjects)[:, None]).astype(np.float64)
    x = rng.uniform(-1, 1, (subjects, 3, features)) * mask[:, :, None]
    return SubjectBatch(
        tuple(f"s{at:03}" for at in range(subjects)), x, rng.integers(0, 2, mask.shape) * mask, mask, intervals
    )


@settings(max_examples=12)
@given(
    st.integers(0, 10**6),
    st.sampled_from(MODELS),
    st.sampled_from((0, 3)),
    st.sampled_from((Decimal("0.5"), Decimal(4), Decimal(64))),
    st.sampled_from((0.1, 1.0, 30.0)),
)
def test_estimates_are_within_their_doubt_of_the_fixed_order(
    seed: int, model: Model, intervals: int, bound: Decimal, spread: float
) -> None:
    batch = people(seed, intervals=intervals)
    models = np.random.default_rng(seed).normal(0, spread, (9, size(model, 6)))
    found = LossProducts(batch, bound, model).utilities(models)
    assert np.all(np.abs(found.values - evaluation.utilities(models, batch, bound, model)) <= found.doubt)
    assert spread > 1 or found.doubt < 2.0**-42, "models of usual size seldom need the fixed order"


def test_certain_models_lose_the_bound_or_nothing_without_a_warning() -> None:
    one = SubjectBatch(("s",), np.ones((1, 1, 2)), np.zeros((1, 1)), np.ones((1, 1)))
    models = np.array([[1e6, 1e6, 0.0], [-1e6, -1e6, 0.0]])
    assert LossProducts(one, Decimal(4), LOGISTIC).utilities(models).values.tolist() == [-4.0, 0.0]


def test_thousands_of_records_do_not_leave_the_range_of_floats() -> None:
    batch = people(1, subjects=3000)
    models = np.full((1, 7), 50.0)
    found = LossProducts(batch, Decimal(64), LOGISTIC).utilities(models)
    assert found.values[0] == pytest.approx(evaluation.utility(models[0], batch, Decimal(64)), abs=1e-12)


def test_other_models_and_larger_bounds_are_left_to_the_fixed_order() -> None:
    batch = people(2)
    assert serves(batch, Decimal(64), LOGISTIC)
    assert not serves(batch, Decimal(65), LOGISTIC)
    assert not serves(batch, Decimal(4), CnnModel(family="cnn", shape=(6,), filters=(2,)))
    recordless = SubjectBatch(batch.subjects, batch.x, batch.y, batch.mask * 0, intervals=3)
    assert not serves(recordless, Decimal(4), LOGISTIC)


def test_blocks_hold_at_least_one_model() -> None:
    assert models_at_once(1 << 20, people(1), MODELS[1]) == 1
    assert models_at_once(7, people(1), LOGISTIC) > 1
