"""Running one study from its publication to its settlement.

The loop looks at the log's fold and does the one next thing: wait for agreements, start, open a round, carry it
through, collect cosignatures, settle. Nothing else holds state, so a restart is the same loop on the replayed log.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from federation.flower.grid import ExchangeGrid
from federation.flower.strategy import AccordStrategy
from federation.learning.models import initial_model
from federation.network.blobs import serve_blobs
from federation.network.exchange import Exchange
from federation.network.probe import serve_probe
from federation.rules.aggregation import rule_of
from federation.rules.comparing import weights_of
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import StudyAborted, StudyPublished, StudyStarted
from federation.rules.keys import PublicKey
from federation.rules.sharing import may_share, shared_models
from federation.rules.stakes import stakes_due
from federation.rules.state import StudyState
from federation.rules.vectors import pack_vector
from federation.storage.blobs import BlobStore
from federation.storage.log import MerkleLog
from federation.storage.outbox import Outbox

from .answering import answer_to
from .comparing import Comparing
from .history import StudyHistory, system_clock
from .membership import Membership
from .panel import PanelRunner
from .pausing import Pause
from .protocols import (
    AGREEMENT,
    CHECKPOINT,
    DOCUMENT_BYTES_MAX,
    JOIN,
    JOIN_BYTES_MAX,
    REVOCATION,
    SCORES,
    SCORES_COMMITMENT,
    SUBMISSION,
    SUBMISSION_BYTES_MAX,
)
from .relay import Relay
from .replication import Replication, check_leads, seal_validation, serve_sealed
from .rounds import RoundRunner
from .sources import Sources
from .status import awaited, awaited_cosignatures, clusters_of, phase, predicted_s
from .submissions import Submissions
from .valuing import Valuer
from .witnessing import Witnessing

logger = logging.getLogger(__name__)

_IDLE_S = 0.1
_TURN_S = 1.0
_COSIGN_AGAIN_S = 2.0
_GRACE_S = 5.0

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class StudyParts:
    """What a study runs on; all of it can be in memory.

    ``committed`` are salt and rows of the validation set: what a standby is given, where the plan names one.
    ``outbox`` holds what the coordinator's own commands sign, ``logs`` are all studies' logs that it keeps.
    """

    history: StudyHistory
    membership: Membership
    exchange: Exchange
    blobs: BlobStore
    sealed: BlobStore
    validation: SubjectBatch
    root: SubjectBatch | None = None
    seed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    paused: Callable[[], Pause | None] = lambda: None
    committed: tuple[bytes, bytes] | None = None
    outbox: Outbox | None = None
    logs: Callable[[], Sequence[MerkleLog]] = tuple


class StudyService:
    """One study, run to its end.

    Args:
        parts: log, network, stores.
        on_progress: told the status whenever the loop has done something.
    """

    def __init__(self, parts: StudyParts, *, on_progress: OnProgress = lambda _status: None) -> None:
        self._parts = parts
        self._history = parts.history
        self._stop = parts.stop
        self._on_progress = on_progress
        plan = parts.history.state.plan
        self._valuer = Valuer(plan=plan, validation=parts.validation, blobs=parts.blobs, sealed=parts.sealed)
        self._witnessing = Witnessing(parts.history, parts.exchange)
        self._submissions = Submissions(parts.history, parts.blobs, parts.exchange)
        self._answer = partial(answer_to, logs=parts.logs)
        self._comparing = Comparing(parts.history, parts.exchange, self._witnessing.gather)
        self._panel = PanelRunner(parts.history) if plan.valuation.panel else None
        self._rounds = RoundRunner(
            history=parts.history,
            exchange=parts.exchange,
            grid=ExchangeGrid(parts.exchange),
            strategy=AccordStrategy(plan.study_id, rule_of(plan)),
            blobs=parts.blobs,
            valuer=self._valuer,
            stop=parts.stop,
            sealed=parts.sealed,
            root=parts.root,
            on_turn=self._turn,
        )
        self._replication: Replication | None = None
        self._turned_at = 0.0
        self._quorum_since: float | None = None
        self._visits: dict[str, float] = {}
        self._cosigned_at = 0.0

    def serve(self) -> None:
        """Open the doors: invitations, agreements, submissions, checkpoints, blobs, measurements, from node to node."""
        exchange, membership = self._parts.exchange, self._parts.membership
        exchange.serve(JOIN, membership.join, max_bytes=JOIN_BYTES_MAX, strangers=True)
        exchange.serve(AGREEMENT, membership.agree, max_bytes=DOCUMENT_BYTES_MAX)
        exchange.serve(REVOCATION, membership.revoke, max_bytes=DOCUMENT_BYTES_MAX)
        exchange.serve(SUBMISSION, self._submissions.handle, max_bytes=SUBMISSION_BYTES_MAX)
        if self._panel is not None:
            exchange.serve(SCORES_COMMITMENT, self._panel.commit, max_bytes=DOCUMENT_BYTES_MAX)
            exchange.serve(SCORES, self._panel.show, max_bytes=DOCUMENT_BYTES_MAX)
        exchange.serve(CHECKPOINT, lambda _peer, _payload: self._history.newest_note(), max_bytes=0)
        serve_blobs(exchange, self._parts.blobs)
        serve_probe(exchange, system_clock)
        study = self._history.state.study
        Relay(exchange, study, membership.allowed).serve()
        Sources(exchange, self._parts.blobs, study, party=self._is_party, named=self._names).serve()
        self._serve_standby()

    def _serve_standby(self) -> None:
        """Let the plan's standby follow, unless it leads already."""
        state, parts = self._history.state, self._parts
        failover = state.plan.failover
        if failover is None or state.began is not None or parts.committed is None:
            return
        self._replication = Replication(
            parts.exchange,
            lambda: self._history.state,
            self._history.log,
            may=lambda peer: peer == failover.key,
            validation=seal_validation(parts.sealed, parts.committed),
        )
        self._replication.serve()
        serve_sealed(parts.exchange, parts.sealed, failover.key)

    def run(self, *, until_settled: bool = False) -> None:
        """The loop, until ``stop`` is set (or the study is settled and every connected witness has cosigned).

        Raises:
            SupersededError: the standby leads the study.
        """
        state = self._history.state
        if state.began is None:
            check_leads(self._parts.exchange, self._history)
        if not state.published:
            self._history.append(
                StudyPublished(
                    plan=state.plan_blob,
                    plan_hash=state.plan.plan_hash,
                    minted=state.plan.reward.minted,
                )
            )
        self._rounds.reopen()
        while not self._stop.is_set():
            self._on_progress(self.status())
            if not self._step():
                if until_settled and self._finished():
                    return
                self._stop.wait(_IDLE_S)

    def status(self) -> dict[str, Any]:
        """Where the study stands, and who is awaited for what."""
        state, pause = self._history.state, self._parts.paused()
        connected = self._parts.exchange.connected()
        names = {did: agreement.site for did, agreement in state.agreements.items()}
        return {
            "study": state.study,
            "phase": phase(state, pause),
            "round": state.round.number if state.round else len(state.closed),
            "rounds": state.rounds.count,
            "log_size": state.size,
            "connected": sorted(names.get(peer.did, peer.did) for peer in connected),
            "predicted_s": predicted_s(state),
            "awaited": awaited(
                self._history,
                invited=self._parts.membership.invited(),
                connected=[peer.did for peer in connected],
                pause=pause,
                seen=self._seen(),
            ),
            "problems": {
                names.get(did, did): text
                for did, text in (self._witnessing.problems | self._comparing.problems).items()
            },
            "clusters": clusters_of(state),
            "settled": state.settled,
        }

    def _is_party(self, key: PublicKey) -> bool:
        return may_share(self._history.state, key.did)

    def _names(self, blob: str) -> bool:
        return blob in shared_models(self._history.state)

    def _turn(self) -> None:
        """Tell the status while a round waits for answers, at most once a second; let visitors catch up on the log."""
        if time.monotonic() - self._turned_at >= _TURN_S:
            self._turned_at = time.monotonic()
            self._on_progress(self.status())
            plan = self._history.state.plan
            if plan.rounds.attendance is not None or plan.failover is not None:
                self._cosign(again_s=_COSIGN_AGAIN_S)

    def _step(self) -> bool:
        """Do the next thing; False when there is only waiting left."""
        if self._submitted():
            return True
        state = self._history.state
        if state.settled:
            return self._cosign(again_s=_COSIGN_AGAIN_S)
        if not state.weights:
            return self._start(state)
        if state.round is not None:
            self._rounds.advance()
            if self._history.state.round is None:
                self._cosign(again_s=0)
            return True
        if state.complete:
            return self._settle(state)
        pause = self._parts.paused()
        if pause is not None and pause.for_good:
            self._history.append(StudyAborted(reason=pause.reason))
            self._cosign(again_s=0)
            return True
        return pause is None and self._open_round(state)

    def _submitted(self) -> bool:
        """Log what the coordinator's commands signed and what is due by itself; False when there is nothing."""
        taken = 0 if self._parts.outbox is None else self._submissions.take_own(self._parts.outbox)
        if not taken and not self._submissions.due(self._answer):
            return False
        self._cosign(again_s=0)
        return True

    def _start(self, state: StudyState) -> bool:
        ready = len(state.agreements) == state.plan.rounds.participants
        if not ready or not set(stakes_due(state)) <= set(state.stakes):
            return False
        if state.plan.overlap is not None and not state.overlap.formed:
            return self._comparing.advance()
        first = pack_vector(initial_model(state.plan, self._parts.seed), state.plan.aggregation.encoding)
        model = self._parts.blobs.put(first)
        self._history.append(StudyStarted(weights=weights_of(state), base_model=model))
        self._cosign(again_s=0)
        return True

    def _open_round(self, state: StudyState) -> bool:
        """Open a round once a quorum is there, or has visited; the others get a short while to appear."""
        there = self._seen()
        present = [did for did in state.active if did in there]
        if len(present) < state.rounds.quorum:
            self._quorum_since = None
            return False
        self._quorum_since = self._quorum_since or time.monotonic()
        wanted = min(state.plan.rounds.invite or len(state.active), len(state.active))
        if len(present) < wanted and time.monotonic() - self._quorum_since < _GRACE_S:
            return False
        self._quorum_since = None
        self._rounds.open(there)
        return True

    def _seen(self) -> set[str]:
        """Who is there now; where nodes visit, also who was there within the last deadline."""
        rounds, now = self._history.state.rounds, time.monotonic()
        here = {peer.did for peer in self._parts.exchange.connected()}
        if rounds.attendance is None:
            return here
        self._visits |= dict.fromkeys(here, now)
        return {did for did, seen in self._visits.items() if now - seen <= rounds.deadline_s}

    def _settle(self, state: StudyState) -> bool:
        """Settle once a quorum of witnesses has cosigned the last round, and a panel has scored where there is one."""
        if self._panel is not None and state.panel is not None and not self._panel.done():
            stepped = self._panel.step()
            self._cosign(again_s=0 if stepped else _COSIGN_AGAIN_S)
            return stepped
        if not self._witnessing.final():
            self._cosign(again_s=_COSIGN_AGAIN_S)
            if not self._witnessing.final():
                return False
        if self._panel is not None and state.panel is None:
            self._panel.step()
            self._cosign(again_s=0)
            return True
        self._history.append(self._valuer.settlement(state))
        self._cosign(again_s=0)
        return True

    def _cosign(self, *, again_s: float) -> bool:
        """Ask for missing cosignatures, at most every ``again_s`` seconds; True if one came."""
        if time.monotonic() - self._cosigned_at < again_s or not self._replicated():
            return False
        self._cosigned_at = time.monotonic()
        before = len(self._history.checkpoint().cosignatures)
        return self._witnessing.gather() > before

    def _replicated(self) -> bool:
        """Whether the standby, if it is there, has the value table of every closed round."""
        state = self._history.state
        if self._replication is None or state.plan.failover is None or not state.closed:
            return True
        needed = state.closed[-1].entry_index + 1
        return self._replication.holds(needed, patience_s=state.plan.failover.after_s)

    def _finished(self) -> bool:
        """Settled, and every witness that is there has seen it."""
        if not self._history.state.settled:
            return False
        missing = awaited_cosignatures(self._history)
        there = {peer.did for peer in self._parts.exchange.connected()}
        return self._witnessing.final() and not there & missing
