"""Federated averaging on stock Flower, started as its users start it: SuperLink, SuperNodes, ``flwr run`` of an app.

Everything is on loopback and without TLS, in a temporary folder that also holds Flower's home. Apps run in subprocesses
of SuperLink and SuperNodes, as is Flower's default. ``evaluate_fn`` notes the time after each round; federated
evaluation is off. Telemetry is off, and so is the installation of an app's dependencies: there are none to install.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from accord_rounds import Rounds, cpu_s, factor_of

BIN: Final = Path(sys.executable).parent
START_S_MAX: Final = 90.0
END_S_MAX: Final = 10.0

PROJECT: Final = """
[project]
name = "bench"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "bench.server:app"
clientapp = "bench.client:app"

[tool.flwr.app.config]
parameters = 1
rounds = 1
nodes = 1
stamps = ""
"""

SERVER: Final = '''
"""FedAvg as Flower ships it."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    nodes = config["nodes"]
    stamps = []

    def note(_round, _arrays):
        Path(config["stamps"] + ".begun").touch()
        stamps.append(time.time())

    first = np.random.default_rng(1).normal(0, 0.05, config["parameters"]).astype(np.float32)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([first]),
        num_rounds=config["rounds"],
        evaluate_fn=note,
    )
    growth = float(np.linalg.norm(next(iter(result.arrays.values())).numpy()) / np.linalg.norm(first))
    written = Path(config["stamps"] + ".part")
    written.write_text(json.dumps({"stamps": stamps, "growth": growth}))
    written.rename(config["stamps"])
'''

CLIENT: Final = '''
"""Multiplies the model by the node's factor."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    factor = np.float32(context.node_config["factor"])
    arrays = {name: Array(array.numpy() * factor) for name, array in message.content["arrays"].items()}
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1.0})}
    return Message(RecordDict(content), reply_to=message)
'''


class StockFlower:
    """SuperLink, SuperNodes and an app in ``folder``; ended with the ``with`` block, and whatever they started."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._app, self._port = folder, folder / "app", free_port()
        self.stamps = folder / "stamps.json"
        self._write("app/pyproject.toml", PROJECT)
        self._write("app/bench/__init__.py", "")
        self._write("app/bench/server.py", SERVER)
        self._write("app/bench/client.py", CLIENT)
        link = f'[superlink.bench]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n'
        self._write("home/config.toml", f'[superlink]\ndefault = "bench"\n\n{link}')
        self._environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        self._log = folder / "flower.log"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, nodes: int) -> None:
        """Start the SuperLink and the SuperNodes."""
        own = str(self._port)
        self._stay("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", own)
        wait_for(self._port)
        for number in range(nodes):
            config = ("--port", str(free_port()), "--node-config", f"factor={factor_of(number)}")
            self._stay("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{own}", *config)

    def run(self, config: str, timeout_s: float) -> float:
        """``flwr run`` the app, and wait until it has written its stamps; the processor seconds of all rounds.

        Raises:
            RuntimeError: it has not in time; the message is the end of Flower's log.
        """
        process = self._stay("flwr", "run", str(self._app), "--run-config", config)
        deadline, before = time.monotonic() + timeout_s, 0.0
        begun = self.stamps.with_name(f"{self.stamps.name}.begun")
        while not self.stamps.exists():
            if not before and begun.exists():
                before = cpu_s()
            if time.monotonic() > deadline or process.poll():
                raise RuntimeError("\n".join(self._log.read_text(errors="replace").splitlines()[-30:]))
            time.sleep(0.2)
        return cpu_s() - before

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _stay(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / program), *arguments],
                cwd=self._app,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(end, process)
        return process


def stock_rounds(folder: Path, *, parameters: int, nodes: int, rounds: int, timeout_s: float) -> Rounds:
    """Run FedAvg; node ``i`` multiplies the model by ``factor_of(i)``.

    Raises:
        RuntimeError: Flower did not finish in time.
    """
    with StockFlower(folder) as flower:
        flower.start(nodes)
        used = flower.run(f'parameters={parameters} rounds={rounds} nodes={nodes} stamps="{flower.stamps}"', timeout_s)
        found = json.loads(flower.stamps.read_text())
    seconds = [after - before for before, after in pairwise(found["stamps"])]
    return Rounds(seconds, used / rounds, found["growth"])


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on ``port``."""
    deadline = time.monotonic() + START_S_MAX
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody listens on port {port} after {START_S_MAX:g} s")
        time.sleep(0.2)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, and then whatever it started."""
    process.terminate()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
