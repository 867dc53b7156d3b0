"""PostgreSQL by URL, with the guarantees of the party's own file.

One writer at a time in each database: a transaction that writes takes one advisory lock first, at the level READ
COMMITTED, so that its first look at a table comes after the lock; a transaction that reads is REPEATABLE READ and READ
ONLY. A commit is on the server's disk before it returns: ``synchronous_commit`` is set for every connection, and a
server that runs without ``fsync`` is refused, as its receipts would promise what it cannot keep.

What was deleted goes from the tables' files with :func:`scrub`; the server's own write-ahead log and its backups are
its operator's.
"""

from functools import partial
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from federation.errors import AccordError, OperatorError, UnavailableError
from federation.storage.backend import (
    BUSY_TIMEOUT_MS,
    POOL_OVERFLOW_MAX,
    POOL_SIZE,
    SCHEMA_VERSION,
    WRITING,
    Backend,
    other_program,
    other_version,
)

DIALECTS: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
WRITE_LOCK: Final = int.from_bytes(b"Accord", "big")
"""The advisory lock of whoever writes; such locks belong to one database of a server."""
_CONNECT_TIMEOUT_S: Final = 10
_LOCK_NOT_AVAILABLE: Final = "55P03"
_MUST_ACT: Final = ("22", "25006", "28", "3D", "3F", "42501", "53100")
"""SQLSTATEs, or their beginnings, that an operator has to do something about."""
_NOT_NOW: Final = ("08", "40", "53", "55", "57")
"""SQLSTATEs, or their beginnings, of something that may pass by itself."""


def postgresql_engine(url: str) -> tuple[Engine, Backend]:
    """An engine on the database that a URL names, such as ``postgresql://accord@localhost/consent``.

    Raises:
        OperatorError: it is not the URL of a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _not_a_url() from None
    if parsed.drivername not in DIALECTS or not parsed.database:
        raise _not_a_url()
    name = parsed.render_as_string(hide_password=True)
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW_MAX,
        pool_pre_ping=True,
        connect_args={} if "connect_timeout" in parsed.query else {"connect_timeout": _CONNECT_TIMEOUT_S},
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine, Backend(
        name=name,
        errors=(psycopg.Error,),
        translate=partial(_translate, name=name),
        check=partial(_check, name=name),
        claim=partial(_claim, name=name),
        scrub=_scrub,
    )


def _check(connection: Connection, *, name: str) -> None:
    if connection.exec_driver_sql("SHOW fsync").scalar_one() != "on":
        raise OperatorError(
            f"The server of {name} runs without fsync: what it confirms may be lost with the power.",
            remedy="Set fsync = on in its configuration.",
        )
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise OperatorError(
            f"The database {name} has the encoding {encoding}.", remedy="Make it with the encoding UTF8."
        )


def _claim(connection: Connection, *, name: str) -> None:
    tables = set(
        connection.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").scalars()
    )
    if "accord_database" in tables:
        version = connection.exec_driver_sql("SELECT version FROM accord_database").scalar_one()
        if version != SCHEMA_VERSION:
            raise other_version(name, version)
        return
    if tables:
        raise other_program(name)
    connection.exec_driver_sql(
        "CREATE TABLE accord_database (id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL)"
    )
    connection.exec_driver_sql(f"INSERT INTO accord_database VALUES (1, {SCHEMA_VERSION})")  # noqa: S608 - ours


def _scrub(engine: Engine) -> None:
    """Write every table anew without what was deleted."""
    connection = engine.raw_connection()
    try:
        driver: Any = connection.driver_connection
        driver.autocommit = True
        names = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
        for (table,) in driver.execute(names).fetchall():
            driver.execute(f"VACUUM (FULL) {table}")
        driver.autocommit = False
    finally:
        connection.close()


def _on_connect(connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute(f"SET synchronous_commit = on; SET lock_timeout = {BUSY_TIMEOUT_MS}; SET timezone = 'UTC'")
    connection.autocommit = False


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITING, True):
        connection.exec_driver_sql(
            f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({WRITE_LOCK})"
        )
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _translate(error: Any, *, name: str) -> AccordError | None:
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return OperatorError(
                f"The database {name} cannot be reached: {said}.",
                remedy="Check that the server runs, and the host, user, password and database name in the URL.",
            )
        return None
    if state == _LOCK_NOT_AVAILABLE:
        return UnavailableError(
            f"The database {name} is held by another process.",
            remedy="Wait until that process is done, or end it, and try again.",
        )
    if state.startswith(_MUST_ACT):
        return OperatorError(
            f"The database {name} cannot be used: {said}.",
            remedy="Check the database's rights, its name and that its disk has room; nothing was lost.",
        )
    if state.startswith(_NOT_NOW):
        return UnavailableError(
            f"The database {name} does not answer: {said}.", remedy="Wait until the server is back, and try again."
        )
    return None


def _not_a_url() -> OperatorError:
    return OperatorError(
        "The database's URL is not the URL of a PostgreSQL database.",
        remedy="Write it as postgresql://user:password@host:5432/database, or leave it empty for SQLite.",
    )
