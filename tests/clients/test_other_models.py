"""Studies of other models and labels than the linear one and its two words, from the plan to the settlement."""

from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy

from federation.rules.admission import parameter_count
from federation.rules.explain import explain
from federation.rules.fixedpoint import unpack

UNTIL_ILL = {
    "subject": "person",
    "columns": [{"type": "number", "name": "pressure", "low": "50", "high": "250", "missing": True}],
    "label": {
        "type": "survival",
        "name": "age",
        "event": "ill",
        "censored": "no",
        "happened": "yes",
        "intervals": ["40", "60", "95"],
        "unit": "a",
    },
}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"family": "mlp", "hidden": [4], "activation": "tanh"}},
        {"model": {"family": "cnn", "shape": [3], "filters": [2]}},
        {"model": {"family": "transformer", "length": 3, "width": 4, "hidden": 4}},
        {"schema": UNTIL_ILL},
    ],
    ids=["mlp", "cnn", "transformer", "survival"],
)
def test_a_study_is_trained_valued_and_paid(tmp_path: Path, changes: dict[str, Any]) -> None:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 2}, **changes) as study:
        study.run()
        state = study.state
        assert state.settled
        assert [len(done.admitted) for done in state.closed] == [2, 2]
        final = unpack(study.blobs.get(state.closed[-1].model), length=parameter_count(study.plan))
        first = unpack(study.blobs.get(state.closed[0].model), length=parameter_count(study.plan))
        assert (final != first).any()
        assert sum(payment.reward for payment in state.payments) <= study.plan.reward.pool_microcredits
        if "schema" in changes:
            assert "the time age until ill (in 3 intervals up to 95 a)" in explain(study.plan)
