"""Invitations, sessions and challenges: random tokens of which only the hash is stored.

Rules kept: a token is used once, also when two requests race for it; it expires; a session expires when it is idle and
after an absolute time, whatever happens; signing in always makes a fresh session (none can be planted).
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session as Transaction
from sqlmodel import col, delete, select

from consent.web.tables import WebChallenge, WebInvitation, WebSession
from federation.rules.instant import format_instant, parse_instant
from federation.storage.database import read, write

IDLE_DEFAULT: Final = timedelta(minutes=30)
ABSOLUTE_DEFAULT: Final = timedelta(hours=12)
INVITATION_DEFAULT: Final = timedelta(days=14)
CHALLENGE: Final = timedelta(minutes=10)
_TOUCH_EVERY: Final = timedelta(seconds=30)
# Crockford's base 32: no I, L, O, U, so that a code on paper is read and typed without doubt. 26 digits are 130 bits.
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_DIGITS: Final = 26
_GROUP: Final = 5


class Role(StrEnum):
    """Whose session it is: a person's (patient or device owner), or the institution's data protection officer's."""

    PERSON = "person"
    OFFICER = "officer"


class Opened(StrEnum):
    """Why an invitation did not open."""

    UNKNOWN = "unknown"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in. ``ref`` is the person's local name, empty for an officer."""

    role: Role
    ref: str
    request: str | None
    expires_at: datetime


class Sessions:
    """Tokens of one institution's pages, in its database.

    Args:
        engine: the registry's database, opened with the tables of :mod:`consent.web.tables`.
        clock: the machine's clock, aware.
        idle: a session ends after this long without a request.
        absolute: a session ends after this long, whatever happens.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime],
        idle: timedelta = IDLE_DEFAULT,
        absolute: timedelta = ABSOLUTE_DEFAULT,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._idle = idle
        self._absolute = absolute

    def invite(
        self, role: Role, ref: str = "", *, request: str | None = None, lasts: timedelta = INVITATION_DEFAULT
    ) -> tuple[str, datetime]:
        """A fresh one-time code, and until when it opens. The code is nowhere else: it cannot be shown again."""
        digits = "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_DIGITS))
        now = self._clock()
        until = now + lasts
        with write(self._engine) as session:
            session.add(
                WebInvitation(
                    token=hashed(digits),
                    role=role.value,
                    ref=ref,
                    request=request,
                    created_at=format_instant(now),
                    expires_at=format_instant(until),
                )
            )
        return "-".join(digits[at : at + _GROUP] for at in range(0, _CODE_DIGITS, _GROUP)), until

    def open_invitation(self, code: str) -> tuple[str, SignedIn] | Opened:
        """Use up an invitation: a session's token and who it is, or why not. Of two that race one wins."""
        token = hashed(plain_code(code))
        now = self._clock()
        with write(self._engine) as session:
            row = session.get(WebInvitation, token)
            if row is None:
                return Opened.UNKNOWN
            if row.used_at is not None:
                return Opened.USED
            if now >= parse_instant(row.expires_at):
                return Opened.EXPIRED
            row.used_at = format_instant(now)
            session.add(row)
            return self._begin(session, Role(row.role), row.ref, row.request, now)

    def begin(self, role: Role, ref: str, request: str | None = None) -> tuple[str, SignedIn]:
        """A fresh session for somebody who proved who they are; its token, which goes into their cookie only."""
        with write(self._engine) as session:
            return self._begin(session, role, ref, request, self._clock())

    def who(self, token: str | None) -> SignedIn | None:
        """Who holds this session's token; None if nobody does, or not any more."""
        if not token:
            return None
        now = self._clock()
        with read(self._engine) as session:
            row = session.get(WebSession, hashed(token))
        if row is None or now >= parse_instant(row.expires_at) or now >= parse_instant(row.seen_at) + self._idle:
            return None
        if now >= parse_instant(row.seen_at) + min(_TOUCH_EVERY, self._idle / 4):
            self._touch(row.token, now)
        return SignedIn(Role(row.role), row.ref, row.request, parse_instant(row.expires_at))

    def end(self, token: str | None) -> None:
        """Log out: the token opens nothing from now on."""
        if token:
            with write(self._engine) as session:
                session.exec(delete(WebSession).where(col(WebSession.token) == hashed(token)))

    def end_all(self, ref: str) -> None:
        """Log a person out everywhere."""
        with write(self._engine) as session:
            session.exec(
                delete(WebSession).where(col(WebSession.ref) == ref, col(WebSession.role) == Role.PERSON.value)
            )

    def revoke(self, ref: str, before: datetime | None = None) -> None:
        """Log a person out everywhere; links that were made for them (``before`` then) open nothing any more."""
        self.end_all(ref)
        now = format_instant(self._clock())
        with write(self._engine) as session:
            rows = session.exec(
                select(WebInvitation).where(
                    col(WebInvitation.ref) == ref,
                    col(WebInvitation.role) == Role.PERSON.value,
                    col(WebInvitation.expires_at) > now,
                )
            )
            for row in rows:
                if before is None or parse_instant(row.created_at) < before:
                    row.expires_at = now
                    session.add(row)

    def invited(self, code: str) -> str:
        """The local name of the person whom an invitation is for; empty for an officer's, or if there is none."""
        with read(self._engine) as session:
            row = session.get(WebInvitation, hashed(plain_code(code)))
        return "" if row is None else row.ref

    def challenge(self, purpose: str, ref: str = "") -> str:
        """A random text that has to be answered within ten minutes, once, for ``purpose``."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        with write(self._engine) as session:
            session.exec(delete(WebChallenge).where(col(WebChallenge.expires_at) <= format_instant(now)))
            expires = format_instant(now + CHALLENGE)
            session.add(WebChallenge(token=hashed(token), purpose=purpose, ref=ref, expires_at=expires))
        return token

    def answered(self, token: str, purpose: str, ref: str = "") -> bool:
        """Use up a challenge: whether it was made for this, is still fresh, and had not been used."""
        with write(self._engine) as session:
            row = session.get(WebChallenge, hashed(token))
            if row is None:
                return False
            session.delete(row)
            fresh = self._clock() < parse_instant(row.expires_at)
            return fresh and row.purpose == purpose and row.ref == ref

    def pending_invitations(self, ref: str) -> int:
        """How many invitations of a person could still be opened."""
        now = format_instant(self._clock())
        with read(self._engine) as session:
            query = select(WebInvitation).where(
                col(WebInvitation.ref) == ref, col(WebInvitation.used_at).is_(None), col(WebInvitation.expires_at) > now
            )
            return len(session.exec(query).all())

    def _begin(
        self, session: Transaction, role: Role, ref: str, request: str | None, now: datetime
    ) -> tuple[str, SignedIn]:
        token = secrets.token_urlsafe(32)
        until = now + self._absolute
        session.exec(delete(WebSession).where(col(WebSession.expires_at) <= format_instant(now)))
        session.add(
            WebSession(
                token=hashed(token),
                role=role.value,
                ref=ref,
                request=request,
                created_at=format_instant(now),
                seen_at=format_instant(now),
                expires_at=format_instant(until),
            )
        )
        return token, SignedIn(role, ref, request, until)

    def _touch(self, token: str, now: datetime) -> None:
        with write(self._engine) as session:
            row = session.get(WebSession, token)
            if row is not None:  # logged out in the meantime
                row.seen_at = format_instant(now)
                session.add(row)


def hashed(token: str) -> str:
    """What is stored of a token. It is random and long, so a plain hash suffices."""
    return hashlib.sha256(b"accord-web-token\x00" + token.encode("utf-8")).hexdigest()


def plain_code(code: str) -> str:
    """An invitation's code as typed: hyphens and blanks are free, O reads as 0, I and L as 1."""
    letters = "".join(code.split()).replace("-", "").upper()
    return letters.translate(str.maketrans("OIL", "011"))[: 2 * _CODE_DIGITS]
