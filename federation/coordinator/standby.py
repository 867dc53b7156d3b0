"""The standby: follows a study's log, and takes the lead when the coordinator is gone for good.

``turn`` does the one next thing, so that what drives it may be a process or a test:

- *following*: take in what the coordinator has that is new;
- *taking over*, once it was silent for the plan's time: ask the witnesses for promises (``rules.succession``), complete
  the log from theirs, append ``term-began``, and collect cosignatures;
- *leading*, once a quorum of witnesses has cosigned that: from here on the study is run as a coordinator runs it.

Before the first witness is asked, that is noted durably: a standby that is stopped in between asks again, whatever the
coordinator does meanwhile. Else witnesses that have promised could be left with nobody to lead them.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from federation.errors import AccordError, UnavailableError
from federation.network.blobs import serve_blobs
from federation.network.exchange import Exchange
from federation.rules.checkpoint import finality_quorum
from federation.rules.failover import TermBegan
from federation.rules.keys import PublicKey
from federation.rules.state import StudyState
from federation.rules.succession import Promise, open_promise
from federation.storage.blobs import BlobStore

from .history import StudyHistory
from .protocols import PROMISE, PROMISE_REPLY_BYTES_MAX, PromiseRequest
from .replication import Follower, Replication
from .status import phase
from .witnessing import Witnessing

logger = logging.getLogger(__name__)

Phase = Literal["following", "taking over", "leading"]
_PROMISE_S_MAX: Final = 10.0


class Asked:
    """Whether witnesses were asked for promises, kept in memory; ``tables.FollowedStudy`` keeps it on disk."""

    def __init__(self) -> None:
        self._asked = False

    def load(self) -> bool:
        """Whether they were."""
        return self._asked

    def save(self, asked: bool) -> None:
        """Keep it, durably, before it returns."""
        self._asked = asked


class Standby:
    """The standby of one study.

    Args:
        exchange: its end of the network.
        history: its copy of the log.
        blobs: models, updates, opened tables.
        sealed: tables that wait for the settlement.
        asked: whether witnesses were asked already.
        monotonic: seconds on a clock that never jumps; it measures the coordinator's silence.
    """

    def __init__(
        self,
        *,
        exchange: Exchange,
        history: StudyHistory,
        blobs: BlobStore,
        sealed: BlobStore,
        asked: Asked | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        failover = history.state.plan.failover
        if failover is None:
            raise ValueError("the plan names no standby")
        self._after_s = failover.after_s
        self._exchange, self._history, self._blobs = exchange, history, blobs
        self._follower = Follower(exchange, history, blobs, sealed)
        self._witnessing = Witnessing(history, exchange)
        self._asked = asked or Asked()
        self._monotonic = monotonic
        self._heard_at = monotonic()
        self._promises: dict[str, tuple[Promise, str]] = {}
        self._refused: set[str] = set()
        self.problems: dict[str, str] = {}

    def serve(self) -> None:
        """Open the doors: the log to the coordinator that comes back, blobs to the witnesses.

        A witness that has not seen a round's end yet needs the model and the updates before it cosigns the new term,
        and nobody else has them any more.
        """
        state = self._history.state
        Replication(
            self._exchange, lambda: self._history.state, self._history.log, may=lambda peer: peer == state.coordinator
        ).serve()
        serve_blobs(self._exchange, self._blobs)

    def turn(self) -> Phase:
        """Do the next thing; what this standby is doing."""
        state = self._history.state
        if state.began is None:
            heard = self._follow(state.coordinator)
            if not self._must_ask(heard=heard):
                return "following"
            self._take_over()
        if self._history.state.began is None:
            return "taking over"
        self._witnessing.gather()
        self.problems = dict(self._witnessing.problems)
        return "leading" if self._witnessing.final() else "taking over"

    def status(self, now: Phase) -> dict[str, Any]:
        """Where the standby stands."""
        state = self._history.state
        names = {did: agreement.site for did, agreement in state.agreements.items()}
        return {
            "study": state.study,
            "phase": now,
            "study_phase": phase(state),
            "log_size": state.size,
            "silent_s": round(self._monotonic() - self._heard_at),
            "after_s": self._after_s,
            "promises": sorted(names.get(did, did) for did in self._promises),
            "connected": sorted(names.get(peer.did, peer.did) for peer in self._exchange.connected()),
            "problems": {names.get(did, did): text for did, text in self.problems.items()},
            "settled": state.settled,
        }

    def _follow(self, coordinator: PublicKey) -> bool:
        """Take in what is new; whether the coordinator answered."""
        try:
            while self._follower.take(coordinator):
                pass
        except AccordError as error:
            self._note(coordinator.did, error)
            if isinstance(error, UnavailableError):
                return False
        else:
            self.problems.pop(coordinator.did, None)
        self._heard_at = self._monotonic()
        return True

    def _must_ask(self, *, heard: bool) -> bool:
        """Whether it is time to ask for promises, or that was begun and may not be left."""
        state = self._history.state
        if not state.weights:
            return False
        if self._monotonic() - self._heard_at >= self._after_s:
            if not self._asked.load():
                logger.warning("the coordinator was silent for %d s: the witnesses are asked", self._after_s)
                self._asked.save(True)
            return True
        if not self._asked.load():
            return False
        witnesses = {witness.did for witness in state.witnesses}
        if heard and not self._promises and self._refused >= witnesses:
            self._asked.save(False)  # nobody has promised anything: the coordinator simply leads
            return False
        return True

    def _take_over(self) -> None:
        """Collect promises; with a quorum of them that the log here extends, begin the new term."""
        self._ask_all(self._history.state)
        for did, (promise, _) in sorted(self._promises.items()):
            if promise.size > self._history.state.size:
                self._complete(PublicKey.from_did(did), promise.size)
        state, log = self._history.state, self._history.log
        usable = {
            did: text
            for did, (promise, text) in sorted(self._promises.items())
            if promise.size <= state.size and log.root(promise.size).hex() == promise.root
        }
        if len(usable) < finality_quorum(len(state.witnesses)):
            return
        self._history.append(TermBegan(promises=tuple(usable.values())))
        logger.warning("this standby leads %s from entry %d on", state.study, state.size)

    def _ask_all(self, state: StudyState) -> None:
        there = self._exchange.connected()
        due = [witness for witness in state.witnesses if witness in there and witness.did not in self._promises]
        shown = tuple(text for _, (_, text) in sorted(self._promises.items()))
        request = PromiseRequest(study=state.study, promises=shown).to_payload()
        if due:
            with ThreadPoolExecutor(max_workers=len(due), thread_name_prefix="promise") as pool:
                list(pool.map(lambda witness: self._ask(witness, request), due))

    def _ask(self, witness: PublicKey, request: bytes) -> None:
        state = self._history.state
        try:
            data = self._exchange.request(
                witness, PROMISE, request, timeout_s=_PROMISE_S_MAX, max_bytes=PROMISE_REPLY_BYTES_MAX
            )
            promise, _ = open_promise(data, study=state.study, standby=self._exchange.public.did, witness=witness)
        except AccordError as error:
            self._refused.add(witness.did)
            self._note(witness.did, error)
            return
        self._refused.discard(witness.did)
        self.problems.pop(witness.did, None)
        self._promises[witness.did] = (promise, data.decode("utf-8"))

    def _complete(self, witness: PublicKey, size: int) -> None:
        """Take from a witness what this log lacks of the tree that the witness cosigned."""
        try:
            while self._history.state.size < size and self._follower.take(witness):
                pass
        except AccordError as error:
            self._note(witness.did, error)

    def _note(self, did: str, error: AccordError) -> None:
        if self.problems.get(did) != error.message:
            logger.warning("%s: %s", did, error.message)
        self.problems[did] = error.message
