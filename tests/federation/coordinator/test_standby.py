"""A standby takes over with a quorum of witnesses' promises, and settles what the coordinator would have settled."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from standby_in_memory import FAILOVER, KEY, StandbyInMemory
from study_in_memory import SALT, InMemoryStudy, key_of

from clients.privacy.budget import State
from federation.coordinator.protocols import COSIGN
from federation.coordinator.witnessing import Witnessing
from federation.errors import PeerError, SupersededError
from federation.export.verification import verify_export
from federation.export.writing import write_export
from federation.flower.messages import REPLY
from federation.network.memory import Delivery, Fate
from federation.rules.state import StudyState


def gone_in_round(study: InMemoryStudy, standby: StandbyInMemory | None, number: int) -> None:
    """Run the study until two have committed in the round; then the coordinator is gone, as a killed process is.

    What the third answers never reaches it. With a standby, the witnesses have seen no round's end before it goes;
    without one, they cosign the last entries.
    """

    def courier(delivery: Delivery) -> Fate:
        current = study.state.round
        lost = delivery.protocol == REPLY and current is not None and current.number == number
        lost = lost and (delivery.sender, delivery.receiver) == (study["cedar"].key.public, study.key.public)
        unseen = standby is not None and delivery.sender == study.key.public and bool(study.state.closed)
        lost = lost or (unseen and delivery.protocol == COSIGN)
        return Fate.REQUEST_LOST if lost else Fate.DELIVERED

    def meanwhile() -> None:
        if standby is not None:
            standby.turn()
        current = study.state.round
        if current is not None and current.number == number and len(current.commitments) == 2:
            study.stop.set()

    study.network.courier, study.meanwhile = courier, meanwhile
    study.run()
    assert study.state.round is not None
    if standby is None:
        Witnessing(study.history, study.exchange).gather()
    study.exchange.close()


@dataclass
class Told:
    """A study that a standby settled, beside the same study undisturbed."""

    study: InMemoryStudy
    standby: StandbyInMemory
    settled: StudyState
    undisturbed: StudyState


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    changes = {"rounds": {"count": 2}, "validation": {"disclosure": "public"}, "failover": FAILOVER}
    with InMemoryStudy(tmp_path_factory.mktemp("undisturbed"), **changes) as study:
        undisturbed = study.run()
    with InMemoryStudy(tmp_path_factory.mktemp("taken-over"), **changes) as study:
        standby = StandbyInMemory(study)
        gone_in_round(study, standby, 2)
        study.clock.forward(seconds=61)
        standby.until_leading()
        yield Told(study, standby, standby.lead(), undisturbed)


def test_it_pays_what_the_coordinator_would_have_paid(told: Told) -> None:
    assert told.settled.payments == told.undisturbed.payments
    assert told.settled.burned == told.undisturbed.burned
    assert [done.model for done in told.settled.closed] == [done.model for done in told.undisturbed.closed]


def test_no_work_is_lost_and_nothing_is_charged_twice(told: Told) -> None:
    assert all(len(done.admitted) == 3 for done in told.settled.closed)
    for institution in told.study.institutions.values():
        charges = [(charge.round, charge.state) for charge in institution.budget.charges()]
        assert charges == [(1, State.COMMITTED), (2, State.COMMITTED)]


def test_nothing_is_said_minted_or_paid_twice(told: Told) -> None:
    state = told.settled
    assert state.ledger.minted == state.plan.reward.minted
    assert sum(state.ledger.balances.values()) + state.burned == state.ledger.minted
    entries = told.standby.entries()
    said = Counter((entry.body.kind, entry.round, entry.party) for entry in entries)
    assert {key: count for key, count in said.items() if count > 1} == {}
    assert [entry.term for entry in entries] == sorted(entry.term for entry in entries)


def test_every_node_holds_the_standby_s_log(told: Told) -> None:
    for institution in told.study.institutions.values():
        assert institution.parts().replica.entries() == told.standby.log.entries()
        assert institution.node is not None
        assert institution.node.leader == KEY.public


def test_the_export_verifies_against_the_coordinator_s_key(told: Told, tmp_path: Path) -> None:
    study, standby = told.study, told.standby
    folder = tmp_path / "export"
    write_export(
        folder,
        plan=study.envelope,
        log=standby.log,
        blobs=standby.blobs,
        key=KEY,
        validation=(SALT, study.validation),
    )
    report = verify_export(folder, study.key.public)
    assert report.settled
    assert report.coordinator == study.key.public
    with pytest.raises(PeerError, match="signed by"):
        verify_export(folder, key_of("stranger").public)


def test_a_coordinator_that_comes_back_is_shown_the_proof_and_ends(told: Told) -> None:
    size = told.study.log.size
    told.study.restart()
    with pytest.raises(SupersededError, match="this coordinator was silent for too long"):
        told.study.run()
    assert told.study.log.size == size, "it wrote nothing any more"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[InMemoryStudy, StandbyInMemory]]:
    """A study that was just started, and its standby, which has seen that."""
    with InMemoryStudy(tmp_path, rounds={"count": 2}, failover=FAILOVER) as study:
        standby = StandbyInMemory(study)
        study.run(between=lambda _closed: study.stop.set())
        standby.turn()
        assert standby.history.state.weights
        yield study, standby


def test_while_the_coordinator_answers_nobody_is_asked(running: tuple[InMemoryStudy, StandbyInMemory]) -> None:
    study, standby = running
    study.clock.forward(seconds=59)
    assert standby.turn() == "following"
    study.clock.forward(seconds=59)
    assert standby.turn() == "following"
    assert not standby.asked.load()


def test_a_standby_that_alone_lost_the_coordinator_gets_no_promise_and_goes_on_following(
    running: tuple[InMemoryStudy, StandbyInMemory],
) -> None:
    study, standby = running
    study.network.courier = lambda delivery: (
        Fate.REQUEST_LOST if delivery.receiver == study.key.public and delivery.sender == KEY.public else Fate.DELIVERED
    )
    study.clock.forward(seconds=61)
    assert [standby.turn() for _ in range(3)] == ["taking over"] * 3
    assert standby.asked.load()
    assert all("The coordinator was heard" in standby.standby.problems[each.did] for each in study.state.witnesses)
    standby.start()
    study.network.courier = None
    assert standby.turn() == "taking over", "it cannot know whether it was promised anything, and asks once more"
    assert standby.turn() == "following"
    assert not standby.asked.load()


def test_without_a_quorum_of_witnesses_nothing_happens_until_they_are_back(
    running: tuple[InMemoryStudy, StandbyInMemory],
) -> None:
    study, standby = running
    study.exchange.close()
    for site in ("birch", "cedar"):
        study[site].stop()
    study.clock.forward(seconds=61)
    assert [standby.turn() for _ in range(3)] == ["taking over"] * 3
    assert standby.history.state.began is None
    standby.start()
    study["birch"].start()
    study.clock.forward(seconds=61)
    standby.until_leading()
    assert len(standby.entries()[-1].body.promises) == 2  # type: ignore[union-attr]  # term-began
    study["cedar"].start()
    assert len(standby.lead().closed) == 2


def test_what_only_witnesses_have_is_fetched_from_them(running: tuple[InMemoryStudy, StandbyInMemory]) -> None:
    """The standby was away when the witnesses cosigned the newest entries."""
    study, standby = running
    study.restart()
    gone_in_round(study, None, 1)
    replica = study["ash"].parts().replica
    cosigned = replica.latest_checkpoint()
    assert cosigned is not None
    assert cosigned[0] > standby.log.size
    study.clock.forward(seconds=61)
    standby.until_leading()
    assert standby.log.entries(0, cosigned[0]) == study.log.entries(0, cosigned[0])
    assert standby.history.state.round is not None
    assert len(standby.history.state.round.commitments) == 2, "nobody's work is lost"


def test_a_round_s_end_waits_for_the_standby_that_must_hold_its_table(
    running: tuple[InMemoryStudy, StandbyInMemory],
) -> None:
    """A standby that is there and has not followed yet keeps the round's end from the witnesses."""
    study, standby = running
    study.restart()
    standby.exchange.keep_connected(study.exchange.addresses()[0])
    cosigned: list[int] = []

    def meanwhile() -> None:
        if not study.state.closed:
            standby.turn()
        elif not cosigned:
            cosigned.append(len(study.state.closed))
            latest = study["ash"].parts().replica.latest_checkpoint()
            assert latest is not None
            assert latest[0] <= study.state.closed[0].entry_index
            standby.turn()
            assert standby.sealed.has(study.state.closed[0].value_table)

    study.meanwhile = meanwhile
    study.run(between=lambda closed: study.stop.set() if closed else None)
    assert cosigned
