"""The privacy budget of an institution's subject population: one ledger, for all studies, data sets and coordinators.

A fixed-order Renyi filter (Feldman and Zrnic 2021): order, epsilon and delta are fixed when the ledger is made, and a
round may run only while everything that was ever reserved, started or committed, together with it, stays within them.
What is guaranteed to a person is that cap.

The ledger stores what happened (DP events), in rows that form a hash chain and are never changed; accountants interpret
them. Each (study, round) moves

    RESERVED -> STARTED -> COMMITTED (at most what was reserved)      RESERVED -> ABORTED (nothing was read)

RESERVED and STARTED count in full, as after a crash nobody knows how far it came. STARTED is written before the first
read of data, and cannot be aborted. A retry of a committed round gets its row back and must send the stored payload: it
never trains again. Every change happens under the database's write lock, so two processes cannot overdraw together.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from sqlalchemy.engine import Engine
from sqlmodel import Session, SQLModel

from clients.privacy.budget_chain import (
    CREATED,
    NEXT,
    Charge,
    State,
    Terms,
    append,
    fold,
    reserved_event,
    terms_of,
    verified_rows,
)
from clients.storage import BudgetEntry
from federation.errors import OperatorError, PrivacyError
from federation.rules.accounting import epsilon, pld_epsilon
from federation.rules.events import (
    NOISE_MULTIPLIER_MAX,
    ComposedEvent,
    DpEvent,
    EventJson,
    GaussianEvent,
    PartEvent,
    PoissonEvent,
    RepeatedEvent,
    RestEvent,
    concerning,
    event_bytes,
    event_json,
    mechanisms,
    part_of_event,
    people,
    read_event,
)
from federation.rules.instant import format_instant
from federation.rules.wire import plain_decimal
from federation.storage.database import database_name, read, write

__all__ = ["BudgetLedger", "Charge", "HistoryRow", "State", "Terms"]

LIFETIME_EPSILON_MAX: Final = Decimal(8)
LIFETIME_DELTA_MAX: Final = Decimal("1e-5")
ORDERS: Final = range(2, 257)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One row of the chain, as an auditor reads it."""

    seq: int
    study: str
    round: int
    state: str
    event: str
    at: str
    hash: str


class BudgetLedger:
    """The ledger of one node's database. Make it once with :meth:`create`; after that, open it.

    Args:
        engine: the node's database.
        clock: tells the time where ``now`` is not given.

    Raises:
        OperatorError: there is no ledger in this database, or its chain is broken.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        with read(engine) as session:
            rows = self._rows(session)
        if not rows:
            raise OperatorError(
                f"There is no privacy budget in {database_name(engine)}.",
                remedy="Make the node with `accord node init`, which fixes the lifetime budget.",
            )
        self.terms = terms_of(rows[0])

    @classmethod
    def create(
        cls, engine: Engine, *, epsilon: Decimal, delta: Decimal, order: int = 8, clock: Callable[[], datetime]
    ) -> "BudgetLedger":
        """Make the ledger, its terms fixed for ever; the same call again opens it.

        Raises:
            OperatorError: terms out of range, or a ledger with other terms exists.
        """
        possible = 0 < epsilon <= LIFETIME_EPSILON_MAX and 0 < delta <= LIFETIME_DELTA_MAX and order in ORDERS
        if not possible:
            raise OperatorError(
                f"A lifetime budget of epsilon {epsilon} at delta {delta} and order {order} is out of range.",
                remedy=f"Use epsilon up to {LIFETIME_EPSILON_MAX}, delta up to 0.00001, and an order from 2 to 256.",
            )
        terms = Terms(order=order, epsilon=epsilon, delta=delta)
        with write(engine) as session:
            if session.get(BudgetEntry, 0) is None:
                append(
                    session, study="", round_number=0, attempt=0, state=CREATED, event=terms.to_payload(), at=clock()
                )
        ledger = cls(engine, clock=clock)
        if ledger.terms != terms:
            raise OperatorError(
                f"This institution's budget is epsilon {ledger.terms.epsilon} at delta {ledger.terms.delta} and order "
                f"{ledger.terms.order}, and cannot become epsilon {epsilon} at delta {delta} and order {order}.",
                remedy="Keep the terms: they were promised to the people whose data this is.",
            )
        return ledger

    def reserve(
        self, study: str, round_number: int, event: EventJson | DpEvent, *, now: datetime | None = None
    ) -> Charge:
        """Set the round's whole event aside, durably, before anything is read.

        A (study, round) that is reserved, started or committed already is returned as it stands, and nothing is
        charged again; one that was aborted is reserved anew.

        Raises:
            PrivacyError: the event does not fit (the remedy says what would), or another event was reserved before.
            PeerError: not an event.
            OperatorError: the chain is broken.
        """
        wanted = read_event(event)
        with write(self._engine) as session:
            rows = self._rows(session)
            charges = fold(rows)
            charge = charges.get((study, round_number))
            if charge is not None and charge.counts:
                if event_bytes(reserved_event(rows, study, round_number)) != event_bytes(wanted):
                    raise PrivacyError(
                        f"Round {round_number} of {study} was reserved with another privacy event.",
                        remedy="A round has one event, that of its plan; ask the coordinator which plan it follows.",
                    )
                return charge
            self._check_fit(_counted(charges), wanted, study, round_number)
            attempt = 1 + sum(
                row.state == State.ABORTED and (row.study, row.round) == (study, round_number) for row in rows
            )
            return self._step(session, study, round_number, attempt, State.RESERVED, wanted, now)

    def start(self, study: str, round_number: int, *, now: datetime | None = None) -> Charge:
        """Write, before the first read of data, that the round begins. A started round stays as it is.

        Raises:
            PrivacyError: the round is not reserved, or is over.
        """
        return self._move(study, round_number, State.STARTED, None, (), now)

    def commit(
        self,
        study: str,
        round_number: int,
        event: EventJson | DpEvent | None = None,
        *,
        together_with: Sequence[SQLModel] = (),
        now: datetime | None = None,
    ) -> Charge:
        """Write what really happened, and rows that belong to it, in one transaction; only afterwards may it be sent.

        Args:
            study: the study's id.
            round_number: its round.
            event: what happened; by default all that was reserved. It may only be a part of that.
            together_with: rows to store in the same transaction (``StoredUpdate``, ``RoundUse``).
            now: the instant to write down.

        Raises:
            PrivacyError: the round was not started, or the event is not a part of what was reserved.
        """
        happened = None if event is None else read_event(event)
        return self._move(study, round_number, State.COMMITTED, happened, together_with, now)

    def abort(self, study: str, round_number: int, *, now: datetime | None = None) -> Charge:
        """Give a reservation back: nothing was read. An aborted round stays as it is.

        Raises:
            PrivacyError: the round has started, or is not reserved.
        """
        return self._move(study, round_number, State.ABORTED, None, (), now)

    def record(self, study: str, round_number: int, event: EventJson | DpEvent, *, now: datetime | None = None) -> None:
        """Charge a round that ran without this database knowing: it is an older copy, and the study's log shows it.

        Nothing is asked of the cap, as the round has happened; beyond it, nothing more is let through. A round that
        has started or is committed here stays as it is.
        """
        happened = read_event(event)
        with write(self._engine) as session:
            rows = self._rows(session)
            charge = fold(rows).get((study, round_number))
            state = None if charge is None or not charge.counts else charge.state
            attempt = max((row.attempt for row in rows if (row.study, row.round) == (study, round_number)), default=0)
            if state is None:
                attempt += 1
                self._step(session, study, round_number, attempt, State.RESERVED, happened, now)
            if state in (None, State.RESERVED):
                self._step(session, study, round_number, attempt, State.STARTED, happened, now)
                self._step(session, study, round_number, attempt, State.COMMITTED, happened, now)

    def charge(self, study: str, round_number: int) -> Charge | None:
        """Where a (study, round) stands; None if it was never reserved."""
        return self._charges().get((study, round_number))

    def charges(self) -> tuple[Charge, ...]:
        """Every (study, round) in the order of its first reservation."""
        return tuple(self._charges().values())

    def events(self, study: str | None = None) -> tuple[EventJson, ...]:
        """The events that count, of one study or of all: what :func:`federation.rules.accounting.epsilon` takes."""
        return tuple(event_json(event) for event in self._events(study))

    def spent(self, study: str | None = None) -> float:
        """Epsilon at the ledger's delta and order: of everything that counts, or of one study by itself.

        Where studies used parts of the people, it is that of the part that lost most.
        """
        return self._epsilon(self._events(study))

    def spent_pld(self, study: str | None = None) -> float:
        """The same events by privacy loss distributions: non-adaptive, to be reported beside :meth:`spent`."""
        return pld_epsilon(self._events(study), self.terms.delta)

    def remaining(self) -> float:
        """The cap less what is spent; 0 where nothing is left. Epsilons at one order do not simply add up."""
        return max(0.0, float(self.terms.epsilon) - self.spent())

    def would_fit(self, event: EventJson | DpEvent) -> bool:
        """Whether the event could be reserved now."""
        return self._fits([*concerning(part_of_event(event), self._events()), event])

    def spent_by_part(self) -> dict[str, float]:
        """As :meth:`spent`, for every part of the people that studies told apart (the empty part: everybody)."""
        return {part: self._epsilon(events) for part, events in people(self._events()).items()}

    def history(self) -> tuple[HistoryRow, ...]:
        """All rows of the chain, verified, oldest first."""
        with read(self._engine) as session:
            rows = self._rows(session)
        return tuple(HistoryRow(row.seq, row.study, row.round, row.state, row.event, row.at, row.hash) for row in rows)

    def _events(self, study: str | None = None) -> list[DpEvent]:
        return [item.happened for item in self.charges() if item.counts and study in (None, item.study)]

    def _charges(self) -> dict[tuple[str, int], Charge]:
        with read(self._engine) as session:
            return fold(self._rows(session))

    def _rows(self, session: Session) -> Sequence[BudgetEntry]:
        return verified_rows(session, name=database_name(self._engine))

    def _move(
        self,
        study: str,
        round_number: int,
        to: State,
        happened: DpEvent | None,
        together_with: Sequence[SQLModel],
        now: datetime | None,
    ) -> Charge:
        """One transition; the same one again changes nothing."""
        with write(self._engine) as session:
            rows = self._rows(session)
            charge = fold(rows).get((study, round_number))
            if charge is None:
                raise _illegal(study, round_number, "not reserved", to)
            reserved = charge.happened
            event = reserved if happened is None else happened
            if charge.state is to and (happened is None or event_bytes(event) == event_bytes(reserved)):
                return charge
            if to not in NEXT[charge.state]:
                raise _illegal(study, round_number, charge.state, to)
            same_people = part_of_event(event) == part_of_event(reserved)
            if not (same_people and mechanisms(event) <= mechanisms(reserved)):
                raise PrivacyError(
                    f"Round {round_number} of {study} would be charged for something that was not reserved for it.",
                    remedy="Nothing may be sent. Report this: what ran was not what was planned.",
                )
            attempt = max(row.attempt for row in rows if (row.study, row.round) == (study, round_number))
            for item in together_with:
                session.merge(item)
            return self._step(session, study, round_number, attempt, to, event, now)

    def _step(
        self,
        session: Session,
        study: str,
        round_number: int,
        attempt: int,
        state: State,
        event: DpEvent,
        now: datetime | None,
    ) -> Charge:
        at = self._clock() if now is None else now
        append(
            session,
            study=study,
            round_number=round_number,
            attempt=attempt,
            state=state,
            event=event_bytes(event),
            at=at,
        )
        return Charge(study, round_number, state, event, format_instant(at))

    def _epsilon(self, events: Iterable[EventJson | DpEvent]) -> float:
        return epsilon(events, delta=self.terms.delta, order=self.terms.order)

    def _fits(self, events: Sequence[EventJson | DpEvent]) -> bool:
        return self._epsilon(events) <= float(self.terms.epsilon)

    def _check_fit(self, counted: Sequence[DpEvent], event: DpEvent, study: str, round_number: int) -> None:
        part = part_of_event(event)
        counted = concerning(part, counted)
        if self._fits([*counted, event]):
            return
        whose = f" of part {part}'s people" if part else ""
        cap = plain_decimal(self.terms.epsilon)
        raise PrivacyError(
            f"Round {round_number} of {study} does not fit the privacy budget{whose}: {self._epsilon(counted):.4f} of "
            f"epsilon {cap} is spent, and with this round it would be {self._epsilon([*counted, event]):.4f} "
            f"(delta {plain_decimal(self.terms.delta)}, order {self.terms.order}).",
            remedy=self._what_would_fit(counted, event),
        )

    def _what_would_fit(self, counted: Sequence[DpEvent], event: DpEvent) -> str:
        """The weakest noise with which the same event would fit, to two digits."""
        for factor in (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0):
            if self._fits([*counted, _with_noise(event, Decimal(str(factor)))]):
                return (
                    f"The same round with {factor:g} times the noise would fit. The people's lifetime budget cannot be "
                    "raised; a plan with more noise or fewer rounds needs a new agreement."
                )
        return "Nothing more fits: these people's lifetime budget is spent, and no further study may use their data."


def _with_noise(event: DpEvent, factor: Decimal) -> DpEvent:
    """The same event with every noise multiplier ``factor`` times as large."""
    match event:
        case GaussianEvent(noise_multiplier=noise):
            return GaussianEvent(noise_multiplier=min(noise * factor, NOISE_MULTIPLIER_MAX))
        case PoissonEvent(rate=rate, event=inner):
            return PoissonEvent(
                rate=rate,
                event=GaussianEvent(noise_multiplier=min(inner.noise_multiplier * factor, NOISE_MULTIPLIER_MAX)),
            )
        case RepeatedEvent(count=count, event=repeated):
            return RepeatedEvent(count=count, event=_with_noise(repeated, factor))
        case ComposedEvent(events=parts):
            return ComposedEvent(events=tuple(_with_noise(part, factor) for part in parts))
        case PartEvent(part=part, event=whole) | RestEvent(part=part, event=whole):
            return type(event)(part=part, event=_with_noise(whole, factor))


def _counted(charges: dict[tuple[str, int], Charge]) -> tuple[DpEvent, ...]:
    return tuple(charge.happened for charge in charges.values() if charge.counts)


def _illegal(study: str, round_number: int, is_: str, to: State) -> PrivacyError:
    return PrivacyError(
        f"Round {round_number} of {study} is {is_} in the privacy budget and cannot become {to}.",
        remedy="A round is reserved, then started, then committed; a reservation can be aborted only before it starts.",
    )
