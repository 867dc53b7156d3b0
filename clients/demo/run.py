"""The demo, step by step: prepare folders, start the parties, act as officers and patients, wait, export, verify.

What is done is written to ``demo.json`` after each step, so that a run that was interrupted goes on where it stopped.
The demo acts through public commands only (``parties``); what the report says is read off logs and folders
(``collect``).
"""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlmodel import select

from clients.demo.journal import Journal, Options
from clients.demo.parties import Parties, PartyFailedError, accord, parties, wait_for
from clients.demo.split import Split, draw_consents, draw_withdrawals, split_rows
from clients.demo.studies import STUDIES, DemoStudy
from clients.folder import open_node_folder
from clients.storage import StudyMembership
from federation.coordinator.folder import CoordinatorFolder, open_coordinator
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.rules.replay import replay
from federation.rules.state import StudyState
from federation.storage.database import read

WITHDRAWALS: Final = 10
WITNESS_QUORUM: Final = 2
CONSENT_BATCH_S: Final = 5
_POLL_S: Final = 0.25
_STUCK_S_MAX: Final = 900
_END_S_MAX: Final = 60

OnProgress = Callable[[str, int, int], None]
"""Told (what happens now, rounds closed, rounds in all)."""


class Demo:
    """One demo in one folder."""

    def __init__(self, folder: Path, options: Options, on_progress: OnProgress) -> None:
        self.folder = folder
        self.options = options
        self.study: DemoStudy = STUDIES[options.study]
        self.journal = Journal(folder, options)
        self.pids: dict[str, int] = {}
        self._tell = on_progress
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        plan = self.study.plan(rounds=options.rounds, epsilon=options.epsilon)
        self.rounds = plan.rounds.count
        self.plan_draft = plan
        self.split: Split = split_rows(self.study, plan, options.seed)

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    def node(self, site: str) -> Path:
        """A node's folder."""
        return self.folder / "nodes" / site

    def wallet(self, site: str) -> Path:
        """The keys of a site's people: in the real world each is on its owner's own device."""
        return self.folder / "people" / f"{site}.wallet"

    @property
    def export(self) -> Path:
        """The study as plain files."""
        return self.folder / "export"

    def words(self, site: str) -> dict[str, Any]:
        """Who says what at a site (empty where a licence binds)."""
        subject = self.plan_draft.schema_contract.subject
        names = {row[subject] for row in self.split.training[site]}
        if self.plan_draft.consent.kind == "licence":
            return dict.fromkeys(names, "grant")
        return dict(draw_consents(self.study, site, names, self.options.seed))

    def run(self) -> None:
        """Everything up to the verified export.

        Raises:
            AccordError: a party failed or refused; the message says which.
        """
        self._step("data", "Dividing the published rows", self._write_data)
        self._step("coordinator", "Making the coordinator and the plan", self._make_coordinator)
        with ExitStack() as stack:
            running: Parties | None = None
            if not self.journal.done("study"):
                running = stack.enter_context(parties())
                self._start_coordinator(running)
                self._start_institutions(running)
                self._step("study", "Training", lambda: self._follow(running))
        self._step("export", "Exporting the study", self._export)
        self._step("verify", "Verifying the export, offline", self._verify)

    def opened(self) -> CoordinatorFolder:
        """The coordinator's folder, to read from."""
        return open_coordinator(self.coordinator)

    def _step(self, name: str, title: str, work: Callable[[], None]) -> None:
        if self.journal.done(name):
            return
        self._tell(title, 0, self.rounds)
        started = time.monotonic()
        work()
        self.journal.finish(name, time.monotonic() - started)

    def _write_data(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        (self.folder / "people").mkdir(mode=0o700, exist_ok=True)
        for path in data.glob("*.csv"):
            path.unlink()
        self.split.write_validation(data / "validation.csv")
        for site in self.study.sites:
            self.split.write_training(site, data / f"{site}.csv")
            self._write_decisions(site)

    def _write_decisions(self, site: str) -> None:
        """What each person tells the hospital's consent desk."""
        now = datetime.now(UTC)
        expired = (format_instant(now - timedelta(days=366)), format_instant(now - timedelta(days=1)))
        lines = ["subject,action,valid_until,valid_from"]
        for name, word in sorted(self.words(site).items()):
            if word == "expire":
                lines.append(f"{name},grant,{expired[1]},{expired[0]}")
            else:
                lines.append(f"{name},{word},,")
        (self.folder / "people" / f"{site}.csv").write_text("\n".join(lines) + "\n", "utf-8")

    def _make_coordinator(self) -> None:
        if not (self.coordinator / "identity.key").exists():
            accord("coordinator", "init", "--dir", self.coordinator, "--name", "demo")
        template = self.folder / "data" / "plan-template.toml"
        template.write_text(self.study.plan_toml(rounds=self.options.rounds, epsilon=self.options.epsilon), "utf-8")
        plan = self.folder / "plan.toml"
        plan.unlink(missing_ok=True)
        validation = self.folder / "data" / "validation.csv"
        accord("study", "new", plan, "--dir", self.coordinator, "--validation", validation, "--from", template)
        accord("study", "publish", plan, "--dir", self.coordinator)

    def _start_coordinator(self, running: Parties) -> None:
        self._tell("Starting the coordinator", 0, self.rounds)
        address = self.coordinator / "run" / "address"
        address.unlink(missing_ok=True)
        party = running.start(
            "coordinator", "coordinator", self.coordinator, "--until-settled", "--seed", str(self.options.seed)
        )
        self._started("coordinator", party.process.pid)
        wait_for(address, party)

    def _started(self, name: str, pid: int) -> None:
        """Write down which process a party is."""
        with self._lock:
            self.pids[name] = pid
            (self.folder / "processes.json").write_text(json.dumps(self.pids), "utf-8")

    def _start_institutions(self, running: Parties) -> None:
        """Each site by itself, two at a time; a node runs as soon as its institution is ready."""
        self._tell(f"Making the nodes; {self.study.subjects} and officers sign", 0, self.rounds)
        started = time.monotonic()
        if not self.journal.done("institutions"):
            self._at_each_site(self._make_folder)  # all of them first: the others' keys are a site's witnesses
        self._at_each_site(lambda site: self._start_institution(site, running))
        if not self.journal.done("institutions"):
            self.journal.finish("institutions", time.monotonic() - started)

    def _at_each_site(self, work: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(max_workers=2) as pool:
            waiting = [pool.submit(work, site) for site in self.study.sites]
            try:
                for done in waiting:
                    done.result()
            except BaseException:
                self._stopping.set()  # what a command has begun, it finishes; nothing else begins
                for begun in waiting:
                    begun.cancel()
                raise

    def _start_institution(self, site: str, running: Parties) -> None:
        if not self.journal.done("institutions"):
            self._make_institution(site)
        if not self._stopping.is_set():
            party = running.start(
                "node", site, self.node(site), "--until-settled", "--consent-batch-s", str(CONSENT_BATCH_S)
            )
            self._started(site, party.process.pid)

    def _make_folder(self, site: str) -> None:
        if not (self.node(site) / "identity.key").exists():
            privacy = self.plan_draft.privacy
            self._command(
                *("node", "init", "--dir", self.node(site), "--name", site),
                *("--lifetime-epsilon", str(privacy.epsilon), "--renyi-order", str(privacy.order)),
            )

    def _name_witnesses(self, site: str) -> None:
        """Each site's consent log is cosigned by all others; a yes binds once two of them have."""
        others = [open_node_folder(self.node(other)).key.public.did for other in self.study.sites if other != site]
        named = [part for did in others for part in ("--add", did)]
        quorum = str(min(WITNESS_QUORUM, len(others)))
        self._command("consent", "witnesses", "--dir", self.node(site), *named, "--quorum", quorum)

    def _make_institution(self, site: str) -> None:
        folder, schema = self.node(site), self.plan_draft.schema_contract
        data = self.folder / "data" / f"{site}.csv"
        self._name_witnesses(site)
        if self._membership(site) is None:
            self._command("node", "join", self._invitation(site), "--dir", folder)
        self._command("data", "add", data, "--dir", folder, "--subject", schema.subject)
        self._command("data", "check", "--dir", folder)
        self._sign_consents(site)
        membership = self._membership(site)
        if membership is None or not membership.agreement:
            self._command("agreement", "review", "--dir", folder)
            nominal = str(self.study.sites[site].nominal_cohort)
            self._command("agreement", "sign", "--dir", folder, "--nominal-cohort", nominal, "--yes")

    def _command(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command on behalf of an institution, unless the demo is stopping.

        Raises:
            AccordError: the command refused or failed, or the demo is stopping.
        """
        if self._stopping.is_set():
            raise OperatorError("The demo is stopping.", remedy="Run it again with the same --out to resume.")
        return accord(*arguments)

    def _membership(self, site: str) -> StudyMembership | None:
        """What an institution has joined and signed, from its folder: an interrupted demo may have come any far."""
        with read(open_node_folder(self.node(site)).engine) as session:
            return session.exec(select(StudyMembership)).first()

    def _invitation(self, site: str) -> str:
        """A site's invitation; the same again after an interruption, as its token may belong to the node already."""
        path = self.folder / "people" / f"{site}.invitation"
        if not path.exists():
            text = str(self._command("study", "invite", site, "--dir", self.coordinator)["invitation"])
            temporary = path.with_suffix(".new")
            temporary.write_text(text, "utf-8")
            temporary.replace(path)
        return path.read_text("utf-8")

    def _sign_consents(self, site: str) -> None:
        step = f"consents {site}"
        if self.journal.done(step):
            return
        folder, purpose = self.node(site), self.plan_draft.purpose
        terms: list[str | Path] = ["--purpose", purpose.duo, "--epsilon-max", str(self.plan_draft.privacy.epsilon)]
        terms += ["--disease", purpose.disease] if purpose.disease else []
        if self.plan_draft.consent.kind == "licence":
            self._command("consent", "wallet", "--out", self.wallet(site), "--licence")
            self._command("consent", "grant", "--dir", folder, "--wallet", self.wallet(site), "--licence", *terms)
        else:
            people = self.folder / "people" / f"{site}.csv"
            self._command(
                "consent", "wallet", "--out", self.wallet(site), "--from-csv", people, "--subject-column", "subject"
            )
            self._command(
                "consent", "grant", "--dir", folder, "--wallet", self.wallet(site), "--decisions", people, *terms
            )
        self.journal.finish(step)

    def _follow(self, running: Parties) -> None:
        """Wait for the settlement; let patients withdraw once the log shows the middle round closed."""
        opened = self.opened()
        history = opened.history(None)
        state, last_change = history.state, time.monotonic()
        while True:
            ended = running.ended()  # asked before the log is read: who ends in order has seen the settlement there
            fresh = history.log.entries(state.size)
            if fresh:
                state, last_change = replay(state, fresh), time.monotonic()
            self._tell(_doing(state), len(state.closed), self.rounds)
            if state.settled:
                running.wait(_END_S_MAX)
                _check_trained(state)
                return
            running.check()
            if ended is not None:
                raise PartyFailedError(
                    f"The {ended.role} {ended.name} ended before the study was settled.",
                    remedy=f"Its log is {ended.log}.",
                )
            if len(state.closed) >= max(1, self.rounds // 2):
                self._withdraw()
            if time.monotonic() - last_change > _STUCK_S_MAX:
                raise OperatorError(
                    f"Nothing has happened for {_STUCK_S_MAX} s.",
                    remedy=f"See who is awaited: accord coordinator status --dir {self.coordinator}",
                )
            time.sleep(_POLL_S)

    def _withdraw(self) -> None:
        """Ten people of the first site change their mind, with their own keys."""
        if self.journal.done("withdrawals") or self.plan_draft.consent.kind == "licence":
            return
        site = next(iter(self.study.sites))
        people = draw_withdrawals(self.study, site, self.words(site), self.options.seed, WITHDRAWALS)
        named = [part for name in people for part in ("--subject", name)]
        started = time.monotonic()
        accord("consent", "withdraw", "--dir", self.node(site), "--wallet", self.wallet(site), *named)
        self.journal.finish("withdrawals", time.monotonic() - started)

    def _export(self) -> None:
        if not self.export.exists():
            accord("study", "export", self.export, "--dir", self.coordinator)

    def _verify(self) -> None:
        key = self.opened().key.public.did
        accord("log", "verify", self.export, "--key", key)


def _check_trained(state: StudyState) -> None:
    """A study in which no round counted is a failure, however orderly it ended.

    Raises:
        OperatorError: no round reached its quorum; the first refusals are named.
    """
    if any(done.outcome == "aggregated" for done in state.closed):
        return
    first = state.closed[0].refused if state.closed else {}
    reasons = "; ".join(f"{state.site(did)}: {reason}" for did, reason in sorted(first.items()))
    raise OperatorError(
        f"The study is over, and no round reached its quorum ({reasons or 'nobody took part'}).",
        remedy="Mend the cause that is named, and run a new demo with another --out.",
    )


def _doing(state: StudyState) -> str:
    if state.settled:
        return "Settled; the last cosignatures"
    if not state.weights:
        return f"Agreements: {len(state.agreements)} of {state.plan.rounds.participants}"
    if state.complete:
        return "Witnesses cosign; then the settlement"
    return f"Round {state.round.number if state.round else len(state.closed) + 1}"
