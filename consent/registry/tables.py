"""The registry's tables. A record and its salt stand in one row: erasing it erases the person, from the log too."""

from typing import Final

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from federation.storage.log import LogCheckpoint, LogEntry

LOG_NAME: Final = "consent"
LICENCE_REF: Final = "*"


class ConsentSubject(SQLModel, table=True):
    """Who a local name is, and the newest record that was acknowledged for it."""

    __tablename__ = "consent_subject"

    ref: str = Field(primary_key=True)
    did: str = Field(unique=True)
    seq: int
    digest: str


class StoredRecord(SQLModel, table=True):
    """A record, the salt of its commitment, and the batch that carries it (None: pending)."""

    __tablename__ = "consent_record"
    __table_args__ = (UniqueConstraint("ref", "seq"),)

    digest: str = Field(primary_key=True)
    ref: str = Field(foreign_key="consent_subject.ref", index=True)
    seq: int
    action: str
    data: bytes
    salt: bytes
    received_at: str
    batch: int | None = Field(default=None, index=True)


class ConsentBatch(SQLModel, table=True):
    """A closed batch and where it stands in the log (None: to be appended, after a crash too)."""

    __tablename__ = "consent_batch"

    number: int = Field(primary_key=True)
    data: bytes
    log_index: int | None = Field(default=None, index=True)


class ConsentClock(SQLModel, table=True):
    """The latest moment that this registry has seen (one row)."""

    __tablename__ = "consent_clock"

    id: int = Field(default=1, primary_key=True)
    last_seen: str


TABLES: Final[tuple[type[SQLModel], ...]] = (
    ConsentSubject,
    StoredRecord,
    ConsentBatch,
    ConsentClock,
    LogEntry,
    LogCheckpoint,
)
