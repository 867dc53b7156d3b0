"""What a PostgreSQL database must be, and what is said when it is not."""

import subprocess
import sys
import time

import psycopg
import pytest
from postgresql import PASSWORD, Server
from sqlmodel import Field, SQLModel, select

from federation.errors import OperatorError, UnavailableError
from federation.storage import backend, postgresql
from federation.storage.database import database_name, open_database, read, scrub, write


class Parcel(SQLModel, table=True):
    __tablename__ = "test_parcel"
    __table_args__ = {"extend_existing": True}

    number: int = Field(primary_key=True)
    content: str


def test_an_engine_never_shows_its_password(postgresql_server: Server, postgresql_url: str) -> None:
    name = Server.name(postgresql_url)
    engine = open_database(postgresql_server.loopback_url(name), Parcel)
    assert "password" not in database_name(engine)
    assert PASSWORD.startswith("a password")
    assert name in database_name(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://accord@127.0.0.1:1/consent", "cannot be reached"),
        ("postgresql://accord@/consent?host=/nowhere/at/all", "cannot be reached"),
        ("mysql://accord@127.0.0.1/consent", "not the URL"),
        ("postgresql://accord@127.0.0.1", "not the URL"),
        ("consent.db", "not the URL"),
        ("", "not the URL"),
        ("postgresql://accord@127.0.0.1:port/consent", "not the URL"),
    ],
)
def test_a_database_that_is_not_there_is_named(url: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said) as caught:
        open_database(url, Parcel)
    assert caught.value.remedy


def test_a_wrong_password_is_said_and_not_shown(postgresql_server: Server) -> None:
    with pytest.raises(OperatorError, match="password authentication failed") as caught:
        open_database(postgresql_server.loopback_url("postgres", "a wrong one"), Parcel)
    assert "wrong" not in caught.value.message


def test_a_database_that_does_not_exist_is_named(postgresql_server: Server) -> None:
    with pytest.raises(OperatorError, match="nothing_here"):
        open_database(postgresql_server.url("nothing_here"), Parcel)


def test_another_programs_database_is_refused(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE photos (id integer)")
    with pytest.raises(OperatorError, match="another program"):
        open_database(postgresql_url, Parcel)
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_another_version_is_refused(postgresql_url: str) -> None:
    open_database(postgresql_url, Parcel).dispose()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE accord_database SET version = %s", (backend.SCHEMA_VERSION + 1,))
    with pytest.raises(OperatorError, match=f"version {backend.SCHEMA_VERSION + 1}"):
        open_database(postgresql_url, Parcel)


def test_a_server_that_may_forget_is_refused(postgresql_server: Server, postgresql_url: str) -> None:
    def set_fsync(value: str) -> None:
        postgresql_server.run(f"ALTER SYSTEM SET fsync = {value}")
        postgresql_server.run("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with psycopg.connect(postgresql_url) as connection:
                if connection.execute("SHOW fsync").fetchone() == (value,):
                    return
            time.sleep(0.05)
        raise AssertionError

    set_fsync("off")
    try:
        with pytest.raises(OperatorError, match="without fsync"):
            open_database(postgresql_url, Parcel)
    finally:
        set_fsync("on")
    open_database(postgresql_url, Parcel).dispose()


def test_commits_are_durable_and_readers_cannot_write(postgresql_url: str) -> None:
    engine = open_database(postgresql_url, Parcel)
    with read(engine) as session:
        shown = session.connection().exec_driver_sql
        names = ("synchronous_commit", "transaction_isolation", "transaction_read_only", "lock_timeout")
        assert [shown(f"SHOW {name}").scalar_one() for name in names] == ["on", "repeatable read", "on", "30s"]
    with write(engine) as session:
        assert session.connection().exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    engine.dispose()


def test_a_lock_that_is_never_released_is_reported(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "BUSY_TIMEOUT_MS", 50)
    engine = open_database(postgresql_url, Parcel)
    with psycopg.connect(postgresql_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (postgresql.WRITE_LOCK,))
        with pytest.raises(UnavailableError, match="held by another process"), write(engine):
            raise AssertionError
    with write(engine) as session:
        session.add(Parcel(number=1, content=""))
    engine.dispose()


def test_a_connection_that_the_server_ends_is_replaced(postgresql_server: Server, postgresql_url: str) -> None:
    engine = open_database(postgresql_url, Parcel)
    name = Server.name(postgresql_url)
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - ours

    def torn() -> None:
        with write(engine) as session:
            session.add(Parcel(number=1, content=""))
            session.flush()
            postgresql_server.run(end)
            session.connection().exec_driver_sql("SELECT 1")

    with pytest.raises((UnavailableError, OperatorError), match=name):
        torn()
    with read(engine) as session:
        assert session.exec(select(Parcel)).all() == []
    engine.dispose()


CHILD = """
import sys
from sqlmodel import Field, SQLModel
from federation.storage.database import open_database, write

class Parcel(SQLModel, table=True):
    __tablename__ = "test_parcel"
    number: int = Field(primary_key=True)
    content: str

engine = open_database(sys.argv[1], Parcel)
for _ in range(15):
    with write(engine) as session:
        parcel = session.get(Parcel, 1) or Parcel(number=1, content="0")
        parcel.content = str(int(parcel.content) + 1)
        session.add(parcel)
"""


def test_processes_that_create_and_use_one_database_at_once_lose_nothing(postgresql_url: str) -> None:
    children = [subprocess.Popen([sys.executable, "-c", CHILD, postgresql_url]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    engine = open_database(postgresql_url, Parcel)
    with read(engine) as session:
        assert session.get_one(Parcel, 1).content == "45"
    engine.dispose()


def test_scrubbing_leaves_no_byte_in_the_tables_files(postgresql_server: Server, postgresql_url: str) -> None:
    engine = open_database(postgresql_url, Parcel)
    secret = "the one sentence that nobody must find again"
    with write(engine) as session:
        session.add(Parcel(number=1, content=secret))
        session.add(Parcel(number=2, content="this one stays"))
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    files = [path for path in (postgresql_server.folder / "data" / "base").rglob("*") if path.is_file()]
    assert any(secret.encode() in path.read_bytes() for path in files)
    with write(engine) as session:
        session.delete(session.get_one(Parcel, 1))
    scrub(engine)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    files = [path for path in (postgresql_server.folder / "data" / "base").rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files)
    with read(engine) as session:
        assert session.get_one(Parcel, 2).content == "this one stays"
    engine.dispose()
