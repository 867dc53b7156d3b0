"""What the pages keep beside the registry: requests and their versions, documents handed out, answers, passkeys."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from sqlalchemy import Engine
from sqlmodel import col, delete, select
from sqlmodel.sql.expression import SelectOfScalar

from consent.registry.tables import ConsentSubject, StoredRecord
from consent.web.request import ConsentRequest
from consent.web.tables import WebAnswer, WebDraft, WebNotice, WebProfile, WebRequest
from federation.errors import OperatorError, UnavailableError
from federation.rules.instant import format_instant, parse_instant
from federation.storage.database import read, write

DRAFT: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Notice:
    """One published version of a request."""

    request: str
    version: int
    asked: ConsentRequest
    change: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """What a document that was handed out answers; ``request`` None for a withdrawal."""

    ref: str
    request: str | None
    version: int | None
    language: str | None
    answers: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stored record answered."""

    digest: str
    ref: str
    request: str
    version: int
    language: str
    answers: Mapping[str, bool]
    answered_at: datetime


class Store:
    """The pages' tables of one institution.

    Args:
        engine: the registry's database, opened with the tables of :mod:`consent.web.tables`.
        clock: the machine's clock, aware.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime]) -> None:
        self.engine = engine
        self._clock = clock

    def present(self, name: str, contact: str, address: str) -> None:
        """Set how the institution presents itself to people, and where."""
        with write(self.engine) as session:
            session.merge(WebProfile(id=1, name=name, contact=contact, address=address))

    def profile(self) -> WebProfile | None:
        """How the institution presents itself; None before anybody said so."""
        with read(self.engine) as session:
            return session.get(WebProfile, 1)

    def publish(self, request: str, asked: ConsentRequest, *, change: str = "") -> Notice:
        """Publish a new version of a request (the first one makes it). The same content again changes nothing."""
        now = self._clock()
        data = asked.to_payload()
        with write(self.engine) as session:
            row = session.get(WebRequest, request)
            if row is None:
                row = WebRequest(id=request, version=0, created_at=format_instant(now))
            newest = session.exec(_notice(request, row.version)).first()
            if newest is not None and newest.data == data and row.closed_at is None:
                return _read(newest)
            row.version += 1
            row.closed_at = None
            notice = WebNotice(
                request=request, version=row.version, data=data, change=change, published_at=format_instant(now)
            )
            session.add(row)
            session.add(notice)
            session.flush()
            return _read(notice)

    def close(self, request: str) -> None:
        """Ask nobody any more; what was answered stays."""
        with write(self.engine) as session:
            row = session.get(WebRequest, request)
            if row is None:
                raise _unknown(request)
            row.closed_at = format_instant(self._clock())
            session.add(row)

    def requests(self) -> list[WebRequest]:
        """Every request, oldest first."""
        with read(self.engine) as session:
            return list(session.exec(select(WebRequest).order_by(col(WebRequest.created_at), col(WebRequest.id))))

    def open_request(self, request: str | None = None) -> Notice | None:
        """The newest version of a request that still asks; of the only open one if none is named."""
        with read(self.engine) as session:
            query = select(WebRequest).where(col(WebRequest.closed_at).is_(None), col(WebRequest.version) > 0)
            if request is not None:
                query = query.where(col(WebRequest.id) == request)
            rows = session.exec(query.order_by(col(WebRequest.created_at).desc(), col(WebRequest.id))).all()
            row = session.exec(_notice(rows[0].id, rows[0].version)).first() if rows else None
        return None if row is None else _read(row)

    def notice(self, request: str, version: int) -> Notice:
        """One version.

        Raises:
            UnavailableError: there is none.
        """
        with read(self.engine) as session:
            row = session.exec(_notice(request, version)).first()
        if row is None:
            raise _unknown(request)
        return _read(row)

    def notices(self, request: str) -> list[Notice]:
        """Every version of a request, oldest first."""
        with read(self.engine) as session:
            query = select(WebNotice).where(col(WebNotice.request) == request).order_by(col(WebNotice.version))
            return [_read(row) for row in session.exec(query)]

    def hand_out(self, document_hash: str, draft: Draft) -> None:
        """Remember a document that somebody is about to sign."""
        now = self._clock()
        with write(self.engine) as session:
            session.exec(delete(WebDraft).where(col(WebDraft.expires_at) <= format_instant(now)))
            session.merge(
                WebDraft(
                    hash=document_hash,
                    ref=draft.ref,
                    request=draft.request,
                    version=draft.version,
                    language=draft.language,
                    answers=json.dumps(dict(draft.answers), sort_keys=True) if draft.answers else "",
                    expires_at=format_instant(now + DRAFT),
                )
            )

    def handed_out(self, document_hash: str, ref: str) -> Draft | None:
        """What a signed document answers, if it was handed out to this person not long ago."""
        with read(self.engine) as session:
            row = session.get(WebDraft, document_hash)
        if row is None or row.ref != ref or self._clock() >= parse_instant(row.expires_at):
            return None
        answers = json.loads(row.answers) if row.answers else {}
        return Draft(row.ref, row.request, row.version, row.language, answers)

    def answered(self, digest: str, draft: Draft) -> None:
        """Remember what a stored record answered; a withdrawal answers no request."""
        if draft.request is None or draft.version is None or draft.language is None:
            return
        with write(self.engine) as session:
            session.merge(
                WebAnswer(
                    digest=digest,
                    ref=draft.ref,
                    request=draft.request,
                    version=draft.version,
                    language=draft.language,
                    answers=json.dumps(dict(draft.answers), sort_keys=True),
                    answered_at=format_instant(self._clock()),
                )
            )

    def answers(self, *, ref: str | None = None, request: str | None = None) -> list[Answer]:
        """What was answered, oldest first: by one person, or to one request."""
        query = select(WebAnswer).order_by(col(WebAnswer.answered_at), col(WebAnswer.digest))
        if ref is not None:
            query = query.where(col(WebAnswer.ref) == ref)
        if request is not None:
            query = query.where(col(WebAnswer.request) == request)
        with read(self.engine) as session:
            rows = session.exec(query).all()
        return [
            Answer(
                digest=row.digest,
                ref=row.ref,
                request=row.request,
                version=row.version,
                language=row.language,
                answers=json.loads(row.answers),
                answered_at=parse_instant(row.answered_at),
            )
            for row in rows
        ]

    def ref_of(self, did: str) -> str | None:
        """Under which name a key speaks; None if it does not."""
        with read(self.engine) as session:
            row = session.exec(select(ConsentSubject).where(col(ConsentSubject.did) == did)).first()
        return None if row is None else row.ref

    def did_of(self, ref: str) -> str | None:
        """Which key speaks for a name; None if there is no record under it."""
        with read(self.engine) as session:
            row = session.get(ConsentSubject, ref)
        return None if row is None else row.did

    def chain(self, ref: str) -> list[tuple[bytes, datetime]]:
        """A person's records, oldest first, each with when the registry received it."""
        query = select(StoredRecord).where(col(StoredRecord.ref) == ref).order_by(col(StoredRecord.seq))
        with read(self.engine) as session:
            return [(row.data, parse_instant(row.received_at)) for row in session.exec(query)]

    def belongs_to(self, digest: str, ref: str) -> bool:
        """Whether a stored record is this person's."""
        with read(self.engine) as session:
            row = session.get(StoredRecord, digest)
        return row is not None and row.ref == ref


def _notice(request: str, version: int) -> SelectOfScalar[WebNotice]:
    return select(WebNotice).where(col(WebNotice.request) == request, col(WebNotice.version) == version)


@lru_cache(maxsize=64)
def _parsed(data: bytes) -> ConsentRequest:
    """A version never changes, and every page needs it."""
    return ConsentRequest.model_validate_json(data)


def _read(row: WebNotice) -> Notice:
    try:
        asked = _parsed(row.data)
    except ValueError as error:
        raise OperatorError(
            f"Version {row.version} of the request {row.request} is damaged.", remedy="Restore your backup."
        ) from error
    return Notice(row.request, row.version, asked, row.change, parse_instant(row.published_at))


def _unknown(request: str) -> UnavailableError:
    return UnavailableError(f"There is no request {request[:80]!r}.", remedy="`accord consent serve` lists requests.")
