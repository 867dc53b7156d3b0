"""A running node: connects to the coordinator, agrees, contributes, witnesses, keeps its consent log.

The node dials out; the coordinator's requests come back over that connection. It listens only where its settings say
that it passes models on to the study's other nodes. All that must last is in the folder: a node that was killed goes on
where its database stands.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Engine

from clients.comparison import Comparison, ComparisonParts
from clients.consent_log import ConsentLogKeeping
from clients.contribution import Contribution
from clients.erasure import forget_erased
from clients.fencing import Fence, NodePromises
from clients.participation import Participation
from clients.privacy.budget import BudgetLedger
from clients.privacy.noise import NoiseSource, SecureNoise
from clients.scoring import Scoring
from clients.standing_by import fetch_from_leader, serve_standby, sharing_of
from clients.storage import StudyMembership
from clients.submitting import Submitting
from clients.witness import Witness
from consent.cosigning import ConsentLogWitness
from consent.registry import Registry
from consent.rules.decision import use_of
from federation.coordinator.history import system_clock
from federation.coordinator.protocols import (
    AGREEMENT,
    CONSENT_COSIGN,
    CONSENT_COSIGN_BYTES_MAX,
    COSIGN,
    COSIGN_BYTES_MAX,
    OVERLAP,
    OVERLAP_BYTES_MAX,
    REVOCATION,
    SUBMISSION,
)
from federation.coordinator.relay import ask_through
from federation.errors import AccordError, OperatorError, UnavailableError
from federation.network.blobs import serve_blobs
from federation.network.exchange import Exchange
from federation.rules.admission import parameter_count
from federation.rules.canonical import sha256_hex
from federation.rules.challenge import CHALLENGE_BYTES_MAX
from federation.rules.documents import CHUNK_BYTES_MAX
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import Agreement, open_agreement, open_plan
from federation.rules.vectors import vector_bytes_max
from federation.storage.blobs import BlobStore
from federation.storage.database import read
from federation.storage.evidence import EvidenceStore, MemoryEvidence
from federation.storage.log import SqliteLog
from federation.storage.outbox import Outbox

if TYPE_CHECKING:
    from clients.flower.runtime import FlowerRuntime

logger = logging.getLogger(__name__)

_REQUEST_S: Final = 30.0
_POLL_S: Final = 0.2
_TICK_S: Final = 1.0
"""How often a node looks into its database for what is due: an idle node must cost its machine next to nothing."""
_QUIET_S: Final = 10.0
"""Without an entry of the study's log for so long, a node is idle."""
_REFUSED_AGAIN_S: Final = 10
_COSIGN_S: Final = 10.0
SHARED_BYTES_MIN: Final = 4 << 20
"""A model below this comes from the coordinator at once; asking around would take longer."""
GRANTS_WAIT_S_MAX: Final = 10.0
GRANTS_WAIT_SHARE: Final = 0.2
"""Of a round's deadline: how long a round waits for grants that wait for witnesses, at most."""
OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node runs on; all of it can be in memory."""

    key: PrivateKey
    engine: Engine
    registry: Registry
    replica: SqliteLog
    blobs: BlobStore
    exchange: Exchange
    membership: StudyMembership
    noise: NoiseSource = field(default_factory=SecureNoise)
    evidence: EvidenceStore = field(default_factory=MemoryEvidence)
    clock: Callable[[], datetime] = system_clock
    consent_batch_s: float = 60.0
    subject_share_percent: int = 50
    monotonic: Callable[[], float] = time.monotonic
    peer_models: Literal["off", "fetch", "serve"] = "fetch"


class Node:
    """One institution in one study, while it runs.

    Raises:
        OperatorError: no agreement has been signed.
    """

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        membership = parts.membership
        if not membership.agreement:
            raise OperatorError(
                f"No agreement is signed for {membership.study}.",
                remedy="Read the plan with `accord agreement review`, then sign it with `accord agreement sign`.",
            )
        self._coordinator = PublicKey.from_did(membership.coordinator)
        self._plan, _ = open_plan(membership.plan, signer=self._coordinator)
        agreement, _ = open_agreement(membership.agreement, signer=parts.key.public)
        self._participation = Participation(
            self._plan,
            membership.plan,
            party=parts.key.public,
            registry=parts.registry,
            engine=parts.engine,
            budget=BudgetLedger(parts.engine, clock=parts.clock),
            share_percent=parts.subject_share_percent,
        )
        self._consent_log = ConsentLogKeeping(
            parts.registry,
            ask_through(parts.exchange, lambda: self.leader, self._plan.study_id, timeout_s=_COSIGN_S),
            every_s=parts.consent_batch_s,
            clock=parts.clock,
        )
        self._fence = Fence(parts.key, NodePromises(parts.engine, self._plan.study_id), monotonic=parts.monotonic)
        outbox, bring = Outbox(parts.engine, self._plan.study_id), partial(self._request, SUBMISSION)
        self._submitting = Submitting(outbox, self._plan, parts.key, bring=bring, clock=parts.clock)
        shared = self._work(agreement)
        self._contribution = Contribution(**shared, blobs=parts.blobs, fetch=self._fetch_model)
        self._scoring = Scoring(**shared, fetch=self._fetch, bring=self._request)
        self._witness = Witness(
            plan=self._plan,
            plan_blob=sha256_hex(membership.plan),
            coordinator=self._coordinator,
            key=parts.key,
            log=parts.replica,
            blobs=self._fetch,
            evidence=parts.evidence,
            clock=parts.clock,
            fence=self._fence,
            proofs=partial(self._fetch, max_bytes=CHALLENGE_BYTES_MAX),
            accusations=self._submitting.accusations,
            on_fork=self._submitting.accuse,
        )
        self._consent_witness = ConsentLogWitness(
            parts.key,
            parts.engine,
            party=self._is_party,
            evidence=parts.evidence,
            clock=parts.clock,
        )
        self._model_bytes = vector_bytes_max(parameter_count(self._plan), self._plan.aggregation.encoding)
        self._sharing = sharing_of(parts.exchange, self._witness, parts.blobs, parts.peer_models)
        self._compared = 0
        self._delivered: tuple[PublicKey, bytes] | None = None
        self._problem = self._away = ""
        self._refused_at: datetime | None = None

    @property
    def witness(self) -> Witness:
        """This node's replica of the study's log."""
        return self._witness

    @property
    def leader(self) -> PublicKey:
        """Who leads the study, as far as this node has proof: the coordinator, or the standby once it took over."""
        return self._witness.state.leader

    def serve(self) -> "FlowerRuntime":
        """Connect, open this node's doors to the coordinator, and start the ClientApp; close the result at the end."""
        # Imported here: commands that only read or change the folder must not load Flower.
        from clients.flower.app import client_app
        from clients.flower.runtime import FlowerRuntime, context_for

        exchange = self._parts.exchange
        self._consent_log.begin()
        self._participation.begin()
        app = client_app(self._contribution, study=self._plan.study_id, party=self._parts.key.public)
        runtime = FlowerRuntime(exchange, self._coordinator, app, context_for(exchange), leader=lambda: self.leader)
        exchange.serve(COSIGN, self._witness.handle, max_bytes=COSIGN_BYTES_MAX)
        exchange.serve(CONSENT_COSIGN, self._consent_witness.handle, max_bytes=CONSENT_COSIGN_BYTES_MAX)
        if self._plan.overlap is not None:
            exchange.serve(OVERLAP, self._comparison().handle, max_bytes=OVERLAP_BYTES_MAX)
        serve_blobs(exchange, self._parts.blobs)
        if self._sharing is not None:
            self._sharing.serve()
        exchange.keep_connected(self._parts.membership.address)
        serve_standby(exchange, self._witness, self._fence, self._parts.replica)
        return runtime

    def run(
        self,
        stop: threading.Event,
        *,
        until_settled: bool = False,
        visit_s: float | None = None,
        on_progress: OnProgress = lambda _status: None,
    ) -> None:
        """Keep going until ``stop``.

        Args:
            stop: ends it, from any thread.
            until_settled: end as soon as the settlement has been seen and cosigned.
            visit_s: end after so many seconds. A training that is under way ends first, and its answer is sent if the
                coordinator is there, else at the next visit.
            on_progress: told the status again and again.
        """
        ends = None if visit_s is None else time.monotonic() + visit_s
        due, was_there = 0.0, False
        size, moved = -1, time.monotonic()
        with self.serve() as runtime:
            while not stop.is_set():
                now, there = time.monotonic(), self._coordinator in self._parts.exchange.connected()
                if now >= due or there != was_there:
                    self.tick()
                    if self._witness.state.size != size:
                        size, moved = self._witness.state.size, now
                    due, was_there = now + (_TICK_S if now - moved > _QUIET_S else _POLL_S), there
                on_progress(self.status())
                if until_settled and self._finished():
                    self._follow()  # the settlement may have come since the tick
                    return
                there = self.leader in self._parts.exchange.connected()
                if ends is not None and time.monotonic() >= ends and not runtime.busy(sending=there):
                    return
                stop.wait(_POLL_S)

    def tick(self) -> None:
        """Do what is due: deliver the agreement or its revocation, keep the consent log, follow the study's log."""
        membership = self._membership()
        document = membership.revocation or membership.agreement
        now = self._parts.clock()
        waiting = self._refused_at is not None and (now - self._refused_at).total_seconds() < _REFUSED_AGAIN_S
        if self._sharing is not None:
            self._sharing.tidy()
        here, leader = self._parts.exchange.connected(), self.leader
        there = leader in here
        if self._coordinator in here:
            self._fence.heard()
        if (leader, document) != self._delivered and not waiting and there:
            self._deliver(REVOCATION if membership.revocation else AGREEMENT, document)
        if there and self._delivered:
            self._submitting.bring_all()
        try:
            self._consent_log.tick(reachable=there and self._is_party(self._parts.key.public))
            self._follow()
            forget_erased(self._parts.engine, self._parts.registry)
            if there:
                self._scoring.bring_due(self._witness.state)
            self._away = ""
        except UnavailableError as error:  # the registry's server is away: rounds are refused, and this goes on
            if self._away != error.message:
                logger.warning("the registry is away: %s", error.message)
            self._away = error.message

    def status(self) -> dict[str, Any]:
        """Where this node stands."""
        state = self._witness.state
        did = self._parts.key.public.did
        current = state.round
        return {
            "study": state.study,
            "site": self._parts.membership.site,
            "connected": self.leader in self._parts.exchange.connected(),
            "agreement": "admitted" if did in state.agreements else ("delivered" if self._delivered else "waiting"),
            "round": current.number if current else len(state.closed),
            "rounds": state.rounds.count,
            "log_size": state.size,
            "settled": state.settled,
            "problem": self._problem,
            "line": self._parts.exchange.trouble(self.leader),
            "consent_log": self._consent_log.problems,
            "submissions": self._submitting.problems(),
        }

    def _work(self, agreement: Agreement) -> dict[str, Any]:
        """What training and scoring both work with."""
        parts = self._parts
        return {
            "plan": self._plan,
            "agreement": agreement,
            "key": parts.key,
            "engine": parts.engine,
            "registry": parts.registry,
            "participation": self._participation,
            "noise": parts.noise,
            "clock": parts.clock,
            "dataset": parts.membership.dataset or None,
            "agreed": lambda: not self._membership().revocation,
            "await_grants": self._await_grants,
        }

    def _comparison(self) -> Comparison:
        parts = self._parts
        return Comparison(
            ComparisonParts(
                plan=self._plan,
                key=parts.key,
                engine=parts.engine,
                registry=parts.registry,
                participation=self._participation,
                noise=parts.noise,
                clock=parts.clock,
                state=lambda: self._witness.state,
                dataset=parts.membership.dataset or None,
                agreed=lambda: not self._membership().revocation,
                await_grants=self._await_grants,
            )
        )

    def _is_party(self, key: PublicKey) -> bool:
        """Whether an institution's agreement is in the study's log, as this node knows it."""
        return key.did in self._witness.state.agreements

    def _await_grants(self) -> None:
        limit_s = min(GRANTS_WAIT_S_MAX, self._plan.rounds.deadline_s * GRANTS_WAIT_SHARE)
        self._consent_log.await_grants(use_of(self._plan, self._parts.key.public.did), limit_s)

    def _follow(self) -> None:
        """Take in what the study's log says that is new: for this institution's people, and about others' logs."""
        state = self._witness.state
        self._participation.follow(state)
        for done in state.closed[self._compared :]:
            for did, update in done.admitted.items():
                if did != self._parts.key.public.did:
                    self._consent_witness.compare(update.consent_checkpoint, PublicKey.from_did(did))
            self._compared += 1

    def _membership(self) -> StudyMembership:
        """The membership as it is stored now: an officer may have revoked meanwhile."""
        with read(self._parts.engine) as session:
            return session.get(StudyMembership, self._plan.study_id) or self._parts.membership

    def _deliver(self, protocol: str, document: bytes) -> None:
        """Bring a signed document to the coordinator; what does not arrive is brought again at the next tick."""
        leader = self.leader
        try:
            self._request(protocol, document)
        except UnavailableError as error:
            logger.info("a document waits: %s", error.message)
            return
        except AccordError as error:
            if self._problem != error.message:
                logger.warning("the coordinator does not take a document: %s", error.message)
            self._problem, self._refused_at = error.message, self._parts.clock()
            return
        self._delivered, self._refused_at = (leader, document), None
        self._problem = ""

    def _request(self, protocol: str, document: bytes) -> None:
        self._parts.exchange.request(self.leader, protocol, document, timeout_s=_REQUEST_S, max_bytes=1024)

    def _fetch(self, name: str, *, max_bytes: int = 0) -> bytes:
        """A blob, from this node's store, else from who leads the study; as long as a model, or ``max_bytes``."""
        return fetch_from_leader(
            self._parts.exchange,
            self._witness.state,
            name,
            self._parts.blobs,
            timeout_s=_REQUEST_S,
            max_bytes=max(CHUNK_BYTES_MAX, self._model_bytes, max_bytes),
        )

    def _fetch_model(self, name: str) -> bytes:
        """A round's base model: a large one from whichever party has it, else from the coordinator.

        Who has it the coordinator knows; a standby that took over gives it by itself.
        """
        led = self.leader == self._coordinator
        if self._sharing is None or not led or self._model_bytes < SHARED_BYTES_MIN:
            return self._fetch(name)
        return self._sharing.fetch(name, timeout_s=_REQUEST_S, max_bytes=self._model_bytes)

    def _finished(self) -> bool:
        state = self._witness.state
        if not state.settled:
            return False
        last = self._parts.replica.latest_checkpoint()
        return last is not None and last[0] == state.size
