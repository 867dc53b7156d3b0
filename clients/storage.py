"""What an institution's node keeps in its database: budget, data sets, studies, uses of rows, updates, offers.

Everything here stays inside the institution. The tables of the consent registry live in the same file and are declared
by ``consent.registry``; how a database is opened, checked and locked is ``federation.storage.database``'s business.
Instants are texts in the wire form (``federation.rules.instant``), decimals and JSON are canonical texts.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, UniqueConstraint
from sqlalchemy.engine import Engine
from sqlmodel import Field, Session, SQLModel

from federation.errors import OperatorError
from federation.settings import load_settings
from federation.storage.database import memory_database, open_database
from federation.storage.outbox import OutgoingDocument

DATABASE_NAME: Final = "accord.db"


COMPARISON: Final = 0
"""The round number under which the comparison of people, before the first round, is charged and written down."""


class BudgetEntry(SQLModel, table=True):
    """One row of the privacy budget's hash chain (written by ``clients.privacy.budget`` only, never changed).

    Row 0 fixes the terms; every later row is one transition of one attempt at a (study, round).
    """

    __tablename__ = "budget_entry"
    __table_args__ = (UniqueConstraint("study", "round", "attempt", "state"),)

    seq: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    study: str
    round: int
    attempt: int
    state: str
    event: str
    at: str
    previous: str
    hash: str


class Dataset(SQLModel, table=True):
    """A registered file: where it is, what it was when it was registered, whose rows it holds."""

    __tablename__ = "dataset"

    name: str = Field(primary_key=True)
    path: str
    sha256: str
    size_bytes: int
    subject_column: str
    added_at: str


class StudyMembership(SQLModel, table=True):
    """A study that this institution was invited to, with the documents that bind it.

    ``plan`` and ``agreement`` are signed envelopes, byte for byte as received and sent; ``agreement`` is empty until
    the institution signs, ``revocation`` until it ends the agreement. ``coordinator`` is a did:key, ``address`` a full
    multiaddress ending in its peer id, ``token`` the invitation's one-time token. ``status``: ``invited``, ``agreed``,
    ``revoked`` or ``finished``.
    """

    __tablename__ = "study_membership"

    study: str = Field(primary_key=True)
    plan: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    coordinator: str
    address: str
    site: str
    token: str = ""
    agreement: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    revocation: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    status: str = "invited"
    dataset: str = ""
    joined_at: str = ""


class RoundUse(SQLModel, table=True):
    """Which rows one round was permitted to use: the node's own record, for its officers and auditors.

    ``eligible`` counts subjects permitted in that round, before sampling; ``counts`` (JSON) counts all subjects by
    status; ``subjects`` (JSON list) names the eligible ones; ``salt`` and ``rows_commitment`` (hex) are those of
    ``clients.selection.RowsUsed``. None of the exact figures leaves the node.
    """

    __tablename__ = "round_use"

    study: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    decided_at: str
    eligible: int
    counts: str
    subjects: str
    salt: str
    rows_commitment: str
    dataset_sha256: str
    noisy_count: str = ""


class StoredUpdate(SQLModel, table=True):
    """The one update of a (study, round): what is sent, and sent again after a crash, unchanged.

    ``payload`` is the packed fixed-point update (already noised: it may leave), ``commitment`` and ``envelope`` the
    signed documents that were built from it, ``nonce`` (hex) the commitment's, persisted before anything is sent.
    """

    __tablename__ = "stored_update"

    study: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    base_sha256: str
    update_sha256: str
    nonce: str
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    commitment: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    envelope: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    created_at: str = ""


class StoredScores(SQLModel, table=True):
    """What this institution scored on a study's panel: sent, and sent again after a crash, unchanged.

    ``commitment`` and ``envelope`` are the signed documents; the scores inside are noised already and may leave, once
    commitments are closed.
    """

    __tablename__ = "stored_scores"

    study: str = Field(primary_key=True)
    commitment: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    envelope: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: str


class OwnOffer(SQLModel, table=True):
    """What this institution offered in one market: price (micro-credits) and nonce (hex) stay here until it opens them.

    ``document`` is the signed call, ``sealed`` the signed sealed price; ``sealed_list`` and ``opened`` the list that it
    was opened for and the signed opening, empty until then. All of them byte for byte.
    """

    __tablename__ = "own_offer"

    call: str = Field(primary_key=True)
    document: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    price: int = Field(sa_column=Column(BigInteger, nullable=False))
    nonce: str
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    sealed_list: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    opened: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    made_at: str


class AppRelease(SQLModel, table=True):
    """A data set that an officer released to one Flower app (written by ``clients.apps.release`` only).

    ``code_hash`` and ``dataset_sha256`` (hex) are what was approved; ``coordinator`` is the did:key that replies go to;
    ``settings`` is a JSON object; ``revoked_at`` is empty while the release stands.
    """

    __tablename__ = "app_release"

    number: int | None = Field(default=None, primary_key=True)
    code_hash: str = Field(index=True)
    dataset: str
    dataset_sha256: str
    coordinator: str
    address: str
    purpose: str
    memory_mib: int
    seconds: int
    disk_mib: int
    settings: str
    released_at: str
    revoked_at: str = ""


class AppReply(SQLModel, table=True):
    """One reply of an app that left the institution: when, how large, and the SHA-256 (hex) of its content."""

    __tablename__ = "app_reply"

    number: int | None = Field(default=None, primary_key=True)
    release: int = Field(index=True)
    at: str
    message_type: str
    size_bytes: int
    sha256: str


class KeyValue(SQLModel, table=True):
    """Small facts that must survive a restart, such as the budget chain's head."""

    __tablename__ = "key_value"

    key: str = Field(primary_key=True)
    value: str


NODE_TABLES: Final[tuple[type[SQLModel], ...]] = (
    BudgetEntry,
    Dataset,
    StudyMembership,
    RoundUse,
    StoredUpdate,
    StoredScores,
    OwnOffer,
    AppRelease,
    AppReply,
    OutgoingDocument,
    KeyValue,
)


def open_node(folder: Path, *more_tables: type[SQLModel]) -> Engine:
    """Open the node's database ``FOLDER/accord.db`` (made on first use).

    Args:
        folder: the party's folder.
        more_tables: tables of other packages that live in the same file (the consent registry's).

    Raises:
        OperatorError: the file is corrupted, not a database, or of another version.
    """
    return open_database(folder / DATABASE_NAME, *NODE_TABLES, *more_tables)


def open_institution(folder: Path, *more_tables: type[SQLModel]) -> Engine:
    """As :func:`open_node`, for commands: first make sure that an institution lives in the folder.

    Raises:
        OperatorError: no party, or a coordinator, lives there; or as :func:`open_node`.
    """
    if load_settings(folder).role != "node":
        raise OperatorError(
            f"A coordinator lives in {folder}; it holds no data and no privacy budget.",
            remedy="Give --dir the folder of an institution's node.",
        )
    return open_node(folder, *more_tables)


def memory_node(*more_tables: type[SQLModel]) -> Engine:
    """The in-memory twin of :func:`open_node`."""
    return memory_database(*NODE_TABLES, *more_tables)


def sketch_key(study: str) -> str:
    """Under which key of :class:`KeyValue` a study's noised sketch is kept, once it may leave."""
    return f"overlap/{study}/sketch"


def recall(session: Session, key: str) -> str | None:
    """The value stored under ``key``, or None where there is none yet."""
    row = session.get(KeyValue, key)
    return None if row is None else row.value


def remember(session: Session, key: str, value: str) -> None:
    """Store ``value`` under ``key`` in the caller's transaction."""
    session.merge(KeyValue(key=key, value=value))
