import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, select

from federation.errors import OperatorError, UnavailableError
from federation.storage import backend, sqlite
from federation.storage.database import memory_database, open_database, read, write


class Parcel(SQLModel, table=True):
    __tablename__ = "test_parcel"

    number: int = Field(primary_key=True)
    content: str


@pytest.fixture(params=["file", "memory", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "memory":
        engine = memory_database(Parcel)
    elif request.param == "file":
        engine = open_database(tmp_path / "accord.db", Parcel)
    else:
        engine = open_database(request.getfixturevalue("postgresql_url"), Parcel)
    yield engine
    engine.dispose()


def numbers(engine: Engine) -> list[int]:
    with read(engine) as session:
        return sorted(session.exec(select(Parcel.number)))


def add(engine: Engine, number: int, content: str = "") -> None:
    with write(engine) as session:
        session.add(Parcel(number=number, content=content))


def test_what_was_committed_is_read_again(engine: Engine) -> None:
    add(engine, 1)
    assert numbers(engine) == [1]


def test_an_error_rolls_everything_back(engine: Engine) -> None:
    def fail_halfway() -> None:
        with write(engine) as session:
            session.add(Parcel(number=1, content=""))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert numbers(engine) == []


def test_a_reader_changes_nothing(engine: Engine) -> None:
    with read(engine) as session:
        session.add(Parcel(number=1, content=""))
    assert numbers(engine) == []


def test_a_broken_constraint_stays_what_it_is(engine: Engine) -> None:
    add(engine, 1)
    with pytest.raises(IntegrityError):
        add(engine, 1)
    assert numbers(engine) == [1]


def test_a_read_inside_a_write_sees_what_is_committed(engine: Engine) -> None:
    add(engine, 1)
    with write(engine) as session:
        session.add(Parcel(number=2, content=""))
        session.flush()
        assert numbers(engine) == [1]
    assert numbers(engine) == [1, 2]


def test_a_write_inside_an_open_session_is_a_mistake_that_does_not_hang(engine: Engine) -> None:
    with pytest.raises(RuntimeError), write(engine), write(engine):
        raise AssertionError
    with pytest.raises(RuntimeError), read(engine), write(engine):
        raise AssertionError
    add(engine, 1)


def test_many_threads_lose_no_increment(engine: Engine) -> None:
    add(engine, 1, "0")

    def increment() -> None:
        for _ in range(10):
            with write(engine) as session:
                parcel = session.get_one(Parcel, 1)
                parcel.content = str(int(parcel.content) + 1)

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read(engine) as session:
        assert session.get_one(Parcel, 1).content == "40"


def test_rows_stay_usable_after_the_session(engine: Engine) -> None:
    with write(engine) as session:
        parcel = Parcel(number=3, content="kept")
        session.add(parcel)
    assert parcel.content == "kept"


CHILD = """
import sys
from pathlib import Path
from sqlmodel import Field, SQLModel
from federation.storage.database import open_database, write

class Parcel(SQLModel, table=True):
    __tablename__ = "test_parcel"
    number: int = Field(primary_key=True)
    content: str

engine = open_database(Path(sys.argv[1]), Parcel)
for _ in range(15):
    with write(engine) as session:
        parcel = session.get(Parcel, 1) or Parcel(number=1, content="0")
        parcel.content = str(int(parcel.content) + 1)
        session.add(parcel)
"""


def test_processes_that_create_and_use_one_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(path)]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    with read(open_database(path, Parcel)) as session:
        assert session.get_one(Parcel, 1).content == "45"


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    add(open_database(path, Parcel), 1)
    for name in ("accord.db", "accord.db-wal", "accord.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    path.chmod(0o644)
    open_database(path, Parcel)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commits_are_durable(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", Parcel)
    with read(engine) as session:
        connection = session.connection()
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 2, 1, 30_000]


def test_two_memory_databases_are_apart() -> None:
    first, second = memory_database(Parcel), memory_database(Parcel)
    add(first, 1)
    assert numbers(second) == []


@pytest.mark.parametrize("content", [b"this is a letter, not a database" * 40, b"SQLite format 3\0" + bytes(4000)])
def test_a_file_that_is_not_a_database_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "accord.db"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=r"accord\.db") as caught:
        open_database(path, Parcel)
    assert "backup" in caught.value.remedy
    assert path.read_bytes() == content


def test_a_damaged_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    engine = open_database(path, Parcel)
    for number in range(400):
        add(engine, number, "x" * 100)
    with read(engine) as session:
        session.connection()
    engine.dispose()
    data = bytearray(path.read_bytes())
    assert not (tmp_path / "accord.db-wal").exists()
    data[8192:20480] = os.urandom(12288)
    path.write_bytes(data)
    with pytest.raises(OperatorError, match=r"accord\.db"):
        open_database(path, Parcel)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    with pytest.raises(OperatorError, match="another program"):
        open_database(path, Parcel)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    open_database(path, Parcel).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {backend.SCHEMA_VERSION + 1}")
    with pytest.raises(OperatorError, match="version 2"):
        open_database(path, Parcel)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="nowhere"):
        open_database(tmp_path / "nowhere" / "accord.db", Parcel)


def test_a_lock_that_is_never_released_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "accord.db"
    open_database(path, Parcel).dispose()
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    engine = open_database(path, Parcel)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match=r"accord\.db"):
        add(engine, 1)
    holder.execute("ROLLBACK")
    add(engine, 1)
    holder.close()


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", Parcel)
    add(engine, 1)

    def overfill() -> None:
        with write(engine) as session:
            session.connection().exec_driver_sql("PRAGMA max_page_count = 1")
            session.add(Parcel(number=2, content="x" * 100_000))

    with pytest.raises(OperatorError, match="full"):
        overfill()
    assert numbers(engine) == [1]


def test_tables_of_a_later_release_are_added(tmp_path: Path) -> None:
    open_database(tmp_path / "accord.db").dispose()
    add(open_database(tmp_path / "accord.db", Parcel), 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_that_is_somebody_else_s_is_named_with_what_to_do() -> None:
    """A backup that root put back, and a program that runs as its own user."""
    nobody, refused = 65534, 7
    with tempfile.TemporaryDirectory() as folder:
        restored = Path(folder) / "accord.db"
        restored.touch(mode=0o644)
        os.chown(folder, nobody, nobody)
        child = os.fork()
        if child == 0:  # nothing but this: a process of another user
            os.setgid(nobody)
            os.setuid(nobody)
            try:
                sqlite.create_file(restored)
            except OperatorError as error:
                os._exit(refused if "is not this user's" in error.message and "chown" in error.remedy else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == refused
