"""What the consent registry is told of a study, so that its people can be told.

The registry keeps who was eligible in which round, written with the decision itself. What only the node knows comes
from here: which rounds came to nothing, the models that came of the others, what was spent, what was earned and is
passed on. Everything is told again after a restart and counts once, so a crash between two steps leaves no gap.

:func:`stops` looks at both sides afterwards: what the registry promised in a withdrawal's receipt, and whose rows the
node wrote down as used.
"""

import json
import logging
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any

from sqlalchemy import Engine
from sqlmodel import select

from clients.privacy.budget import BudgetLedger
from clients.storage import COMPARISON, RoundUse, StoredScores, StoredUpdate, recall, sketch_key
from consent.registry import LICENCE_REF, Registry, RoundOf
from consent.registry.participation import microseconds
from consent.registry.tables import ConsentRound, StoredRecord
from federation.rules.accounting import count_event, overlap_event, round_event, scores_event
from federation.rules.instant import parse_instant
from federation.rules.keys import PublicKey
from federation.rules.state import ClosedRound, StudyState
from federation.rules.study import StudyPlan
from federation.rules.wire import plain_decimal
from federation.storage.database import read

_SPENT_DIGITS = Decimal("0.0001")
_UNCHARGED = frozenset(
    {"budget", "consents-unknown", "no-answer", "no-data-set", "restored", "revoked", "wrong-code", "wrong-round"}
)
"""Reasons of refusals that may come before the round is charged, and with which nothing but the reason leaves."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stop:
    """What one withdrawal stopped, and when, from its receipt on.

    Attributes:
        ref: who withdrew.
        last_read: until the last round that used their data was over; zero where none was under way, None where one
            still is.
        first_without: until the first decision about a round that knew of it; None: there was none yet.
        in_flight: the rounds that were under way with them.
        uses_after: rounds that used them and had not begun when the receipt was given. It must be 0.
    """

    ref: str
    last_read: timedelta | None
    first_without: timedelta | None
    in_flight: tuple[RoundOf, ...]
    uses_after: int


class Participation:
    """One study at one institution, as the registry is told of it.

    Args:
        plan: the study's plan.
        signed_plan: its signed bytes.
        party: the institution.
        registry: who is told.
        engine: the node's database.
        budget: its privacy budget.
        share_percent: how much of a reward is passed on to the people.
    """

    def __init__(
        self,
        plan: StudyPlan,
        signed_plan: bytes,
        *,
        party: PublicKey,
        registry: Registry,
        engine: Engine,
        budget: BudgetLedger,
        share_percent: int,
    ) -> None:
        self._plan = plan
        self._signed_plan = signed_plan
        self._party = party.did
        self._registry = registry
        self._engine = engine
        self._budget = budget
        self._share_percent = share_percent
        self._rounds_told = 0
        self._settled_told = False
        self._comparison_told = False

    def begin(self) -> None:
        """Name the study, and close the rounds that a former process left in flight.

        A round whose update is stored was released (it may have been sent); of any other, nothing left or ever will.
        """
        study, privacy = self._plan.study_id, self._plan.privacy
        self._registry.note_study(
            study,
            title=self._plan.title,
            plan_bytes=self._signed_plan,
            epsilon=plain_decimal(privacy.epsilon),
            delta=plain_decimal(privacy.delta),
        )
        with read(self._engine) as session:
            rounds = [charge.round for charge in self._budget.charges() if charge.study == study]
            stored = {number for number in rounds if session.get(StoredUpdate, (study, number)) is not None}
            if recall(session, sketch_key(study)) is not None:
                stored.add(COMPARISON)
            if session.get(StoredScores, study) is not None:
                stored.add(scores_round(self._plan))
        for number in rounds:
            self._registry.finish_round(RoundOf(study, number), released=number in stored)
        if rounds:
            self._note_spent()

    def finish(self, round_number: int, *, released: bool) -> None:
        """A round is over here: its update is stored and may be sent, or nothing of it ever leaves."""
        self._registry.finish_round(RoundOf(self._plan.study_id, round_number), released=released)
        self._note_spent()

    def follow(self, state: StudyState) -> None:
        """Take in what the study's log says that is new: models that contain people's contributions, the settlement.

        A study's models contain them from the first round on in which this institution's update was admitted, as each
        model is made from the one before.
        """
        self._charge_missing(state)
        self._charge_comparison(state)
        self._charge_missing_scores(state)
        contains = any(self._party in done.admitted for done in state.closed[: self._rounds_told])
        for done in state.closed[self._rounds_told :]:
            contains = contains or self._party in done.admitted
            if contains and done.outcome == "aggregated":
                self._registry.note_model(RoundOf(state.study, done.number), done.model)
            self._rounds_told += 1
        if state.settled and not self._settled_told:
            earned = sum(payment.total for payment in state.payments if payment.party == self._party)
            passed = self._registry.pass_on(state.study, earned, self._share_percent)
            logger.info("passed on: %d micro-credits to each person who was eligible", passed.part)
            self._settled_told = True

    def _charge_missing(self, state: StudyState) -> None:
        """Charge the rounds that the log says this institution spent on and that its ledger has not: a restored backup.

        In what order things happen never leaves such a gap: a charge is durable before its answer is sent.
        """
        fresh = state.closed[self._rounds_told :]
        if not fresh:
            return
        known = {charge.round for charge in self._budget.charges() if charge.study == state.study and charge.counts}
        charged = []
        for done in fresh:
            event = spent_on(done, self._plan, self._party)
            if event is not None and done.number not in known:
                self._budget.record(state.study, done.number, event)
                charged.append(done.number)
        if charged:
            logger.warning(
                "this database is older than the log of %s (was a backup put back?): charged now for rounds %s",
                state.study,
                ", ".join(map(str, charged)),
            )
            self._note_spent()

    def _charge_comparison(self, state: StudyState) -> None:
        """As :meth:`_charge_missing`, for a sketch that the log holds a commitment to."""
        if self._party not in state.overlap.commitments or self._comparison_told:
            return
        self._comparison_told = True
        charge = self._budget.charge(state.study, COMPARISON)
        if charge is None or not charge.counts:
            self._budget.record(state.study, COMPARISON, overlap_event(self._plan))
            logger.warning("this database is older than the log of %s: charged now for its sketch", state.study)
        self._note_spent()

    def _charge_missing_scores(self, state: StudyState) -> None:
        """The same for the scores of a panel, which the log says that this institution committed to."""
        if state.panel is None or self._party not in state.panel.commitments:
            return
        charge = self._budget.charge(state.study, scores_round(self._plan))
        if charge is None or not charge.counts:
            self._budget.record(state.study, scores_round(self._plan), scores_event(self._plan))
            logger.warning("this database is older than the log of %s: charged now for the scores", state.study)
            self._note_spent()

    def _note_spent(self) -> None:
        """Rounded up: nobody is told that less was spent than was."""
        spent = Decimal(str(self._budget.spent(self._plan.study_id))).quantize(_SPENT_DIGITS, ROUND_CEILING)
        self._registry.note_spent(self._plan.study_id, plain_decimal(spent))


def scores_round(plan: StudyPlan) -> int:
    """What the scoring of a panel is called in the budget and in people's records: the round after the last one."""
    return plan.rounds.count + 1


def spent_on(done: ClosedRound, plan: StudyPlan, party: str) -> dict[str, Any] | None:
    """What a closed round cost an institution's people, as far as the log tells; None: nothing is due for it.

    A round that was refused after its charge, for any other reason than too few people, costs the whole of it.
    """
    if party not in done.participants:
        return None
    code = done.refused.get(party, "").partition(":")[0]
    if code in _UNCHARGED:
        return None
    return count_event(plan) if code == "cohort" else round_event(plan)


def stops(registry: Registry, consent_engine: Engine, node_engine: Engine) -> list[Stop]:
    """How each withdrawal stopped computation, oldest first.

    A use after the receipt is a round that the node wrote down with the person, that ended after the receipt, and that
    the receipt does not name as under way: whichever clock its decision was stamped by. Who said yes again may be used
    again from then on.

    Args:
        registry: the consents.
        consent_engine: the registry's database.
        node_engine: the node's (often the same).
    """
    with read(node_engine) as session:
        used = {
            RoundOf(row.study, row.round): frozenset(json.loads(row.subjects)) for row in session.exec(select(RoundUse))
        }
    with read(consent_engine) as session:
        rounds = {RoundOf(row.study, row.round): row for row in session.exec(select(ConsentRound))}
        records = {row.digest: row for row in session.exec(select(StoredRecord))}
    found = []
    for withdrawal in registry.withdrawals():
        record = records[withdrawal.digest]
        later = [row.received_at for row in records.values() if row.ref == record.ref and row.seq > record.seq]
        allowed_us = microseconds(parse_instant(min(later))) if later else None
        after = 0
        for of, subjects in used.items():
            concerned = withdrawal.ref in subjects or (withdrawal.ref == LICENCE_REF and bool(subjects))
            if not concerned or of in withdrawal.in_flight:
                continue
            row = rounds.get(of)
            late = row is None or row.finished_us is None or row.finished_us > microseconds(withdrawal.received_at)
            after += late and (row is None or allowed_us is None or row.decided_us < allowed_us)
        decided_at = withdrawal.decided_at
        found.append(
            Stop(
                ref=withdrawal.ref,
                last_read=withdrawal.time_to_stop,
                first_without=None if decided_at is None else max(timedelta(0), decided_at - withdrawal.received_at),
                in_flight=withdrawal.in_flight,
                uses_after=after,
            )
        )
    return found
