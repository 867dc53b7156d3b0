"""Who was eligible in which round of which study, the models that came of it, and what was passed on.

A person is told in which rounds they were *eligible*, never in which they were sampled: that would void the privacy
that sampling gives. Who is eligible hardly changes from round to round, so a name stands once for each unbroken run of
decisions in which it was eligible, and a round in which nothing changed writes one row.

What a round's model contains: everybody who was eligible in a round that was released, in that model and in every later
one of the study, as each is made from the one before.

The functions work inside the caller's transaction; whoever calls them has taken the write lock where they write.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from consent.registry.tables import (
    ConsentCredit,
    ConsentEligible,
    ConsentInFlight,
    ConsentModel,
    ConsentRound,
    ConsentState,
    ConsentStudy,
    ConsentWithdrawal,
)

_AT_ONCE: Final = 500
"""Names in one statement: databases bound the number of its parameters."""


class RoundState(StrEnum):
    """Where a round stands: undecided, its update went out, or nothing of it ever left."""

    IN_FLIGHT = "in_flight"
    RELEASED = "released"
    NOT_RELEASED = "not_released"


@dataclass(frozen=True, slots=True, order=True)
class RoundOf:
    """A round of a study."""

    study: str
    round: int


@dataclass(frozen=True, slots=True)
class Eligibility:
    """A round in which somebody was eligible: where it stands, and when it was decided."""

    round: int
    state: RoundState
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model that contains somebody's contribution, and the (epsilon, delta) that protects it (decimal texts)."""

    study: str
    round: int
    sha256: str
    epsilon: str
    delta: str


@dataclass(frozen=True, slots=True)
class StudyParticipation:
    """One person's part in one study.

    ``epsilon`` and ``delta`` bound what the person loses, ``spent`` is the epsilon spent so far (decimal texts; empty
    where the institution has not noted them). ``plan`` is the signed plan, ``microcredits`` what was passed on to the
    person.
    """

    study: str
    title: str
    plan: bytes
    epsilon: str
    delta: str
    spent: str
    rounds: tuple[Eligibility, ...]
    models: tuple[ModelVersion, ...]
    microcredits: int


@dataclass(frozen=True, slots=True)
class Participation:
    """One person's part in every study in which they were ever eligible, by study."""

    studies: tuple[StudyParticipation, ...]


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What was shared among a study's people: ``persons`` times ``part`` of ``pool``; the rest of it stays."""

    pool: int
    persons: int
    part: int

    @property
    def remainder(self) -> int:
        """What could not be shared in equal whole parts, in micro-credits."""
        return self.pool - self.persons * self.part


def begin_round(
    session: Session, of: RoundOf, eligible: Collection[str], now: datetime, *, known: frozenset[str] | None = None
) -> int:
    """Store who is eligible in a round that is about to begin; the decision's ordinal in its study.

    Asked again about the study's newest round, whoever was eligible at any of the times counts as eligible in it: their
    data may have been read. ``known``: who was eligible in the newest decision, if the caller knows; else it is read.
    """
    newest = _newest(session, of.study)
    again = newest is not None and newest.round == of.round
    ordinal = 1 if newest is None else newest.ordinal + (0 if again else 1)
    change = session.get_one(ConsentState, 1).changes
    if newest is None or not again:
        session.add(
            ConsentRound(
                study=of.study,
                ordinal=ordinal,
                round=of.round,
                state=RoundState.IN_FLIGHT,
                change=change,
                decided_us=microseconds(now),
            )
        )
    else:
        newest.state, newest.change, newest.finished_us = RoundState.IN_FLIGHT, change, None
        session.add(newest)
    before = _open_names(session, of.study) if known is None else known
    wanted = frozenset(eligible)
    _add(session, of.study, wanted - before, ordinal)
    _end(session, of.study, before - wanted, ordinal if again else ordinal - 1)
    session.execute(
        update(ConsentWithdrawal)
        .where(col(ConsentWithdrawal.decided_us).is_(None))
        .values(decided_us=microseconds(now))
    )
    return ordinal


def newest_ordinal(session: Session, study: str) -> int:
    """The number of a study's newest decision; 0 before the first."""
    newest = _newest(session, study)
    return 0 if newest is None else newest.ordinal


def finish_round(session: Session, of: RoundOf, now: datetime, *, released: bool) -> None:
    """Note that a round is over here; what was released once stays released. A round that never began is ignored."""
    query = select(ConsentRound).where(ConsentRound.study == of.study, ConsentRound.round == of.round)
    for row in session.exec(query):
        if row.state == RoundState.IN_FLIGHT:
            row.finished_us = microseconds(now)
        if row.state != RoundState.RELEASED:
            row.state = RoundState.RELEASED if released else RoundState.NOT_RELEASED
        session.add(row)


def note_model(session: Session, of: RoundOf, sha256: str) -> None:
    """Note the model that a study had after a round."""
    session.merge(ConsentModel(study=of.study, round=of.round, sha256=sha256))


def study_row(session: Session, study: str) -> ConsentStudy:
    """The row of a study, made if it is missing."""
    row = session.get(ConsentStudy, study)
    if row is None:
        row = ConsentStudy(study=study)
        session.add(row)
    return row


def pass_on(session: Session, study: str, amount: int, share_percent: int) -> PassedOn:
    """Share a part of what was earned equally among everybody eligible in any released round; once per study.

    Asked again, what was done stays, and is the answer.

    Raises:
        ValueError: a negative amount, or a share outside of 0 to 100 (mistakes of the caller).
    """
    if amount < 0 or not 0 <= share_percent <= 100:  # noqa: PLR2004 - percent
        raise ValueError(f"{share_percent} percent of {amount} cannot be passed on")
    row = study_row(session, study)
    if row.pool is None or row.persons is None or row.part is None:
        people = sorted(_released_names(session, study))
        row.pool = amount * share_percent // 100
        row.persons = len(people)
        row.part = row.pool // len(people) if people else 0
        session.add(row)
        session.flush()
        if row.part:
            credits_ = [{"study": study, "ref": ref, "microcredits": row.part} for ref in people]
            session.execute(insert(ConsentCredit), credits_)
    return PassedOn(pool=row.pool, persons=row.persons, part=row.part)


def note_withdrawal(session: Session, digest: str, ref: str, now: datetime) -> None:
    """Note that a withdrawal was received, and the rounds that are in flight with the person at this moment."""
    session.add(ConsentWithdrawal(digest=digest, ref=ref, received_us=microseconds(now)))
    for row in in_flight(session, ref):
        session.add(ConsentInFlight(digest=digest, study=row.study, ordinal=row.ordinal, ref=ref))


def in_flight(session: Session, ref: str) -> list[ConsentRound]:
    """The rounds that have begun with the person eligible, and are not over."""
    return [row for row in _rounds_of(session, ref) if row.state == RoundState.IN_FLIGHT]


def participation(session: Session, ref: str) -> Participation:
    """A person's part in every study."""
    by_study: dict[str, list[ConsentRound]] = {}
    for row in _rounds_of(session, ref):
        by_study.setdefault(row.study, []).append(row)
    credited = {
        row.study: row.microcredits for row in session.exec(select(ConsentCredit).where(ConsentCredit.ref == ref))
    }
    return Participation(
        tuple(
            _study_participation(session, study, by_study.get(study, []), credited.get(study, 0))
            for study in sorted({*by_study, *credited})
        )
    )


def models_with(session: Session, ref: str) -> tuple[ModelVersion, ...]:
    """Every noted model that contains the person's contribution, by study and round."""
    return tuple(model for study in participation(session, ref).studies for model in study.models)


def microseconds(instant: datetime) -> int:
    """POSIX time in microseconds, exact."""
    whole = int(instant.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + instant.microsecond


def moment(value: int) -> datetime:
    """The inverse of :func:`microseconds`."""
    whole, part = divmod(value, 1_000_000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=part)


def _study_participation(
    session: Session, study: str, rows: Sequence[ConsentRound], microcredits: int
) -> StudyParticipation:
    noted = session.get(ConsentStudy, study) or ConsentStudy(study=study, spent="")
    rounds: dict[int, Eligibility] = {}
    for row in rows:
        shown = Eligibility(round=row.round, state=RoundState(row.state), decided_at=moment(row.decided_us))
        if row.round not in rounds or shown.state is RoundState.RELEASED:
            rounds[row.round] = shown
    released = [number for number, shown in rounds.items() if shown.state is RoundState.RELEASED]
    models: tuple[ModelVersion, ...] = ()
    if released:
        query = select(ConsentModel).where(ConsentModel.study == study, col(ConsentModel.round) >= min(released))
        models = tuple(
            ModelVersion(study=study, round=row.round, sha256=row.sha256, epsilon=noted.epsilon, delta=noted.delta)
            for row in session.exec(query.order_by(col(ConsentModel.round)))
        )
    return StudyParticipation(
        study=study,
        title=noted.title,
        plan=noted.plan,
        epsilon=noted.epsilon,
        delta=noted.delta,
        spent=noted.spent,
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        models=models,
        microcredits=microcredits,
    )


def _rounds_of(session: Session, ref: str) -> list[ConsentRound]:
    found: dict[tuple[str, int], ConsentRound] = {}
    for run in session.exec(select(ConsentEligible).where(ConsentEligible.ref == ref)):
        query = select(ConsentRound).where(ConsentRound.study == run.study, col(ConsentRound.ordinal) >= run.first)
        if run.last is not None:
            query = query.where(col(ConsentRound.ordinal) <= run.last)
        found |= {(row.study, row.ordinal): row for row in session.exec(query)}
    return [found[key] for key in sorted(found)]


def _released_names(session: Session, study: str) -> set[str]:
    released = [
        row.ordinal
        for row in session.exec(select(ConsentRound).where(ConsentRound.study == study))
        if row.state == RoundState.RELEASED
    ]
    query = select(ConsentEligible.ref, ConsentEligible.first, ConsentEligible.last)
    return {
        ref
        for ref, first, last in session.exec(query.where(ConsentEligible.study == study))
        if any(first <= ordinal and (last is None or ordinal <= last) for ordinal in released)
    }


def _newest(session: Session, study: str) -> ConsentRound | None:
    query = select(ConsentRound).where(ConsentRound.study == study)
    return session.exec(query.order_by(col(ConsentRound.ordinal).desc()).limit(1)).first()


def _open_names(session: Session, study: str) -> frozenset[str]:
    query = select(ConsentEligible.ref).where(ConsentEligible.study == study, col(ConsentEligible.last).is_(None))
    return frozenset(session.exec(query))


def _add(session: Session, study: str, names: frozenset[str], ordinal: int) -> None:
    reopened: set[str] = set()
    if names:  # a run that an earlier answer about this very round ended goes on
        ended = select(ConsentEligible).where(ConsentEligible.study == study, ConsentEligible.last == ordinal)
        for run in session.exec(ended):
            if run.ref in names:
                run.last = None
                session.add(run)
                reopened.add(run.ref)
    rows = [{"study": study, "ref": ref, "first": ordinal, "last": None} for ref in sorted(names - reopened)]
    if rows:
        session.execute(insert(ConsentEligible), rows)


def _end(session: Session, study: str, names: Iterable[str], last: int) -> None:
    wanted = sorted(names)
    for start in range(0, len(wanted), _AT_ONCE):
        session.execute(
            update(ConsentEligible)
            .where(
                col(ConsentEligible.study) == study,
                col(ConsentEligible.ref).in_(wanted[start : start + _AT_ONCE]),
                col(ConsentEligible.last).is_(None),
            )
            .values(last=last)
        )
