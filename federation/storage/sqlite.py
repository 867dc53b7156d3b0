"""A party's own database file: SQLite in WAL mode, durable at every commit, only its owner's.

A file that is damaged, foreign or of another version is refused with its name, never mended silently.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

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

APPLICATION_ID: Final = int.from_bytes(b"Acrd", "big")
_FILE_MODE: Final = 0o600
_WAL_ATTEMPTS: Final = 50
_SCRUB_ATTEMPTS: Final = 40


def sqlite_engine(path: Path, *, synchronous: Literal["FULL", "OFF"]) -> tuple[Engine, Backend]:
    """An engine on the file, which is made if it is missing.

    Raises:
        OperatorError: the file cannot be created.
    """
    create_file(path)
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False),
        poolclass=QueuePool,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW_MAX,
    )
    event.listen(engine, "connect", _on_connect(synchronous))
    event.listen(engine, "begin", _on_begin)
    name = str(path)
    return engine, Backend(
        name=name,
        errors=(sqlite3.DatabaseError,),
        translate=partial(_translate, name=name),
        check=partial(_check, name=name),
        claim=partial(_claim, name=name),
        scrub=partial(_scrub, name=name),
    )


def create_file(path: Path) -> None:
    """Create the file for its owner only, before SQLite does it with wider rights.

    An existing file is never opened here: closing it would drop the locks that SQLite holds on it in this process.

    Raises:
        OperatorError: the folder is missing or cannot be written, or the file is somebody else's.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise _not_ours(path) from None
        if stat.S_IMODE(path.stat().st_mode) != _FILE_MODE:
            try:
                path.chmod(_FILE_MODE)
            except PermissionError as error:
                raise _not_ours(path) from error
    except OSError as error:
        raise OperatorError(
            f"The database {path} cannot be created: {error.strerror}.",
            remedy="Check that the folder exists, is yours, and that the disk has room.",
        ) from error


def _not_ours(path: Path) -> OperatorError:
    return OperatorError(
        f"The database {path} is not this user's.",
        remedy="Give it to the user that runs the program: `chown USER` it, for instance after restoring a backup.",
    )


def _check(connection: Connection, *, name: str) -> None:
    problems = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
    if problems != ["ok"]:
        raise _damaged(name, "; ".join(str(problem) for problem in problems))


def _claim(connection: Connection, *, name: str) -> None:
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
        return
    if application == APPLICATION_ID:
        raise other_version(name, version)
    if application or version or connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one():
        raise other_program(name)
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _scrub(engine: Engine, *, name: str) -> None:
    """Write the file anew without what was deleted, and empty the write-ahead log."""
    connection = engine.raw_connection()
    try:
        driver = connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            raise TypeError(f"{name} is not SQLite")
        driver.execute("VACUUM")
        for _ in range(_SCRUB_ATTEMPTS):
            busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy:
                return
            time.sleep(0.05)
    finally:
        connection.close()
    raise UnavailableError(
        f"The database {name} is in use: what was deleted is still in its files.",
        remedy="Ask for the erasure again in a moment.",
    )


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
    writing = connection.get_execution_options().get(WRITING, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _translate(error: Any, *, name: str) -> AccordError | None:
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
