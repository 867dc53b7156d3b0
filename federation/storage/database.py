"""A party's database, durable and safe with several threads and several processes at once.

Its own file (SQLite, :mod:`federation.storage.sqlite`) by default, a PostgreSQL database by URL
(:mod:`federation.storage.postgresql`). Rules kept by both: a commit is on disk before it returns; a transaction that
writes takes the write lock at its beginning, so that what it read stays true until it commits; a transaction that reads
sees one consistent state; a database that is damaged, foreign or of another version is refused with its name.
Tables are SQLModel classes of the modules that own them. Open transactions only with :func:`read` and :func:`write`.
"""

import contextlib
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, SQLModel

from federation.errors import AccordError, OperatorError
from federation.storage.backend import WRITING, Backend
from federation.storage.sqlite import sqlite_engine

_BACKEND: Final = "accord_backend"
_TURN: Final = "accord_turn"
_OPEN_SESSIONS: Final = threading.local()


def open_database(target: Path | str, *tables: type[SQLModel]) -> Engine:
    """Open a database, creating any missing one of ``tables`` (and the file).

    Args:
        target: the path of a file, or the URL of a PostgreSQL database.
        tables: what it must hold.

    Raises:
        OperatorError: it is damaged, not a database of Accord, of another version, cannot be reached or opened.
        UnavailableError: another process holds it for longer than 30 s.
    """
    if isinstance(target, Path):
        return _opened(*sqlite_engine(target, synchronous="FULL"), tables)
    try:
        from federation.storage.postgresql import postgresql_engine
    except ImportError as error:
        raise OperatorError(
            "The driver for PostgreSQL is not installed.",
            remedy="Install it with `pip install 'accord-network[postgresql]'`.",
        ) from error
    return _opened(*postgresql_engine(target), tables)


def memory_database(*tables: type[SQLModel]) -> Engine:
    """The twin of :func:`open_database` that keeps nothing: it vanishes with its engine and never waits for a disk.

    SQLite's own ``:memory:`` databases cannot be shared between threads with the same isolation, so this one is a file
    that nobody else sees, without any sync.
    """
    folder = tempfile.TemporaryDirectory(prefix="accord-", ignore_cleanup_errors=True)
    engine = _opened(*sqlite_engine(Path(folder.name) / "memory.db", synchronous="OFF"), tables)
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
    """Leave no byte of what was deleted in the files of the database's tables.

    Takes as long as writing the whole database anew, and lets nobody write meanwhile.

    Raises:
        UnavailableError: another process is in the middle of a read, so that old pages must stay; try again later.
    """
    backend = _backend(engine)
    with _translated(backend):
        backend.scrub(engine)


def database_name(engine: Engine) -> str:
    """The file, or the URL without its password, that ``engine`` stands for, as errors name it."""
    return _backend(engine).name


@contextlib.contextmanager
def _session(engine: Engine, *, writing: bool) -> Iterator[Session]:
    depths = _depths()
    depths[id(engine)] = depths.get(id(engine), 0) + 1
    try:
        with (
            _turn(engine) if writing else contextlib.nullcontext(),
            _translated(_backend(engine)),
            engine.connect().execution_options(**{WRITING: writing}) as connection,
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


def _backend(engine: Engine) -> Backend:
    backend: Backend = engine.get_execution_options()[_BACKEND]
    return backend


def _turn(engine: Engine) -> threading.Lock:
    """What writing threads of one process queue for: SQLite lets waiters sleep and try again, so some starve."""
    turn: threading.Lock = engine.get_execution_options()[_TURN]
    return turn


def _opened(engine: Engine, backend: Backend, tables: tuple[type[SQLModel], ...]) -> Engine:
    engine.update_execution_options(**{_BACKEND: backend, _TURN: threading.Lock()})
    try:
        with _translated(backend):
            with engine.connect().execution_options(**{WRITING: False}) as connection:
                backend.check(connection)
            with engine.connect() as connection, connection.begin():  # writes: two that create it at once take turns
                backend.claim(connection)
                SQLModel.metadata.create_all(connection, tables=[vars(table)["__table__"] for table in tables])
    except AccordError:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def _translated(backend: Backend) -> Iterator[None]:
    """A driver's failures become errors that say who must act; a broken constraint stays what it is."""
    failures: tuple[type[Exception], ...] = (DBAPIError, *backend.errors)
    try:
        yield
    except failures as error:
        translated = backend.translate(error.orig if isinstance(error, DBAPIError) else error)
        if translated is None:
            raise
        raise translated from error
