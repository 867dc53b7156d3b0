"""A whole study in one process: the real coordinator and nodes on in-memory network and stores, without noise.

Everything that a deployment runs is here except processes, sockets, disks and noise, so that a study takes a second and
can be repeated to the byte. Keys, people, rows and the first model follow from fixed seeds.

    with InMemoryStudy(tmp_path, rounds=3) as study:
        study.run(between=lambda closed: ...)   # called when a round is over and the next is not open yet
        study.state.closed

A second study with the same institutions (their people, registry and budget are one) is made ``beside`` the first:

    with InMemoryStudy(a) as first, InMemoryStudy(b, beside=first, name="second") as second:

Agreements, revocations and consent batches are brought by ``Node.tick``, which the coordinator's loop calls here before
each of its steps: so a test knows the order of everything but the arrival of answers.
"""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlmodel import select

from clients.comparison import make_sealing_key
from clients.contribution import Contribution
from clients.data.check import CheckedData, check_data
from clients.data.dataset import add_dataset, find_dataset, load_dataset
from clients.flower.runtime import FlowerRuntime
from clients.joining import join, membership_of
from clients.node import Node, NodeParts
from clients.participation import Participation
from clients.privacy import dp_training  # noqa: F401 - loaded now, as a first round with a short deadline cannot wait
from clients.privacy.budget import BudgetLedger
from clients.privacy.noise import NoiseSource, NoNoise
from clients.storage import RoundUse, StoredUpdate, StudyMembership, memory_node
from consent.cosigning import COSIGNING_TABLES
from consent.registry import LOG_NAME, Registry
from consent.registry import TABLES as CONSENT_TABLES
from consent.rules.record import Action, Terms, build, sign_record
from federation.coordinator.history import StudyHistory
from federation.coordinator.membership import Membership, invite
from federation.coordinator.pausing import paused
from federation.coordinator.service import StudyParts, StudyService
from federation.coordinator.tables import IssuedInvitation, PublishedPlan, ValidationSet
from federation.network.memory import Courier, MemoryNetwork
from federation.rules.canonical import sha256_hex
from federation.rules.documents import Revocation, Signed, ValueTable
from federation.rules.entries import Entry, open_entry
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.pledges import Pledge
from federation.rules.state import StudyState
from federation.rules.study import Agreement, StudyPlan, open_agreement
from federation.rules.validation import read_validation, validation_commitment
from federation.storage.blobs import BlobStore, MemoryBlobStore
from federation.storage.code import code_hash
from federation.storage.database import memory_database, read, write
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import LOG_TABLES, MemoryLog, MerkleLog, SqliteLog
from federation.storage.outbox import Outbox, OutgoingDocument

SITES = ("ash", "birch", "cedar", "dogwood")
MORE_SITES = ("elm", "fir")
PEOPLE = 12
TIMEOUT_S = 60.0
SALT = bytes(range(32))
Between = Callable[[int], None]


def small_plan(rows: bytes, *, sites: int, **changes: Any) -> StudyPlan:
    """A plan with two numbers (one with gaps) and a label; ``section={...}`` changes its fields."""
    document: dict[str, Any] = {
        "name": "small",
        "title": "A small study",
        "sponsor": "sponsor",
        "origin": "accord.test/small",
        "purpose": {"duo": "DUO:0000006", "statement": "Testing."},
        "schema": {
            "subject": "person",
            "columns": [
                {"type": "number", "name": "age", "unit": "a", "low": "0", "high": "100"},
                {"type": "number", "name": "pressure", "low": "50", "high": "250", "missing": True},
            ],
            "label": {"name": "ill", "negative": "no", "positive": "yes"},
        },
        "model": {"family": "logistic"},
        "privacy": {"unit": "subject", "epsilon": "3", "delta": "1e-5", "clip": "1"},
        "training": {"learning_rate": "0.5"},
        "rounds": {"count": 3, "participants": sites, "quorum": 2, "deadline_s": 30},
        "cohort": {"minimum": 5},
        "aggregation": {"rule": "weighted-mean", "norm_bound": "10"},
        "valuation": {"method": "shapley", "utility": "negative-log-loss"},
        "reward": {"pool_microcredits": 1_000_003},
        "validation": {"rule": "made for tests", "commitment": validation_commitment(SALT, rows)},
        "code_approved": [code_hash()],
    }
    for section, fields in changes.items():
        document[section] = {**document.get(section, {}), **fields} if isinstance(fields, dict) else fields
    return StudyPlan.model_validate(document)


def table(name: str, people: int, *, relabelled: bool = False) -> bytes:
    """``people`` made-up rows as CSV, which follow from ``name``; age and pressure make illness likelier.

    ``relabelled``: the same rows in another order, under other people's names.
    """
    rng = random.Random(name)
    lines = ["person,age,pressure,ill"]
    for number in range(people):
        age, pressure = rng.randint(20, 90), rng.randint(90, 200)
        ill = rng.random() < (age - 20) / 100 + (pressure - 90) / 250
        gap = rng.random() < 0.1
        called = people - 1 - number if relabelled else number
        lines.append(f"p{called:02},{age},{'' if gap else pressure},{'yes' if ill else 'no'}")
    return ("\n".join(lines) + "\n").encode("utf-8")


def key_of(name: str) -> PrivateKey:
    """A party's or a person's key, which follows from the name."""
    return PrivateKey(hashlib.sha256(name.encode("utf-8")).digest())


@dataclass
class Clock:
    """The machine's clock, which a test can put forward."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, **amount: float) -> None:
        """``forward(hours=2)``."""
        self.ahead += timedelta(**amount)


class Institution:
    """One node with its data, people and consents; ``start`` and ``stop`` as often as a test likes."""

    def __init__(
        self,
        study: "InMemoryStudy",
        site: str,
        people: int,
        noise: NoiseSource,
        *,
        beside: "Institution | None" = None,
    ) -> None:
        self.study, self.site, self.people = study, site, people
        self.key = key_of(f"institution {site}")
        self.did = self.key.public.did
        self.noise = noise
        self.refs = tuple(f"p{number:02}" for number in range(people))
        self.evidence = MemoryEvidence()
        self.blobs = MemoryBlobStore()
        self.node: Node | None = None
        self._runtime: FlowerRuntime | None = None
        self.exchange = study.network.exchange(self.key)
        if beside is not None:
            self.engine, self.registry, self.budget = beside.engine, beside.registry, beside.budget
            return
        self.engine = memory_node(*dict.fromkeys((*LOG_TABLES, *CONSENT_TABLES, *COSIGNING_TABLES)))
        self.registry = Registry(
            self.engine,
            self.key,
            consent_log=SqliteLog(self.engine, LOG_NAME),
            clock=study.clock,
            batch_size=study.batch_size,
        )
        self.budget = BudgetLedger.create(
            self.engine, epsilon=Decimal(3), delta=Decimal("1e-5"), order=8, clock=study.clock
        )
        self.file = study.folder / f"{site}.csv"
        self.file.write_bytes(table(study.copies.get(site, site), people, relabelled=site in study.copies))
        add_dataset(self.engine, self.file, subject_column="person", name=None, now=study.clock())

    # What officers and people do.

    def say(self, action: Action, refs: Iterable[str], *, valid_days: float = 30) -> None:
        """Each of ``refs`` signs a first or next record."""
        now, records, heads = self.study.clock(), [], self.registry.heads()
        for ref in refs:
            head = heads.get(ref)
            terms = Terms(
                purposes=("DUO:0000006",),
                epsilon_max=Decimal(3),
                delta_max=Decimal("1e-5"),
                valid_until=now + timedelta(days=valid_days),
            )
            person = key_of(f"person {self.site}/{ref}")
            document = build(
                subject=person.public,
                institution=self.key.public,
                action=action,
                seq=1 if head is None else head.seq + 1,
                prev=None if head is None else head.digest,
                valid_from=now - timedelta(seconds=1),
                terms=terms if action is Action.GRANT else None,
            )
            records.append((ref, sign_record(document, person, created=now)))
        self.registry.submit_all(records)

    def join(self, *, nominal_cohort: int | None = None, same_owner_as: tuple[str, ...] | None = None) -> None:
        """Join with an invitation and sign the agreement."""
        study = self.study
        address = study.exchange.addresses()[0]
        invitation = invite(study.engine, study=study.plan.study_id, site=self.site, address=address)
        plan, envelope = join(self.exchange, invitation)
        agreement = Agreement(
            study=plan.study_id,
            plan_hash=plan.plan_hash,
            site=self.site,
            nominal_cohort=nominal_cohort or self.people,
            signed_at=format_instant(study.clock()),
            overlap_key=None if plan.overlap is None else make_sealing_key(self.engine, plan.study_id),
            same_owner_as=same_owner_as,
        )
        membership = membership_of(invitation, envelope, now=study.clock())
        membership.agreement = agreement.sign(self.key).to_bytes()
        with write(self.engine) as session:
            session.add(membership)
        if plan.stake is not None:
            self.submit("pledge", study.pledge(plan.stake.institution_microcredits))

    def pledged(self) -> bytes:
        """The pledge that it signed."""
        return next(row.document for row in Outbox(self.engine, self.study.plan.study_id).documents())

    def submit(self, kind: str, document: Signed) -> None:
        """Sign a document for the study's log; the node brings it at its next tick."""
        Outbox(self.engine, self.study.plan.study_id).put(kind, document.sign(self.key).to_bytes())

    def revoke(self) -> None:
        """Sign the revocation; the node stops at once and brings it at its next tick."""
        plan = self.study.plan
        revocation = Revocation(
            study=plan.study_id,
            plan_hash=plan.plan_hash,
            site=self.site,
            signed_at=format_instant(self.study.clock()),
        )
        with write(self.engine) as session:
            membership = session.get_one(StudyMembership, plan.study_id)
            membership.revocation = revocation.sign(self.key).to_bytes()
            session.add(membership)

    # The node.

    def start(self) -> None:
        """Run the node (again), as a new process would, on what its stores hold."""
        self.stop()
        self.exchange = self.study.network.exchange(self.key)
        self.node = Node(self.parts())
        self._runtime = self.node.serve()

    def stop(self) -> None:
        """End the node."""
        if self._runtime is not None:
            self._runtime.close()
            self.exchange.close()
        self.node = self._runtime = None

    def participation(self) -> Participation:
        """What tells the registry of this study, as a new process has it."""
        return Participation(
            self.study.plan,
            self.study.envelope,
            party=self.key.public,
            registry=self.registry,
            engine=self.engine,
            budget=self.budget,
            share_percent=50,
        )

    def contribution(self, **changes: Any) -> Contribution:
        """A new process's view of the same stores, without noise unless ``changes`` bring some."""
        agreement, _ = open_agreement(self.parts().membership.agreement)
        fields: dict[str, Any] = {
            "plan": self.study.plan,
            "agreement": agreement,
            "key": self.key,
            "engine": self.engine,
            "registry": self.registry,
            "participation": self.participation(),
            "blobs": self.blobs,
            "fetch": self.study.blobs.get,
            "noise": NoNoise(),
            "clock": self.study.clock,
        }
        return Contribution(**{**fields, **changes})

    def parts(self) -> NodeParts:
        """What the node runs on."""
        with read(self.engine) as session:
            membership = session.get_one(StudyMembership, self.study.plan.study_id)
        return NodeParts(
            key=self.key,
            engine=self.engine,
            registry=self.registry,
            replica=SqliteLog(self.engine, self.study.plan.study_id),
            blobs=self.blobs,
            exchange=self.exchange,
            membership=membership,
            noise=self.noise,
            evidence=self.evidence,
            clock=self.study.clock,
            consent_batch_s=self.study.consent_batch_s,
            monotonic=lambda: self.study.clock().timestamp(),
        )

    # What is in its folder afterwards.

    def uses(self) -> dict[int, RoundUse]:
        """Round -> what the node wrote down about the rows that it used."""
        with read(self.engine) as session:
            found = select(RoundUse).where(RoundUse.study == self.study.plan.study_id)
            return {row.round: row for row in session.exec(found)}

    def used(self, number: int) -> tuple[str, ...]:
        """Whose rows a round was permitted to use, as the node wrote it down."""
        return tuple(json.loads(self.uses()[number].subjects))

    def stored(self) -> dict[int, StoredUpdate]:
        """Round -> the update that the node stored."""
        with read(self.engine) as session:
            found = select(StoredUpdate).where(StoredUpdate.study == self.study.plan.study_id)
            return {row.round: row for row in session.exec(found)}

    def data(self) -> CheckedData:
        """The institution's file, read and checked anew."""
        entry = find_dataset(self.engine)
        return check_data(load_dataset(entry), self.study.plan.schema_contract, subject_column="person")


class InMemoryStudy:
    """The coordinator, its stores, the network and the institutions (everybody consents unless ``consents=False``)."""

    def __init__(
        self,
        folder: Path,
        *,
        sites: int = 3,
        people: dict[str, int] | None = None,
        seed: int = 7,
        courier: Courier | None = None,
        consents: bool = True,
        log: MerkleLog | None = None,
        blobs: BlobStore | None = None,
        sealed: BlobStore | None = None,
        noise: NoiseSource | None = None,
        beside: "InMemoryStudy | None" = None,
        consent_batch_s: float = 0,
        batch_size: int = 4,
        copies: dict[str, str] | None = None,
        owners: dict[str, tuple[str, ...]] | None = None,
        **plan: Any,
    ) -> None:
        self.folder = folder
        self.clock = beside.clock if beside else Clock()
        self.consent_batch_s, self.batch_size = consent_batch_s, batch_size
        self.seed = seed
        self.copies = copies or {}
        self.key = key_of("coordinator")
        self.network = MemoryNetwork(courier)
        self.validation = table("validation", 40)
        self.root = table("root", 24)
        self.plan = small_plan(self.validation, sites=sites, **plan)
        self.envelope = self.plan.sign(self.key).to_bytes()
        self.engine = memory_database(PublishedPlan, IssuedInvitation, ValidationSet, OutgoingDocument, *LOG_TABLES)
        self.outbox = Outbox(self.engine, self.plan.study_id)
        if self.plan.stake is not None:
            pledge = self.pledge(self.plan.stake.coordinator_microcredits)
            self.outbox.put("pledge", pledge.sign(self.key).to_bytes())
        self.log = log or MemoryLog(self.plan.study_id)
        self.blobs = blobs or MemoryBlobStore()
        self.sealed = sealed or MemoryBlobStore()
        self.blobs.put(self.envelope)
        self.problems: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.restart()
        self.institutions = {
            site: Institution(
                self,
                site,
                (people or {}).get(site, PEOPLE),
                noise or NoNoise(),
                beside=beside[site] if beside else None,
            )
            for site in (*SITES, *MORE_SITES)[:sites]
        }
        for institution in self.institutions.values():
            if consents and beside is None:
                institution.say(Action.GRANT, institution.refs)
            institution.join(same_owner_as=(owners or {}).get(institution.site))
            institution.start()

    def __getitem__(self, site: str) -> Institution:
        return self.institutions[site]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        for institution in self.institutions.values():
            institution.stop()
        self.exchange.close()

    def restart(self) -> None:
        """Start the coordinator (again), as a new process would, on what its stores hold."""
        self.stop = threading.Event()
        self.history = StudyHistory(
            plan=self.plan, plan_blob=sha256_hex(self.envelope), key=self.key, log=self.log, clock=self.clock
        )
        membership = Membership(self.engine, self.history, self.envelope)
        standby = None if self.plan.failover is None else self.plan.failover.key
        self.exchange = self.network.exchange(
            self.key, allowed=lambda peer: peer == standby or membership.allowed(peer)
        )
        parts = StudyParts(
            history=self.history,
            membership=membership,
            exchange=self.exchange,
            blobs=self.blobs,
            sealed=self.sealed,
            validation=read_validation(self.plan, self.validation),
            root=read_validation(self.plan, self.root) if self.plan.aggregation.anchored else None,
            seed=self.seed,
            stop=self.stop,
            paused=lambda: paused(self.folder, self.plan.study_id),
            committed=(SALT, self.validation),
            outbox=self.outbox,
            logs=lambda: [self.log],
        )
        self.service = StudyService(parts, on_progress=self._step)
        self.service.serve()

    def pledge(self, amount: int) -> Pledge:
        """What a party signs that stands in with ``amount`` micro-credits."""
        return Pledge(
            study=self.plan.study_id,
            plan_hash=self.plan.plan_hash,
            amount_microcredits=amount,
            signed_at=format_instant(self.clock()),
        )

    def run(self, *, between: Between = lambda _closed: None, timeout_s: float = TIMEOUT_S) -> StudyState:
        """Run the coordinator until the study is settled (or somebody sets ``stop``).

        Args:
            between: called in the coordinator's own thread when a round is closed and the next is not open, with the
                number of closed rounds (0: the study has just started); once for each number.
            timeout_s: it gives up after so long.
        """
        self._between, self._seen = between, -1
        guard = threading.Timer(timeout_s, self._give_up)
        guard.start()
        try:
            self.service.run(until_settled=True)
        finally:
            guard.cancel()
        assert not self.problems, self.problems
        return self.state

    @property
    def state(self) -> StudyState:
        """What the log says."""
        return self.history.state

    def models(self) -> list[bytes]:
        """The model after every round: its packed bytes."""
        return [self.blobs.get(done.model) for done in self.state.closed]

    def tables(self) -> list[ValueTable]:
        """The value tables of the closed rounds, opened or not."""
        return [ValueTable.model_validate_json(self.sealed.get(done.value_table)) for done in self.state.closed]

    def kinds(self) -> list[str]:
        """The kinds of the log's entries, in order."""
        return [entry.body.kind for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """The log's entries, opened."""
        return [open_entry(data, signer=self.key.public) for data in self.log.entries()]

    def _step(self, _status: dict[str, Any]) -> None:
        for institution in self.institutions.values():
            if institution.node is not None:
                institution.node.tick()
        self.meanwhile()
        state = self.state
        if state.weights and state.round is None and not state.settled and len(state.closed) > self._seen:
            self._seen = len(state.closed)
            self._between(self._seen)

    def _give_up(self) -> None:
        self.problems.append(f"not settled in time: {self.service.status()}")
        self.stop.set()
