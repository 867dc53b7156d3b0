"""A small study of three institutions, played in-process by the network's own rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from federation.export import writing
from federation.learning.evaluation import coalition_utilities, utilities_of
from federation.learning.models import initial_model
from federation.learning.reference import reference_update
from federation.learning.uncertainty import study_errors
from federation.rules import audit
from federation.rules.accounting import round_event
from federation.rules.admission import consent_origin
from federation.rules.aggregation import aggregate
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, cosign, sign_checkpoint
from federation.rules.comparing import weights_of
from federation.rules.documents import ConsistencyProof, Refusal, Update, ValueTable
from federation.rules.entries import (
    AgreementAdmitted,
    Body,
    CommitmentsClosed,
    ParticipationRefused,
    RoundClosed,
    RoundOpened,
    StakeDeposited,
    StudyPublished,
    StudyStarted,
    UpdateAdmitted,
    UpdateCommitted,
    UpdateRefused,
    make_entry,
)
from federation.rules.fixedpoint import pack, unpack
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.merkle import EMPTY_ROOT
from federation.rules.pledges import Pledge
from federation.rules.replay import apply, begin
from federation.rules.state import StudyState
from federation.rules.study import Agreement, StudyPlan, plan_from_toml
from federation.rules.validation import read_validation, validation_commitment
from federation.rules.value_sample import draw, is_sampled, seed_of
from federation.storage.blobs import MemoryBlobStore
from federation.storage.log import MemoryLog

PLAN = """
version = 1
name = "small"
title = "A small study"
sponsor = "sponsor"
origin = "accord.example/small"
code_approved = ["{code}"]
[purpose]
duo = "DUO:0000042"
statement = "A test."
[schema]
subject = "patient"
label = {{ name = "ill", negative = "no", positive = "yes" }}
[[schema.columns]]
type = "number"
name = "age"
low = 0
high = 100
[[schema.columns]]
type = "number"
name = "pressure"
low = 50
high = 250
missing = true
[model]
family = "logistic"
[privacy]
unit = "subject"
epsilon = 3
delta = "1e-5"
clip = 1
[training]
learning_rate = 1
[rounds]
count = 2
participants = 3
quorum = 2
deadline_s = 60
[cohort]
minimum = 5
[aggregation]
rule = "weighted-mean"
norm_bound = 10
[valuation]
method = "shapley"
utility = "negative-log-loss"
[reward]
pool_microcredits = 1000000
[validation]
rule = "every fifth row"
commitment = "{commitment}"
disclosure = "{disclosure}"
"""
ROWS = b"patient,age,pressure,ill\n" + b"".join(
    b"p%d,%d,%s,%s\n" % (number, 30 + number * 3, b"" if number % 5 == 0 else b"%d" % (100 + number * 4), ill)
    for number, ill in enumerate([b"no", b"no", b"yes", b"no", b"yes", b"yes", b"no", b"yes", b"yes", b"yes"])
)
ROOT_ROWS = b"patient,age,pressure,ill\n" + b"".join(
    b"r%d,%d,%d,%s\n" % (number, 80 - 7 * number, 100 + 11 * number, ill)
    for number, ill in enumerate([b"yes", b"no", b"yes", b"no", b"no", b"yes"])
)
SALT = bytes(range(32))
ANCHORED = f'''rule = "trust-anchored"
root = "{validation_commitment(SALT, ROOT_ROWS)}"
root_disclosure = "public"'''
CODE = "c" * 64
START = datetime(2026, 11, 22, tzinfo=UTC)
SITES = ("ash", "birch", "cedar")
COORDINATOR_STAKE, INSTITUTION_STAKE = 500, 300
STAKES = """[stake]
coordinator_microcredits = 500
institution_microcredits = 300
challenge_s = 1000
appeal_s = 100
unbonding_s = 2000
[voting]
open_s = 500
[validation]"""
"""In place of ``[validation]``: a plan with stakes and votes."""

Change = Callable[[Any], Any]


def unchanged(value: Any) -> Any:
    return value


@dataclass
class Study:
    """Plays a study; ``changes`` let its coordinator lie at one step (by the name of the step), ``edits`` its plan."""

    rows: ClassVar[bytes] = ROWS
    anchored: ClassVar[str] = ANCHORED
    salt: ClassVar[bytes] = SALT

    disclosure: str = "public"
    changes: dict[str, Change] = field(default_factory=dict)
    edits: dict[str, str] = field(default_factory=dict)
    root_rows: bytes = ROOT_ROWS
    seed: int = 7
    sites: tuple[str, ...] = SITES
    key: PrivateKey = field(default_factory=lambda: PrivateKey(bytes([100]) * 32))
    log: MemoryLog = field(default_factory=lambda: MemoryLog("study"))
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)

    def __post_init__(self) -> None:
        self.institutions = {site: PrivateKey(bytes([101 + number]) * 32) for number, site in enumerate(self.sites)}
        commitment = validation_commitment(SALT, ROWS)
        text = PLAN.format(code=CODE, commitment=commitment, disclosure=self.disclosure)
        for before, after in self.edits.items():
            assert before in text
            text = text.replace(before, after)
        self.plan: StudyPlan = plan_from_toml(text, source="plan")
        self.plan_bytes = self.plan.sign(self.key).to_bytes()
        self.state: StudyState = begin(self.plan, plan_blob=sha256_hex(self.plan_bytes), coordinator=self.key.public)
        self.now = START
        self.rng = np.random.default_rng(self.seed)
        self.tables: list[ValueTable] = []

    def append(self, body: Body, round_number: int | None = None, party: PrivateKey | None = None) -> None:
        self.now += timedelta(seconds=1)
        body = self.change(body.kind, body)
        entry = make_entry(
            body, study=self.state.study, now=self.now, round_number=round_number, party=party.public if party else None
        )
        self.state = apply(self.state, entry)
        self.log.append(entry.id, entry.sign(self.key).to_bytes())

    def change(self, step: str, value: Any) -> Any:
        return self.changes.get(step, unchanged)(value)

    def checkpoint(self, cosigners: int = 3) -> None:
        size = self.log.size
        checkpoint = Checkpoint(self.plan.origin, size, self.log.root())
        checkpoint = self.change("checkpoint", checkpoint)
        keys = [key for key in self.institutions.values() if key.public in self.state.witnesses]
        signed = sign_checkpoint(checkpoint, self.key).with_cosignatures(
            cosign(checkpoint, key, timestamp=int(self.now.timestamp())) for key in keys[:cosigners]
        )
        self.log.save_checkpoint(signed.to_bytes(), size)

    def publish(self) -> None:
        self.append(
            StudyPublished(
                plan=sha256_hex(self.plan_bytes), plan_hash=self.plan.plan_hash, minted=self.plan.reward.minted
            )
        )
        self.checkpoint()

    def start(self) -> None:
        self.publish()
        for number, (site, key) in enumerate(self.institutions.items()):
            agreement = Agreement(
                study=self.plan.study_id,
                plan_hash=self.plan.plan_hash,
                site=site,
                nominal_cohort=100 * (number + 1),
                signed_at=format_instant(self.now),
            )
            self.append(AgreementAdmitted(envelope=agreement.sign(key).to_bytes().decode()), party=key)
        for key in (self.key, *self.institutions.values()):
            if self.plan.stake is not None:
                self.append(self.pledge(key), party=key)
        model = self.blobs.put(pack(initial_model(self.plan, self.seed)))
        self.append(StudyStarted(weights=weights_of(self.state), base_model=model))
        self.checkpoint()

    def pledge(self, key: PrivateKey, **changes: Any) -> StakeDeposited:
        amount = COORDINATOR_STAKE if key == self.key else INSTITUTION_STAKE
        fields = {
            "study": self.plan.study_id,
            "plan_hash": self.plan.plan_hash,
            "amount_microcredits": amount,
            "signed_at": format_instant(self.now),
        }
        return StakeDeposited(envelope=Pledge(**{**fields, **changes}).sign(key).to_bytes().decode())

    def play_round(
        self, number: int, *, declining: str | None = None, late: str | None = None, cosigners: int = 3
    ) -> None:
        base_model = self.state.model
        assert base_model is not None
        deadline = format_instant(self.now + timedelta(seconds=60))
        self.append(
            RoundOpened(
                base_model=base_model,
                participants=self.state.active,
                deadline=deadline,
                reference=self.reference(base_model),
            ),
            number,
        )
        updates = {}
        for site, key in self.institutions.items():
            if site == declining:
                refusal = Refusal(study=self.plan.study_id, round=number, code="budget", message="nothing is left")
                self.append(ParticipationRefused(envelope=refusal.sign(key).to_bytes().decode()), number, key)
                continue
            updates[site] = self.update(number, key)
            commitment = updates[site].commitment(key.public)
            self.append(UpdateCommitted(envelope=commitment.sign(key).to_bytes().decode()), number, key)
        self.append(CommitmentsClosed(), number)
        for site, update in updates.items():
            key = self.institutions[site]
            if site == late:
                self.append(UpdateRefused(code="not-revealed", message="it came too late"), number, key)
            else:
                self.append(UpdateAdmitted(envelope=update.sign(key).to_bytes().decode()), number, key)
        self.close(number)
        self.checkpoint(cosigners)

    def update(self, number: int, key: PrivateKey) -> Update:
        parameters = len(initial_model(self.plan, self.seed))
        packed = pack(self.rng.integers(-(2**24), 2**24, parameters, dtype=np.int64))
        chunks = (self.blobs.put(packed),)
        consent = sign_checkpoint(Checkpoint(consent_origin(key.public), 0, EMPTY_ROOT), key)
        return Update(
            study=self.plan.study_id,
            round=number,
            base_model=self.state.model or "",
            update=sha256_hex(packed),
            update_bytes=len(packed),
            chunks=chunks,
            nonce=sha256_hex(b"%d" % number),
            event=round_event(self.plan),
            consent_checkpoint=consent.to_bytes().decode(),
            consent_consistency=ConsistencyProof(old_size=0),
            dataset_commitment="d" * 64,
            code_hash=CODE,
        )

    def reference(self, base_model: str) -> str | None:
        """The sponsor's update of the round that is about to open, where the plan is trust-anchored."""
        if not self.plan.aggregation.anchored:
            return None
        base = unpack(self.blobs.get(base_model), length=len(initial_model(self.plan, self.seed)))
        own = reference_update(self.plan, base, read_validation(self.plan, ROOT_ROWS))
        return self.blobs.put(pack(self.change("reference", own)))

    def close(self, number: int) -> None:
        current = self.state.round
        assert current is not None
        quorate = len(current.admitted) >= self.plan.rounds.quorum
        counted = dict(current.admitted) if quorate else {}
        shown = replace(audit_view(self.state), admitted=counted)
        base, updates = audit.round_vectors(shown, self.state, self.blobs.get)
        rule = audit.round_rule(shown, self.state, self.blobs.get)
        model = self.change("aggregate", aggregate(base, updates, self.state.weights, rule))
        players = tuple(sorted(updates))
        batch = read_validation(self.plan, ROWS)
        bound = self.plan.valuation.loss_bound
        game = (base, updates, self.state.weights, players, batch, bound, rule, self.plan.model)
        before = self.tables[-1].utilities[-1:] if self.tables else ()
        seed = None
        if is_sampled(len(players)):
            seed = seed_of(self.plan.study_id, number, self.change("commitments", current.commitments))

            def ask(masks: Sequence[int]) -> Sequence[int]:
                found = self.change(f"utilities-{number}", list(utilities_of(masks, *game)))
                return [*before, *found[1:]] if before and masks[0] == 0 else found

            utilities = list(draw(len(players), ask, self.plan.valuation, seed).utilities)
        else:
            utilities = list(coalition_utilities(*game))
            utilities = self.change(f"utilities-{number}", [*before, *utilities[len(before) :]])
        table = self.change(
            f"table-{number}",
            ValueTable(
                study=self.plan.study_id,
                round=number,
                players=players,
                utilities=tuple(utilities),
                salt="5" * 64,
                seed=seed,
            ),
        )
        self.tables.append(table)
        body = RoundClosed(
            outcome="aggregated" if quorate else "no-quorum",
            updates={did: update.update for did, update in counted.items()},
            model=self.blobs.put(pack(model)),
            value_table=self.blobs.put(table.to_payload()),
        )
        self.append(body, number)

    def settle(self, cosigners: int = 3) -> None:
        joined = [
            table.model_copy(update={"utilities": (before.utilities[-1], *table.utilities[1:])})
            for before, table in zip(self.tables, self.tables[1:], strict=False)
        ]
        self.append(audit.settlement(self.state, [*self.tables[:1], *joined], self.errors()))
        self.checkpoint(cosigners)

    def errors(self) -> dict[str, int] | None:
        if self.plan.reward.z is None:
            return None
        found = study_errors(self.state, self.tables, read_validation(self.plan, ROWS), self.blobs.get)
        return dict(self.change("errors", found))

    def export(self, folder: Path) -> Path:
        """The files as this coordinator writes them, without the check that the real one makes at the end."""
        folder.mkdir(parents=True)
        writing._write_files(
            folder,
            plan=self.plan_bytes,
            log=self.log,
            blobs=self.blobs,
            key=self.key,
            validation=(SALT, ROWS),
            root_set=(SALT, self.root_rows),
        )
        return folder

    def played(self) -> "Study":
        self.start()
        self.play_round(1)
        self.play_round(2, declining="birch")
        self.settle()
        return self


def audit_view(state: StudyState) -> Any:
    """The round in progress in the form of a closed one."""
    current = state.round
    assert current is not None
    return audit.ClosedRound(
        number=current.number,
        base_model=current.base_model,
        model="",
        value_table="",
        outcome="",
        participants=current.participants,
        admitted=current.admitted,
        refused={},
        entry_index=0,
        reference=current.reference,
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A settled study and its export; tests copy the folder before they change it."""
    study = Study().played()
    return study, study.export(tmp_path_factory.mktemp("export") / "small")


@pytest.fixture(scope="session")
def play() -> type[Study]:
    """The class, for tests that play a study of their own."""
    return Study


@pytest.fixture(scope="session")
def staked() -> Callable[..., Study]:
    """A study of one's own whose plan has stakes and votes."""
    return lambda **fields: Study(**{**fields, "edits": {"[validation]": STAKES, **fields.get("edits", {})}})
