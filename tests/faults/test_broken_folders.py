"""Commands on folders that something happened to: a sentence, a remedy, a documented exit code, and nothing lost."""

import fcntl
import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from parties_on_loopback import Parties, run_command

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a published study that never ran; tests copy them."""
    folder = tmp_path_factory.mktemp("prepared") / "parties"
    folder.mkdir()
    parties = Parties(folder, deadline_s=5)
    for party in (parties.coordinator, *parties.nodes.values()):
        party.engine.dispose()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "parties"))


def check(result: subprocess.CompletedProcess[str], *, code: int, says: str, remedy: str) -> None:
    assert result.returncode == code, result
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert "\nwhat to do: " in result.stderr
    assert remedy in result.stderr
    assert "Traceback" not in result.stderr


ROLES = [("coordinator", "coordinator"), ("node", "ash")]
roles = pytest.mark.parametrize(("role", "name"), ROLES, ids=[role for role, _ in ROLES])


@roles
def test_a_key_file_that_others_may_read_is_not_used(folder: Path, role: str, name: str) -> None:
    key = folder / name / "identity.key"
    key.chmod(0o640)
    result = run_command(role, "run", "--dir", str(folder / name))
    check(result, code=2, says="is open to other users (mode 0640)", remedy=f"chmod 600 {key}")


def overwrite(path: Path) -> None:
    path.write_bytes(b"This was a database before the disk forgot it.\n" * 400)


def tear(path: Path) -> None:
    """The middle of the file is lost, as after a crash of the disk."""
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = bytes(len(data) - 8192)
    path.write_bytes(bytes(data))


@roles
@pytest.mark.parametrize("damage", [overwrite, tear])
def test_a_corrupted_database_is_named_and_not_touched(
    folder: Path, role: str, name: str, damage: Callable[[Path], None]
) -> None:
    database = folder / name / "accord.db"
    for extra in ("accord.db-wal", "accord.db-shm"):
        (folder / name / extra).unlink(missing_ok=True)
    damage(database)
    before = database.read_bytes()
    result = run_command(role, "run", "--dir", str(folder / name))
    check(result, code=2, says=f"The database {database} is damaged", remedy="restore it from your backup")
    assert database.read_bytes() == before


def test_a_port_in_use_is_said(folder: Path) -> None:
    settings = (folder / "coordinator" / "accord.toml").read_text()
    port = int(settings.split("/tcp/")[1].split('"')[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        result = run_command("coordinator", "run", "--dir", str(folder / "coordinator"))
    check(result, code=7, says=f"{port}", remedy="")
    assert "in use" in result.stderr


def test_two_processes_never_run_one_party(folder: Path) -> None:
    (folder / "ash" / "run").mkdir(exist_ok=True)
    with (folder / "ash" / "run" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_command("node", "run", "--dir", str(folder / "ash"))
    check(result, code=2, says="is in use: this party is running already", remedy="status")


def test_a_folder_in_which_nobody_lives(tmp_path: Path) -> None:
    result = run_command("node", "run", "--dir", str(tmp_path / "nowhere"))
    check(result, code=2, says="No party lives in", remedy="accord node init")


def test_a_folder_of_the_other_role(folder: Path) -> None:
    result = run_command("node", "run", "--dir", str(folder / "coordinator"))
    check(result, code=2, says="is the folder of a coordinator", remedy="Give the node's folder")


def test_with_json_the_error_is_one_document(folder: Path) -> None:
    (folder / "ash" / "identity.key").unlink()
    result = run_command("node", "status", "--json", "--dir", str(folder / "ash"))
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "OperatorError"
    assert "There is no key at" in error["message"]
    assert error["remedy"]
