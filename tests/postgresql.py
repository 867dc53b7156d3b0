"""A real PostgreSQL for tests: one server for each test process, in a folder of its own, a new database for each test.

The server keeps its promises (fsync is on, as it is by default), speaks over a socket in its folder and over a loopback
port that the system chose, and asks for a password on the port only.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

PASSWORD = "a password for tests"
_NUMBERS = count(1)


@dataclass(frozen=True)
class Server:
    """A running server: its ``folder`` (with the socket) and its loopback ``port``."""

    folder: Path
    port: int

    def url(self, database: str) -> str:
        """The URL of a database, over the socket."""
        return f"postgresql://accord@/{database}?host={self.folder}&port={self.port}"

    def loopback_url(self, database: str, password: str = PASSWORD) -> str:
        """The URL of a database, over the loopback port, where a password is asked for."""
        return f"postgresql://accord:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    @staticmethod
    def name(url: str) -> str:
        """The database's name in one of the URLs."""
        return url.partition("?")[0].rpartition("/")[2]

    def run(self, statement: str) -> None:
        """Run one statement as the server's owner."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, or None where it is not installed."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


@contextlib.contextmanager
def running_server(bin_folder: Path) -> Iterator[Server]:
    """A server of its own, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="accord-pg-"))
    owner = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    password = folder / "password"
    password.write_text(PASSWORD)
    if owner is not None:
        for path in (folder, password):
            shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)
    data = folder / "data"
    subprocess.run(
        [bin_folder / "initdb", "-D", data, "-U", "accord", "--auth-local=trust", "--auth-host=scram-sha-256",
         f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync"],
        check=True, capture_output=True, user=owner, cwd=folder,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = int(chosen.getsockname()[1])
    settings = {"listen_addresses": "127.0.0.1", "port": port, "max_connections": 60}
    settings |= {"unix_socket_directories": folder, "shared_buffers": "32MB"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([bin_folder / "postgres", "-D", data, *options], stderr=log, user=owner, cwd=folder)
    server = Server(folder, port)
    try:
        _wait(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((server.folder / "server.log").read_text()) from None
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """The test process's server."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("needs PostgreSQL's programs (initdb, postgres)")
    with running_server(bin_folder) as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    name = f"test_{next(_NUMBERS)}"
    postgresql_server.run(f"CREATE DATABASE {name}")
    yield postgresql_server.url(name)
    postgresql_server.run(f"DROP DATABASE {name} WITH (FORCE)")
