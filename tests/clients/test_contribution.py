"""One institution's round: charged before it reads, stored before it answers, and never trained twice."""

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import update
from study_in_memory import InMemoryStudy, Institution, key_of

from clients.contribution import REFUSALS, Answer, Contribution, Task
from clients.data.dataset import add_dataset
from clients.privacy.budget import State
from clients.privacy.noise import NoNoise
from consent.registry.tables import ConsentCosignature
from federation.errors import PeerError, UnavailableError
from federation.learning.models import initial_model
from federation.rules.accounting import count_event, round_event
from federation.rules.checkpoint import cosign
from federation.rules.documents import Commitment, Refusal, Update, open_signed
from federation.rules.fixedpoint import Integers, pack
from federation.rules.study import open_agreement
from federation.storage.blobs import MemoryBlobStore
from federation.storage.database import write

Make = Callable[..., Contribution]


class Counting(NoNoise):
    """No noise, but it knows how often it was asked; and it can fail, as a machine does."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.draws = 0
        self.fail_at = fail_at

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        self.draws += 1
        if self.draws == self.fail_at:
            raise OSError("the power is gone")
        return super().discrete_gaussian(count, std)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path, sites=2) as made:
        made["ash"].stop()
        yield made


@pytest.fixture
def ash(study: InMemoryStudy) -> Institution:
    return study["ash"]


@pytest.fixture
def base(study: InMemoryStudy) -> str:
    return study.blobs.put(pack(initial_model(study.plan, 7)))


@pytest.fixture
def make(ash: Institution) -> Make:
    return ash.contribution


def task(base: str, number: int = 1) -> Task:
    return Task(round_number=number, base_model=base, consent_size=0)


def code(answer: Answer) -> str:
    """The code of a refusal, whose words are always the fixed ones."""
    assert answer.kind == "refusal", answer
    refusal, _ = open_signed(Refusal, answer.data)
    assert refusal.message == REFUSALS[refusal.code]
    return refusal.code


def state(site: Institution, number: int = 1) -> State | None:
    charge = site.budget.charge(site.study.plan.study_id, number)
    return charge.state if charge else None


def test_a_round_is_committed_charged_stored_and_shown(make: Make, ash: Institution, base: str) -> None:
    work = make()
    committed = work.commit(task(base))
    assert committed.kind == "commitment"
    shown = work.reveal(1)
    update, envelope = open_signed(Update, shown.data, signer=ash.key.public)
    commitment, _ = open_signed(Commitment, committed.data, signer=ash.key.public)
    assert update.commitment(envelope.signer) == commitment
    assert state(ash) is State.COMMITTED
    assert b"".join(ash.blobs.get(name) for name in update.chunks) == ash.stored()[1].payload
    assert update.base_model == base


def test_a_repeated_request_is_answered_with_the_same_bytes_and_no_new_draw(
    make: Make, ash: Institution, base: str
) -> None:
    first = make(noise=Counting())
    answer, shown = first.commit(task(base)), first.reveal(1)
    again = Counting()
    later = make(noise=again)
    assert later.commit(task(base)) == answer
    assert later.reveal(1) == shown
    assert again.draws == 0
    assert len(ash.budget.charges()) == 1
    assert len(ash.budget.history()) == 4


def test_nothing_is_shown_that_was_not_committed(make: Make) -> None:
    with pytest.raises(PeerError, match="No update was committed for round 1"):
        make().reveal(1)


def test_another_base_for_a_committed_round_is_refused_and_the_update_stays(
    make: Make, ash: Institution, study: InMemoryStudy, base: str
) -> None:
    work = make()
    answer = work.commit(task(base))
    other = study.blobs.put(pack(initial_model(study.plan, 8)))
    assert code(work.commit(task(other))) == "wrong-base"
    assert work.commit(task(base)) == answer
    assert len(ash.budget.charges()) == 1


@pytest.mark.parametrize("number", [4, 1000])
def test_a_round_that_the_plan_does_not_have_is_refused_uncharged(
    make: Make, ash: Institution, base: str, number: int
) -> None:
    assert code(make().commit(task(base, number))) == "wrong-round"
    assert ash.budget.charges() == ()


def test_a_revoked_agreement_stops_at_once_even_if_nobody_was_told(make: Make, ash: Institution, base: str) -> None:
    agreed = True
    work = make(agreed=lambda: agreed)
    committed = work.commit(task(base))
    agreed = False
    assert code(work.commit(task(base, 2))) == "revoked"
    assert [charge.round for charge in ash.budget.charges()] == [1]
    assert work.commit(task(base)) == committed  # what is out stays out


def test_code_that_the_plan_does_not_approve_trains_nothing(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, code_approved=["0" * 64]) as study:
        base = study.blobs.put(pack(initial_model(study.plan, 7)))
        assert code(study["ash"].contribution().commit(task(base))) == "wrong-code"
        assert study["ash"].budget.charges() == ()


def test_an_agreement_to_another_plan_is_none(ash: Institution, make: Make) -> None:
    agreement, _ = open_agreement(ash.parts().membership.agreement)
    with pytest.raises(PeerError, match="The agreement is for another plan"):
        make(agreement=agreement.model_copy(update={"plan_hash": "0" * 64}))


def test_a_base_model_that_cannot_be_had_costs_nothing(make: Make, ash: Institution) -> None:
    with pytest.raises(UnavailableError):
        make().commit(task("0" * 64))
    assert ash.budget.charges() == ()


def test_a_base_model_of_another_form_costs_nothing(make: Make, ash: Institution, study: InMemoryStudy) -> None:
    other = study.blobs.put(pack(np.zeros(2, dtype=np.int64)))
    with pytest.raises(PeerError):
        make().commit(task(other))
    assert ash.budget.charges() == ()


# What goes wrong at the institution: outside, one of a few fixed sentences.


def spoil_nothing(site: Institution) -> None:
    site.file.unlink()


def spoil_value(site: Institution) -> None:
    site.file.write_bytes(site.file.read_bytes().replace(b"p03,", b"p03,-", 1))


@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_value], ids=["missing", "changed"])
def test_a_file_that_cannot_be_used_is_not_described_outside(
    make: Make, ash: Institution, base: str, spoil: Callable[[Institution], None]
) -> None:
    spoil(ash)
    answer = make().commit(task(base))
    assert code(answer) == "not-ready"
    assert b"p03" not in answer.data
    assert ash.stored() == {}
    assert make().commit(task(base)) == answer  # remembered: asking again reads nothing again


def test_a_node_that_does_not_know_its_file_refuses_uncharged_and_can_be_told(
    make: Make, ash: Institution, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_dataset(ash.engine, ash.file, subject_column="person", name="second", now=ash.study.clock())
    assert code(make().commit(task(base))) == "no-data-set"
    assert "several data sets" in caplog.text
    assert state(ash) is None
    assert make(dataset="second").commit(task(base)).kind == "commitment"


PART = "0"
"""Seven of the twelve: p00, p02, p03, p05, p06, p09 and p10."""


def test_a_study_on_a_part_of_the_people_uses_and_charges_nobody_else(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, cohort={"minimum": 5, "part": PART}) as study:
        ash = study["ash"]
        ash.stop()
        base = study.blobs.put(pack(initial_model(study.plan, 7)))
        work = ash.contribution()
        assert work.commit(task(base)).kind == "commitment"
        update, _ = open_signed(Update, work.reveal(1).data)
        assert json.loads(ash.uses()[1].subjects) == ["p00", "p02", "p03", "p05", "p06", "p09", "p10"]
        assert update.event == round_event(study.plan)
        assert update.event["part"] == PART
        assert ash.budget.spent_by_part() == {"0": ash.budget.spent(), "1": 0.0}


def test_whoever_is_outside_of_the_part_changes_nothing_that_leaves(tmp_path: Path) -> None:
    payloads = []
    for age in ("68", "28"):
        folder = tmp_path / age
        folder.mkdir()
        with InMemoryStudy(folder, sites=2, cohort={"minimum": 5, "part": PART}) as study:
            ash = study["ash"]
            ash.stop()
            ash.file.write_bytes(ash.file.read_bytes().replace(b"p01,68", f"p01,{age}".encode()))
            assert f"p01,{age}".encode() in ash.file.read_bytes()
            add_dataset(ash.engine, ash.file, subject_column="person", name="ash", replace=True, now=study.clock())
            base = study.blobs.put(pack(initial_model(study.plan, 7)))
            assert ash.contribution().commit(task(base)).kind == "commitment"
            payloads.append(ash.stored()[1].payload)
    assert payloads[0] == payloads[1]


def test_where_the_registry_cannot_answer_nobody_is_used_and_why_stays_inside(
    make: Make, ash: Institution, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Witnesses cosigned a longer log than there is: the registry was rolled back, and decides nothing."""
    birch = key_of("institution birch")
    ash.registry.append_batch(ash.study.clock())
    ash.registry.set_witnesses([birch.public.did], 1)
    size = ash.registry.checkpoint().checkpoint.size
    now = int(ash.study.clock().timestamp())
    ash.registry.add_cosignature(size, cosign(ash.registry.checkpoint().checkpoint, birch, timestamp=now))
    with write(ash.engine) as session:
        session.exec(update(ConsentCosignature).values(size=size + 5))
    answer = make().commit(task(base))
    assert code(answer) == "consents-unknown"
    assert "rolled back" in caplog.text
    assert b"rolled back" not in answer.data
    assert ash.uses() == {}
    assert ash.stored() == {}


def test_too_few_people_cost_the_count_and_the_answer_is_remembered(make: Make, ash: Institution, base: str) -> None:
    ash.registry.withdraw_all(ash.refs[4:])
    answer = make().commit(task(base))
    assert code(answer) == "cohort"
    assert state(ash) is State.COMMITTED
    drawn = Counting()
    assert make(noise=drawn).commit(task(base)) == answer
    assert drawn.draws == 0


@pytest.mark.parametrize("fail_at", [1, 2], ids=["at the count", "in the training step"])
def test_a_round_that_a_crash_interrupted_stays_charged_and_is_not_repeated(
    make: Make, ash: Institution, base: str, fail_at: int
) -> None:
    with pytest.raises(OSError, match="power"):
        make(noise=Counting(fail_at)).commit(task(base))
    assert state(ash) is State.STARTED
    spent = ash.budget.spent()
    answer = make().commit(task(base))
    assert code(answer) == "interrupted"
    assert make().commit(task(base)) == answer
    assert ash.budget.spent() == spent > 0
    assert make().commit(task(base, 2)).kind == "commitment"  # the next round is open to it


class FullDisk(MemoryBlobStore):
    def put(self, data: bytes) -> str:
        raise OSError(f"no room for {len(data)} bytes")


@pytest.mark.parametrize(("event", "reason"), [(count_event, "cohort"), (round_event, "interrupted")])
def test_a_round_that_is_over_and_left_nothing_is_refused_for_what_it_was(
    make: Make, ash: Institution, study: InMemoryStudy, base: str, event: Callable[..., Any], reason: str
) -> None:
    """Killed after the charge, before the refusal was written down (or the round was charged from the log)."""
    name, happened = study.plan.study_id, event(study.plan)
    ash.budget.reserve(name, 1, round_event(study.plan))
    ash.budget.start(name, 1)
    ash.budget.commit(name, 1, happened)
    assert code(make().commit(task(base))) == reason
    (charge,) = ash.budget.charges()
    assert charge.event == happened


def test_a_consent_log_that_is_shorter_than_the_study_saw_it_means_nobody_may_be_used_and_costs_nothing(
    make: Make, ash: Institution, base: str
) -> None:
    size = ash.registry.checkpoint().checkpoint.size
    asked = Task(round_number=1, base_model=base, consent_size=size + 1)
    assert code(make().commit(asked)) == "consents-unknown"
    assert ash.budget.charges() == ()
    assert make().commit(Task(round_number=1, base_model=base, consent_size=size)).kind == "commitment"


def test_an_update_that_cannot_be_stored_is_not_announced(make: Make, ash: Institution, base: str) -> None:
    with pytest.raises(OSError, match="no room"):
        make(blobs=FullDisk()).commit(task(base))
    assert ash.stored() == {}
    assert code(make().commit(task(base))) == "interrupted"


def test_a_reservation_that_a_crash_left_before_the_first_read_is_used(
    make: Make, ash: Institution, study: InMemoryStudy, base: str
) -> None:
    ash.budget.reserve(study.plan.study_id, 1, round_event(study.plan))
    assert make().commit(task(base)).kind == "commitment"
    assert len(ash.budget.charges()) == 1


def test_every_refusal_has_a_sentence_without_figures() -> None:
    assert all(not any(character.isdigit() for character in sentence) for sentence in REFUSALS.values())


def test_the_same_people_and_model_give_the_same_update_without_noise(
    make: Make, study: InMemoryStudy, base: str
) -> None:
    assert make().commit(task(base)).kind == "commitment"
    vector = study["ash"].stored()[1].payload
    assert make().commit(task(base, 2)).kind == "commitment"
    assert study["ash"].stored()[2].payload == vector
    assert study["ash"].stored()[2].nonce != study["ash"].stored()[1].nonce
