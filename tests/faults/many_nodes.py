"""Many nodes on one machine: ``python tests/faults/many_nodes.py [--nodes 100] [--rounds 10]`` (``make soak``).

The coordinator is ``accord coordinator run``. Nodes are the program's own: each has its key, its libp2p host, its
folder with database and blobs, and a thread; some share a process. In every round another fifth of them leaves and
comes back when the next round begins. In one round half of the processes lose their line to the coordinator for a
while: a partition, which then heals. No round may be stuck: each has to close within its two deadlines and a margin,
and the study has to settle.

Memory is what all processes hold together (proportional set size: what they share counts once), read at the end of
every round; the slope over the rounds is a least-squares line.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import torch
from parties_on_loopback import Process, joined_node
from slow_line import SlowLine
from study_in_memory import small_plan, table

import clients.flower.app
import clients.flower.runtime
import clients.privacy.dp_training  # noqa: F401 - loaded before the first fork, so that processes share it
from clients.folder import NodeFolder, open_node_folder
from clients.node import Node, NodeParts
from federation.cli.coordinator import address_of
from federation.cli.running import free_port
from federation.coordinator.folder import commit_validation, create_coordinator, open_coordinator, publish
from federation.network.host import Libp2pHost
from federation.rules.entries import open_entry
from federation.rules.state import StudyState
from federation.settings import PartySettings

CHURN: Final = 0.2
MARGIN_S: Final = 60.0
POLL_S: Final = 0.1
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Terms:
    """What is tried."""

    nodes: int = 100
    processes: int = 10
    rounds: int = 10
    deadline_s: int = 45
    people: int = 20
    count_noise: int = 6
    partition_in: int = 5
    seed: int = 7

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(f"site{number:03}" for number in range(self.nodes))

    def of(self, process: int) -> tuple[str, ...]:
        """The sites of one process."""
        return self.sites[process :: self.processes]


class RunningNode:
    """One node: its host and its thread, as ``accord node run`` has them."""

    def __init__(self, folder: NodeFolder) -> None:
        membership = folder.membership()
        self._stop = threading.Event()
        self._folder = folder
        self._host = Libp2pHost(folder.key, listen=None)
        self._node = Node(
            NodeParts(
                key=folder.key,
                engine=folder.engine,
                registry=folder.registry,
                replica=folder.replica(membership.study),
                blobs=folder.blobs,
                exchange=self._host,
                membership=membership,
                evidence=folder.evidence,
            )
        )
        self._thread = threading.Thread(target=self._node.run, args=(self._stop,))
        self._thread.start()

    def end(self) -> None:
        """Leave: the connection, the thread and the database are closed."""
        self._stop.set()
        self._thread.join()
        self._host.close()
        self._folder.engine.dispose()


def serve_nodes(folder: Path, sites: tuple[str, ...], address: str, people: int, orders: int, answers: int) -> None:
    """A process of nodes: makes their folders, then does what it is told, line by line."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(1)
    coordinator = open_coordinator(folder / "coordinator")
    for site in sites:
        joined_node(folder / site, coordinator, address, people=people).engine.dispose()
    coordinator.engine.dispose()
    running: dict[str, RunningNode] = {}
    with os.fdopen(orders) as told, os.fdopen(answers, "w") as said:
        print("ready", file=said, flush=True)
        for line in told:
            up = set(json.loads(line))
            for site in [each for each in running if each not in up]:
                running.pop(site).end()
            for site in sorted(up - set(running)):
                running[site] = RunningNode(open_node_folder(folder / site))
            print("done", file=said, flush=True)
    for node in running.values():
        node.end()


class NodeProcess:
    """A forked process of several nodes."""

    def __init__(self, folder: Path, sites: tuple[str, ...], address: str, people: int) -> None:
        self.sites = sites
        orders, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._tell)
                os.close(self._hear)
                serve_nodes(folder, sites, address, people, orders, answers)
                code = 0
            except BaseException:  # noqa: BLE001 - the end of the process: what went wrong is shown
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(orders)
        os.close(answers)
        self._answers = os.fdopen(self._hear)

    def wait(self) -> None:
        """Until what it was told is done."""
        if not self._answers.readline():
            raise AssertionError("a process of nodes has ended")

    def run_only(self, sites: list[str]) -> None:
        """Let these run, and no others."""
        os.write(self._tell, json.dumps(sites).encode() + b"\n")

    def end(self) -> None:
        """Let all nodes leave; or else, after a while, SIGKILL."""
        with contextlib.suppress(OSError):
            os.close(self._tell)
        for _ in range(300):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(POLL_S)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Line(SlowLine):
    """A line without limits that can be down: then it takes no connection, and has none."""

    down = False

    def __init__(self, target: int, port: int) -> None:
        super().__init__(target, bytes_s=1e9, delay_s=0.0, cut_every_s=1e9, port=port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            await super()._accept(reader, writer)

    def fail(self) -> None:
        self.down = True
        self._loop.call_soon_threadsafe(self._close_all)

    def heal(self) -> None:
        self.down = False


@dataclass
class Found:
    """What came of it."""

    seconds: list[float] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    settled_s: float = 0.0

    @property
    def slope(self) -> float:
        """Bytes a round, by least squares over the second half of the rounds (the first fills caches)."""
        series = self.memory[len(self.memory) // 2 :]
        middle, mean = (len(series) - 1) / 2, sum(series) / len(series)
        spread = sum((at - middle) ** 2 for at in range(len(series)))
        return sum((at - middle) * (each - mean) for at, each in enumerate(series)) / spread if spread else 0.0


class ManyNodes:
    """The study: made, and its processes of nodes started; ``run`` plays it."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self.folder, self.terms, self.found, self._worked_s = folder, terms, Found(), 0.0
        port = free_port("/ip4/127.0.0.1/tcp/0")
        free = free_port("/ip4/127.0.0.1/tcp/0").rpartition("/")[2]
        self._port, self._chance = int(port.rpartition("/")[2]), random.Random(terms.seed)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._make(port)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        self._address = address_of(open_coordinator(folder / "coordinator"))
        through = self._address.replace(f"/tcp/{self._port}/", f"/tcp/{free}/")
        half = terms.processes // 2
        self.processes = [
            NodeProcess(folder, terms.of(number), through if number < half else self._address, terms.people)
            for number in range(terms.processes)
        ]
        self._line = Line(self._port, int(free))
        for process in self.processes:
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.end()

    def _make(self, listen: str) -> None:
        terms, count = self.terms, self.terms.nodes
        made = create_coordinator(
            self.folder / "coordinator", PartySettings(role="coordinator", name="coordinator", listen=listen)
        )
        validation = table("validation", 60)
        sampling = {"sampling": {"precision": "0.0005"}} if count > 14 else {}
        plan = small_plan(
            validation,
            sites=count,
            validation={"commitment": commit_validation(made, validation), "rule": "made up"},
            rounds={"count": terms.rounds, "deadline_s": terms.deadline_s, "quorum": max(1, count // 3)},
            privacy={"cohort_noise_multiplier": terms.count_noise},
            cohort={"minimum": 1},
            valuation=sampling,
        )
        publish(made, plan)

    def run(self) -> Found:
        """Play all rounds."""
        with self._line:
            coordinator = Process(self.folder / "coordinator", "coordinator", "run", "--until-settled")
            try:
                self._play(coordinator)
            finally:
                coordinator.kill()
        return self.found

    def _play(self, coordinator: Process) -> None:
        opened = open_coordinator(self.folder / "coordinator")
        log = opened.history(None).log
        begun = ended = 0
        seen, opening, limit = 0, time.monotonic(), 2 * self.terms.deadline_s + MARGIN_S
        self._let_run(set(self.terms.sites))
        print("all run", flush=True)
        while True:
            alive = coordinator.alive  # asked first: what it wrote before it ended is read below
            for data in log.entries(seen):
                body, seen = open_entry(data, signer=opened.key.public).body, seen + 1
                if body.kind == "round-opened":
                    begun, opening = begun + 1, time.monotonic()
                    self._disturb(begun)
                elif body.kind == "round-closed":
                    ended += 1
                    self._note(time.monotonic() - opening, len(body.updates), coordinator)
                    opening = time.monotonic()
                    if ended == self.terms.rounds:
                        self._let_run(set(self.terms.sites))
                elif body.kind == "study-settled":
                    self.found.settled_s = time.monotonic() - opening
                    return
            waited = time.monotonic() - opening
            if waited > limit + (0 if begun else 10 * MARGIN_S) or not alive:
                self.found.wrong.append(f"after {begun} openings and {ended} ends nothing came for {waited:.0f} s")
                return
            time.sleep(POLL_S)

    def _disturb(self, number: int) -> None:
        """Another fifth leaves, and whoever had left is back; and the partition."""
        away = set(self._chance.sample(self.terms.sites, round(CHURN * self.terms.nodes)))
        self._let_run(set(self.terms.sites) - away)
        if number == self.terms.partition_in:
            self._line.fail()
            threading.Timer(self.terms.deadline_s / 2, self._line.heal).start()

    def _let_run(self, sites: set[str]) -> None:
        for process in self.processes:
            process.run_only([site for site in process.sites if site in sites])
        for process in self.processes:
            process.wait()

    def _note(self, seconds: float, admitted: int, coordinator: Process) -> None:
        pids = [coordinator.pid, *(process.pid for process in self.processes)]
        memory, cpu = sum(map(held, pids)), sum(map(worked_s, pids))
        self.found.cpu.append(cpu - self._worked_s)
        self._worked_s = cpu
        self.found.seconds.append(seconds)
        self.found.admitted.append(admitted)
        self.found.memory.append(memory)
        print(
            f"round {len(self.found.seconds)}: {seconds:.1f} s, {admitted} updates, {memory / MIB:.0f} MiB, "
            f"{self.found.cpu[-1]:.1f} s of CPU (coordinator so far {worked_s(coordinator.pid):.1f} s)",
            flush=True,
        )

    def state(self) -> StudyState:
        """What the coordinator's log says."""
        return open_coordinator(self.folder / "coordinator").history(None).state


def held(pid: int) -> int:
    """Bytes of memory that a process holds; what it shares with others counts by its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no memory")


def worked_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    numbers = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in vars(Terms()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    terms = Terms(**vars(parser.parse_args()))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="accord-many-") as folder, ManyNodes(Path(folder), terms) as soak:
        print(
            f"{terms.nodes} nodes in {terms.processes} processes, made in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        found: Any = soak.run()
        if found.seconds:
            print(
                f"\n{len(found.seconds)} rounds, the longest {max(found.seconds):.1f} s, settled "
                f"{found.settled_s:.1f} s later; at most {max(found.memory) / MIB:.0f} MiB in all, "
                f"slope {found.slope / MIB:+.3f} MiB a round; "
                f"{sum(found.cpu) / len(found.cpu):.1f} s of CPU a round; {time.monotonic() - started:.0f} s in all"
            )
        print("\n".join(found.wrong) or "No round was stuck; the study settled.")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
