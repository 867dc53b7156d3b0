"""An append-only Merkle log: entries, their leaf hashes, and the checkpoints that were signed over it.

The log is the truth of its owner, so an append is durable before it returns and idempotent by the entry's id: a command
that is repeated after a crash finds the entry it wrote. Several named logs share one database, and several processes
may append to one log; what this process remembers of the leaf hashes is completed from the database at every use.
"""

import threading
from collections.abc import Sequence
from itertools import count
from typing import Final, Protocol

from sqlalchemy import Engine, UniqueConstraint, update
from sqlmodel import Field, Session, SQLModel, col, func, select

from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules import merkle
from federation.storage.database import database_name, read, write


class LogEntry(SQLModel, table=True):
    """One entry of one log. ``position`` counts from 0 without gaps."""

    __tablename__ = "log_entry"
    __table_args__ = (UniqueConstraint("log", "entry_id"),)

    log: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    entry_id: str
    data: bytes
    leaf_hash: bytes


class LogCheckpoint(SQLModel, table=True):
    """The newest note that was saved for one size of one log."""

    __tablename__ = "log_checkpoint"

    log: str = Field(primary_key=True)
    size: int = Field(primary_key=True)
    note: bytes


LOG_TABLES: Final = (LogEntry, LogCheckpoint)
"""What a database must hold to hold logs."""


class MerkleLog(Protocol):
    """An append-only log (port). On disk: :class:`SqliteLog`; in memory: :class:`MemoryLog`."""

    @property
    def size(self) -> int:
        """How many entries the log has now."""
        ...

    def append(self, entry_id: str, data: bytes) -> int:
        """Append durably and return the entry's index; an entry that is already there keeps its index.

        Raises:
            PeerError: the log has other data under this id.
        """
        ...

    def entry(self, index: int) -> bytes:
        """The data of one entry.

        Raises:
            UnavailableError: the log has no such entry.
        """
        ...

    def entries(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """The data of the entries ``start`` up to, not including, ``stop`` (None: the end), as far as they exist."""
        ...

    def leaf_hashes(self, size: int | None = None) -> Sequence[bytes]:
        """The first ``size`` leaf hashes (None: all).

        Raises:
            UnavailableError: the log is shorter.
        """
        ...

    def root(self, size: int | None = None) -> bytes:
        """The Merkle root over the first ``size`` entries (None: all), 32 bytes.

        Raises:
            UnavailableError: the log is shorter.
        """
        ...

    def index_of(self, entry_id: str) -> int | None:
        """Where the entry with this id is, or None."""
        ...

    def set_aside(self, size: int) -> None:
        """Keep the entries from ``size`` on, and the notes over them, under another name; the log ends before them.

        Only where a standby took over before them: nothing final is among them. Other processes must not have the log
        open.
        """
        ...

    def save_checkpoint(self, note: bytes, size: int) -> None:
        """Keep the note over the first ``size`` entries; a later one of the same size (more cosignatures) replaces it.

        Raises:
            UnavailableError: the log is shorter than ``size``.
        """
        ...

    def checkpoint(self, size: int) -> bytes | None:
        """The note over the first ``size`` entries, or None."""
        ...

    def checkpoints(self) -> list[tuple[int, bytes]]:
        """All (size, note), by size."""
        ...

    def latest_checkpoint(self) -> tuple[int, bytes] | None:
        """The (size, note) of the largest size, or None."""
        ...


class SqliteLog:
    """A log in a party's database (tables :class:`LogEntry` and :class:`LogCheckpoint`).

    Safe with several threads and several processes.

    Args:
        engine: from ``open_database(path, LogEntry, LogCheckpoint, ...)``.
        name: which of the database's logs.

    Raises:
        OperatorError: on construction, if an entry was altered, removed or does not match its leaf hash.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._hashes: list[bytes] = []
        self._lock = threading.Lock()
        self._refresh()

    @property
    def size(self) -> int:
        """See :attr:`MerkleLog.size`."""
        return self._refresh()

    def append(self, entry_id: str, data: bytes) -> int:
        """See :meth:`MerkleLog.append`."""
        with write(self._engine) as session:
            return append_within(session, self._name, entry_id, data)

    def entry(self, index: int) -> bytes:
        """See :meth:`MerkleLog.entry`."""
        found = self.entries(index, index + 1) if index >= 0 else []
        if not found:
            raise _absent(self._name, index)
        return found[0]

    def entries(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """See :meth:`MerkleLog.entries`."""
        query = select(LogEntry).where(col(LogEntry.log) == self._name, col(LogEntry.position) >= start)
        if stop is not None:
            query = query.where(col(LogEntry.position) < stop)
        with read(self._engine) as session:
            rows = session.exec(query.order_by(col(LogEntry.position))).all()
        return [self._intact(row, expected).data for expected, row in enumerate(rows, start=max(start, 0))]

    def leaf_hashes(self, size: int | None = None) -> Sequence[bytes]:
        """See :meth:`MerkleLog.leaf_hashes`."""
        return _first(self._name, self._hashes, self._refresh(), size)

    def root(self, size: int | None = None) -> bytes:
        """See :meth:`MerkleLog.root`."""
        return merkle.root(self.leaf_hashes(size))

    def index_of(self, entry_id: str) -> int | None:
        """See :meth:`MerkleLog.index_of`."""
        with read(self._engine) as session:
            found = _find(session, self._name, entry_id)
        return None if found is None else found.position

    def set_aside(self, size: int) -> None:
        """See :meth:`MerkleLog.set_aside`; the name is the log's with ``~1`` behind it, or the next free number."""
        with self._lock, write(self._engine) as session:
            taken = set(session.exec(select(LogEntry.log).where(col(LogEntry.log).startswith(f"{self._name}~"))))
            aside = next(name for number in count(1) if (name := f"{self._name}~{number}") not in taken)
            mine, over = col(LogEntry.log) == self._name, col(LogCheckpoint.log) == self._name
            session.exec(update(LogEntry).where(mine, col(LogEntry.position) >= size).values(log=aside))
            session.exec(update(LogCheckpoint).where(over, col(LogCheckpoint.size) > size).values(log=aside))
            del self._hashes[size:]

    def save_checkpoint(self, note: bytes, size: int) -> None:
        """See :meth:`MerkleLog.save_checkpoint`."""
        _first(self._name, self._hashes, self._refresh(), size)
        with write(self._engine) as session:
            session.merge(LogCheckpoint(log=self._name, size=size, note=note))

    def checkpoint(self, size: int) -> bytes | None:
        """See :meth:`MerkleLog.checkpoint`."""
        with read(self._engine) as session:
            found = session.get(LogCheckpoint, (self._name, size))
        return None if found is None else found.note

    def checkpoints(self) -> list[tuple[int, bytes]]:
        """See :meth:`MerkleLog.checkpoints`."""
        query = select(LogCheckpoint).where(col(LogCheckpoint.log) == self._name).order_by(col(LogCheckpoint.size))
        with read(self._engine) as session:
            return [(row.size, row.note) for row in session.exec(query)]

    def latest_checkpoint(self) -> tuple[int, bytes] | None:
        """See :meth:`MerkleLog.latest_checkpoint`."""
        query = select(LogCheckpoint).where(col(LogCheckpoint.log) == self._name)
        with read(self._engine) as session:
            found = session.exec(query.order_by(col(LogCheckpoint.size).desc()).limit(1)).first()
        return None if found is None else (found.size, found.note)

    def _refresh(self) -> int:
        """Learn, and verify, what this or another process appended since; the log's size."""
        with self._lock:
            known = len(self._hashes)
            query = select(LogEntry).where(col(LogEntry.log) == self._name, col(LogEntry.position) >= known)
            with read(self._engine) as session:
                rows = session.exec(query.order_by(col(LogEntry.position)))
                fresh = [self._intact(row, expected).leaf_hash for expected, row in enumerate(rows, start=known)]
            self._hashes.extend(fresh)
            return len(self._hashes)

    def _intact(self, row: LogEntry, expected: int) -> LogEntry:
        if row.position != expected:
            raise self._damaged(expected, "is missing")
        known = self._hashes[expected] if expected < len(self._hashes) else row.leaf_hash
        if not merkle.leaf_hash(row.data) == row.leaf_hash == known:
            raise self._damaged(expected, "does not match its hash")
        return row

    def _damaged(self, index: int, why: str) -> OperatorError:
        return OperatorError(
            f"Entry {index} of the log {self._name!r} in {database_name(self._engine)} {why}.",
            remedy="Restore the database from your backup, or fetch the log again from a peer that witnessed it.",
        )


class MemoryLog:
    """The twin in memory, for tests and simulation."""

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self._data: list[bytes] = []
        self._hashes: list[bytes] = []
        self._index: dict[str, int] = {}
        self._notes: dict[int, bytes] = {}
        self.aside: list[bytes] = []
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """See :attr:`MerkleLog.size`."""
        return len(self._hashes)

    def append(self, entry_id: str, data: bytes) -> int:
        """See :meth:`MerkleLog.append`."""
        with self._lock:
            known = self._index.get(entry_id)
            if known is not None:
                if self._data[known] != data:
                    raise _conflict(self._name, entry_id, known)
                return known
            index = len(self._data)
            self._data.append(bytes(data))
            self._hashes.append(merkle.leaf_hash(data))
            self._index[entry_id] = index
            return index

    def entry(self, index: int) -> bytes:
        """See :meth:`MerkleLog.entry`."""
        if not 0 <= index < len(self._data):
            raise _absent(self._name, index)
        return self._data[index]

    def entries(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """See :meth:`MerkleLog.entries`."""
        return self._data[max(start, 0) : None if stop is None else max(stop, 0)]

    def leaf_hashes(self, size: int | None = None) -> Sequence[bytes]:
        """See :meth:`MerkleLog.leaf_hashes`."""
        return _first(self._name, self._hashes, len(self._hashes), size)

    def root(self, size: int | None = None) -> bytes:
        """See :meth:`MerkleLog.root`."""
        return merkle.root(self.leaf_hashes(size))

    def index_of(self, entry_id: str) -> int | None:
        """See :meth:`MerkleLog.index_of`."""
        return self._index.get(entry_id)

    def set_aside(self, size: int) -> None:
        """See :meth:`MerkleLog.set_aside`."""
        with self._lock:
            self.aside += self._data[size:]
            del self._data[size:], self._hashes[size:]
            self._index = {name: place for name, place in self._index.items() if place < size}
            self._notes = {known: note for known, note in self._notes.items() if known <= size}

    def save_checkpoint(self, note: bytes, size: int) -> None:
        """See :meth:`MerkleLog.save_checkpoint`."""
        self.leaf_hashes(size)
        self._notes[size] = bytes(note)

    def checkpoint(self, size: int) -> bytes | None:
        """See :meth:`MerkleLog.checkpoint`."""
        return self._notes.get(size)

    def checkpoints(self) -> list[tuple[int, bytes]]:
        """See :meth:`MerkleLog.checkpoints`."""
        return sorted(self._notes.items())

    def latest_checkpoint(self) -> tuple[int, bytes] | None:
        """See :meth:`MerkleLog.latest_checkpoint`."""
        return max(self._notes.items(), default=None)


def append_within(session: Session, log: str, entry_id: str, data: bytes) -> int:
    """:meth:`MerkleLog.append` inside an open ``write`` session, so that an entry and its cause commit together.

    Raises:
        PeerError: the log has other data under this id.
    """
    found = _find(session, log, entry_id)
    if found is not None:
        if found.data != data:
            raise _conflict(log, entry_id, found.position)
        return found.position
    last = session.exec(select(func.max(LogEntry.position)).where(col(LogEntry.log) == log)).one()
    position = 0 if last is None else last + 1
    leaf = merkle.leaf_hash(data)
    session.add(LogEntry(log=log, position=position, entry_id=entry_id, data=bytes(data), leaf_hash=leaf))
    session.flush()
    return position


def _find(session: Session, log: str, entry_id: str) -> LogEntry | None:
    query = select(LogEntry).where(col(LogEntry.entry_id) == entry_id, col(LogEntry.log) == log)
    return session.exec(query).first()


def _first(log: str, hashes: list[bytes], known: int, size: int | None) -> list[bytes]:
    wanted = known if size is None else size
    if not 0 <= wanted <= known:
        raise UnavailableError(
            f"The log {log!r} has {known} entries, not {wanted}.",
            remedy="Fetch the newer entries first, then ask again.",
        )
    return hashes[:wanted]


def _absent(log: str, index: int) -> UnavailableError:
    return UnavailableError(f"The log {log!r} has no entry {index}.", remedy="Fetch the newer entries first.")


def _conflict(log: str, entry_id: str, index: int) -> PeerError:
    return PeerError(
        f"The log {log!r} already holds other data under the id {entry_id} (entry {index}).",
        remedy="One command has one outcome: replay the log, and do not change what it says.",
    )
