"""A party's SQLite database: one durable file, safe with several threads and several processes at once.

Rules kept here: a commit is on disk before it returns (WAL with ``synchronous=FULL``); a transaction that writes takes
the write lock at its beginning (``BEGIN IMMEDIATE``), so that what it read stays true until it commits; the file is
only its owner's (0600); a file that is damaged, foreign or of another version is refused with its name, never mended
silently.
Tables are SQLModel classes of the modules that own them. Open transactions only with :func:`read` and :func:`write`.
"""

import contextlib
import os
import sqlite3
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, SQLModel

from federation.errors import AccordError, OperatorError, UnavailableError

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = int.from_bytes(b"Acrd", "big")
BUSY_TIMEOUT_MS: Final = 30_000
_NAME: Final = "accord_name"
_FILE_MODE: Final = 0o600
_WAL_ATTEMPTS: Final = 50
_OPEN_SESSIONS: Final = threading.local()


def open_database(path: Path, *tables: type[SQLModel]) -> Engine:
    """Open the database at ``path``, creating the file and any missing one of ``tables``.

    Raises:
        OperatorError: the file is damaged, is not a database of Accord, is of another version, or cannot be opened.
        UnavailableError: another process holds it for longer than 30 s.
    """
    return _opened(path, tables, synchronous="FULL")


def memory_database(*tables: type[SQLModel]) -> Engine:
    """The twin of :func:`open_database` that keeps nothing: it vanishes with its engine and never waits for a disk.

    SQLite's own ``:memory:`` databases cannot be shared between threads with the same isolation, so this one is a file
    that nobody else sees, without any sync.
    """
    folder = tempfile.TemporaryDirectory(prefix="accord-", ignore_cleanup_errors=True)
    engine = _opened(Path(folder.name) / "memory.db", tables, synchronous="OFF")
    weakref.finalize(engine, folder.cleanup)
    return engine


@contextlib.contextmanager
def write(engine: Engine) -> Iterator[Session]:
    """A session that holds the write lock from its first line; it commits at the end, or rolls back on any error.

    Do the slow work before: every other writer waits. Another :func:`write` inside a session of the same database and
    thread would wait for itself, so it raises ``RuntimeError`` at once.

    Raises:
        OperatorError: the database is damaged, read-only, or the disk is full.
        UnavailableError: another process holds the write lock for longer than 30 s.
    """
    if _depths().get(id(engine), 0):
        raise RuntimeError("a write inside an open session of the same database would wait for itself")
    with _session(engine, writing=True) as session:
        yield session


@contextlib.contextmanager
def read(engine: Engine) -> Iterator[Session]:
    """A session that sees one consistent state and changes nothing.

    Raises:
        OperatorError: the database is damaged.
    """
    with _session(engine, writing=False) as session:
        yield session


def scrub(engine: Engine) -> None:
    """Leave no byte of what was deleted in the database's files.

    Raises:
        UnavailableError: another process is in the middle of a read, so that old pages must stay; try again later.
    """
    with _translated(database_name(engine)), engine.connect() as connection:
        driver = connection.connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            raise TypeError("not SQLite")
        driver.execute("VACUUM")
        busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise UnavailableError(
            f"The database {database_name(engine)} is in use: what was deleted is still in its files.",
            remedy="Ask for the erasure again in a moment.",
        )


def database_name(engine: Engine) -> str:
    """The file that ``engine`` stands for, as errors name it."""
    return str(engine.get_execution_options()[_NAME])


@contextlib.contextmanager
def _session(engine: Engine, *, writing: bool) -> Iterator[Session]:
    depths = _depths()
    depths[id(engine)] = depths.get(id(engine), 0) + 1
    try:
        with (
            _translated(database_name(engine)),
            engine.connect().execution_options(accord_writing=writing) as connection,
            Session(connection, expire_on_commit=False) as session,
            session.begin(),
        ):
            session.connection()  # begins now, so that the lock is held from the first line
            yield session
            if not writing:
                session.expunge_all()  # what was read stays readable afterwards
                session.rollback()
    finally:
        depths[id(engine)] -= 1


def _depths() -> dict[int, int]:
    depths: dict[int, int] | None = getattr(_OPEN_SESSIONS, "depths", None)
    if depths is None:
        depths = _OPEN_SESSIONS.depths = {}
    return depths


def _create_file(path: Path) -> None:
    """Create the file for its owner only, before SQLite does it with wider rights.

    An existing file is never opened here: closing it would drop the locks that SQLite holds on it in this process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) != _FILE_MODE:
            path.chmod(_FILE_MODE)
    except OSError as error:
        raise OperatorError(
            f"The database {path} cannot be created: {error.strerror}.",
            remedy="Check that the folder exists, is yours, and that the disk has room.",
        ) from error


def _opened(path: Path, tables: tuple[type[SQLModel], ...], *, synchronous: Literal["FULL", "OFF"]) -> Engine:
    _create_file(path)
    name = str(path)
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False),
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=24,
        execution_options={_NAME: name},
    )
    event.listen(engine, "connect", _on_connect(synchronous))
    event.listen(engine, "begin", _on_begin)
    try:
        with _translated(name):
            with engine.connect().execution_options(accord_writing=False) as connection:
                problems = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
            if problems != ["ok"]:
                raise _damaged(name, "; ".join(str(problem) for problem in problems))
            with engine.connect() as connection, connection.begin():
                _check_version(connection, name)
                SQLModel.metadata.create_all(connection, tables=[vars(table)["__table__"] for table in tables])
    except AccordError:
        engine.dispose()
        raise
    return engine


def _check_version(connection: Connection, name: str) -> None:
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
        return
    if application == APPLICATION_ID:
        raise OperatorError(
            f"The database {name} has version {version}, this Accord reads version {SCHEMA_VERSION}.",
            remedy="Use the version of Accord that wrote it, or one that can migrate it.",
        )
    if application or version or connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one():
        raise OperatorError(
            f"{name} is a database of another program.",
            remedy="Give Accord a folder of its own, or move the file.",
        )
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _on_connect(synchronous: str) -> Callable[[sqlite3.Connection, object], None]:
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the transaction's begin is ours (_on_begin), not the driver's
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _switch_to_wal(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")

    return configure


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Two processes that create the file at once meet here, and SQLite does not wait for this lock by itself."""
    for attempt in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(0.05)
        else:
            return


def _on_begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("accord_writing", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """SQLite's own failures become errors that say who must act; a broken constraint stays what it is."""
    try:
        yield
    except DBAPIError as error:
        translated = _translate(error.orig, name)
        if translated is None:
            raise
        raise translated from error
    except sqlite3.DatabaseError as error:
        translated = _translate(error, name)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Any, name: str) -> AccordError | None:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged(name, str(error))
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UnavailableError(
            f"The database {name} is held by another process.",
            remedy="Wait until that process is done, or end it, and try again.",
        )
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return OperatorError(
            f"The database {name} cannot be used: {error}.",
            remedy="Check that the disk has room and that file and folder are yours to write; nothing was lost.",
        )
    return None


def _damaged(name: str, why: str) -> OperatorError:
    return OperatorError(
        f"The database {name} is damaged or is not a database: {why}.",
        remedy=f"Stop every process that uses it, move {name} (with its -wal and -shm files) aside and restore it from "
        "your backup; a log that others witnessed can be fetched again from them.",
    )
