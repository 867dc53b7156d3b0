"""The registry's tables. A record and its salt stand in one row: erasing it erases the person, from the log too.

Who is a person here is a local name (``ref``). Every table that mentions a name is in :data:`PERSONAL`, so that erasure
forgets none. Instants that people read are texts in the wire form; those that are measured are microseconds (POSIX).

Whatever changes a record or a head, by whatever way, leaves the name and a number in :class:`ConsentChange`: the
database's own triggers see to it. A process that remembers decisions asks for the names with a newer number.
"""

from typing import Final

from sqlalchemy import DDL, BigInteger, Table, UniqueConstraint, event
from sqlalchemy.schema import ExecutableDDLElement
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


class ConsentKey(SQLModel, table=True):
    """Every key that ever spoke for a name: a key stays with its name when the name goes on to another key."""

    __tablename__ = "consent_key"

    did: str = Field(primary_key=True)
    ref: str = Field(index=True)


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


class ConsentState(SQLModel, table=True):
    """What the registry counts (one row, made with the table).

    ``changes`` numbers the changes of records and heads, ``epoch`` the erasures, ``rules`` the changes of witnesses and
    notices. ``batched_at`` is when the newest batch was closed (empty: never), ``quorum`` how many witnesses must
    cosign before a grant binds (0: it binds from its receipt).
    """

    __tablename__ = "consent_state"

    id: int = Field(default=1, primary_key=True)
    changes: int = Field(default=0, sa_type=BigInteger)
    epoch: int = Field(default=0, sa_type=BigInteger)
    rules: int = Field(default=0, sa_type=BigInteger)
    batched_at: str = ""
    quorum: int = 0


class ConsentChange(SQLModel, table=True):
    """The number of the newest change under a name; written by triggers only."""

    __tablename__ = "consent_change"

    ref: str = Field(primary_key=True)
    number: int = Field(sa_type=BigInteger, index=True)


class ConsentWitness(SQLModel, table=True):
    """A witness that the registry names."""

    __tablename__ = "consent_witness"

    did: str = Field(primary_key=True)


class ConsentCosignature(SQLModel, table=True):
    """A witness's newest cosignature over one size of the consent log; ``cosigned_at`` in POSIX seconds."""

    __tablename__ = "consent_cosignature"

    size: int = Field(primary_key=True)
    witness: str = Field(primary_key=True)
    cosigned_at: int = Field(sa_type=BigInteger)
    signature: bytes


class ConsentNotice(SQLModel, table=True):
    """A notice (SHA-256 of its text) that a materially different one replaced: grants given on it no longer count."""

    __tablename__ = "consent_notice"

    sha256: str = Field(primary_key=True)


class ConsentApproval(SQLModel, table=True):
    """A person's signed finding (:mod:`consent.rules.approval`); ``revoked_at`` is empty while it counts."""

    __tablename__ = "consent_approval"

    identifier: str = Field(primary_key=True)
    plan_hash: str = Field(index=True)
    document: bytes
    revoked_at: str = ""


class ConsentStudy(SQLModel, table=True):
    """What people are shown of a study, and what was passed on to them.

    ``spent`` is the epsilon spent so far (a decimal text). ``pool`` is the amount that was to be shared among
    ``persons``, ``part`` what each of them got, all in micro-credits; None until something is passed on.
    """

    __tablename__ = "consent_study"

    study: str = Field(primary_key=True)
    title: str = ""
    plan: bytes = b""
    epsilon: str = ""
    delta: str = ""
    spent: str = "0"
    persons: int | None = None
    pool: int | None = Field(default=None, sa_type=BigInteger)
    part: int | None = Field(default=None, sa_type=BigInteger)


class ConsentRound(SQLModel, table=True):
    """One decision about who is eligible in a round. ``ordinal`` counts the decisions of a study from 1.

    ``change`` is the newest change that the decision knew.
    """

    __tablename__ = "consent_round"

    study: str = Field(primary_key=True)
    ordinal: int = Field(primary_key=True)
    round: int
    state: str
    change: int = Field(sa_type=BigInteger)
    decided_us: int = Field(sa_type=BigInteger)
    finished_us: int | None = Field(default=None, sa_type=BigInteger)


class ConsentEligible(SQLModel, table=True):
    """A name was eligible in a study's decisions ``first`` to ``last`` (None: up to the newest)."""

    __tablename__ = "consent_eligible"

    study: str = Field(primary_key=True)
    ref: str = Field(primary_key=True, index=True)
    first: int = Field(primary_key=True)
    last: int | None = None


class ConsentModel(SQLModel, table=True):
    """The model that a study had after a round (SHA-256)."""

    __tablename__ = "consent_model"

    study: str = Field(primary_key=True)
    round: int = Field(primary_key=True)
    sha256: str


class ConsentCredit(SQLModel, table=True):
    """What was passed on to a name from a study, in micro-credits."""

    __tablename__ = "consent_credit"

    study: str = Field(primary_key=True)
    ref: str = Field(primary_key=True, index=True)
    microcredits: int = Field(sa_type=BigInteger)


class ConsentWithdrawal(SQLModel, table=True):
    """When a withdrawal was received, and when the next decision about a round knew of it (None: not yet)."""

    __tablename__ = "consent_withdrawal"

    digest: str = Field(primary_key=True)
    ref: str = Field(index=True)
    received_us: int = Field(sa_type=BigInteger)
    decided_us: int | None = Field(default=None, sa_type=BigInteger, index=True)


class ConsentInFlight(SQLModel, table=True):
    """A round that was in flight, with the person eligible, when their withdrawal was received."""

    __tablename__ = "consent_in_flight"

    digest: str = Field(primary_key=True)
    study: str = Field(primary_key=True)
    ordinal: int = Field(primary_key=True)
    ref: str = Field(index=True)


PERSONAL: Final[tuple[type[SQLModel], ...]] = (
    ConsentInFlight,
    ConsentWithdrawal,
    ConsentCredit,
    ConsentEligible,
    StoredRecord,
    ConsentSubject,
    ConsentKey,
    ConsentChange,
)
"""The tables with a column ``ref``, in an order in which their rows can be deleted."""

TABLES: Final[tuple[type[SQLModel], ...]] = (
    ConsentSubject,
    ConsentKey,
    StoredRecord,
    ConsentBatch,
    ConsentClock,
    ConsentState,
    ConsentChange,
    ConsentWitness,
    ConsentCosignature,
    ConsentNotice,
    ConsentApproval,
    ConsentStudy,
    ConsentRound,
    ConsentEligible,
    ConsentModel,
    ConsentCredit,
    ConsentWithdrawal,
    ConsentInFlight,
    LogEntry,
    LogCheckpoint,
)


def _table(model: type[SQLModel]) -> Table:
    table: Table = vars(model)["__table__"]
    return table


_NOTE: Final = """
    UPDATE consent_state SET changes = changes + 1;
    INSERT INTO consent_change (ref, number) VALUES ({row}.ref, (SELECT changes FROM consent_state))
    ON CONFLICT (ref) DO UPDATE SET number = excluded.number;
"""
_WATCHED: Final = (("consent_record", "digest, ref, seq, data"), ("consent_subject", "ref, seq, digest"))


def _sqlite_triggers() -> list[str]:
    new, old = _NOTE.format(row="NEW"), _NOTE.format(row="OLD")
    return [
        f"CREATE TRIGGER {table}_{name} AFTER {what} ON {table} BEGIN {body} END"
        for table, columns in _WATCHED
        for name, what, body in (
            ("added", "INSERT", new),
            ("changed", f"UPDATE OF {columns}", old + new),
            ("removed", "DELETE", old),
        )
    ]


def _postgresql_triggers() -> list[str]:
    new, old = _NOTE.format(row="NEW"), _NOTE.format(row="OLD")
    function = (
        "CREATE FUNCTION accord_consent_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP <> 'INSERT' THEN {old} END IF;"
        f" IF TG_OP <> 'DELETE' THEN {new} END IF;"
        " RETURN NULL; END $$"
    )
    triggers = [
        f"CREATE TRIGGER {table}_changed AFTER INSERT OR DELETE OR UPDATE OF {columns} ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION accord_consent_change()"
        for table, columns in _WATCHED
    ]
    return [function, *triggers]


def _ddl(statement: str, dialect: str | None = None) -> ExecutableDDLElement:
    element: ExecutableDDLElement = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    return element if dialect is None else element.execute_if(dialect=dialect)


def _watch() -> None:
    """The triggers are made with the table that they write, which is made after the tables that they watch."""
    change = _table(ConsentChange)
    for model in (StoredRecord, ConsentSubject, ConsentState):
        change.add_is_dependent_on(_table(model))
    first = "INSERT INTO consent_state (id, changes, epoch, rules, batched_at, quorum) VALUES (1, 0, 0, 0, '', 0)"
    event.listen(_table(ConsentState), "after_create", _ddl(first))
    for dialect, statements in (("sqlite", _sqlite_triggers()), ("postgresql", _postgresql_triggers())):
        for statement in statements:
            event.listen(change, "after_create", _ddl(statement, dialect))


_watch()
