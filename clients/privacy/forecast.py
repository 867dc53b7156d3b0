"""What a study would cost the people of an institution, before anybody agrees to it; and what the past has cost.

Both are the ledger's own arithmetic (``federation.rules.accounting`` at the ledger's order and delta), so that what is
foreseen here is what the node will charge, and the first round that does not fit is the one that it will refuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from clients.privacy.budget import HistoryRow
from clients.privacy.budget_chain import CREATED, State, Terms
from federation.errors import PrivacyError
from federation.rules.accounting import derive_noise_multiplier, epsilon, overlap_event, pld_epsilon, round_event
from federation.rules.events import DpEvent, EventJson, concerning, parse_event, part_of_event, read_event, repeated
from federation.rules.study import StudyPlan
from federation.rules.wire import plain_decimal

_PARTS_OF_EPSILON: Final = (Decimal("0.75"), Decimal("0.5"), Decimal("0.25"), Decimal("0.1"))


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan held against a budget.

    Attributes:
        plan: the plan.
        terms: the budget's.
        noise_multiplier: what the node derives from the plan.
        spent: epsilon that was spent before, by the people whom the plan is about.
        curve: after each round, everything together, by the filter.
        alone: after each round, this study by itself, by the filter.
        alone_pld: this study by itself at its end, by privacy loss distributions (non-adaptive).
        refused: the first round that does not fit; None if all do.
        fitting_epsilon: a smaller epsilon for the whole study with which it would fit, if one of a few would.
    """

    plan: StudyPlan
    terms: Terms
    noise_multiplier: Decimal
    spent: float
    curve: tuple[float, ...]
    alone: tuple[float, ...]
    alone_pld: float
    refused: int | None
    fitting_epsilon: Decimal | None

    def to_json(self) -> dict[str, Any]:
        """The forecast as data."""
        return {
            "study": self.plan.study_id,
            "rounds": self.plan.rounds.count,
            "noise_multiplier": plain_decimal(self.noise_multiplier),
            "plan_epsilon": plain_decimal(self.plan.privacy.epsilon),
            "plan_delta": plain_decimal(self.plan.privacy.delta),
            "epsilon_lifetime": plain_decimal(self.terms.epsilon),
            "delta": plain_decimal(self.terms.delta),
            "order": self.terms.order,
            "epsilon_spent_before": self.spent,
            "epsilon_after_each_round": list(self.curve),
            "study_alone_after_each_round": list(self.alone),
            "study_alone_pld_non_adaptive": self.alone_pld,
            "fits": self.refused is None,
            "first_refused_round": self.refused,
            "rounds_that_fit": self.plan.rounds.count if self.refused is None else self.refused - 1,
            "smaller_epsilon_that_fits": None if self.fitting_epsilon is None else plain_decimal(self.fitting_epsilon),
        }


def forecast(plan: StudyPlan, terms: Terms, spent_events: Sequence[EventJson | DpEvent] = ()) -> Forecast:
    """What every round of ``plan`` would cost on top of what was spent.

    Args:
        plan: the study.
        terms: of the budget that it would be charged to.
        spent_events: what counts in that budget already.

    Raises:
        PrivacyError: no noise keeps the plan's own epsilon.
    """
    event, once = read_event(round_event(plan)), _before_rounds(plan)
    spent_events = concerning(part_of_event(event), spent_events)

    def after(rounds: int, before: Sequence[EventJson | DpEvent] = spent_events) -> float:
        again = [repeated(event, rounds)] if rounds else []
        return epsilon([*before, *again], delta=terms.delta, order=terms.order)

    counted = [*spent_events, *once]
    rounds = range(1, plan.rounds.count + 1)
    curve = tuple(after(number, counted) for number in rounds)
    refused = next((number for number, total in zip(rounds, curve, strict=True) if total > terms.epsilon), None)
    return Forecast(
        plan=plan,
        terms=terms,
        noise_multiplier=derive_noise_multiplier(plan),
        spent=after(0),
        curve=curve,
        alone=tuple(after(number, once) for number in rounds),
        alone_pld=pld_epsilon([*once, repeated(event, plan.rounds.count)], terms.delta),
        refused=refused,
        fitting_epsilon=None if refused is None else _fitting_epsilon(plan, terms, counted),
    )


def _before_rounds(plan: StudyPlan) -> list[DpEvent]:
    """What a plan costs before its first round: the sketch of one that compares people."""
    return [] if plan.overlap is None else [read_event(overlap_event(plan))]


def _fitting_epsilon(plan: StudyPlan, terms: Terms, spent_events: Sequence[EventJson | DpEvent]) -> Decimal | None:
    """A part of the plan's epsilon with which all its rounds would fit."""
    for part in _PARTS_OF_EPSILON:
        smaller = plan.privacy.epsilon * part
        changed = plan.model_copy(update={"privacy": plan.privacy.model_copy(update={"epsilon": smaller})})
        try:
            event = repeated(round_event(changed), plan.rounds.count)
        except PrivacyError:
            return None  # at this order the conversion alone costs more: less would not do either
        if epsilon([*spent_events, event], delta=terms.delta, order=terms.order) <= terms.epsilon:
            return smaller
    return None


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the ledger and what everything that counts costs after it."""

    row: HistoryRow
    epsilon: float

    def to_json(self) -> dict[str, Any]:
        """The step as data."""
        return {
            "seq": self.row.seq,
            "study": self.row.study,
            "round": self.row.round,
            "state": self.row.state,
            "at": self.row.at,
            "hash": self.row.hash,
            "epsilon_after": self.epsilon,
        }


def steps(rows: Sequence[HistoryRow], terms: Terms) -> tuple[Step, ...]:
    """The ledger's history with the running epsilon: a reservation counts in full until it is aborted."""
    counted: dict[tuple[str, int], DpEvent] = {}
    found, total = [], 0.0
    for row in rows:
        if row.state != CREATED:
            before = counted.get((row.study, row.round))
            if row.state == State.ABORTED:
                counted.pop((row.study, row.round), None)
            else:
                counted[row.study, row.round] = parse_event(row.event.encode("utf-8"))
            if counted.get((row.study, row.round)) != before:
                total = epsilon(counted.values(), delta=terms.delta, order=terms.order)
        found.append(Step(row, total))
    return tuple(found)
