"""A party as a process: one per folder, what it shows of itself, and what stays behind."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from federation.cli.running import free_port, is_running, last_status, running
from federation.errors import OperatorError
from federation.settings import PartyFolder, PartySettings, create_settings

SETTINGS = PartySettings(role="coordinator", name="registry")


@pytest.fixture
def files(tmp_path: Path) -> PartyFolder:
    create_settings(tmp_path / "party", SETTINGS)
    return PartyFolder(tmp_path / "party")


def test_one_folder_runs_once(files: PartyFolder) -> None:
    assert not is_running(files)
    with running(files, SETTINGS):
        assert is_running(files)
        assert (files.run / "pid").read_text() == f"{os.getpid()}\n"
        with pytest.raises(OperatorError, match="running already") as refused, running(files, SETTINGS):
            pass
        assert str(files.run / "pid") in refused.value.remedy
    assert not is_running(files)
    assert not (files.run / "pid").exists()
    with running(files, SETTINGS):
        assert is_running(files)


def test_sigterm_asks_the_party_to_stop_and_the_handler_is_given_back(files: PartyFolder) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with running(files, SETTINGS) as party:
        os.kill(os.getpid(), signal.SIGTERM)
        assert party.stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_status_is_seen_whole_by_others_and_is_not_the_last_run_s(files: PartyFolder) -> None:
    with running(files, SETTINGS) as party:
        party.show_status({"phase": "training", "round": 1})
        party.show_address(("/ip4/127.0.0.1/tcp/4001",))
        assert last_status(files) == {"phase": "training", "round": 1}
        assert (files.run / "address").read_text() == "/ip4/127.0.0.1/tcp/4001\n"
    assert last_status(files) == {"phase": "training", "round": 1}
    with running(files, SETTINGS):
        assert last_status(files) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "x" * (2 << 20)], ids=["empty", "torn", "list", "huge"])
def test_a_damaged_status_is_no_status(files: PartyFolder, text: str) -> None:
    files.run.mkdir()
    (files.run / "status.json").write_text(text)
    assert last_status(files) == {}


def test_the_party_s_log_is_its_own(files: PartyFolder) -> None:
    with running(files, SETTINGS):
        assert files.log.stat().st_mode & 0o077 == 0


def test_port_0_becomes_a_free_port_that_lasts() -> None:
    listen = free_port("/ip4/127.0.0.1/tcp/0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(listen.rpartition("/")[2])))
    assert free_port("/ip4/0.0.0.0/tcp/4001") == "/ip4/0.0.0.0/tcp/4001"


def test_a_party_may_be_asked_from_another_thread(files: PartyFolder) -> None:
    seen: list[bool] = []
    with running(files, SETTINGS):
        thread = threading.Thread(target=lambda: seen.append(is_running(files)))
        thread.start()
        thread.join(5)
    assert seen == [True]
