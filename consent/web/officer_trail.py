"""What officers did, in order: a table that is only ever added to, each row sealed to the one before it.

A row that was changed, removed or exchanged is found by :meth:`Trail.broken_at`; rows cut off at the end are not, as
nothing outside holds the newest seal: keep the page's exports or backups for that. No row names a person. It names
records by their digests and requests by their identifiers, so that erasing somebody need not touch it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine
from sqlmodel import col, func, select
from starlette.requests import Request

from consent.web.officer_tables import OfficerAction
from consent.web.state import web_of
from federation.rules.canonical import canonical_bytes, parse, tagged_hash
from federation.rules.instant import format_instant, parse_instant
from federation.storage.database import read, write

_DETAIL_BYTES_MAX: Final = 4096
_START: Final = ""


class Act(StrEnum):
    """What an officer can do that matters afterwards."""

    PUBLISHED = "published"
    CLOSED = "closed"
    INVITED = "invited"
    WITHDREW = "withdrew"
    GUARDIAN = "guardian"
    ERASED = "erased"
    EXPORTED = "exported"


@dataclass(frozen=True, slots=True)
class Entry:
    """One action, as it is shown."""

    number: int
    at: datetime
    act: Act
    detail: Mapping[str, str]


class Trail:
    """The officers' trail of one institution.

    Args:
        engine: the registry's database, opened with the tables of :mod:`consent.web.officer_tables`.
        clock: the machine's clock, aware.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, act: Act, **detail: str | int) -> Entry:
        """Write down one action; durable when this returns."""
        now = format_instant(self._clock())
        data = canonical_bytes({name: str(value) for name, value in detail.items()}).decode()
        with write(self._engine) as session:
            number = (session.exec(select(func.max(OfficerAction.number))).one() or 0) + 1
            before = session.get(OfficerAction, number - 1)
            seal = _seal(_START if before is None else before.seal, number, now, act.value, data)
            row = OfficerAction(number=number, at=now, act=act.value, detail=data, seal=seal)
            session.add(row)
        return _entry(row)

    def entries(self, *, newest: int) -> list[Entry]:
        """The newest actions, newest first."""
        with read(self._engine) as session:
            rows = session.exec(select(OfficerAction).order_by(col(OfficerAction.number).desc()).limit(newest)).all()
        return [
            Entry(
                row.number, parse_instant(row.at), Act(row.act), parse(row.detail.encode(), max_bytes=_DETAIL_BYTES_MAX)
            )
            for row in rows
        ]

    def broken_at(self) -> int | None:
        """The first place where the trail is not what was written; None if it is whole."""
        with read(self._engine) as session:
            rows = session.exec(select(OfficerAction).order_by(col(OfficerAction.number))).all()
        seal = _START
        for number, row in enumerate(rows, start=1):
            if row.number != number or row.seal != _seal(seal, number, row.at, row.act, row.detail):
                return number
            seal = row.seal
        return None


def trail_of(request: Request) -> Trail:
    """The trail of the institution whose page is asked for."""
    web = web_of(request)
    return Trail(web.store.engine, clock=web.clock)


def _entry(row: OfficerAction) -> Entry:
    detail = parse(row.detail.encode(), max_bytes=_DETAIL_BYTES_MAX)
    return Entry(row.number, parse_instant(row.at), Act(row.act), detail)


def _seal(before: str, number: int, at: str, act: str, detail: str) -> str:
    parts = (before, str(number), at, act, detail)
    return tagged_hash("officer-action", *(part.encode() for part in parts)).hex()
