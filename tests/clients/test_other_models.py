"""Studies of other models, labels and forms of updates than the usual ones, from the plan to the settlement."""

from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy

from clients.storage import recall
from federation.rules.admission import parameter_count
from federation.rules.explain import explain
from federation.rules.fixedpoint import Integers, unpack
from federation.rules.vectors import update_sizes
from federation.storage.database import read

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


@pytest.mark.parametrize(
    "form", [{"compression": "int8"}, {"compression": "top-k", "keep": "0.4"}], ids=["int8", "top-k"]
)
def test_shorter_updates_are_what_everybody_adds_up_and_what_they_lack_comes_later(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    whole_folder, short_folder = tmp_path / "whole", tmp_path / "short"
    models: list[Integers] = []
    for folder, changes in ((whole_folder, {}), (short_folder, form)):
        folder.mkdir()
        with InMemoryStudy(folder, sites=2, rounds={"count": 2}, aggregation=changes) as study:
            study.run()
            assert [len(done.admitted) for done in study.state.closed] == [2, 2]
            length = parameter_count(study.plan)
            models.append(unpack(study.blobs.get(study.state.closed[0].model), length=length))
            sizes = {update.update_bytes for done in study.state.closed for update in done.admitted.values()}
            if changes:
                assert sizes <= update_sizes(length, study.plan.aggregation)
                with read(study.institutions["ash"].engine) as session:
                    left_out = recall(session, f"left-out/{study.plan.study_id}")
                assert left_out is not None
    assert (models[0] != models[1]).any()
