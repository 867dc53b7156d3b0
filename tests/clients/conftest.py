"""A small plan for tests of the institution's side."""

from collections.abc import Callable
from typing import Any

import pytest

from federation.rules.study import StudyPlan

PlanMaker = Callable[..., StudyPlan]


def small_plan(**changes: Any) -> StudyPlan:
    """A plan with a number that may be missing, a category and a label; ``section={...}`` changes its fields."""
    document: dict[str, Any] = {
        "name": "small",
        "title": "A small study",
        "sponsor": "sponsor",
        "origin": "accord.test/small",
        "purpose": {"duo": "DUO:0000042", "statement": "Testing."},
        "schema": {
            "subject": "person",
            "records_per_subject_max": 3,
            "columns": [
                {"type": "number", "name": "age", "unit": "year", "low": "0", "high": "100"},
                {"type": "number", "name": "chol", "low": "0", "high": "400", "missing": True},
                {"type": "category", "name": "sex", "categories": ["f", "m"]},
            ],
            "label": {"name": "ill", "negative": "no", "positive": "yes"},
        },
        "model": {"family": "logistic"},
        "privacy": {"unit": "subject", "epsilon": "3", "delta": "1e-5", "clip": "1"},
        "training": {"learning_rate": "0.5"},
        "rounds": {"count": 15, "participants": 2, "quorum": 1, "deadline_s": 10},
        "cohort": {"minimum": 5},
        "aggregation": {"rule": "weighted-mean", "norm_bound": "10"},
        "valuation": {"method": "shapley", "utility": "negative-log-loss"},
        "reward": {"pool_microcredits": 1000},
        "validation": {"rule": "none", "commitment": "0" * 64},
        "code_approved": ["0" * 64],
    }
    for section, fields in changes.items():
        document[section] = {**document[section], **fields}
    return StudyPlan.model_validate(document)


@pytest.fixture(scope="session")
def plan() -> StudyPlan:
    """15 rounds of one full-batch step at epsilon 3: five features (age, chol, chol:missing, sex=f, sex=m)."""
    return small_plan()


@pytest.fixture(scope="session")
def make_plan() -> PlanMaker:
    """Plans that differ from the small one: ``make_plan(training={"local_steps": 3})``."""
    return small_plan
