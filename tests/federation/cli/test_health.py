"""``/healthz`` and ``/metrics`` of a running party, over real sockets; and logs as JSON lines."""

import contextlib
import http.client
import json
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from federation.cli.figures import Sample
from federation.cli.health import STALE_S, health, judge
from federation.cli.running import RunningParty, free_port, running
from federation.errors import OperatorError
from federation.settings import PartyFolder, PartySettings, create_settings


@pytest.fixture
def party(tmp_path: Path) -> RunningParty:
    settings = PartySettings(role="node", name="ash")
    create_settings(tmp_path / "node", settings)
    files = PartyFolder(tmp_path / "node")
    files.run.mkdir()
    return RunningParty(files)


@pytest.fixture
def address() -> str:
    port = free_port("/ip4/127.0.0.1/tcp/0").rpartition("/")[2]
    return f"127.0.0.1:{port}"


def figures() -> Iterator[Sample]:
    yield Sample("accord_rounds", 2, {"outcome": "admitted"})
    yield Sample("accord_rounds", 1, {"outcome": "refused"})
    yield Sample("accord_epsilon_spent", 1.25)


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8")


def test_a_party_is_healthy_while_its_loop_goes_round_whoever_is_away() -> None:
    status = {"study": "s-1", "round": 2, "connected": False, "problem": "", "secret": "x"}
    code, said = judge(status, 1.0)
    assert (code, said["healthy"], said["connected"]) == (200, True, False)
    assert "secret" not in said
    assert judge({"connected": ["ash", "birch"]}, 0.0)[1]["connected"] == 2
    code, said = judge(status, STALE_S + 1)
    assert (code, said["healthy"]) == (503, False)
    assert "stood still for 61 s" in said["reason"]
    assert judge({}, 0.0) == (503, {"healthy": False, "reason": "it is starting"})


def test_health_and_figures_are_answered_over_http(party: RunningParty, address: str) -> None:
    with health(address, party, figures):
        assert get(address, "/healthz")[0] == 503
        party.show_status({"study": "s-1", "round": 2, "connected": True, "awaited": ["a", "b"]})
        code, text = get(address, "/healthz")
        assert (code, json.loads(text)["round"]) == (200, 2)
        code, text = get(address, "/metrics")
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert found["accord_rounds_total", "admitted"] == 2
        assert found["accord_rounds_total", "refused"] == 1
        assert found["accord_epsilon_spent",] == 1.25
        assert (found["accord_connected",], found["accord_awaited",]) == (1, 2)
        assert 0 <= found["accord_status_age_seconds",] < 60
        assert get(address, "/")[0] == 404
        with contextlib.closing(http.client.HTTPConnection(address, timeout=5)) as line:
            line.request("POST", "/healthz", body=b"x" * 10)
            assert line.getresponse().status == 501
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/healthz", timeout=5)


def test_a_client_that_says_nothing_keeps_nobody_waiting_for_long(party: RunningParty, address: str) -> None:
    party.show_status({"round": 1})
    with health(address, party, figures), socket.create_connection(("127.0.0.1", int(address.split(":")[1]))) as mute:
        mute.sendall(b"GET /healthz HT")
        mute.close()
        assert get(address, "/healthz")[0] == 200


def test_an_address_in_use_is_named_with_what_to_do(party: RunningParty) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OperatorError, match=address) as refused, health(address, party, figures):
            pass
        assert "accord.toml" in refused.value.remedy


def test_without_an_address_nothing_listens(party: RunningParty) -> None:
    with health("", party, figures):
        assert party.status == {}


def test_logs_can_be_json_lines(tmp_path: Path) -> None:
    settings = PartySettings(role="node", name="ash", log_format="json")
    create_settings(tmp_path / "node", settings)
    files = PartyFolder(tmp_path / "node")
    with running(files, settings):
        logging.getLogger("clients.test").info("round %d: update committed", 3)
        try:
            raise ValueError("a trace")
        except ValueError:
            logging.getLogger("clients.test").exception("failed")
    first, second = (json.loads(line) for line in files.log.read_text("utf-8").splitlines())
    assert (first["level"], first["party"], first["message"]) == ("info", "ash", "round 3: update committed")
    assert first["at"].endswith("+00:00")
    assert "ValueError: a trace" in second["trace"]


@pytest.mark.parametrize("unit", ["accord-node.service", "accord-coordinator.service"])
def test_the_shipped_units_let_a_party_write_to_its_folder_and_nothing_else(repository: Path, unit: str) -> None:
    lines = (repository / "docs" / "examples" / unit).read_text("utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    role = unit.removeprefix("accord-").removesuffix(".service")
    assert settings["ExecStart"] == f"/opt/accord/bin/accord {role} run --dir /srv/accord"
    assert (settings["ReadWritePaths"], settings["ProtectSystem"]) == ("/srv/accord", "strict")
    assert settings["Restart"] == "always"
    assert settings["NoNewPrivileges"] == "true"
