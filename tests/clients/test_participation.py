"""What the registry learns of rounds: once, whatever happens between two steps."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from sqlmodel import col, select, update
from study_in_memory import InMemoryStudy, Institution, key_of

from clients.contribution import Task
from clients.folder import create_node
from clients.participation import stops
from clients.privacy.noise import NoNoise
from consent.registry import LOG_NAME, Registry, RoundOf, RoundState
from consent.registry.tables import ConsentRound
from consent.rules.record import Action
from federation.learning.models import initial_model
from federation.network.memory import Delivery, Fate
from federation.rules.fixedpoint import Integers, pack
from federation.settings import PartySettings
from federation.storage.database import read, write
from federation.storage.log import SqliteLog


class Failing(NoNoise):
    """The machine dies at the second draw of a round: who may be used is decided, and nothing is stored yet."""

    draws = 0

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        self.draws += 1
        if self.draws == 2:
            raise OSError("the power is gone")
        return super().discrete_gaussian(count, std)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 2}) as made:
        yield made


def states(site: Institution) -> dict[int, str]:
    with read(site.engine) as session:
        return {row.round: row.state for row in session.exec(select(ConsentRound))}


def in_flight_again(site: Institution, number: int) -> None:
    """As a crash between the budget's commit and the registry's leaves it."""
    with write(site.engine) as session:
        values = {"state": RoundState.IN_FLIGHT.value, "finished_us": None}
        session.exec(update(ConsentRound).where(col(ConsentRound.round) == number).values(**values))


def test_rounds_are_released_and_end(study: InMemoryStudy) -> None:
    study.run()
    assert states(study["ash"]) == {1: "released", 2: "released"}
    assert study["ash"].registry.in_flight("p00") == ()


def test_a_round_whose_end_a_crash_kept_from_the_registry_is_released_at_the_next_start(study: InMemoryStudy) -> None:
    def between(closed: int) -> None:
        if closed == 1:
            ash.stop()
            in_flight_again(ash, 1)
            assert ash.registry.in_flight("p00") == (RoundOf(study.plan.study_id, 1),)
            ash.start()
            assert states(ash) == {1: "released"}

    ash = study["ash"]
    study.run(between=between)
    assert states(ash) == {1: "released", 2: "released"}


def test_a_round_that_died_before_anything_was_stored_is_not_released(study: InMemoryStudy) -> None:
    ash = study["ash"]
    ash.stop()
    ash.noise = Failing()
    ash.start()
    assert ash.node is not None
    base = study.blobs.put(pack(initial_model(study.plan, 7)))
    with pytest.raises(OSError, match="power"):
        ash.node._contribution.commit(Task(round_number=1, base_model=base, consent_size=0))
    assert states(ash) == {1: "in_flight"}
    withdrawal = ash.registry.withdraw("p00")
    assert ash.registry.withdrawals()[0].time_to_stop is None, "as far as anybody knows it is still used"
    ash.start()
    assert states(ash) == {1: "not_released"}
    (stop,) = ash.registry.withdrawals()
    assert stop.digest == withdrawal.record
    assert stop.time_to_stop is not None
    assert ash.registry.models("p00") == ()


def test_a_refused_round_is_not_released(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=3, rounds={"count": 2}, cohort={"minimum": 8}) as study:
        ash = study["ash"]
        ash.registry.withdraw_all(ash.refs[:5])  # 7 are left, and the plan wants 8
        study.run()
        assert states(ash) == {1: "not_released", 2: "not_released"}
        part = ash.registry.participation("p11").studies[0]
        assert part.models == ()
        assert part.microcredits == 0
        assert ash.registry.participation("p00").studies == ()


def test_a_model_counts_from_the_first_admitted_update_on(tmp_path: Path) -> None:
    """ash's first update is never seen by the coordinator: the model of that round holds nothing of its people."""
    lost = True

    def courier(delivery: Delivery) -> Fate:
        answers = "reply" in delivery.protocol and delivery.sender == study["ash"].key.public
        return Fate.REQUEST_LOST if answers and lost else Fate.DELIVERED

    def between(closed: int) -> None:
        nonlocal lost
        lost = closed < 1

    study = InMemoryStudy(tmp_path, sites=3, rounds={"count": 3, "deadline_s": 2}, courier=courier)
    with study:
        study.run(between=between)
        ash = study["ash"]
        assert [ash.did in done.admitted for done in study.state.closed] == [False, True, True]
        models = ash.registry.models("p00")
        assert [model.round for model in models] == [2, 3]
        assert states(ash) == {1: "released", 2: "released", 3: "released"}, "it may have been seen on the way"


def test_the_reward_is_passed_on_once_in_equal_parts(study: InMemoryStudy) -> None:
    ash = study["ash"]

    def between(closed: int) -> None:
        if closed == 1:
            ash.registry.withdraw("p00")

    study.run(between=between)
    for _ in range(2):
        ash.start()
        assert ash.node is not None
        ash.node.tick()
    earned = next(payment.reward for payment in study.state.payments if payment.party == ash.did)
    assert earned > 0
    parts = [ash.registry.participation(ref).studies[0].microcredits for ref in ash.refs]
    assert parts == [earned // 2 // len(ash.refs)] * len(ash.refs), "who was eligible once has a part"
    row = ash.registry.studies()[0]
    assert (row.pool, row.persons) == (earned // 2, len(ash.refs))


def test_people_have_their_part_of_a_fee_as_well(tmp_path: Path) -> None:
    fees = {key_of(f"institution {site}").public.did: fee for site, fee in (("ash", 500_000), ("birch", 3))}
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 1}, reward={"fees": fees}) as study:
        study.run()
        ash = study["ash"]
        assert ash.node is not None
        ash.node.tick()
        paid = next(payment for payment in study.state.payments if payment.party == ash.did)
        assert (paid.fee, paid.total) == (500_000, paid.reward + 500_000)
        assert ash.registry.studies()[0].pool == paid.total // 2
        assert study.state.ledger.minted == 1_000_003 + 500_003


def test_what_was_spent_is_never_told_too_low(study: InMemoryStudy) -> None:
    study.run()
    ash = study["ash"]
    told = float(ash.registry.studies()[0].spent)
    assert ash.budget.spent() <= told <= ash.budget.spent() + 0.0001


def test_a_node_whose_consents_are_in_another_database_keeps_its_promises(tmp_path: Path, postgresql_url: str) -> None:
    """The registry in PostgreSQL, budget and updates in the node's own file: a withdrawal stops rounds all the same."""
    made = create_node(tmp_path / "node", PartySettings(role="node", name="ash", consent_database=postgresql_url))
    assert made.consent_engine is not made.engine
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 2}) as study:
        ash = study["ash"]
        ash.stop()
        before = ash.registry
        ash.registry = Registry(
            made.consent_engine,
            ash.key,
            consent_log=SqliteLog(made.consent_engine, LOG_NAME),
            clock=study.clock,
            batch_size=4,
        )
        ash.say(Action.GRANT, ash.refs)
        ash.start()

        def between(closed: int) -> None:
            if closed == 1:
                ash.registry.withdraw("p03")

        study.run(between=between)
        assert (ash.used(1), "p03" in ash.used(2)) == (ash.refs, False)
        assert before.participation("p00").studies == ()
        (stop,) = stops(ash.registry, made.consent_engine, ash.engine)
        assert (stop.ref, stop.uses_after) == ("p03", 0)
        assert ash.registry.participation("p00").studies[0].microcredits > 0
    made.consent_engine.dispose()
