"""Whatever a coordinator asks for beyond the plan, it is refused with a reason, and nothing is charged or released."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from study_in_memory import InMemoryStudy

from clients.data.dataset import add_dataset
from clients.flower.app import client_app
from clients.privacy.noise import SecureNoise
from federation.errors import PeerError
from federation.flower.messages import REVEAL, TRAIN, answer_of, node_id_of, round_content, task_message
from federation.learning.models import initial_model
from federation.rules.documents import Refusal, Update, open_signed
from federation.rules.fixedpoint import pack
from federation.rules.study import StudyPlan

Ask = Callable[..., tuple[str, bytes]]
CROWD = {"ash": 99, "birch": 99}
TERMS: dict[str, Any] = {"rounds": {"count": 2}, "privacy": {"epsilon": "2"}}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path, sites=2, people=CROWD, **TERMS) as made:
        made["ash"].stop()
        yield made


def app_of(study: InMemoryStudy, *, plan: StudyPlan | None = None, dataset: str | None = None) -> ClientApp:
    """The node's side with the shipped noise, as a new process has it."""
    ash = study["ash"]
    work = ash.contribution(plan=plan or study.plan, noise=SecureNoise(), dataset=dataset)
    return client_app(work, study=study.plan.study_id, party=ash.key.public)


def asked_of(study: InMemoryStudy, app: ClientApp, kind: str, **config: Any) -> tuple[str, bytes]:
    """Send any configuration at all, in a message of Flower."""
    node = node_id_of(study["ash"].key.public)
    fields = {"study": study.plan.study_id, "round": 1, "base_model": base_of(study), "deadline": "", **config}
    message: Message = task_message(
        round_content(ConfigRecord(fields)),
        run_id=1,
        group_id="group",
        message_type=kind,
        src_node_id=1,
        dst_node_id=node,
    )
    context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
    return answer_of(app(message, context))


@pytest.fixture
def ask(study: InMemoryStudy) -> Ask:
    """Ask one and the same node; by default to train."""
    app = app_of(study)
    return lambda kind=TRAIN, **config: asked_of(study, app, kind, **config)


def base_of(study: InMemoryStudy, seed: int = 7) -> str:
    return study.blobs.put(pack(initial_model(study.plan, seed)))


def refusal(answer: tuple[str, bytes]) -> Refusal:
    assert answer[0] == "refusal"
    return open_signed(Refusal, answer[1])[0]


WISHES: tuple[dict[str, Any], ...] = (
    {"seed": 7},
    {"noise_multiplier": 0.1},
    {"sigma": 0.0},
    {"clip": 1e9},
    {"epsilon": 8.0},
    {"sampling_rate": 1.0},
    {"dataset": "other"},
    {"local_steps": 1000},
    {"metrics": True},
)


def test_a_wish_that_is_not_the_plan_s_is_refused_by_name(ask: Ask, study: InMemoryStudy) -> None:
    for wish in WISHES:
        with pytest.raises(PeerError, match=rf"it asks for {next(iter(wish))}, which no task has"):
            ask(**wish)
    assert study["ash"].budget.charges() == ()


def test_more_rounds_than_the_plan_has_are_refused(ask: Ask, study: InMemoryStudy) -> None:
    for number in (3, 4, 1000):
        assert refusal(ask(round=number)).code == "wrong-round"
    assert study["ash"].budget.charges() == ()


def test_the_same_round_twice_gives_the_same_bytes_and_one_charge(ask: Ask, study: InMemoryStudy) -> None:
    first, shown = ask(), ask(REVEAL)
    for _ in range(3):
        assert (ask(), ask(REVEAL)) == (first, shown)
    assert refusal(ask(base_model=base_of(study, 8))).code == "wrong-base"
    assert ask(REVEAL) == shown
    assert len(study["ash"].budget.charges()) == 1


def test_no_seed_reaches_the_noise(study: InMemoryStudy, tmp_path: Path) -> None:
    """Two nodes alike in everything, asked alike: what they release has no number in common."""
    folder = tmp_path / "again"
    folder.mkdir()
    with InMemoryStudy(folder, sites=2, people=CROWD, **TERMS) as other:
        other["ash"].stop()
        assert update_of(study).update != update_of(other).update


def update_of(study: InMemoryStudy, *, number: int = 1, dataset: str | None = None) -> Update:
    """What a fresh process of the node shows for a round."""
    app = app_of(study, dataset=dataset)
    assert asked_of(study, app, TRAIN, round=number)[0] == "commitment"
    return open_signed(Update, asked_of(study, app, REVEAL, round=number)[1])[0]


CHANGES: tuple[tuple[str, str, object], ...] = (
    ("privacy", "epsilon", Decimal(8)),
    ("privacy", "clip", Decimal(100)),
    ("privacy", "cohort_noise_multiplier", Decimal(2)),
    ("rounds", "count", 1000),
    ("cohort", "minimum", 1),
)


def test_another_plan_than_the_one_agreed_to_is_none(study: InMemoryStudy) -> None:
    for section, field, value in CHANGES:
        part = getattr(study.plan, section).model_copy(update={field: value})
        changed = study.plan.model_copy(update={section: part})
        changed = StudyPlan.model_validate(changed.model_dump(mode="json", exclude_none=True, by_alias=True))
        with pytest.raises(PeerError, match="agreement is for another plan"):
            app_of(study, plan=changed)


def test_the_same_people_under_another_file_s_name_have_no_second_budget(
    ask: Ask, study: InMemoryStudy, tmp_path: Path
) -> None:
    """The study spends 2 of 3; a study of another file, or the same file registered anew, starts from there."""
    ask()
    ash = study["ash"]
    before = ash.budget.spent()
    copy = tmp_path / "renamed.csv"
    copy.write_bytes(ash.file.read_bytes())
    add_dataset(ash.engine, copy, subject_column="person", name="renamed", now=study.clock())
    assert ash.budget.spent() == before > 0
    assert update_of(study, number=2, dataset="renamed").round == 2, "the renamed file was trained on"
    assert ash.budget.spent() > before
