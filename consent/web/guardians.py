"""Guardians: who speaks on these pages for somebody who cannot, as an officer wrote it down, and until which day.

Rules kept: one guardian at a time for each person; the day on which it ends is fixed beforehand, and from then on the
person speaks for themselves: sessions and unused links of the time before open nothing any more. Who was whose guardian
stays written down, so that an old record still says who signed it. The authority that travels in a record is issued
anew for each document (:mod:`consent.rules.guardian`), so that ending an appointment ends it for all that follows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine
from sqlmodel import Session as Transaction
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from consent.web.sessions import Sessions
from consent.web.tables import WebGuardian
from federation.rules.instant import format_instant, parse_instant
from federation.storage.database import read, write


class Relation(StrEnum):
    """On what ground a guardian speaks."""

    PARENT = "parent"
    COURT = "court"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Appointment:
    """A guardian of one person. ``until``: from this moment on the person speaks for themselves.

    ``did`` is the key that the guardian signed with last; None before they signed anything.
    """

    ref: str
    name: str
    relation: Relation
    until: datetime
    did: str | None


class Guardians:
    """The guardians of one institution's people.

    Args:
        engine: the registry's database, opened with the tables of :mod:`consent.web.tables`.
        clock: the machine's clock, aware.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def appoint(self, ref: str, *, name: str, relation: Relation, until: datetime) -> None:
        """Let somebody speak for a person; an earlier guardian of theirs no longer does."""
        now = format_instant(self._clock())
        with write(self._engine) as session:
            _end(session, ref, now)
            row = WebGuardian(
                ref=ref, name=name, relation=relation.value, until=format_instant(until), appointed_at=now
            )
            session.add(row)

    def dismiss(self, ref: str) -> None:
        """Let nobody else speak for a person from now on."""
        with write(self._engine) as session:
            _end(session, ref, format_instant(self._clock()))

    def of(self, ref: str) -> Appointment | None:
        """Who speaks for a person now; None if they do so themselves."""
        row = self._newest(ref)
        return None if row is None or self._clock() >= parse_instant(row.until) else _read(row)

    def settle(self, ref: str, sessions: Sessions) -> bool:
        """End an appointment whose day has come, with all sessions and unused links of before; whether one ended."""
        row = self._newest(ref)
        if row is None or self._clock() < parse_instant(row.until):
            return False
        sessions.revoke(ref, before=parse_instant(row.until))
        self.dismiss(ref)
        return True

    def signed_with(self, ref: str, did: str) -> None:
        """Remember the key that a person's guardian signed with."""
        with write(self._engine) as session:
            row = session.exec(_in_office(ref)).first()
            if row is not None and row.did != did:
                row.did = did
                session.add(row)

    def ref_of(self, did: str) -> str | None:
        """For whom a key speaks now as a guardian's; None if for nobody."""
        with read(self._engine) as session:
            row = session.exec(
                select(WebGuardian).where(col(WebGuardian.did) == did, col(WebGuardian.ended_at).is_(None))
            ).first()
        return None if row is None or self._clock() >= parse_instant(row.until) else row.ref

    def who_signed(self, ref: str, did: str) -> Appointment | None:
        """The guardian of a person, of now or of earlier, whose key this is."""
        query = select(WebGuardian).where(col(WebGuardian.ref) == ref, col(WebGuardian.did) == did)
        with read(self._engine) as session:
            row = session.exec(query.order_by(col(WebGuardian.id).desc())).first()
        return None if row is None else _read(row)

    def _newest(self, ref: str) -> WebGuardian | None:
        with read(self._engine) as session:
            return session.exec(_in_office(ref)).first()


def _in_office(ref: str) -> SelectOfScalar[WebGuardian]:
    return select(WebGuardian).where(col(WebGuardian.ref) == ref, col(WebGuardian.ended_at).is_(None))


def _end(session: Transaction, ref: str, now: str) -> None:
    for row in session.exec(_in_office(ref)):
        row.ended_at = now
        session.add(row)


def _read(row: WebGuardian) -> Appointment:
    return Appointment(row.ref, row.name, Relation(row.relation), parse_instant(row.until), row.did)
