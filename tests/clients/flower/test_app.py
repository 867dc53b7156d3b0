"""The ClientApp: Flower's messages become the contribution's answers, for one study only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from study_in_memory import InMemoryStudy

from clients.flower.app import client_app
from federation.errors import PeerError
from federation.flower.messages import (
    REVEAL,
    TRAIN,
    RoundTask,
    answer_of,
    node_id_of,
    round_config,
    round_content,
    task_message,
)
from federation.learning.models import initial_model
from federation.rules.documents import Commitment, Refusal, Update, open_signed
from federation.rules.fixedpoint import pack


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path, sites=2) as made:
        made["ash"].stop()
        yield made


@pytest.fixture
def app(study: InMemoryStudy) -> ClientApp:
    ash = study["ash"]
    return client_app(ash.contribution(), study=study.plan.study_id, party=ash.key.public)


def ask(app: ClientApp, asked: InMemoryStudy, kind: str, **task: Any) -> tuple[str, bytes]:
    party = asked["ash"].key.public
    message = task_message(
        round_content(round_config(RoundTask(**{"study": asked.plan.study_id, "round": 1, **task}))),
        run_id=1,
        group_id="group",
        message_type=kind,
        src_node_id=1,
        dst_node_id=node_id_of(party),
    )
    context = Context(run_id=1, node_id=node_id_of(party), node_config={}, state=RecordDict(), run_config={})
    return answer_of(app(message, context))


def test_train_answers_with_a_commitment_and_reveal_with_the_update(app: ClientApp, study: InMemoryStudy) -> None:
    base = study.blobs.put(pack(initial_model(study.plan, 7)))
    name, data = ask(app, study, TRAIN, base_model=base)
    assert name == "commitment"
    commitment, envelope = open_signed(Commitment, data, signer=study["ash"].key.public)
    shown, update_bytes = ask(app, study, REVEAL)
    assert shown == "update"
    update, _ = open_signed(Update, update_bytes)
    assert update.commitment(envelope.signer) == commitment


def test_consistency_is_proven_from_the_size_that_the_study_saw_last(app: ClientApp, study: InMemoryStudy) -> None:
    ash = study["ash"]
    seen = ash.registry.checkpoint().checkpoint.size
    ash.registry.append_batch(study.clock())
    base = study.blobs.put(pack(initial_model(study.plan, 7)))
    sizes = {study["birch"].did: 99, ash.did: seen}
    ask(app, study, TRAIN, base_model=base, consent_sizes=sizes)
    update, _ = open_signed(Update, ask(app, study, REVEAL)[1])
    assert update.consent_consistency.old_size == seen
    assert len(update.consent_consistency.proof) >= 1


def test_a_refusal_is_an_answer_too(app: ClientApp, study: InMemoryStudy) -> None:
    study["ash"].registry.withdraw_all(study["ash"].refs)
    base = study.blobs.put(pack(initial_model(study.plan, 7)))
    name, data = ask(app, study, TRAIN, base_model=base)
    assert name == "refusal"
    assert open_signed(Refusal, data)[0].code == "cohort"


@pytest.mark.parametrize("kind", [TRAIN, REVEAL])
def test_another_study_s_task_is_refused(app: ClientApp, study: InMemoryStudy, kind: str) -> None:
    with pytest.raises(PeerError, match=r"takes part in small-.* not in other-0"):
        ask(app, study, kind, study="other-0", base_model="0" * 64)
    assert study["ash"].budget.charges() == ()


def test_nothing_is_shown_that_was_not_committed(app: ClientApp, study: InMemoryStudy) -> None:
    with pytest.raises(PeerError, match="No update was committed for round 1"):
        ask(app, study, REVEAL)
