"""A node's rounds, killed at any moment: ``python tests/faults/node_kills.py [--kills N]`` (``make soak``).

A process does what a node does for a coordinator, round after round, on a real folder: reserve, start, decide consent,
train, commit, send. It is ended by SIGKILL at a random moment, and the next one goes on from what is on the disk, with
nobody's help. What was sent is what arrived in a pipe, in writes that are whole or not there.

After every kill a fresh process opens the folder and reports; :func:`violations` then holds what was sent against what
was charged: nothing is released without its whole charge, no round is charged twice or answered in two ways, and the
ledger's epsilon is that of the rounds that ran, recomputed.

Processes are forked from one that has loaded torch, which saves the seconds that loading takes; each opens its own
database connections, and the parent has none.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import torch
from independent_accounting import independent_epsilon
from parties_on_loopback import Parties

import clients.privacy.dp_training  # noqa: F401 - loaded before the first fork
from clients.contribution import Answer, Contribution, Task
from clients.folder import open_node_folder
from clients.participation import Participation
from clients.privacy.budget import BudgetLedger
from clients.privacy.noise import SecureNoise
from clients.storage import StoredUpdate
from federation.coordinator.history import system_clock
from federation.learning.models import initial_model
from federation.rules.accounting import count_event, round_event
from federation.rules.documents import Refusal, open_signed
from federation.rules.fixedpoint import pack
from federation.rules.study import StudyPlan, open_agreement, open_plan
from federation.storage.database import read

SITE, ROUNDS, COUNT_NOISE = "ash", 400, 400
BEFORE = "before a reservation"
EPSILON_SLACK = 1e-9
KILLS_EACH = 100
"""Kills of one folder; then a new one is made, as a chain of thousands of rows is verified at every step."""


@dataclass
class Sent:
    """What left the node: for each round the answers by kind, each with its hash and its refusal's code."""

    answers: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    codes: dict[int, str] = field(default_factory=dict)

    def take(self, line: str) -> None:
        number, kind, digest, code = json.loads(line)
        self.answers.setdefault((number, kind), set()).add(digest)
        if code:
            self.codes[number] = code

    @property
    def released(self) -> set[int]:
        """The rounds of which an update was shown."""
        return {number for number, kind in self.answers if kind == "update"}


@dataclass
class Found:
    """What a fresh process found on the disk."""

    charges: list[tuple[int, str, dict[str, Any]]]
    stored: dict[int, str]
    spent: float


def violations(sent: Sent, found: Found, plan: StudyPlan, killed: int) -> list[str]:
    """What must never be, in words; empty if all is well.

    Args:
        sent: everything that ever left the node.
        found: what is on the disk.
        plan: the study's plan.
        killed: how many processes were killed.
    """
    wrong = []
    whole, count = round_event(plan), count_event(plan)
    charges = {number: (state, event) for number, state, event in found.charges}
    if len(charges) != len(found.charges):
        wrong.append("a round is charged twice")
    for number in sorted(sent.released):
        if charges.get(number) != ("committed", whole):
            wrong.append(f"round {number} was released, and its charge is {charges.get(number)}")
        if sent.answers[number, "update"] != {found.stored.get(number)}:
            wrong.append(f"round {number} was shown otherwise than it is stored")
    for (number, kind), digests in sorted(sent.answers.items()):
        if len(digests) != 1:
            wrong.append(f"round {number} was answered ({kind}) in {len(digests)} ways")
        if kind == "refusal" and (number, "commitment") in sent.answers:
            wrong.append(f"round {number} was committed and refused")
    for number, code in sorted(sent.codes.items()):
        expected = {"cohort": ("committed", count), "interrupted": ("started", whole)}.get(code)
        if charges.get(number) != expected:
            wrong.append(f"round {number} was refused ({code}), and its charge is {charges.get(number)}")
    if sum(state == "started" for state, _ in charges.values()) > killed:
        wrong.append("more rounds are under way than processes were killed")
    again = independent_epsilon(event for _, event in charges.values())
    if abs(found.spent - again) > EPSILON_SLACK:
        wrong.append(f"the ledger says {found.spent}, what ran is {again}")
    return wrong


def work(folder: Path, out: int) -> None:
    """Answer a coordinator's tasks, round after round, from the first that the pipe's reader has not seen answered."""
    node = open_node_folder(folder)
    row = node.membership(None)
    plan, _ = open_plan(row.plan)
    agreement, _ = open_agreement(row.agreement, signer=node.key.public)
    base = node.blobs.put(pack(initial_model(plan, 7)))
    budget = BudgetLedger(node.engine, clock=system_clock)
    participation = Participation(
        plan,
        row.plan,
        party=node.key.public,
        registry=node.registry,
        engine=node.engine,
        budget=budget,
        share_percent=50,
    )
    participation.begin()
    contribution = Contribution(
        plan=plan,
        agreement=agreement,
        key=node.key,
        engine=node.engine,
        registry=node.registry,
        participation=participation,
        blobs=node.blobs,
        fetch=node.blobs.get,
        noise=SecureNoise(),
        clock=system_clock,
    )
    rounds = [charge.round for charge in budget.charges()]
    for number in range(max(rounds, default=1), plan.rounds.count + 1):  # the last one is asked again: a retry
        answer = contribution.commit(Task(round_number=number, base_model=base, consent_size=0))
        send(out, number, answer)
        if answer.kind == "commitment":
            send(out, number, contribution.reveal(number))


def send(out: int, number: int, answer: Answer) -> None:
    """One write of fewer bytes than a pipe takes at once: it arrives whole or not at all."""
    code = open_signed(Refusal, answer.data)[0].code if answer.kind == "refusal" else ""
    digest = hashlib.sha256(answer.data).hexdigest()
    os.write(out, (json.dumps([number, answer.kind, digest, code]) + "\n").encode("ascii"))


def report(folder: Path, out: int) -> None:
    """What the folder holds, as an auditor would read it."""
    node = open_node_folder(folder)
    budget, study = BudgetLedger(node.engine, clock=system_clock), node.membership(None).study
    budget.history()
    charges = [(charge.round, str(charge.state), charge.event) for charge in budget.charges()]
    with read(node.engine) as session:
        stored = {
            number: hashlib.sha256(row.envelope).hexdigest()
            for number, *_ in charges
            if (row := session.get(StoredUpdate, (study, number))) is not None
        }
    data = json.dumps([charges, stored, budget.spent()]).encode("utf-8")
    while data:
        data = data[os.write(out, data) :]


def forked(job: Callable[[Path, int], None], folder: Path) -> tuple[int, int]:
    """A process that does ``job`` and ends; its id, and the reading end of its pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            torch.set_num_threads(1)
            job(folder, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return pid, reading


def ended(pid: int, reading: int) -> tuple[str, int]:
    """Everything that a process sent, and how it ended."""
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode("utf-8")
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Soak:
    """One folder whose node is killed again and again."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        made, reading = forked(self._make, folder)
        text, status = ended(made, reading)
        if status != 0:
            raise AssertionError("the folder could not be made")
        self.plan = open_plan(bytes.fromhex(text))[0]
        self.folder, self.chance = folder / SITE, chance
        self.sent = Sent()
        self.moments: Counter[str] = Counter()
        self.killed = 0
        self._longest_s = 0.35

    @staticmethod
    def _make(folder: Path, out: int) -> None:
        with Parties(folder, deadline_s=60, rounds=ROUNDS, count_noise=COUNT_NOISE) as parties:
            os.write(out, parties.envelope.hex().encode("ascii"))

    def kill_once(self) -> list[str]:
        """Let the node work for a random while, kill it, look at the folder; what is wrong."""
        before = self.look() if not self.killed else self.found
        pid, reading = forked(work, self.folder)
        time.sleep(self.chance.uniform(0.0, self._longest_s))
        os.kill(pid, signal.SIGKILL)
        text, status = ended(pid, reading)
        for line in text.splitlines():
            self.sent.take(line)
        self.killed += status == -signal.SIGKILL
        self.found = self.look()
        moment = self._moment(before, self.found)
        self.moments[moment] += 1
        early = moment == BEFORE  # on a slow machine it has to be let live longer to get anywhere
        self._longest_s = min(5.0, self._longest_s * 1.3) if early else max(0.2, self._longest_s / 1.3)
        wrong = violations(self.sent, self.found, self.plan, self.killed)
        return wrong if status == -signal.SIGKILL else [*wrong, f"the node ended by itself with {status}"]

    def look(self) -> Found:
        """Open the folder in a process of its own."""
        text, status = ended(*forked(report, self.folder))
        if status != 0:
            raise AssertionError("the folder cannot be opened without a person")
        charges, stored, spent = json.loads(text)
        return Found([(n, s, e) for n, s, e in charges], {int(n): digest for n, digest in stored.items()}, spent)

    def _moment(self, before: Found, after: Found) -> str:
        """Where the node was when it died, as its disk and what it sent show it."""
        if not after.charges or after.charges == before.charges:
            return BEFORE
        number, state, _ = after.charges[-1]
        if state != "committed":
            return state
        kinds = {kind for other, kind in self.sent.answers if other == number}
        return "committed, nothing sent" if not kinds else "sent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; by default another each time")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    chance, moments, wrong, started = random.Random(seed), Counter[str](), [], time.monotonic()
    killed = released = rounds = 0
    while killed < chosen.kills:
        with tempfile.TemporaryDirectory(prefix="accord-soak-") as folder:
            soak = Soak(Path(folder), chance)
            for _ in range(min(KILLS_EACH, chosen.kills - killed)):
                wrong += soak.kill_once()
            killed += soak.killed
            moments += soak.moments
            released += len(soak.sent.released)
            rounds += len(soak.found.charges)
        print(f"{killed} kills, {rounds} rounds charged, {released} released, {len(wrong)} violations", flush=True)
    print(f"\n{killed} SIGKILLs in {time.monotonic() - started:.0f} s (seed {seed}). Where the node was:")
    for moment, times in moments.most_common():
        print(f"  {times:5d}  {moment}")
    print("\n".join(wrong) if wrong else "Nothing was released without its charge; nothing was charged twice.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
