"""A withdrawal stops computation: in the next round of every study, as the receipt says, and the logs show it.

Two studies run at once with the same institutions and people. p03 of ash withdraws while one study is between two
rounds and the other in the middle of one.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from sqlmodel import select
from study_in_memory import InMemoryStudy

from clients.participation import Stop, stops
from clients.privacy.noise import NoNoise
from clients.selection import RowsUsed
from clients.storage import RoundUse
from consent.registry import ModelVersion, Participation, RoundOf, RoundState
from consent.rules.receipt import Receipt, RoundInFlight, open_receipt
from consent.rules.record import Action
from federation.rules.checkpoint import open_checkpoint
from federation.rules.fixedpoint import Integers
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.storage.database import write

WHO = "p03"
ROUNDS = (1, 2, 3, 4)
PLAN = {"rounds": {"count": len(ROUNDS)}, "privacy": {"epsilon": "2"}}  # both fit into a lifetime of 3
WAIT_S = 30


class Pausing(NoNoise):
    """No noise; when it is armed, the next draw waits. The first draw of a round comes right after the decision."""

    def __init__(self) -> None:
        self.armed, self.paused, self.go_on = threading.Event(), threading.Event(), threading.Event()

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        if self.armed.is_set() and not self.paused.is_set():
            self.paused.set()
            self.go_on.wait(WAIT_S)
        return super().discrete_gaussian(count, std)


@dataclass
class Story:
    first: InMemoryStudy
    second: InMemoryStudy
    receipts: list[Receipt] = field(default_factory=list)
    credential: bytes = b""
    in_flight: tuple[RoundOf, ...] = ()
    models: tuple[ModelVersion, ...] = ()
    stops: list[Stop] = field(default_factory=list)
    participation: Participation | None = None

    def last_round_with(self, study: InMemoryStudy) -> int:
        return 1 if study is self.first else 2


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folders = (tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second"))
    with (
        InMemoryStudy(folders[0], **PLAN) as first,
        InMemoryStudy(folders[1], beside=first, name="second", **PLAN) as second,
    ):
        told = Story(first, second)
        pausing = Pausing()
        second["ash"].noise = pausing
        second["ash"].start()
        registry = first["ash"].registry

        def between_first(closed: int) -> None:
            if closed == 1:
                assert pausing.paused.wait(WAIT_S)
                told.receipts = [registry.withdraw(WHO)]
                told.credential = registry.receipt_credential(told.receipts[0].record)
                told.in_flight, told.models = registry.in_flight(WHO), registry.models(WHO)
                pausing.go_on.set()

        def between_second(closed: int) -> None:
            if closed == 1:
                pausing.armed.set()

        problems: list[BaseException] = []

        def run_second() -> None:
            try:
                second.run(between=between_second)
            except BaseException as error:
                problems.append(error)
                raise

        thread = threading.Thread(target=run_second)
        thread.start()
        try:
            first.run(between=between_first)
        finally:
            pausing.go_on.set()
            thread.join(2 * WAIT_S)
        assert not problems
        ash = first["ash"]
        told.stops = stops(registry, ash.engine, ash.engine)
        told.participation = registry.participation(WHO)
        yield told


@pytest.mark.parametrize("which", ["first", "second"])
def test_it_is_in_force_in_the_next_round_of_every_study(story: Story, which: str) -> None:
    study: InMemoryStudy = getattr(story, which)
    ash = study["ash"]
    assert [done.outcome for done in study.state.closed] == ["aggregated"] * len(ROUNDS)
    rest = tuple(ref for ref in ash.refs if ref != WHO)
    for number in ROUNDS:
        assert ash.used(number) == (ash.refs if number <= story.last_round_with(study) else rest)
        assert study["birch"].used(number) == study["birch"].refs


def test_the_receipt_names_the_rounds_in_flight_and_the_models_that_contain_the_contribution(story: Story) -> None:
    first, second = story.first, story.second
    assert story.in_flight == (RoundOf(second.plan.study_id, 2),)
    opened = open_receipt(story.credential)
    assert opened.receipt == story.receipts[0]
    assert opened.rounds_in_flight == (RoundInFlight(second.plan.study_id, 2),)
    expected = {(study.plan.study_id, 1, study.state.closed[0].model) for study in (first, second)}
    assert {(model.study, model.round, model.model) for model in opened.models} == expected
    assert {(model.study, model.round, model.sha256) for model in story.models} == expected
    assert {(model.epsilon, model.delta) for model in opened.models} == {(Decimal(2), Decimal("0.00001"))}


def test_a_later_receipt_also_proves_the_place_in_the_log(story: Story) -> None:
    opened = open_receipt(story.first["ash"].registry.receipt_credential(story.receipts[0].record))
    assert opened.place is not None
    assert opened.rounds_in_flight == (RoundInFlight(story.second.plan.study_id, 2),)
    second = [model.model for model in opened.models if model.study == story.second.plan.study_id]
    assert second == [done.model for done in story.second.state.closed], "each is made from the one before"


def test_nothing_is_used_after_the_round_in_which_it_was_received(story: Story) -> None:
    (stop,) = story.stops
    assert (stop.ref, stop.uses_after) == (WHO, 0)
    assert stop.in_flight == story.in_flight
    assert stop.last_read is not None
    assert stop.first_without is not None
    assert timedelta(0) < stop.last_read < timedelta(seconds=WAIT_S)
    assert timedelta(0) <= stop.first_without < timedelta(seconds=WAIT_S)


@pytest.mark.parametrize("which", ["first", "second"])
def test_the_coordinator_s_log_shows_the_cohort_changing(story: Story, which: str) -> None:
    """What the logged updates signed: the rows' commitment opens to another cohort, under a consent log that holds it.

    Only the site can open the commitment (the salt is its own); that it changed, everybody sees.
    """
    study: InMemoryStudy = getattr(story, which)
    ash, data = study["ash"], study["ash"].data()
    rest = [ref for ref in ash.refs if ref != WHO]
    commitments = [done.admitted[ash.did].dataset_commitment for done in study.state.closed]
    assert len(set(commitments)) == len(ROUNDS)
    for number, logged in zip(ROUNDS, commitments, strict=True):
        opening = RowsUsed(salt=bytes.fromhex(ash.uses()[number].salt), commitment=bytes.fromhex(logged))
        with_them = number <= story.last_round_with(study)
        assert opening.opens_to(data, ash.refs) is with_them
        assert opening.opens_to(data, rest) is not with_them


@pytest.mark.parametrize("which", ["first", "second"])
def test_the_next_update_shows_a_consent_log_that_holds_the_withdrawal(story: Story, which: str) -> None:
    study: InMemoryStudy = getattr(story, which)
    ash = study["ash"]
    found = ash.registry.inclusion(story.receipts[0].record)
    sizes = []
    for done in study.state.closed:
        shown = open_checkpoint(
            done.admitted[ash.did].consent_checkpoint.encode(),
            origin=ash.registry.origin,
            signer=ash.key.public,
            witnesses=(),
        ).checkpoint
        sizes.append(shown.size)
    assert sizes == sorted(sizes)
    assert sizes[0] <= found.index < sizes[story.last_round_with(study)]
    checkpoint = found.checkpoint.checkpoint
    verify_inclusion(
        leaf=leaf_hash(found.batch), index=found.index, size=checkpoint.size, proof=found.proof, root=checkpoint.root
    )


def test_the_person_sees_where_they_were_eligible_what_was_spent_and_what_they_got(story: Story) -> None:
    assert story.participation is not None
    by_study = {part.study: part for part in story.participation.studies}
    for study in (story.first, story.second):
        part = by_study[study.plan.study_id]
        last = story.last_round_with(study)
        assert [(shown.round, shown.state) for shown in part.rounds] == [
            (number, RoundState.RELEASED) for number in range(1, last + 1)
        ]
        assert [model.sha256 for model in part.models] == [done.model for done in study.state.closed]
        assert (part.title, part.epsilon, part.delta) == (study.plan.title, "2", "0.00001")
        assert 0 < float(part.spent) <= 2
        assert part.plan == study.envelope
        earned = next(payment.reward for payment in study.state.payments if payment.party == study["ash"].did)
        assert part.microcredits == earned // 2 // len(study["ash"].refs)


def test_a_use_after_the_receipt_would_be_seen(story: Story) -> None:
    """The measure itself: a node that had used the person once more is found out by its own record."""
    ash = story.first["ash"]
    with write(ash.engine) as session:
        row = session.exec(
            select(RoundUse).where(RoundUse.study == story.first.plan.study_id, RoundUse.round == 3)
        ).one()
        before = row.subjects
        row.subjects = json.dumps([*json.loads(before), WHO])
        session.add(row)
    assert [stop.uses_after for stop in stops(ash.registry, ash.engine, ash.engine)] == [1]
    with write(ash.engine) as session:
        row = session.get_one(RoundUse, (story.first.plan.study_id, 3))
        row.subjects = before
        session.add(row)


def test_who_withdrew_and_says_yes_again_is_used_again(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 3}) as study:
        ash = study["ash"]

        def between(closed: int) -> None:
            if closed == 1:
                ash.registry.withdraw(WHO)
            if closed == 2:
                ash.say(Action.GRANT, [WHO])

        study.run(between=between)
        assert [WHO in ash.used(number) for number in (1, 2, 3)] == [True, False, True]
        (stop,) = stops(ash.registry, ash.engine, ash.engine)
        assert (stop.last_read, stop.in_flight, stop.uses_after) == (timedelta(0), (), 0)
