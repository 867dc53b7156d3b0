"""A user's own, unchanged app on our Grid: real releases, real sandboxes, the in-memory network."""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from hand_made import make_node

from clients.apps.project import read_project
from clients.apps.release import Limits, Releases, Terms
from clients.flower.own_app import NOT_RELEASED, OwnApp
from clients.flower.runtime import FlowerRuntime, context_for
from clients.folder import open_node_folder
from federation.cli.main import main
from federation.coordinator.history import system_clock
from federation.errors import OperatorError
from federation.flower import messages
from federation.flower.own_app import AppGrid, run_server_app
from federation.network.memory import MemoryNetwork
from federation.rules.keys import PrivateKey

pytestmark = pytest.mark.processes

SAMPLE = Path(__file__).parent / "sample_app"
HASH = read_project(SAMPLE).code_hash
UNBOUND = ("--epsilon-max", "1000000", "--code-hash", HASH)
COORDINATOR = PrivateKey(b"c" * 32)


def rows(name: str) -> str:
    """Days whose power is 1 + 2 wind - 3 hour."""
    rng = random.Random(name)
    points = [(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(50)]
    lines = [f"{name}-{day},{wind},{hour},{1 + 2 * wind - 3 * hour}" for day, (wind, hour) in enumerate(points)]
    return "\n".join(["day,wind,hour,power", *lines]) + "\n"


class Station:
    """An institution whose file is released to the sample app, and served."""

    def __init__(self, folder: Path, name: str, network: MemoryNetwork, address: str) -> None:
        node = make_node(folder, name)
        file, wallet = folder / f"{name}.csv", folder / f"{name}.wallet"
        file.write_text(rows(name), encoding="utf-8")
        for command in (
            ("data", "add", file, "--dir", node, "--subject", "day"),
            ("consent", "wallet", "--out", wallet, "--licence"),
            ("consent", "grant", "--dir", node, "--wallet", wallet, "--licence", "--purpose", "DUO:0000042", *UNBOUND),
        ):
            assert main([str(each) for each in command]) == 0
        opened = open_node_folder(node)
        self.releases = Releases(opened.engine, opened.registry, opened.key.public, system_clock)
        terms = Terms(COORDINATOR.public, address, "DUO:0000042", Limits(), {})
        self.releases.approve(HASH, None, terms)
        self.exchange = network.exchange(opened.key)
        self.exchange.connect(address, timeout_s=1)
        own = OwnApp(SAMPLE, HASH, self.releases, coordinator=COORDINATOR.public, home=Path(os.path.relpath(node)))
        self.runtime = FlowerRuntime(self.exchange, COORDINATOR.public, own, context_for(self.exchange), replies_max=2)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a ServerApp changes in its process ends with the test."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "sampleapp"]:
        del sys.modules[name]


def test_an_unchanged_app_converges_over_two_institutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = MemoryNetwork()
    coordinator = network.exchange(COORDINATOR)
    [address] = coordinator.addresses()
    stations = [Station(tmp_path, name, network, address) for name in ("north", "south")]
    project = read_project(SAMPLE)
    grid = AppGrid(coordinator, HASH)
    run_server_app(SAMPLE, project.server_app, grid, project.config)
    assert np.loadtxt(tmp_path / "final_model.txt") == pytest.approx([1, 2, -3], abs=1e-3)
    assert [station.releases.listing()[0][1] for station in stations] == [2, 2], "every reply is written down"

    north = stations[0]
    north.releases.revoke(HASH)
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3)])})
    node_id = messages.node_id_of(north.exchange.public)
    [reply] = grid.send_and_receive([Message(content, node_id, "train")], timeout=20)
    assert NOT_RELEASED in (reply.error.reason or "")
    assert north.releases.listing()[0][1] == 2
    for station in stations:
        station.runtime.close()


class Setting:
    """A Grid of one app, and a node with an app written by hand in this very process."""

    def __init__(self, answer: Callable[[Message], RecordDict]) -> None:
        network = MemoryNetwork()
        self.coordinator = network.exchange(COORDINATOR)
        self.grid = AppGrid(self.coordinator, HASH)
        messages.task_identity(self.grid.run.run_id, self.grid.node_id)
        node = network.exchange(PrivateKey(b"n" * 32))
        node.connect(self.coordinator.addresses()[0], timeout_s=1)
        self.node_id = messages.node_id_of(node.public)
        self.groups: list[str] = []
        app = ClientApp()

        @app.query()
        def query(message: Message, _context: Context) -> Message:
            self.groups.append(message.metadata.group_id)
            return Message(answer(message), reply_to=message)

        self.runtime = FlowerRuntime(node, COORDINATOR.public, app, context_for(node))

    def ask(self, group: str = "") -> Message:
        asked = Message(RecordDict(), self.node_id, "query", group_id=group)
        [reply] = self.grid.send_and_receive([asked], timeout=10)
        self.runtime.close()
        return reply


def test_messages_of_an_app_are_named_and_say_whose_they_are() -> None:
    setting = Setting(lambda _message: RecordDict({"x": ConfigRecord({"y": 1})}))
    [first] = setting.grid.push_messages([Message(RecordDict(), setting.node_id, "query")])
    end, replies = time.monotonic() + 20, []
    while not replies and time.monotonic() < end:
        replies = setting.grid.pull_messages([first])
        time.sleep(0.01)
    assert [reply.content["x"] for reply in replies] == [ConfigRecord({"y": 1})]
    assert setting.grid._asked == {}, "what was answered is forgotten"
    [second] = setting.grid.push_messages([setting.grid.create_message(RecordDict(), "query", setting.node_id, "")])
    assert first != second, "the same question twice is two questions"
    assert setting.ask("a group").content["x"] == ConfigRecord({"y": 1})
    assert setting.groups[-1] == f"app/{HASH}/a group"


def test_a_lying_array_becomes_an_error_reply() -> None:
    array = Array(np.zeros(4))
    array.data = array.data.replace(b"(4,), }     ", b"(400000,), }")
    reply = Setting(lambda _message: RecordDict({"a": ArrayRecord({"0": array})})).ask()
    assert "as many numbers" in (reply.error.reason or "")


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station for tests in which nothing leaves it."""
    network = MemoryNetwork()
    [address] = network.exchange(COORDINATOR).addresses()
    made = Station(tmp_path_factory.mktemp("north"), "north", network, address)
    yield made
    made.runtime.close()


def reason(runtime: FlowerRuntime, group: str) -> str:
    """Why the node refuses a message of this group."""
    task = messages.task_message(
        RecordDict(), run_id=1, group_id=group, message_type="train", src_node_id=1, dst_node_id=1
    )
    return runtime.handle(task).error.reason or ""


@pytest.mark.parametrize(
    ("group", "why"), [(f"app/{'0' * 64}/g", "serves the app"), ("study-1/1", "which app"), ("app/x", "which app")]
)
def test_a_node_runs_no_other_version_and_no_study(north: Station, group: str, why: str) -> None:
    assert why in reason(north.runtime, group)


def test_an_app_that_changed_after_it_was_approved_is_not_run(north: Station, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    read_project(SAMPLE).write_to(changed)
    (changed / "extra.py").write_text("", encoding="utf-8")
    own = OwnApp(changed, HASH, north.releases, coordinator=COORDINATOR.public, home=tmp_path / "node")
    with FlowerRuntime(north.exchange, COORDINATOR.public, own, context_for(north.exchange)) as runtime:
        told = reason(runtime, f"app/{HASH}/")
    assert "cannot run the app as it is" in told
    assert str(changed) not in told


def test_a_release_is_to_one_coordinator(north: Station, tmp_path: Path) -> None:
    other = PrivateKey(b"o" * 32).public
    own = OwnApp(SAMPLE, HASH, north.releases, coordinator=other, home=tmp_path / "node")
    with FlowerRuntime(north.exchange, other, own, context_for(north.exchange)) as runtime:
        assert NOT_RELEASED in reason(runtime, f"app/{HASH}/")
    assert north.releases.listing()[0][1] == 0


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "cannot be loaded"),
        ("app = 3", "no ServerApp"),
        (
            "from flwr.serverapp import ServerApp\napp = ServerApp()\n@app.main()\ndef main(grid, context):\n    1 / 0",
            "failed: ZeroDivisionError",
        ),
    ],
)
def test_a_server_app_that_cannot_run_is_its_authors_matter(tmp_path: Path, source: str, why: str) -> None:
    (tmp_path / "sampleapp.py").write_text(source, encoding="utf-8")
    grid = AppGrid(MemoryNetwork().exchange(COORDINATOR), HASH)
    with pytest.raises(OperatorError, match=why):
        run_server_app(tmp_path, "sampleapp:app", grid, {})
