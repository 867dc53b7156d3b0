"""Rounds that do not go well: nobody can hang one, nothing of a node's misbehaviour enters a model."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy, Institution

from clients.privacy.budget import State
from federation.coordinator import rounds, service
from federation.flower.messages import REPLY, TASK
from federation.network.memory import Delivery, Fate
from federation.rules.documents import Update, open_signed
from federation.rules.entries import UpdateRefused
from federation.rules.fixedpoint import SCALE, pack, unpack
from federation.rules.keys import PublicKey
from federation.rules.state import ClosedRound
from federation.storage.database import write

Watch = Callable[[Delivery], Fate | None]
SHORT = {"deadline_s": 3}


class Trouble:
    """A courier whose behaviour a test sets once the study is built."""

    def __init__(self) -> None:
        self.watch: Watch = lambda _delivery: None

    def __call__(self, delivery: Delivery) -> Fate:
        return self.watch(delivery) or Fate.DELIVERED


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


def refused(study: InMemoryStudy, done: ClosedRound) -> dict[str, str]:
    """Site -> why nothing of it is in the model (the part before the colon)."""
    return {study.state.site(did): reason.partition(":")[0] for did, reason in done.refused.items()}


def counted(study: InMemoryStudy, done: ClosedRound) -> list[str]:
    return sorted(study.state.site(did) for did in done.admitted)


def about(site: Institution, delivery: Delivery) -> bool:
    """Whether a request goes to or from this site."""
    return site.key.public in (delivery.sender, delivery.receiver)


def test_a_round_goes_on_with_a_quorum_while_a_node_is_frozen(tmp_path: Path, trouble: Trouble) -> None:
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 2, **SHORT}) as study:

        def frozen(delivery: Delivery) -> Fate | None:
            current = study.state.round
            first = current is not None and current.number == 1
            return Fate.REQUEST_LOST if first and about(study["cedar"], delivery) else None

        trouble.watch = frozen
        began = time.monotonic()
        state = study.run()
        assert time.monotonic() - began < 25
        first, second = state.closed
        assert (first.outcome, counted(study, first)) == ("aggregated", ["ash", "birch"])
        assert refused(study, first) == {"cedar": "no-answer"}
        assert counted(study, second) == ["ash", "birch", "cedar"]
        assert [charge.round for charge in study["cedar"].budget.charges()] == [2]


def test_a_round_opens_without_a_node_that_is_gone_and_that_node_continues_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_GRACE_S", 0.3)  # patience only
    with InMemoryStudy(tmp_path, rounds=SHORT) as study:

        def come_and_go(closed: int) -> None:
            if closed == 1:
                study["birch"].stop()
            if closed == 2:
                study["birch"].start()

        state = study.run(between=come_and_go)
        assert [counted(study, done) for done in state.closed] == [
            ["ash", "birch", "cedar"],
            ["ash", "cedar"],
            ["ash", "birch", "cedar"],
        ]
        assert refused(study, state.closed[1]) == {"birch": "no-answer"}
        assert [charge.round for charge in study["birch"].budget.charges()] == [1, 3]
        assert study["birch"].parts().replica.entries() == study.log.entries()  # it caught up on what it missed


def test_a_late_commitment_is_too_late_for_its_round_only(tmp_path: Path, trouble: Trouble) -> None:
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 2, **SHORT}) as study:

        def late(delivery: Delivery) -> Fate | None:
            current = study.state.round
            early = current is not None and current.number == 1 and current.phase == "open"
            own = delivery.protocol == REPLY and delivery.sender == study["cedar"].key.public
            return Fate.REQUEST_LOST if early and own else None

        trouble.watch = late
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "no-answer"}
        assert counted(study, state.closed[1]) == ["ash", "birch", "cedar"]
        # It trained and was charged for round 1, although its answer came too late.
        assert [charge.round for charge in study["cedar"].budget.charges()] == [1, 2]


def test_an_update_that_is_not_shown_in_time_is_refused_with_its_reason(tmp_path: Path, trouble: Trouble) -> None:
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 1, **SHORT}) as study:

        def silent(delivery: Delivery) -> Fate | None:
            current = study.state.round
            shown = current is not None and current.phase == "revealing"
            return Fate.REQUEST_LOST if shown and about(study["cedar"], delivery) else None

        trouble.watch = silent
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "not-revealed"}
        assert counted(study, state.closed[0]) == ["ash", "birch"]


def test_a_round_without_quorum_changes_nothing_and_the_study_goes_on(tmp_path: Path, trouble: Trouble) -> None:
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 3, **SHORT}) as study:

        def alone(delivery: Delivery) -> Fate | None:
            current = study.state.round
            second = current is not None and current.number == 2
            lost = second and delivery.protocol == TASK and delivery.receiver != study["ash"].key.public
            return Fate.REQUEST_LOST if lost else None

        trouble.watch = alone
        state = study.run()
        first, second, third = state.closed
        assert [done.outcome for done in state.closed] == ["aggregated", "no-quorum", "aggregated"]
        assert second.model == second.base_model == first.model == third.base_model
        assert refused(study, second) == {"ash": "no-quorum", "birch": "no-answer", "cedar": "no-answer"}
        empty = study.tables()[1]
        assert (empty.players, len(empty.utilities)) == ((), 1)
        assert empty.utilities[0] == study.tables()[0].utilities[-1] == study.tables()[2].utilities[0]
        assert study["ash"].budget.charge(study.plan.study_id, 2) is not None  # it trained: that is spent


def test_too_few_people_is_a_refusal_that_costs_the_count_only(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, people={"cedar": 4}, rounds={"count": 1}) as study:
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "cohort"}
        assert "below the plan's minimum" in state.closed[0].refused[study["cedar"].did]
        assert "4" not in state.closed[0].refused[study["cedar"].did]  # no count of persons leaves
        charge = study["cedar"].budget.charge(study.plan.study_id, 1)
        assert charge is not None
        assert charge.state is State.COMMITTED
        assert charge.event["type"] == "gaussian"
        assert study["cedar"].budget.spent() < study["ash"].budget.spent()
        assert study["cedar"].stored() == {}


def test_an_exhausted_budget_is_a_refusal_and_nothing_is_read(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, rounds={"count": 1}) as study:
        plan = study.plan
        spent = {"type": "gaussian", "noise_multiplier": "2"}
        ledger = study["cedar"].budget
        while ledger.would_fit(spent):
            number = len(ledger.charges()) + 1
            ledger.reserve("an-earlier-study", number, spent)
            ledger.start("an-earlier-study", number)
            ledger.commit("an-earlier-study", number)
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "budget"}
        assert ledger.charge(plan.study_id, 1) is None
        assert study["cedar"].uses() == {}
        assert ledger.spent() <= 3


# A node that lies. Its key is its own, so all it can do is answer wrongly.


def rewrite(site: Institution, change: Callable[[Update], Update]) -> None:
    """The node signs another update than the one that it committed to."""
    with write(site.engine) as session:
        for number, row in site.stored().items():
            if number == len(site.study.state.closed) + 1:
                update, _ = open_signed(Update, row.envelope)
                row.envelope = change(update).sign(site.key).to_bytes()
                session.merge(row)


def lying(
    tmp_path: Path, trouble: Trouble, lie: Callable[[Institution], Any]
) -> tuple[dict[str, str], list[UpdateRefused]]:
    """One round in which cedar lies once commitments are closed; who was refused why, and the logged refusals."""
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 1, **SHORT}) as study:
        told: list[bool] = []

        def watch(delivery: Delivery) -> None:
            current = study.state.round
            asked = delivery.protocol == TASK and delivery.receiver == study["cedar"].key.public
            if asked and current is not None and current.phase == "revealing" and not told:
                told.append(True)
                lie(study["cedar"])

        trouble.watch = watch
        state = study.run()
        assert counted(study, state.closed[0]) == ["ash", "birch"]
        return refused(study, state.closed[0]), [
            entry.body for entry in study.entries() if isinstance(entry.body, UpdateRefused)
        ]


def other_numbers(site: Institution) -> None:
    """A better update than the one that was committed, as a copier would show."""
    packed = pack(-unpack(next(iter(site.stored().values())).payload, length=4))
    name = site.blobs.put(packed)
    rewrite(site, lambda update: update.model_copy(update={"update": name, "chunks": (name,)}))


def garbage(site: Institution) -> None:
    with write(site.engine) as session:
        for row in site.stored().values():
            row.envelope = b"{}"
            session.merge(row)


def spoil(site: Institution) -> None:
    for name, data in site.blobs._blobs.items():
        if name == next(iter(site.stored().values())).update_sha256:
            site.blobs._blobs[name] = data[:-1] + bytes([data[-1] ^ 1])


LIES = [
    ("another update than committed", other_numbers, "no-commitment"),
    ("another nonce", lambda site: rewrite(site, lambda u: u.model_copy(update={"nonce": "0" * 64})), "no-commitment"),
    (
        "another base",
        lambda site: rewrite(site, lambda u: u.model_copy(update={"base_model": "0" * 64})),
        "no-commitment",
    ),
    ("another round", lambda site: rewrite(site, lambda u: u.model_copy(update={"round": 2})), "replay"),
    ("no update at all", garbage, "malformed"),
    ("bytes that are not those of their name", spoil, "not-revealed"),
]


@pytest.mark.parametrize(("lie", "reason"), [case[1:] for case in LIES], ids=[case[0] for case in LIES])
def test_a_lie_is_refused_with_its_reason_and_the_round_goes_on(
    tmp_path: Path, trouble: Trouble, lie: Callable[[Institution], Any], reason: str
) -> None:
    reasons, logged = lying(tmp_path, trouble, lie)
    assert reasons == {"cedar": reason}
    assert [body.code for body in logged] == [reason]


def test_an_update_above_the_norm_bound_is_refused(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node commits to it honestly; only its release did not clip."""
    monkeypatch.setattr(rounds, "_RESEND_S", 0.2)  # patience only
    with InMemoryStudy(tmp_path, courier=trouble, rounds={"count": 1, **SHORT}) as study:
        cedar = study["cedar"]
        told: list[bool] = []

        def watch(delivery: Delivery) -> Fate | None:
            reply = delivery.protocol == REPLY and delivery.sender == cedar.key.public
            if not reply or told:
                return None
            told.append(True)
            vector = unpack(cedar.stored()[1].payload, length=4)
            vector[0] = 11 * SCALE
            packed = pack(vector)
            name = cedar.blobs.put(packed)
            rewrite(cedar, lambda update: update.model_copy(update={"update": name, "chunks": (name,)}))
            update, _ = open_signed(Update, cedar.stored()[1].envelope)
            with write(cedar.engine) as session:
                row = cedar.stored()[1]
                row.commitment = update.commitment(PublicKey(cedar.key.public.raw)).sign(cedar.key).to_bytes()
                session.merge(row)
            cedar.start()  # a new process, which answers with what is stored
            return Fate.REQUEST_LOST  # the honest reply

        trouble.watch = watch
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "norm"}


def test_a_round_closes_with_enough_and_whoever_commits_later_is_told(tmp_path: Path, trouble: Trouble) -> None:
    plan = {"rounds": {"count": 2, "quorum": 1, "enough": 2}, "aggregation": {"encoding": "fewest-bytes"}}
    with InMemoryStudy(tmp_path, courier=trouble, **plan) as study:
        cedar = study["cedar"]

        def slow(delivery: Delivery) -> Fate | None:
            current = study.state.round
            if current is None or current.number == 2 or delivery.protocol != REPLY:
                return None
            own = delivery.sender == cedar.key.public
            waits = current.phase == "open" if own else current.phase == "revealing" and not current.late
            return Fate.REQUEST_LOST if waits else None  # cedar commits when the others have, and before they show

        trouble.watch = slow
        state = study.run()
        assert refused(study, state.closed[0]) == {"cedar": "late"}
        assert counted(study, state.closed[0]) == ["ash", "birch"]
        assert "commitment-late" in study.kinds()
        assert cedar.budget.charge(study.plan.study_id, 1) is not None  # it trained: that is spent
        assert len(state.closed[1].admitted) >= 2
        assert all(model.startswith(b"AFP2") for model in study.models())
