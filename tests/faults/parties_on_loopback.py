"""A small study of real processes on loopback, for tests that kill them.

Folders are prepared through the same functions that the commands call; what runs is ``accord coordinator run`` and
``accord node run``. Tests look at the folders (the coordinator's log, a node's budget), so that a kill comes exactly
where it is meant, and every process that was started here is ended here, by its id.
"""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from study_in_memory import key_of, small_plan, table

from clients.data.dataset import add_dataset
from clients.folder import NodeFolder, create_node
from clients.joining import membership_of
from clients.privacy.budget import BudgetLedger
from consent.rules.record import Action, Terms, build, sign_record
from federation.cli.coordinator import address_of
from federation.cli.running import free_port, last_status
from federation.coordinator.folder import CoordinatorFolder, commit_validation, create_coordinator, publish
from federation.coordinator.history import system_clock
from federation.coordinator.membership import Membership, invite
from federation.coordinator.protocols import JoinRequest
from federation.rules.entries import Entry, open_entry
from federation.rules.instant import format_instant
from federation.rules.state import StudyState
from federation.rules.study import Agreement, StudyPlan
from federation.settings import PartySettings
from federation.storage.database import write

PEOPLE = 60
COUNT_NOISE = 6
"""Noise is real here: 60 people are never counted as fewer than one (almost ten standard deviations)."""
POLL_S = 0.02
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("ACCORD_")}


def run_command(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """``accord WORDS``, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "federation.cli", *words],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=ENVIRONMENT,
        check=False,
    )


class Process:
    """One running party."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._out = (folder.parent / f"{folder.name}.out").open("ab")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "federation.cli", *words, "--dir", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            env=ENVIRONMENT,
        )
        self.pid = self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        """SIGKILL: it can do nothing any more, not even say goodbye."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        self._popen.wait(10)
        self._out.close()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it says nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it ends by itself."""
        return self._popen.wait(timeout_s)


class Parties:
    """A coordinator and three nodes that have joined and agreed; nothing runs yet."""

    SITES = ("ash", "birch", "cedar")

    def __init__(
        self,
        folder: Path,
        *,
        deadline_s: int,
        rounds: int = 3,
        count_noise: int = COUNT_NOISE,
        failover_s: int | None = None,
    ) -> None:
        self.folder = folder
        self.standby = None if failover_s is None else self._make_standby()
        listen = free_port("/ip4/127.0.0.1/tcp/0")
        self.coordinator: CoordinatorFolder = create_coordinator(
            folder / "coordinator", PartySettings(role="coordinator", name="coordinator", listen=listen)
        )
        validation = table("validation", 30)
        self.plan: StudyPlan = small_plan(
            validation,
            sites=3,
            validation={
                "commitment": commit_validation(self.coordinator, validation),
                "rule": "made up",
                "disclosure": "public",
            },
            rounds={"count": rounds, "deadline_s": deadline_s},
            privacy={"cohort_noise_multiplier": count_noise},
            cohort={"minimum": 1},
            **({} if self.standby is None else {"failover": self._failover(self.standby, failover_s)}),
        )
        self.envelope = publish(self.coordinator, self.plan)
        self.history = self.coordinator.history(self.plan.study_id)
        self.nodes: dict[str, NodeFolder] = {site: self._node(site) for site in self.SITES}
        self.health = {name: self._health(name) for name in ("coordinator", "ash")}
        self.processes: dict[str, Process] = {}
        self._entries: list[Entry] = []

    def _make_standby(self) -> CoordinatorFolder:
        listen = free_port("/ip4/127.0.0.1/tcp/0")
        return create_coordinator(self.folder / "standby", PartySettings(role="standby", name="standby", listen=listen))

    @staticmethod
    def _failover(standby: CoordinatorFolder, after_s: int | None) -> dict[str, Any]:
        return {"standby": standby.key.public.did, "address": standby.settings.listen, "after_s": after_s}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()

    @property
    def address(self) -> str:
        """Where the coordinator is dialled."""
        return address_of(self.coordinator)

    def start(self, *names: str) -> None:
        """Run these parties (``coordinator`` or a site) until the study is settled."""
        for name in names:
            role = "coordinator" if name == "coordinator" else "node"
            words = (role, "run", "--until-settled")
            if name == "standby":
                words = ("coordinator", "standby", "--of", self.address)
            self.processes[name] = Process(self.folder / name, *words)

    def kill(self, name: str) -> None:
        """SIGKILL a party."""
        self.processes[name].kill()

    def entries(self) -> list[Entry]:
        """The coordinator's log as its folder has it now."""
        log = self.history.log
        fresh = log.entries(len(self._entries))
        self._entries += [open_entry(data, signer=self.coordinator.key.public) for data in fresh]
        return self._entries

    def said(self, kind: str, number: int | None = None) -> list[Entry]:
        """The entries of a kind (in a round)."""
        return [entry for entry in self.entries() if entry.body.kind == kind and number in (None, entry.round)]

    def state(self) -> StudyState:
        """What the coordinator's log says now."""
        return self.coordinator.history(self.plan.study_id).state

    def status(self) -> dict[str, Any]:
        """What the running coordinator says of the study."""
        return last_status(self.coordinator.files)

    def budget(self, site: str) -> BudgetLedger:
        """A node's privacy budget."""
        return BudgetLedger(self.nodes[site].engine, clock=system_clock)

    def did(self, site: str) -> str:
        return self.nodes[site].key.public.did

    def wait_for(
        self, what: str, happened: Callable[[], Any], *, timeout_s: float, alive: tuple[str, ...] = ()
    ) -> None:
        """Look at the folders until something has happened.

        Raises:
            AssertionError: it has not, in time, or one of the parties ``alive`` has ended.
        """
        end = time.monotonic() + timeout_s
        while not happened():
            ended = [name for name in alive if not self.processes[name].alive]
            if ended or time.monotonic() > end:
                why = f"{ended} ended" if ended else f"{timeout_s} s are over"
                raise AssertionError(f"waiting for {what}: {why}\n{self._what_they_say()}")
            time.sleep(POLL_S)

    def _health(self, name: str) -> str:
        """Let a party show its health; where."""
        address = f"127.0.0.1:{free_port('/ip4/127.0.0.1/tcp/0').rpartition('/')[2]}"
        settings = self.folder / name / "accord.toml"
        settings.write_text(settings.read_text("utf-8").replace('health = ""', f'health = "{address}"'), "utf-8")
        return address

    def asked(self, name: str, path: str) -> str:
        """What a running party answers on ``/healthz`` or ``/metrics``."""
        with contextlib.closing(http.client.HTTPConnection(self.health[name], timeout=10)) as line:
            line.request("GET", path)
            return line.getresponse().read().decode("utf-8")

    def _what_they_say(self) -> str:
        paths = sorted([*self.folder.glob("*/party.log"), *self.folder.glob("*.out")])
        texts = [f"-- {path.relative_to(self.folder)}\n{path.read_text('utf-8')[-1500:]}" for path in paths]
        kinds = [(entry.body.kind, entry.round) for entry in self.entries()[-12:]]
        return "\n".join([*texts, f"-- the log ends with {kinds}"])

    def _node(self, site: str) -> NodeFolder:
        return joined_node(self.folder / site, self.coordinator, self.address)


def joined_node(folder: Path, coordinator: CoordinatorFolder, address: str, *, people: int = PEOPLE) -> NodeFolder:
    """A node whose people consent, that has joined the coordinator's study at ``address`` and agreed to it."""
    site, now = folder.name, system_clock()
    plan, envelope = coordinator.plan(None)
    opened = create_node(folder, PartySettings(role="node", name=site))
    rows = folder.parent / f"{site}.csv"
    rows.write_bytes(table(site, people))
    add_dataset(opened.engine, rows, subject_column="person", name=None, now=now)
    refs = [f"p{number:02}" for number in range(people)]
    opened.registry.submit_all([(ref, _grant(opened, plan, site, ref)) for ref in refs])
    invitation = invite(coordinator.engine, study=plan.study_id, site=site, address=address)
    membership = Membership(coordinator.engine, coordinator.history(plan.study_id), envelope)
    request = JoinRequest(study=invitation.study, token=invitation.token)
    row = membership_of(invitation, membership.join(opened.key.public, request.to_payload()), now=now)
    agreement = Agreement(
        study=plan.study_id,
        plan_hash=plan.plan_hash,
        site=site,
        nominal_cohort=people,
        signed_at=format_instant(now),
    )
    row.agreement = agreement.sign(opened.key).to_bytes()
    with write(opened.engine) as session:
        session.add(row)
    return opened


def _grant(opened: NodeFolder, plan: StudyPlan, site: str, ref: str) -> bytes:
    now, person = system_clock(), key_of(f"person {site}/{ref}")
    terms = Terms(
        purposes=("DUO:0000006",),
        epsilon_max=plan.privacy.epsilon,
        delta_max=plan.privacy.delta,
        valid_until=now + timedelta(days=1),
    )
    document = build(
        subject=person.public,
        institution=opened.key.public,
        action=Action.GRANT,
        seq=1,
        prev=None,
        valid_from=now,
        terms=terms,
    )
    return sign_record(document, person, created=now)
