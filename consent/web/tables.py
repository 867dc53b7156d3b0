"""The consent pages' own tables, beside the registry's in one database.

Nobody can sign in with what they hold: of every token only the SHA-256 is kept.
"""

from typing import Final

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from consent.web.officer_tables import OFFICER_TABLES


class WebRequest(SQLModel, table=True):
    """A consent request and its newest published version (0: none yet); ``closed`` asks nobody any more."""

    __tablename__ = "web_request"

    id: str = Field(primary_key=True)
    version: int = 0
    created_at: str
    closed_at: str | None = None


class WebNotice(SQLModel, table=True):
    """One published version of a request: the canonical bytes of a ``ConsentRequest``, and what changed."""

    __tablename__ = "web_notice"
    __table_args__ = (UniqueConstraint("request", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    request: str = Field(index=True)
    version: int
    data: bytes
    change: str = ""
    published_at: str


class WebInvitation(SQLModel, table=True):
    """A one-time invitation. ``role`` person: ``ref`` is the person's local name; officer: ``ref`` is empty."""

    __tablename__ = "web_invitation"

    token: str = Field(primary_key=True)
    role: str
    ref: str = ""
    request: str | None = None
    created_at: str
    expires_at: str
    used_at: str | None = None


class WebSession(SQLModel, table=True):
    """Somebody who is signed in on one browser."""

    __tablename__ = "web_session"

    token: str = Field(primary_key=True)
    role: str
    ref: str = Field(default="", index=True)
    request: str | None = None
    created_at: str
    seen_at: str
    expires_at: str


class WebChallenge(SQLModel, table=True):
    """A random challenge that a key or a passkey has to answer, once."""

    __tablename__ = "web_challenge"

    token: str = Field(primary_key=True)
    purpose: str
    ref: str = ""
    expires_at: str


class WebDraft(SQLModel, table=True):
    """A document that was handed out for signing: only what was handed out is taken back, once.

    ``hash`` is the SHA-256 of the document's canonical bytes. ``answers``: JSON of the choices, empty for a withdrawal.
    """

    __tablename__ = "web_draft"

    hash: str = Field(primary_key=True)
    ref: str = Field(index=True)
    request: str | None = None
    version: int | None = None
    language: str | None = None
    answers: str = ""
    expires_at: str


class WebAnswer(SQLModel, table=True):
    """Which version of which notice, in which language, a stored record answered, and how."""

    __tablename__ = "web_answer"

    digest: str = Field(primary_key=True)
    ref: str = Field(index=True)
    request: str = Field(index=True)
    version: int
    language: str
    answers: str
    answered_at: str


class WebGuardian(SQLModel, table=True):
    """Who speaks, or spoke, for a person; ``until`` from when on the person does, ``ended_at`` if it is over."""

    __tablename__ = "web_guardian"

    id: int | None = Field(default=None, primary_key=True)
    ref: str = Field(index=True)
    name: str
    relation: str
    until: str
    did: str | None = Field(default=None, index=True)
    appointed_at: str
    ended_at: str | None = None


class WebPasskey(SQLModel, table=True):
    """A passkey of a person (``digest`` None), or the gesture made for one record, kept as evidence."""

    __tablename__ = "web_passkey"

    id: int | None = Field(default=None, primary_key=True)
    ref: str = Field(index=True)
    credential: str = Field(index=True)
    public_key: bytes = b""
    sign_count: int = 0
    digest: str | None = Field(default=None, index=True)
    evidence: str = ""
    made_at: str


class WebProfile(SQLModel, table=True):
    """How the institution presents itself to people, and where its pages were served last (one row)."""

    __tablename__ = "web_profile"

    id: int = Field(default=1, primary_key=True)
    name: str
    contact: str
    address: str


WEB_TABLES: Final[tuple[type[SQLModel], ...]] = (
    WebRequest,
    WebNotice,
    WebInvitation,
    WebSession,
    WebChallenge,
    WebDraft,
    WebAnswer,
    WebGuardian,
    WebPasskey,
    WebProfile,
    *OFFICER_TABLES,
)
