"""Federated averaging on stock Flower, started as its users start it: SuperLink, SuperNodes, ``flwr run`` of an app.

Everything is on loopback and without TLS, in a temporary folder that also holds Flower's home. Apps run in subprocesses
of SuperLink and SuperNodes, as is Flower's default. ``evaluate_fn`` notes the time after each round; federated
evaluation is off. Telemetry is off, and so is the installation of an app's dependencies: there are none to install.
"""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from accord_rounds import factor_of

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
    first = np.random.default_rng(1).normal(0, 0.05, config["parameters"]).astype(np.float32)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([first]),
        num_rounds=config["rounds"],
        evaluate_fn=lambda _round, _arrays: stamps.append(time.time()),
    )
    growth = float(np.linalg.norm(next(iter(result.arrays.values())).numpy()) / np.linalg.norm(first))
    Path(config["stamps"]).write_text(json.dumps({"stamps": stamps, "growth": growth}))
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


def stock_rounds(folder: Path, *, parameters: int, nodes: int, rounds: int, timeout_s: float) -> tuple[list[float], float]:
    """Run FedAvg; node ``i`` multiplies the model by ``factor_of(i)``.

    Returns:
        The seconds of each round, and how much the model has grown.

    Raises:
        RuntimeError: Flower did not finish in time; the message has its last lines.
    """
    home, app, stamps = folder / "home", folder / "app", folder / "stamps.json"
    port = free_port()
    for path, text in (
        (app / "pyproject.toml", PROJECT),
        (app / "bench" / "__init__.py", ""),
        (app / "bench" / "server.py", SERVER),
        (app / "bench" / "client.py", CLIENT),
        (home / "config.toml", f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    with ExitStack() as stack:
        log = stack.enter_context((folder / "flower.log").open("wb"))

        def start(*command: str) -> None:
            process = subprocess.Popen(command, cwd=app, env=environment, stdout=log, stderr=log, start_new_session=True)
            stack.callback(end, process)

        start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port))
        wait_for(port)
        for number in range(nodes):
            start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()), "--node-config", f"factor={factor_of(number)}")
        run = f'parameters={parameters} rounds={rounds} nodes={nodes} stamps="{stamps}"'
        subprocess.run(["flwr", "run", str(app), "--run-config", run], cwd=app, env=environment, stdout=log, stderr=log, check=True, timeout=START_S_MAX)
        deadline = time.monotonic() + timeout_s
        while not stamps.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("\n".join((folder / "flower.log").read_text(errors="replace").splitlines()[-30:]))
            time.sleep(0.2)
        time.sleep(0.2)
        found = json.loads(stamps.read_text())
    return [after - before for before, after in zip(found["stamps"], found["stamps"][1:], strict=False)], found["growth"]


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens on ``port``."""
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, and then whatever it started."""
    import signal
    process.terminate()
    try:
        process.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
