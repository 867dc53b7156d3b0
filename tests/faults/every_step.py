"""Every durable step of a coordinator and of a node, killed: ``python tests/faults/every_step.py [--each N]``.

A small study of four real processes on loopback (``accord coordinator run``, ``accord node run``). A durable step is a
commit of a database or a rename of a finished blob; its label is the function that takes it. A first run without a kill
lists the steps of the coordinator and of one node. Then, for each label, the party kills itself with SIGKILL just
before and just after the step, is started again, and the study goes on to its settlement with nobody's help.

Afterwards every folder is opened: the exported study must verify, what was admitted must be what the node stored, each
round must be charged once and in full, the ledger's epsilon must be that of the rounds that ran, recomputed, and what
was earned must be passed on once.

Processes are forked from one that has loaded torch and libp2p, which saves the seconds that loading takes; each opens
its own files, sockets and threads, and the parent has none.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import torch
from independent_accounting import independent_epsilon
from node_kills import EPSILON_SLACK, ended, forked
from parties_on_loopback import Parties
from sqlalchemy import Engine, event
from sqlmodel import Session, select

import federation.network.host  # noqa: F401 - loaded before the first fork, like the two above
from clients.folder import open_node_folder
from clients.privacy.budget import BudgetLedger, State
from clients.storage import StoredUpdate
from consent.registry.tables import ConsentCredit
from federation.cli.main import main as accord
from federation.coordinator.folder import open_coordinator
from federation.coordinator.history import system_clock
from federation.errors import AccordError
from federation.export.writing import write_export
from federation.rules.accounting import round_event
from federation.rules.documents import Update, open_signed
from federation.rules.state import StudyState
from federation.storage.database import read

REPOSITORY: Final = Path(__file__).resolve().parents[2]
EVERYBODY: Final = ("coordinator", *Parties.SITES)
KILLED: Final = ("coordinator", "ash")
ROUNDS, COUNT_NOISE = 2, 24
SHARE_PERCENT: Final = 50
"""A node's usual share for its people."""
SETTLED_S_MAX = 120.0
BACK_S_MAX = 60.0
_PLUMBING: Final = ("federation/storage/database.py", "federation/storage/sqlite.py", "federation/storage/blobs.py")

Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Step:
    """The ``occurrence``-th time (from 1) that a durable step with this label is taken, and on which side of it."""

    label: str
    side: Side
    occurrence: int


class Steps:
    """Watches a process's durable steps: writes each label into ``record``, and kills the process at ``target``."""

    def __init__(self, record: Path | None, target: Step | None) -> None:
        self._record = None if record is None else os.open(record, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._target = target
        self._seen: Counter[tuple[str, Side]] = Counter()

    def watch(self) -> None:
        """From now on, in this process."""
        event.listen(Engine, "commit", lambda _: self._pass("before"))
        event.listen(Session, "after_commit", lambda _: self._pass("after"))
        rename = Path.rename

        def renamed(path: Path, to: Any) -> Path:
            self._pass("before")
            done = rename(path, to)
            self._pass("after")
            return done

        Path.rename = renamed  # type: ignore[method-assign]  # the disk's own moment, not our code, is what is watched

    def _pass(self, side: Side) -> None:
        label = label_of(sys._getframe(1))
        self._seen[label, side] += 1
        if self._record is not None:
            os.write(self._record, f"{side} {label}\n".encode())
        if self._target == Step(label, side, self._seen[label, side]):
            os.kill(os.getpid(), signal.SIGKILL)


def label_of(frame: FrameType | None) -> str:
    """The function that takes the step, and its first caller in another file: ``file:function < file:function``."""
    found: list[tuple[str, str]] = []
    while frame is not None and len(found) < 2:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(REPOSITORY) and path.relative_to(REPOSITORY).parts[0] in {
            "clients",
            "consent",
            "federation",
        }:
            name = path.relative_to(REPOSITORY).as_posix()
            if name not in _PLUMBING and (not found or found[0][0] != name):
                found.append((name, frame.f_code.co_name))
        frame = frame.f_back
    return " < ".join(f"{name.removesuffix('.py')}:{function}" for name, function in found)


def start(folder: Path, name: str, *words: str, record: Path | None = None, target: Step | None = None) -> int:
    """Fork a party that runs until the study is settled, or the command of these ``words``; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        torch.set_num_threads(1)
        out = os.open(folder / f"{name}.out", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = os.fdopen(out, "w", buffering=1)
        Steps(record, target).watch()
        role = "coordinator" if name == "coordinator" else "node"
        status = accord([*(words or (role, "run", "--until-settled")), "--dir", str(folder / name)])
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(status)


@dataclass
class Told:
    """What came of one kill: how it went wrong, and how long the party took to be back (seconds)."""

    reached: bool
    back_s: float
    wrong: list[str]


class EveryStep:
    """One prepared study, which is put back to its beginning before each kill.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.live, self._template = folder / "study", folder / "template"
        self.live.mkdir()
        text, status = ended(*forked(_prepare, self.live))
        if status != 0:
            raise AssertionError(f"the study could not be prepared: {text}")
        shutil.copytree(self.live, self._template)

    def steps(self) -> dict[str, list[tuple[str, Side]]]:
        """The steps of each party that is killed, in the order of an undisturbed run."""
        self._reset()
        records = {name: self.live / f"{name}.steps" for name in KILLED}
        running = {name: start(self.live, name, record=records.get(name)) for name in EVERYBODY}
        wrong = self._to_the_end(running)
        if wrong:
            raise AssertionError(f"an undisturbed study fails: {wrong}")
        return {name: [_read(line) for line in path.read_text("utf-8").splitlines()] for name, path in records.items()}

    def kill(self, name: str, step: Step) -> Told:
        """Kill a party at a step, start it again, and look at every folder when the study is settled."""
        self._reset()
        running = {other: start(self.live, other, target=step if other == name else None) for other in EVERYBODY}
        end = time.monotonic() + SETTLED_S_MAX
        while (status := exit_of(running[name])) is None and time.monotonic() < end:
            time.sleep(0.01)
        if status != -signal.SIGKILL:
            if status is not None:
                del running[name]
            wrong = [] if status == 0 else [f"{name} ended with {status} instead of being killed"]
            return Told(reached=False, back_s=0.0, wrong=wrong + self._to_the_end(running))
        began = time.monotonic()
        shown = self.live / name / "run" / "status.json"
        before = shown.stat().st_mtime_ns if shown.exists() else 0
        running[name] = start(self.live, name)
        while (not shown.exists() or shown.stat().st_mtime_ns == before) and time.monotonic() - began < BACK_S_MAX:
            time.sleep(0.005)
        return Told(reached=True, back_s=time.monotonic() - began, wrong=self._to_the_end(running))

    def _to_the_end(self, running: dict[str, int]) -> list[str]:
        """Wait for everybody's own end; what is wrong, with their processes and with their folders."""
        wrong, end = [], time.monotonic() + SETTLED_S_MAX
        for name, pid in running.items():
            while (status := exit_of(pid)) is None and time.monotonic() < end:
                time.sleep(0.01)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                wrong.append(f"{name} did not come to the end")
            elif status != 0:
                wrong.append(f"{name} ended with {status}")
        return wrong or self.examine()

    def examine(self) -> list[str]:
        """What is wrong with the folders, found in a process of its own."""
        text, status = ended(*forked(_examine, self.live))
        found: list[str] = json.loads(text) if status == 0 else ["the folders cannot be examined"]
        return found

    def _reset(self) -> None:
        shutil.rmtree(self.live)
        shutil.copytree(self._template, self.live)


def _read(line: str) -> tuple[str, Side]:
    side, _, label = line.partition(" ")
    return label, "before" if side == "before" else "after"


def exit_of(pid: int) -> int | None:
    """How this child ended; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _prepare(folder: Path, _: int) -> None:
    with Parties(folder, deadline_s=60, rounds=ROUNDS, count_noise=COUNT_NOISE):
        pass


def _examine(folder: Path, out: int) -> None:
    data = json.dumps(violations(folder)).encode("utf-8")
    while data:
        data = data[os.write(out, data) :]


def violations(folder: Path) -> list[str]:
    """What must never be, in words, once every party has ended; empty if all is well."""
    coordinator = open_coordinator(folder / "coordinator")
    history = coordinator.history(None)
    state, wrong = history.state, list[str]()
    if not state.settled or len(state.closed) != ROUNDS:
        return [f"{len(state.closed)} rounds are closed, settled: {state.settled}"]
    export = folder / "export"
    shutil.rmtree(export, ignore_errors=True)
    try:
        write_export(
            export,
            plan=coordinator.plan(None)[1],
            log=history.log,
            blobs=coordinator.blobs,
            key=coordinator.key,
            validation=coordinator.validation(state.plan.validation.commitment),
        )
    except AccordError as error:
        wrong.append(f"the export does not verify: {error.message}")
    for site in Parties.SITES:
        wrong += [f"{site}: {text}" for text in _of_a_node(folder / site, state)]
    return wrong


def _of_a_node(folder: Path, state: StudyState) -> list[str]:
    node, wrong = open_node_folder(folder), list[str]()
    did, budget = node.key.public.did, BudgetLedger(node.engine, clock=system_clock)
    budget.history()
    charges = {charge.round: charge for charge in budget.charges()}
    if len(charges) != len(budget.charges()):
        wrong.append("a round is charged twice")
    for done in state.closed:
        charge, update = charges.get(done.number), done.admitted.get(did)
        with read(node.engine) as session:
            stored = session.get(StoredUpdate, (state.study, done.number))
        if update is None and stored is not None:
            wrong.append(f"round {done.number} was ready and did not count: {done.refused.get(did)}")
        if update is None:
            continue
        if charge is None or charge.state is not State.COMMITTED or charge.event != round_event(state.plan):
            wrong.append(f"round {done.number} was admitted, and its charge is {charge}")
        if stored is None or open_signed(Update, stored.envelope)[0] != update:
            wrong.append(f"round {done.number} is stored otherwise than it was admitted")
    again = independent_epsilon(charge.event for charge in charges.values())
    if abs(budget.spent() - again) > EPSILON_SLACK:
        wrong.append(f"the ledger says {budget.spent()}, what ran is {again}")
    share = sum(payment.total for payment in state.payments if payment.party == did) * SHARE_PERCENT // 100
    with read(node.consent_engine) as session:
        passed = [row.microcredits for row in session.exec(select(ConsentCredit))]
    if passed and not sum(passed) <= share < sum(passed) + len(passed):
        wrong.append(f"{sum(passed)} of {share} was passed on")
    return wrong


def chosen(steps: list[tuple[str, Side]], each: int) -> list[Step]:
    """For every label and side ``each`` occurrences, spread over the run."""
    times = Counter(steps)
    found = []
    for label, side in dict.fromkeys(steps):
        count = times[label, side]
        numbers = sorted({1 + (count - 1) * at // max(1, each - 1) for at in range(min(each, count))})
        found += [Step(label, side, number) for number in numbers]
    return found


def report(told: dict[tuple[str, str], list[Told]], seconds: float) -> int:
    """Print the table; how many violations there were."""
    print("\n| party | durable step | kills | slowest back, s |\n| --- | --- | ---: | ---: |")
    for (name, label), several in told.items():
        reached = [one.back_s for one in several if one.reached]
        print(f"| {name} | `{label}` | {len(reached)} | {max(reached, default=0):.2f} |")
    everything = [one for several in told.values() for one in several]
    back = [one.back_s for one in everything if one.reached]
    wrong = [text for one in everything for text in one.wrong]
    print(f"\n{len(back)} SIGKILLs at {len(told)} durable steps in {seconds:.0f} s; {len(wrong)} violations.")
    if back:
        slow = sum(one > 2 for one in back)
        print(f"Back after {statistics.median(back):.2f} s (median), {max(back):.2f} s (slowest); over 2 s: {slow}.")
    print("\n".join(wrong))
    return len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--each", type=int, default=2, help="occurrences of each step that are killed, before and after"
    )
    parser.add_argument("--party", choices=KILLED, default=None)
    given = parser.parse_args()
    told: dict[tuple[str, str], list[Told]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="accord-steps-") as folder:
        study = EveryStep(Path(folder))
        for name, steps in study.steps().items():
            for step in chosen(steps, given.each) if given.party in (None, name) else ():
                one = study.kill(name, step)
                told.setdefault((name, step.label), []).append(one)
                what = "; ".join(one.wrong) or (f"back after {one.back_s:.2f} s" if one.reached else "not reached")
                print(f"{name}, {step.side} {step.label} ({step.occurrence}): {what}", flush=True)
    sys.exit(bool(report(told, time.monotonic() - began)))


if __name__ == "__main__":
    main()
