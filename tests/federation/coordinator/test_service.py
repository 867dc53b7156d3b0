"""A whole study in memory: what holds for its aggregates, values, payments and charges, whatever the network does."""

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from independent_accounting import independent_epsilon
from study_in_memory import SALT, SITES, InMemoryStudy, table

from clients.privacy.budget import State
from federation.coordinator import rounds
from federation.flower.messages import REPLY
from federation.learning.evaluation import committed_utility
from federation.learning.reference import reference_update
from federation.learning.uncertainty import study_errors
from federation.network.memory import Delivery, Fate
from federation.rules import audit
from federation.rules.aggregation import aggregate, rule_of
from federation.rules.checkpoint import finality_quorum
from federation.rules.entries import StudySettled
from federation.rules.fixedpoint import from_fixed, pack, unpack
from federation.rules.keys import PublicKey
from federation.rules.replay import begin, replay
from federation.rules.state import StudyState
from federation.rules.validation import read_validation, validation_commitment
from federation.rules.valuation import shapley
from federation.rules.wire import plain_decimal


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    """Three institutions, three rounds, nothing goes wrong."""
    with InMemoryStudy(tmp_path_factory.mktemp("settled")) as study:
        study.run()
        yield study


# One study


def test_the_study_is_settled_and_every_witness_has_cosigned_it(settled: InMemoryStudy) -> None:
    state = settled.state
    assert state.settled
    assert [done.outcome for done in state.closed] == ["aggregated"] * 3
    signed = settled.history.checkpoint()
    assert signed.checkpoint.size == settled.log.size
    assert len(signed.cosignatures) == 3 >= finality_quorum(3)
    assert all(institution.node is not None for institution in settled.institutions.values())
    for institution in settled.institutions.values():
        assert institution.parts().replica.entries() == settled.log.entries()


def test_anybody_with_the_log_and_the_blobs_gets_the_same_state_models_and_payments(settled: InMemoryStudy) -> None:
    state = settled.state
    again = begin(settled.plan, plan_blob=state.plan_blob, coordinator=settled.key.public)
    entries = settled.log.entries()
    before = replay(again, entries[:-1])
    assert replay(before, entries[-1:]) == state
    for done in state.closed:
        audit.check_round(done, state, settled.blobs.get)
    body = settled.entries()[-1].body
    assert isinstance(body, StudySettled)
    audit.check_settlement(before, body, settled.blobs.get)


def test_where_the_lower_bound_is_paid_the_settlement_commits_to_errors_that_anybody_recomputes(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, rounds={"count": 1}, reward={"pay": "lower-bound", "z": "0.5"}) as study:
        state = study.run()
        assert len(study.history.checkpoint().cosignatures) == 3
        batch = read_validation(study.plan, study.validation)
        assert audit.standard_errors(state.payments) == study_errors(state, study.tables(), batch, study.blobs.get)
        worth = {payment.party: Fraction(payment.value) for payment in state.payments}
        bounds = audit.payable(state, worth, audit.standard_errors(state.payments))
        assert all(bounds[did] < value for did, value in worth.items())
        assert {did for did, bound in bounds.items() if bound > 0} == {
            payment.party for payment in state.payments if payment.reward
        }


def test_values_add_up_to_the_measured_improvement(settled: InMemoryStudy) -> None:
    tables = settled.tables()
    v_empty, v_all = tables[0].utilities[0], tables[-1].utilities[-1]
    total = sum(Fraction(payment.value) for payment in settled.state.payments)
    assert total * 2**40 == v_all - v_empty
    assert abs(float(total) - (v_all - v_empty) / 2**40) < 1e-9


def test_the_first_and_last_utility_are_those_of_the_first_and_last_model(settled: InMemoryStudy) -> None:
    batch = read_validation(settled.plan, settled.validation)
    state, tables = settled.state, settled.tables()
    for name, committed in ((state.first_model, tables[0].utilities[0]), (state.model, tables[-1].utilities[-1])):
        assert name is not None
        model = from_fixed(unpack(settled.blobs.get(name), length=4))
        assert committed_utility(model, batch, Decimal(4)) == committed


def test_the_rounds_tables_telescope(settled: InMemoryStudy) -> None:
    tables = settled.tables()
    for before, after in pairwise(tables):
        assert before.utilities[-1] == after.utilities[0]


def test_published_values_are_the_shapley_values_of_the_published_tables(settled: InMemoryStudy) -> None:
    recomputed: dict[str, Fraction] = {}
    for opened in settled.tables():
        for did, value in zip(opened.players, shapley(opened.utilities), strict=True):
            recomputed[did] = recomputed.get(did, Fraction(0)) + value / 2**40
    assert {payment.party: Fraction(payment.value) for payment in settled.state.payments} == recomputed


def test_money_is_conserved_and_the_pool_is_shared_out(settled: InMemoryStudy) -> None:
    ledger, state = settled.state.ledger, settled.state
    assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted == 1_000_003
    assert ledger.escrow == 0
    assert sum(payment.reward for payment in state.payments) + state.burned == 1_000_003
    for payment in state.payments:
        assert ledger.balance(f"institution:{payment.site}") == payment.reward
        assert payment.reward == 0 or Fraction(payment.value) > 0


def test_epsilon_is_what_the_logged_events_cost(settled: InMemoryStudy) -> None:
    for institution in settled.institutions.values():
        logged = [done.admitted[institution.did].event for done in settled.state.closed]
        assert abs(institution.budget.spent() - independent_epsilon(logged)) < 1e-9
        assert institution.budget.spent() <= 3
        assert [(charge.round, charge.state) for charge in institution.budget.charges()] == [
            (number, State.COMMITTED) for number in (1, 2, 3)
        ]


def test_nothing_that_leaves_a_site_counts_its_people(settled: InMemoryStudy) -> None:
    update = settled.state.closed[0].admitted[settled["ash"].did]
    assert set(update.model_dump()) == {
        "version",
        "study",
        "round",
        "base_model",
        "update",
        "update_bytes",
        "chunks",
        "nonce",
        "event",
        "consent_checkpoint",
        "consent_consistency",
        "dataset_commitment",
        "code_hash",
    }
    sizes = {len(institution.registry.histories()) for institution in settled.institutions.values()}
    assert sizes == {12}
    batches = {
        institution.parts().registry.checkpoint().checkpoint.size for institution in settled.institutions.values()
    }
    assert len(batches) == 1


def test_the_status_says_that_nobody_is_awaited(settled: InMemoryStudy) -> None:
    status = settled.service.status()
    assert status["phase"] == "settled"
    assert status["settled"] is True
    assert (status["round"], status["rounds"]) == (3, 3)
    assert status["awaited"] == []
    assert status["connected"] == ["ash", "birch", "cedar"]
    assert status["problems"] == {}


# The same study again, under other circumstances


def outcome(study: InMemoryStudy) -> tuple[list[bytes], list[tuple[int, ...]], list[tuple[str, str, int]]]:
    """Everything that must not depend on the network: models, utilities, payments."""
    payments = [(payment.site, payment.value, payment.reward) for payment in study.state.payments]
    return study.models(), [opened.utilities for opened in study.tables()], payments


def test_the_same_seed_gives_the_same_bytes(settled: InMemoryStudy, tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path) as again:
        again.run()
        assert outcome(again) == outcome(settled)
        assert again.log.root() != settled.log.root()  # times, salts and nonces are fresh


def test_another_seed_gives_another_first_model(settled: InMemoryStudy, tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, seed=8, rounds={"count": 1}) as other:
        other.run()
        assert other.state.first_model != settled.state.first_model
        assert other.models()[0] != settled.models()[0]


def committed_order(study: InMemoryStudy) -> list[list[str]]:
    """The sites in the order in which their commitments were logged, by round."""
    order: dict[int, list[str]] = {}
    for entry in study.entries():
        if entry.body.kind == "update-committed":
            order.setdefault(entry.round or 0, []).append(study.state.site(entry.party or ""))
    return list(order.values())


class InTurn:
    """Holds answers back until it is their sender's turn: the arrival order of every phase is the one given."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.study: InMemoryStudy | None = None

    def __call__(self, delivery: Delivery) -> Fate:
        study = self.study
        if study is not None and delivery.protocol == REPLY:
            before = self.order[: self.order.index(study.state.site(delivery.sender.did))]
            end = time.monotonic() + 10
            while not self.arrived(study.state, {study[site].did for site in before}) and time.monotonic() < end:
                time.sleep(0.005)
        return Fate.DELIVERED

    @staticmethod
    def arrived(state: StudyState, dids: set[str]) -> bool:
        if state.round is None:
            return True
        current = state.round
        return dids <= set(current.commitments if current.phase == "open" else current.admitted)


@pytest.mark.parametrize("order", [["ash", "birch", "cedar"], ["cedar", "birch", "ash"]], ids="-".join)
def test_arrival_order_does_not_change_a_byte(settled: InMemoryStudy, tmp_path: Path, order: list[str]) -> None:
    courier = InTurn(order)
    with InMemoryStudy(tmp_path, courier=courier) as study:
        courier.study = study
        study.run()
        assert committed_order(study) == [order] * 3
        assert outcome(study) == outcome(settled)


class Storm:
    """Everything that a network does: the first request of every kind is lost, the second arrives and its answer is
    lost, the third arrives twice; and some are slow."""

    FATES: ClassVar = {1: Fate.REQUEST_LOST, 2: Fate.ANSWER_LOST, 3: Fate.DUPLICATED, 5: Fate.ANSWER_LOST}

    def __init__(self) -> None:
        self.seen: dict[tuple[PublicKey, PublicKey, str], int] = {}
        self.fates: list[Fate] = []
        self.lock = threading.Lock()

    def __call__(self, delivery: Delivery) -> Fate:
        kind = (delivery.sender, delivery.receiver, delivery.protocol)
        with self.lock:
            number = self.seen[kind] = self.seen.get(kind, 0) + 1
            fate = self.FATES.get(number, Fate.DELIVERED)
            self.fates.append(fate)
        if delivery.receiver.raw[0] % 2 == number % 2:
            time.sleep(0.01)
        return fate


def test_lost_repeated_and_slow_messages_do_not_change_a_byte(
    settled: InMemoryStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_RESEND_S", 0.1)  # patience only: the real network asks again every two seconds
    with InMemoryStudy(tmp_path, rounds={"count": 2}) as study:
        study.network.courier = storm = Storm()
        study.run()
        assert {Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.DUPLICATED} <= set(storm.fates)
        assert study.models() == settled.models()[:2]
        assert [opened.utilities for opened in study.tables()] == [opened.utilities for opened in settled.tables()[:2]]
        for institution in study.institutions.values():
            assert len(institution.budget.charges()) == 2
        kinds = study.kinds()
        assert [kinds.count(kind) for kind in ("update-committed", "update-admitted", "round-closed")] == [6, 6, 2]


def test_a_node_that_is_restarted_between_rounds_goes_on(settled: InMemoryStudy, tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path) as study:
        study.run(between=lambda closed: study["ash"].start() if closed else None)
        assert outcome(study) == outcome(settled)
        stored = study["ash"].stored()
        assert [stored[number].update_sha256 for number in (1, 2, 3)] == [
            done.admitted[study["ash"].did].update for done in study.state.closed
        ]


def test_four_institutions_with_a_capped_weight(tmp_path: Path) -> None:
    people = {"ash": 60, "birch": 20, "cedar": 12, "dogwood": 8}
    with InMemoryStudy(
        tmp_path, sites=4, people=people, rounds={"count": 2}, aggregation={"weight_cap": "0.4"}
    ) as study:
        state = study.run()
        weights = {state.site(did): weight for did, weight in state.weights.items()}
        assert Fraction(weights["ash"], sum(weights.values())) == Fraction(2, 5)
        assert set(weights) == set(SITES)
        assert all(len(opened.utilities) == 16 for opened in study.tables())
        total = sum(Fraction(payment.value) for payment in state.payments)
        assert total * 2**40 == study.tables()[-1].utilities[-1] - study.tables()[0].utilities[0]


def test_a_robust_rule_of_the_plan_decides_models_and_values_and_every_witness_recomputes_both(tmp_path: Path) -> None:
    rule = {"rule": "nnm-trimmed-mean", "tolerated": "0.34"}
    with InMemoryStudy(tmp_path, rounds={"count": 2}, aggregation=rule) as study:
        state = study.run()
        assert state.settled
        assert len(study.history.checkpoint().cosignatures) == 3
        batch = read_validation(study.plan, study.validation)
        for done, table in zip(state.closed, study.tables(), strict=True):
            base, updates = audit.round_vectors(done, state, study.blobs.get)
            assert pack(aggregate(base, updates, state.weights, rule_of(study.plan))) == study.blobs.get(done.model)
            assert pack(aggregate(base, updates, state.weights)) != study.blobs.get(done.model)
            two = {did: updates[did] for did in table.players[:2]}
            model = aggregate(base, two, state.weights, rule_of(study.plan))
            assert committed_utility(from_fixed(model), batch, Decimal(4)) == table.utilities[3]


def test_a_round_is_anchored_to_an_update_that_was_committed_before_and_is_shown_after(tmp_path: Path) -> None:
    root = validation_commitment(SALT, table("root", 24))
    rule = {"rule": "trust-anchored", "root": root, "root_disclosure": "sealed"}
    with InMemoryStudy(tmp_path, rounds={"count": 2}, aggregation=rule) as study:
        state = study.run()
        assert state.settled
        assert len(study.history.checkpoint().cosignatures) == 3
        for done in state.closed:
            base, updates = audit.round_vectors(done, state, study.blobs.get)
            anchored = audit.round_rule(done, state, study.blobs.get)
            assert pack(aggregate(base, updates, state.weights, anchored)) == study.blobs.get(done.model)
            assert anchored.anchor is not None
            own = reference_update(study.plan, base, read_validation(study.plan, study.root))
            assert np.array_equal(anchored.anchor, own)
            assert any(own)


def test_plain_texts_of_the_plan_s_numbers_reach_the_events(settled: InMemoryStudy) -> None:
    step, count = settled.state.closed[0].admitted[settled["ash"].did].event["events"]
    assert count == {
        "type": "gaussian",
        "noise_multiplier": plain_decimal(settled.plan.privacy.cohort_noise_multiplier),
    }
    assert step["type"] == "gaussian"
    assert Decimal(step["noise_multiplier"]) >= 2
