"""One full demo for all tests of this folder, and one of sensor owners that is interrupted and resumed."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from running_demo import ACCORD, FinishedDemo, InterruptedDemo, is_alive, processes_of

SEED = 7
SECONDS_MAX = 180


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """``accord demo --out DIR --seed 7``, as it comes."""
    folder = tmp_path_factory.mktemp("demo") / "heart"
    line = [str(ACCORD), "demo", "--out", str(folder), "--seed", str(SEED)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=SECONDS_MAX, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return FinishedDemo(folder, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def report(demo: FinishedDemo) -> dict[str, Any]:
    return demo.report


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> InterruptedDemo:
    """A demo of sensor owners with four rounds, interrupted once the second one is closed."""
    folder = tmp_path_factory.mktemp("demo") / "weather"
    # a process that is started in the background of a script ignores SIGINT, and its children inherit that
    heeding = ["env", "--default-signal=INT"]
    line = [*heeding, str(ACCORD), "demo", "--sensors", "--rounds", "4", "--out", str(folder), "--seed", str(SEED)]
    process = subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for_round(process, folder / "coordinator" / "run" / "status.json", after=2)
        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    pids: dict[str, int] = json.loads((folder / "processes.json").read_text("utf-8"))
    alive = [pid for pid in pids.values() if is_alive(pid)]
    return InterruptedDemo(folder, process.returncode, stderr, pids, alive, processes_of(folder))


def _wait_for_round(process: "subprocess.Popen[str]", status: Path, *, after: int) -> None:
    """Wait until the coordinator says that it has closed round ``after``."""
    end = time.monotonic() + SECONDS_MAX
    while time.monotonic() < end and process.poll() is None:
        if status.exists() and json.loads(status.read_text("utf-8")).get("round", 0) > after:
            return
        time.sleep(0.02)
    raise AssertionError(f"round {after} was not closed (exit code {process.poll()})")
