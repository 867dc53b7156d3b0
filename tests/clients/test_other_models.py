"""A study of another model than the linear one, from its plan to its settlement."""

from pathlib import Path

from study_in_memory import InMemoryStudy

from federation.rules.admission import parameter_count
from federation.rules.fixedpoint import unpack


def test_a_multilayer_perceptron_is_trained_valued_and_paid(tmp_path: Path) -> None:
    model = {"family": "mlp", "hidden": [4], "activation": "tanh"}
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 2}, model=model) as study:
        study.run()
        state = study.state
        assert state.settled
        assert [len(done.admitted) for done in state.closed] == [2, 2]
        final = unpack(study.blobs.get(state.closed[-1].model), length=parameter_count(study.plan))
        first = unpack(study.blobs.get(state.closed[0].model), length=parameter_count(study.plan))
        assert (final != first).any()
        assert sum(payment.reward for payment in state.payments) <= study.plan.reward.pool_microcredits
