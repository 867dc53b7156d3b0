"""The registry's process is killed at every statement and every commit; nothing that had a receipt is lost or doubled.

For each step of the series in ``registry_series.py`` and each of its points: a process begins the step on the state
before it and dies there (SIGKILL); another one opens the same database, as the next process would, and goes through the
step again. What is there then must be what is there after a step that nobody interrupted.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from postgresql import Server
from registry_series import CLEO, GRANTS, STEPS

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200), pytest.mark.xdist_group("killed registry")]

LATE_MINUTES = 30


@dataclass(frozen=True)
class Outcome:
    """How a process ended, the receipts that it had given until then, and what it found."""

    killed: bool
    failed: str
    receipts: dict[str, dict[str, Any]]
    points: int
    found: dict[str, Any] | None


class Processes:
    """The warm process that forks the others."""

    def __init__(self) -> None:
        program = Path(__file__).parent / "registry_series.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, target: Path | str, *steps: str, look: bool = True, late: int = 0, **more: Any) -> Outcome:
        """One process goes through some steps; ``kill_in`` and ``kill_at`` name where it dies."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        case = {"kill_in": None, "kill_at": None, **more}
        case |= {"target": str(target), "file": isinstance(target, Path), "steps": steps, "look": look, "late": late}
        print(json.dumps(case), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()


def went_well(outcome: Outcome) -> Outcome:
    assert outcome.failed == ""
    assert not outcome.killed
    return outcome


def died(outcome: Outcome) -> Outcome:
    assert outcome.failed == ""
    assert outcome.killed
    return outcome


def same(before: Outcome, after: Outcome, whole: Outcome) -> None:
    """What was given a receipt has that receipt, and what is there is what should be there."""
    for name, receipt in before.receipts.items():
        assert after.receipts[name] == receipt
    assert after.receipts.keys() == whole.receipts.keys()
    assert after.found == whole.found


@pytest.mark.parametrize("step", STEPS)
def test_a_file_survives_death_at_every_point_of(step: str, tmp_path: Path, processes: Processes) -> None:
    names = list(STEPS)
    before, target = tmp_path / "before", tmp_path / "case"
    before.mkdir()
    earlier = names[: names.index(step)]
    went_well(processes.run(before / "accord.db", *earlier, look=False))
    whole = went_well(processes.run(target / "whole" / "accord.db", step, copy_from=str(before), kill_in=step))
    assert whole.points > 2, step
    for point in range(whole.points):
        path = target / str(point) / "accord.db"
        cut = died(processes.run(path, step, copy_from=str(before), kill_in=step, kill_at=point, look=False))
        again = went_well(processes.run(path, step, late=LATE_MINUTES))
        same(cut, again, whole)
        if step == "erase":
            parts = [CLEO.public.did.encode(), b"cleo", GRANTS["cleo"][-200:]]
            data = b"".join(file.read_bytes() for file in path.parent.iterdir())
            assert not any(part in data for part in parts)


def test_a_file_survives_death_at_every_point_of_its_making(tmp_path: Path, processes: Processes) -> None:
    whole = went_well(processes.run(tmp_path / "accord.db", kill_in="open"))
    for point in range(0, whole.points, 3):
        folder = tmp_path / str(point)
        folder.mkdir()
        died(processes.run(folder / "accord.db", kill_in="open", kill_at=point))
        same(whole, went_well(processes.run(folder / "accord.db")), whole)


def test_the_whole_series_survives_a_death_in_each_step(tmp_path: Path, processes: Processes) -> None:
    whole = went_well(processes.run(tmp_path / "accord.db", *STEPS))
    path = tmp_path / "killed" / "accord.db"
    path.parent.mkdir()
    receipts: dict[str, Any] = {}
    for minutes, step in enumerate(STEPS):
        for point in (0, 2):
            cut = died(processes.run(path, step, kill_in=step, kill_at=point, look=False, late=2 * minutes))
            receipts = cut.receipts | receipts
        again = went_well(processes.run(path, step, look=False, late=2 * minutes + 1))
        assert {name: again.receipts.get(name, given) for name, given in receipts.items()} == receipts
        receipts |= again.receipts
    assert went_well(processes.run(path, late=60)).found == whole.found
    assert receipts.keys() == whole.receipts.keys()


SHORT = ("grant", "append", "withdraw")


@pytest.mark.long
def test_a_postgresql_database_survives_death_at_every_point(
    postgresql_server: Server, postgresql_url: str, processes: Processes
) -> None:
    done: list[str] = []
    source = Server.name(postgresql_url)
    went_well(processes.run(postgresql_url, look=False))
    for step in SHORT:

        def fresh(name: str, source: str = source) -> str:
            postgresql_server.run(f"CREATE DATABASE {name} TEMPLATE {source}")
            return postgresql_server.url(name)

        kept = f"{Server.name(postgresql_url)}_after_{step}"
        whole = went_well(processes.run(fresh(kept), step, kill_in=step))
        for point in range(whole.points):
            name = f"{kept}_{point}"
            cut = died(processes.run(fresh(name), step, kill_in=step, kill_at=point, look=False))
            same(cut, went_well(processes.run(postgresql_server.url(name), step, late=LATE_MINUTES)), whole)
            postgresql_server.run(f"DROP DATABASE {name} WITH (FORCE)")
        source = kept
        done.append(step)
    assert tuple(done) == SHORT
