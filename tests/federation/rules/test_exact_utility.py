"""Exact arithmetic and floating point agree to the last committed digits; only one of them is the same everywhere."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.learning.evaluation import committed_utility
from federation.rules.encoding import SubjectBatch
from federation.rules.exact_utility import exact_utility
from federation.rules.families import MlpModel


def batch(seed: int, subjects: int, records: int, features: int, intervals: int = 0) -> SubjectBatch:
    rng = np.random.default_rng(seed)
    mask = (rng.random((subjects, records)) < 0.7).astype(np.float64)
    mask[:, 0] = 1
    return SubjectBatch(
        subjects=tuple(f"s{number}" for number in range(subjects)),
        x=rng.uniform(-1, 1, (subjects, records, features)) * mask[:, :, None],
        y=(rng.random((subjects, records)) < 0.5) * mask,
        mask=mask,
        intervals=intervals,
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    subjects=st.integers(1, 6),
    records=st.integers(1, 3),
    features=st.integers(1, 5),
    scale=st.sampled_from([0.01, 1.0, 30.0, 1e6]),
    survival=st.booleans(),
)
def test_it_is_the_committed_utility(
    seed: int, subjects: int, records: int, features: int, scale: float, survival: bool
) -> None:
    rows = batch(seed, subjects, records, features, intervals=records if survival else 0)
    params = np.random.default_rng(seed).normal(0, scale, features + 1)
    bound = Decimal("3.5")
    assert abs(exact_utility(params, rows, bound) - committed_utility(params, rows, bound)) <= 1


def test_a_coin_and_certainty() -> None:
    rows = batch(1, 3, 1, 2)
    assert exact_utility(np.zeros(3), rows, Decimal(4)) == -round(float(np.log(2)) * 2**40)
    sure = np.array([0.0, 0.0, 1e9])
    positives = int(rows.y.sum())
    assert exact_utility(sure, rows, Decimal(4)) == round(Decimal(-4 * 2**40) * (3 - positives) / 3)


def test_what_it_cannot_compute_is_refused() -> None:
    rows = batch(1, 3, 1, 2)
    for params, of, model in (
        (np.zeros(9), rows, MlpModel(family="mlp", hidden=(2,))),
        (np.zeros(2), rows, None),
        (np.zeros(3), rows.select(()), None),
    ):
        with pytest.raises(PeerError, match="cannot be computed exactly"):
            exact_utility(params, of, Decimal(4), *([model] if model else []))
