"""``accord coordinator``: making one, asking it, and every way in which ``run`` is refused."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from federation.cli.main import main
from federation.cli.running import running
from federation.coordinator.folder import open_coordinator
from federation.settings import PartyFolder, load_settings

Output = pytest.CaptureFixture[str]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: Output, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_init_makes_a_party_with_a_lasting_address_and_never_a_second_one(tmp_path: Path, capsys: Output) -> None:
    folder = tmp_path / "registry"
    made = answer(capsys, "coordinator", "init", "--dir", folder, "--name", "registry")
    assert made["did"].startswith("did:key:z6Mk")
    port = made["address"].split("/tcp/")[1].split("/")[0]
    assert int(port) > 0
    assert load_settings(folder).listen.endswith(f"/tcp/{port}")
    assert (folder / "identity.key").stat().st_mode & 0o077 == 0
    before = (folder / "identity.key").read_bytes()
    assert run("coordinator", "init", "--dir", folder) == 2
    assert "holds a party already" in capsys.readouterr().err
    assert (folder / "identity.key").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [("--name", "Our Registry", "name"), ("--listen", "0.0.0.0:4001", "listen"), ("--announce", "our.org", "announce")],
)
def test_init_refuses_what_is_mistyped_and_makes_nothing(
    tmp_path: Path, capsys: Output, option: str, value: str, named: str
) -> None:
    assert run("coordinator", "init", "--dir", tmp_path / "registry", option, value) == 2
    err = capsys.readouterr().err
    assert named in err
    assert "what to do:" in err
    assert not (tmp_path / "registry").exists()


def test_status_without_a_study(tmp_path: Path, capsys: Output) -> None:
    folder = tmp_path / "registry"
    run("coordinator", "init", "--dir", folder)
    assert answer(capsys, "coordinator", "status", "--dir", folder)["phase"] == "no study published"
    assert run("coordinator", "status", "--dir", folder) == 0
    assert "running    no" in capsys.readouterr().out


def test_status_says_who_is_awaited_and_why(registry: Path, capsys: Output) -> None:
    data = answer(capsys, "coordinator", "status", "--dir", registry)
    assert [item["site"] for item in data["awaited"]] == ["coordinator", "coordinator"]
    assert "accord coordinator run" in data["awaited"][0]["for"]
    assert "2 more institutions" in data["awaited"][1]["for"]
    run("study", "invite", "cleveland", "--dir", registry)
    with running(PartyFolder(registry), load_settings(registry)):
        data = answer(capsys, "coordinator", "status", "--dir", registry)
        assert data["invited"] == {"cleveland": "not yet"}
        assert [item["site"] for item in data["awaited"]] == ["cleveland", "coordinator"]
        assert "invitation" in data["awaited"][0]["for"]
        assert run("coordinator", "status", "--dir", registry) == 0
        text = capsys.readouterr().out
    assert "awaited    cleveland: joining with its invitation" in text
    assert "running    yes" in text


def test_a_second_run_in_the_same_folder_is_refused(registry: Path, capsys: Output) -> None:
    with running(PartyFolder(registry), load_settings(registry)):
        assert run("coordinator", "run", "--dir", registry) == 2
    assert "is in use: this party is running already" in capsys.readouterr().err


def test_run_waits_for_a_first_study_and_stops_in_order(tmp_path: Path, capsys: Output) -> None:
    folder = tmp_path / "registry"
    run("coordinator", "init", "--dir", folder)

    def stop() -> None:
        status = folder / "run" / "status.json"
        while not status.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert run("coordinator", "run", "--dir", folder) == 0
    thread.join(5)
    assert "has stopped; nothing is lost" in capsys.readouterr().out
    assert not (folder / "run" / "pid").exists()


def test_a_port_in_use_is_something_that_is_not_there_now(registry: Path, capsys: Output) -> None:
    port = int(load_settings(registry).listen.rpartition("/")[2])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert run("coordinator", "run", "--dir", registry, "--json") == 7
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "UnavailableError"
    assert str(port) in error["message"]
    assert error["remedy"]


def test_a_key_file_that_others_may_read_is_refused_with_the_line_to_type(registry: Path, capsys: Output) -> None:
    (registry / "identity.key").chmod(0o640)
    assert run("coordinator", "run", "--dir", registry) == 2
    assert f"chmod 600 {registry / 'identity.key'}" in capsys.readouterr().err


def test_a_damaged_database_is_refused_by_name(registry: Path, capsys: Output) -> None:
    for leftover in ("accord.db-wal", "accord.db-shm"):
        (registry / leftover).unlink(missing_ok=True)
    (registry / "accord.db").write_bytes(b"not a database at all" * 400)
    assert run("coordinator", "status", "--dir", registry) == 2
    assert "accord.db" in capsys.readouterr().err


def test_the_wrong_folder_is_named(registry: Path, tmp_path: Path, capsys: Output) -> None:
    assert run("coordinator", "status", "--dir", tmp_path / "nowhere") == 2
    assert "No party lives in" in capsys.readouterr().err
    run("node", "init", "--dir", tmp_path / "node")
    assert run("coordinator", "status", "--dir", tmp_path / "node") == 2
    assert "is the folder of a node" in capsys.readouterr().err
    shutil.rmtree(registry / "sealed")  # made again: it is a place, not a fact
    assert run("coordinator", "status", "--dir", registry) == 0


def test_an_unknown_study_is_answered_with_those_that_there_are(registry: Path, capsys: Output) -> None:
    known = open_coordinator(registry).studies()[0]
    assert run("coordinator", "run", "--dir", registry, "--study", "heart-000000000000") == 2
    assert known in capsys.readouterr().err
    assert run("coordinator", "status", "--dir", registry, "--study", "heart-000000000000", "--json") == 2
    assert known in json.loads(capsys.readouterr().out)["error"]["message"]


def test_the_folder_may_come_from_the_environment(
    registry: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_DIR", str(registry))
    assert answer(capsys, "coordinator", "status")["phase"] == "gathering agreements"


def test_without_a_folder_the_option_is_named(capsys: Output) -> None:
    assert run("coordinator", "status") == 2
    assert "--dir" in capsys.readouterr().err
