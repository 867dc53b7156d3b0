"""Which models a study's parties pass on to each other (``federation.rules.sharing``)."""

from dataclasses import replace
from pathlib import Path

from study_in_memory import InMemoryStudy

from federation.rules.replay import begin
from federation.rules.sharing import may_share, shared_models


def test_every_model_of_the_log_is_shared_and_nothing_else_is(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2) as study:
        state = study.run()
        assert shared_models(state) == {state.first_model, *(done.model for done in state.closed)}
        fresh = begin(study.plan, plan_blob=state.plan_blob, coordinator=study.key.public)
        assert shared_models(fresh) == frozenset()

        did = study["ash"].key.public.did
        assert may_share(state, did)
        assert not may_share(replace(state, revoked=frozenset({did})), did)
        assert not may_share(fresh, did)
