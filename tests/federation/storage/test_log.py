import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import col, select

from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules import merkle
from federation.storage.database import memory_database, open_database, read, write
from federation.storage.log import LogCheckpoint, LogEntry, MemoryLog, MerkleLog, SqliteLog, append_within

TABLES = (LogEntry, LogCheckpoint)


@pytest.fixture(params=["file", "memory database", "postgresql", "twin"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> MerkleLog:
    if request.param == "twin":
        return MemoryLog("study")
    if request.param == "postgresql":
        return SqliteLog(open_database(request.getfixturevalue("postgresql_url"), *TABLES), "study")
    engine = open_database(tmp_path / "accord.db", *TABLES) if request.param == "file" else memory_database(*TABLES)
    return SqliteLog(engine, "study")


def test_an_empty_log(log: MerkleLog) -> None:
    assert log.size == 0
    assert log.root() == merkle.EMPTY_ROOT
    assert log.entries() == []
    assert list(log.leaf_hashes()) == []
    assert log.latest_checkpoint() is None


def test_entries_keep_their_order_and_bytes(log: MerkleLog) -> None:
    assert [log.append(f"id{number}", b"entry %d" % number) for number in range(5)] == [0, 1, 2, 3, 4]
    assert log.size == 5
    assert log.entry(3) == b"entry 3"
    assert log.entries(1, 3) == [b"entry 1", b"entry 2"]
    assert log.entries(3) == [b"entry 3", b"entry 4"]
    assert log.entries(4, 99) == [b"entry 4"]
    assert log.entries(7) == []
    assert log.index_of("id2") == 2
    assert log.index_of("unknown") is None


def test_leaf_hashes_and_roots_of_every_size(log: MerkleLog) -> None:
    leaves = [merkle.leaf_hash(b"entry %d" % number) for number in range(5)]
    for number in range(5):
        log.append(f"id{number}", b"entry %d" % number)
        assert log.root() == merkle.root(leaves[: number + 1])
    assert list(log.leaf_hashes(3)) == leaves[:3]
    assert log.root(3) == merkle.root(leaves[:3])
    assert log.root(0) == merkle.EMPTY_ROOT


def test_what_is_set_aside_is_no_longer_in_the_log_and_not_lost(log: MerkleLog) -> None:
    """Twice: whatever is set aside keeps a place of its own."""
    for _ in range(2):
        for number in range(log.size, 5):
            log.append(f"id{number}", b"entry %d" % number)
        for size in (3, 4, 5):
            log.save_checkpoint(b"note %d" % size, size)
        log.set_aside(3)
        assert log.entries() == [b"entry 0", b"entry 1", b"entry 2"]
        assert log.root() == merkle.root([merkle.leaf_hash(b"entry %d" % number) for number in range(3)])
        assert log.latest_checkpoint() == (3, b"note 3")
        assert log.index_of("id4") is None
    log.append("other", b"another entry 3")
    assert log.size == 4
    if isinstance(log, SqliteLog):
        with read(log._engine) as session:
            kept = session.exec(select(LogEntry).where(col(LogEntry.log) != "study")).all()
        assert sorted((row.log, row.data) for row in kept) == [
            (f"study~{number}", b"entry %d" % place) for number in (1, 2) for place in (3, 4)
        ]


def test_a_repeated_command_finds_its_entry(log: MerkleLog) -> None:
    log.append("first", b"a")
    assert log.append("second", b"b") == 1
    assert log.append("second", b"b") == 1
    assert log.size == 2


def test_another_outcome_for_one_command_is_refused(log: MerkleLog) -> None:
    log.append("first", b"a")
    with pytest.raises(PeerError, match="first"):
        log.append("first", b"b")
    assert log.entries() == [b"a"]


@pytest.mark.parametrize("index", [-1, 1])
def test_an_entry_that_is_not_there(log: MerkleLog, index: int) -> None:
    log.append("first", b"a")
    with pytest.raises(UnavailableError):
        log.entry(index)


@pytest.mark.parametrize("size", [-1, 2])
def test_a_size_that_the_log_does_not_have(log: MerkleLog, size: int) -> None:
    log.append("first", b"a")
    with pytest.raises(UnavailableError):
        log.root(size)
    with pytest.raises(UnavailableError):
        log.save_checkpoint(b"note", size)


def test_checkpoints_are_kept_by_size_and_replaced_by_later_ones(log: MerkleLog) -> None:
    for number in range(3):
        log.append(str(number), b"x")
    log.save_checkpoint(b"at 3", 3)
    log.save_checkpoint(b"at 1", 1)
    log.save_checkpoint(b"at 3, cosigned", 3)
    assert log.checkpoints() == [(1, b"at 1"), (3, b"at 3, cosigned")]
    assert log.latest_checkpoint() == (3, b"at 3, cosigned")
    assert log.checkpoint(1) == b"at 1"
    assert log.checkpoint(2) is None


def test_threads_append_without_gaps_or_losses(log: MerkleLog) -> None:
    def work(name: int) -> None:
        for number in range(8):
            log.append(f"{name}/{number}", b"%d %d" % (name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.size == 32
    assert len(set(log.entries())) == 32
    assert list(log.leaf_hashes()) == [merkle.leaf_hash(data) for data in log.entries()]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2"])), max_size=12))
def test_the_twin_does_what_the_database_does(commands: list[tuple[str, bytes]]) -> None:
    twins: list[MerkleLog] = [MemoryLog("study"), SqliteLog(memory_database(*TABLES), "study")]

    def outcome(log: MerkleLog, entry_id: str, data: bytes) -> int | str:
        try:
            return log.append(entry_id, data)
        except PeerError as error:
            return error.message

    for entry_id, data in commands:
        first, second = (outcome(log, entry_id, data) for log in twins)
        assert first == second
    assert twins[0].entries() == twins[1].entries()
    assert twins[0].root() == twins[1].root()


def test_logs_of_one_database_are_apart(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", *TABLES)
    study, consent = SqliteLog(engine, "study"), SqliteLog(engine, "consent")
    study.append("id", b"study")
    consent.append("id", b"consent")
    consent.append("id2", b"consent 2")
    assert (study.size, consent.size) == (1, 2)
    assert study.entries() == [b"study"]


def test_a_log_survives_its_process(tmp_path: Path) -> None:
    SqliteLog(open_database(tmp_path / "accord.db", *TABLES), "study").append("id", b"data")
    again = SqliteLog(open_database(tmp_path / "accord.db", *TABLES), "study")
    assert again.entries() == [b"data"]
    assert again.append("id", b"data") == 0


CHILD = """
import sys
from pathlib import Path
from federation.storage.database import open_database
from federation.storage.log import LogCheckpoint, LogEntry, SqliteLog
log = SqliteLog(open_database(Path(sys.argv[1]), LogEntry, LogCheckpoint), "study")
for number in range(10):
    log.append(f"{sys.argv[2]}/{number}", sys.argv[2].encode())
"""


def test_two_processes_append_and_a_third_sees_all(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    log = SqliteLog(open_database(path, *TABLES), "study")
    log.append("mine", b"mine")
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(path), name]) for name in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    assert log.size == 21
    assert log.root() == merkle.root([merkle.leaf_hash(data) for data in log.entries()])


def test_an_entry_commits_with_its_cause_or_not_at_all(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", *TABLES)
    log = SqliteLog(engine, "study")

    def fail_after_appending() -> None:
        with write(engine) as session:
            append_within(session, "study", "id", b"data")
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_appending()
    assert log.size == 0
    with write(engine) as session:
        assert append_within(session, "study", "id", b"data") == 0
        assert append_within(session, "study", "id2", b"data") == 1
    assert log.size == 2


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE log_entry SET data = X'00' WHERE position = 1",
        "UPDATE log_entry SET leaf_hash = zeroblob(32) WHERE position = 1",
        "DELETE FROM log_entry WHERE position = 1",
    ],
)
def test_a_changed_entry_is_found_at_open_and_at_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "accord.db"
    log = SqliteLog(open_database(path, *TABLES), "study")
    for number in range(3):
        log.append(str(number), b"entry %d" % number)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    with pytest.raises(OperatorError, match="Entry 1"):
        SqliteLog(open_database(path, *TABLES), "study")
    with pytest.raises(OperatorError, match="Entry 1"):
        log.entries()


def test_an_entry_exchanged_with_its_hash_is_found_by_who_knew_it(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    log = SqliteLog(open_database(path, *TABLES), "study")
    log.append("id", b"data")
    assert log.size == 1
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log_entry SET data = X'00', leaf_hash = ?", (merkle.leaf_hash(b"\0"),))
    with pytest.raises(OperatorError, match="Entry 0"):
        log.entry(0)
