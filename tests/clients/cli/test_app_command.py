"""``accord app``: what an officer is told before a release, and what can be listed and taken back."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hand_made import make_node

from clients.apps.project import read_project
from federation.cli.main import main
from federation.identity import load_key
from federation.rules.keys import PrivateKey

Output = pytest.CaptureFixture[str]
SAMPLE = Path(__file__).parent.parent / "flower" / "sample_app"
HASH = read_project(SAMPLE).code_hash
ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{PrivateKey(b'c' * 32).public.peer_id}"
END = b"\x03the end"


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: Output, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: Output, code: int, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert run(*arguments) == code
    return capsys.readouterr().err


def make_station(tmp_path: Path) -> Path:
    node, file, wallet = make_node(tmp_path, "station"), tmp_path / "wind.csv", tmp_path / "owner.wallet"
    file.write_text("day,wind,hour,power\nd1,1,2,3\n", encoding="utf-8")
    assert run("data", "add", file, "--dir", node, "--subject", "day") == 0
    assert run("consent", "wallet", "--out", wallet, "--licence") == 0
    granted = ("consent", "grant", "--dir", node, "--wallet", wallet, "--licence", "--purpose", "DUO:0000042")
    assert run(*granted, "--epsilon-max", "1000000", "--code-hash", HASH) == 0
    return node


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """A node whose only file is licensed to the sample app."""
    return make_station(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests in which nothing is released."""
    return make_station(tmp_path_factory.mktemp("untouched"))


def approve(node: Path, *more: str) -> tuple[str | Path, ...]:
    return ("app", "approve", SAMPLE, "--dir", node, "--coordinator", ADDRESS, *more)


def test_a_hash_names_the_files_and_the_apps(capsys: Output) -> None:
    data = answer(capsys, "app", "hash", SAMPLE)
    assert data["clientapp"] == "sampleapp.client_app:app"
    assert "sampleapp/task.py" in data["files"]
    assert data["code_hash"] == HASH


def test_a_release_is_approved_listed_and_taken_back(station: Path, capsys: Output) -> None:
    release = answer(capsys, *approve(station, "--yes", "--set", "partition-id=3", "--seconds", "9"))
    assert (release["code_hash"], release["dataset"], release["seconds"]) == (HASH, "wind", 9)
    assert json.loads(release["settings"]) == {"partition-id": 3}
    [listed] = answer(capsys, "app", "list", "--dir", station)["releases"]
    assert (listed["replies"], listed["bytes"], listed["revoked_at"]) == (0, 0, "")
    assert answer(capsys, "app", "revoke", HASH, "--dir", station)["revoked"] == 1
    [listed] = answer(capsys, "app", "list", "--dir", station)["releases"]
    assert listed["revoked_at"]
    assert "Nothing is released" in refused(capsys, 2, "app", "revoke", HASH, "--dir", station)


def test_without_a_terminal_nothing_is_released_unasked(untouched: Path, capsys: Output) -> None:
    assert "Nobody is here to answer" in refused(capsys, 2, *approve(untouched))
    assert answer(capsys, "app", "list", "--dir", untouched)["releases"] == []


@pytest.mark.parametrize(("reply", "code"), [(b"n", 2), (b"y", 0)])
def test_at_a_terminal_it_is_said_in_words_what_is_released(
    station: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, reply: bytes, code: int
) -> None:
    master, slave = os.openpty()
    shown = bytearray()

    def look() -> None:
        while END not in shown:
            shown.extend(os.read(master, 4096))

    person = threading.Thread(target=look)
    person.start()
    os.write(master, reply + b"\n")
    with (
        os.fdopen(slave, encoding="utf-8", closefd=False) as keyboard,
        os.fdopen(slave, "w", encoding="utf-8") as screen,
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stdin", keyboard)
        patched.setattr(sys, "stderr", screen)
        assert run(*approve(station)) == code
        screen.flush()
        os.write(slave, END)
        person.join(10)
    os.close(master)
    for words in (
        "adds no noise",
        "counts no budget",
        "send the rows themselves",
        "no row of this data set is about a person",
    ):
        assert words in shown.decode()
    assert len(answer(capsys, "app", "list", "--dir", station)["releases"]) == (code == 0)


def test_without_the_owners_licence_the_refusal_says_why(station: Path, capsys: Output) -> None:
    assert run("consent", "withdraw", "--dir", station, "--licence") == 0
    said = refused(capsys, 6, *approve(station, "--yes"))
    assert "adds no noise" in said
    assert "--code-hash" in said


def test_what_was_not_released_is_not_served(untouched: Path, capsys: Output) -> None:
    assert "released nothing" in refused(capsys, 6, "app", "serve", SAMPLE, "--dir", untouched)


def test_an_address_without_a_peer_is_refused(untouched: Path, capsys: Output) -> None:
    wrong = ("app", "approve", SAMPLE, "--dir", untouched, "--coordinator", "/ip4/127.0.0.1/tcp/1", "--yes")
    assert "--coordinator" in refused(capsys, 2, *wrong)


def test_nodes_that_are_not_there_are_named(tmp_path: Path, capsys: Output) -> None:
    assert run("coordinator", "init", "--dir", tmp_path / "coordinator") == 0
    did = PrivateKey(b"n" * 32).public.did
    where = ("app", "run", SAMPLE, "--dir", tmp_path / "coordinator", "--node", did, "--wait-s", "0")
    assert did in refused(capsys, 7, *where)


@pytest.mark.processes
@pytest.mark.long
def test_the_commands_run_an_unchanged_app_between_real_processes(tmp_path: Path, capsys: Output) -> None:
    """One station serves, a coordinator runs: over libp2p, each in its own process, in folders named relatively."""
    assert run("coordinator", "init", "--dir", tmp_path / "coordinator") == 0
    address = answer(capsys, "coordinator", "status", "--dir", tmp_path / "coordinator")["address"]
    station = make_station(tmp_path)
    assert run("app", "approve", SAMPLE, "--dir", station, "--coordinator", address, "--yes") == 0
    accord, did = [sys.executable, "-m", "federation.cli", "app"], load_key(station / "identity.key").public.did
    settings = ("--set", "min-nodes=1", "--set", "num-server-rounds=1")
    with subprocess.Popen([*accord, "serve", SAMPLE, "--dir", "station"], cwd=tmp_path) as serving:
        try:
            subprocess.run(
                [*accord, "run", SAMPLE, "--dir", "coordinator", "--node", did, "--wait-s", "60", *settings],
                cwd=tmp_path,
                check=True,
                timeout=120,
            )
        finally:
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0
    assert len((tmp_path / "final_model.txt").read_text(encoding="utf-8").split()) == 3
    [release] = answer(capsys, "app", "list", "--dir", station)["releases"]
    assert release["replies"] == 1
