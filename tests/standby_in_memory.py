"""A standby beside :class:`study_in_memory.InMemoryStudy`: it follows, takes over and leads in the same process.

with InMemoryStudy(tmp_path, failover=FAILOVER) as study:
    standby = StandbyInMemory(study)
    ...            # ``standby.turn()`` between the study's own steps
    standby.until_leading()
    standby.lead()
"""

import threading
from typing import Any

from study_in_memory import SALT, InMemoryStudy, key_of

from federation.coordinator.history import StudyHistory
from federation.coordinator.membership import Membership
from federation.coordinator.replication import ask, fetch_plan, fetch_validation
from federation.coordinator.service import StudyParts, StudyService
from federation.coordinator.standby import Asked, Standby
from federation.coordinator.tables import IssuedInvitation
from federation.rules.canonical import sha256_hex
from federation.rules.entries import Entry, open_signed_entry
from federation.rules.state import StudyState
from federation.rules.study import open_plan
from federation.rules.validation import read_validation
from federation.storage.blobs import MemoryBlobStore
from federation.storage.database import memory_database
from federation.storage.log import MemoryLog

KEY = key_of("standby")
FAILOVER = {"standby": KEY.public.did, "address": "/ip4/127.0.0.1/tcp/4001", "after_s": 60}
TURNS_MAX = 40


class StandbyInMemory:
    """The standby of ``study``, with stores of its own. ``start`` as often as a test likes: a new process."""

    def __init__(self, study: InMemoryStudy) -> None:
        self.study = study
        self.engine = memory_database(IssuedInvitation)
        self.log, self.blobs, self.sealed = MemoryLog("standby"), MemoryBlobStore(), MemoryBlobStore()
        self.asked = Asked()
        self.service: StudyService | None = None
        self.start()

    def start(self) -> None:
        """As a new process on the same stores."""
        study = self.study
        self.exchange = study.network.exchange(KEY, allowed=self._allowed)
        self.exchange.keep_connected(study.exchange.addresses()[0] if study.exchange.addresses() else self._address())
        if not self.blobs.has(sha256_hex(study.envelope)):
            reply = ask(self.exchange, study.key.public)
            envelope = fetch_plan(self.exchange, study.key.public, reply, self.blobs)
            plan, _ = open_plan(envelope, signer=study.key.public)
            assert reply.validation is not None
            self.committed = fetch_validation(self.exchange, study.key.public, reply.validation, self.sealed, plan)
            assert self.committed == (SALT, study.validation)
        self.history = StudyHistory(
            plan=study.plan,
            plan_blob=sha256_hex(study.envelope),
            key=KEY,
            log=self.log,
            clock=study.clock,
            coordinator=study.key.public,
        )
        self.membership = Membership(self.engine, self.history, study.envelope)
        self.standby = Standby(
            exchange=self.exchange,
            history=self.history,
            blobs=self.blobs,
            sealed=self.sealed,
            asked=self.asked,
            monotonic=lambda: study.clock().timestamp(),
        )
        self.standby.serve()

    def turn(self) -> str:
        """One step of the standby, after one of each node."""
        for institution in self.study.institutions.values():
            if institution.node is not None:
                institution.node.tick()
        return self.standby.turn()

    def until_leading(self) -> None:
        """Turn until the standby leads.

        Raises:
            AssertionError: it does not, after many turns.
        """
        for _ in range(TURNS_MAX):
            if self.turn() == "leading":
                return
        raise AssertionError(self.standby.status("taking over"))

    def lead(self, *, timeout_s: float = 60) -> StudyState:
        """Run the study to its settlement."""
        study, stop = self.study, threading.Event()
        service = StudyService(
            StudyParts(
                history=self.history,
                membership=self.membership,
                exchange=self.exchange,
                blobs=self.blobs,
                sealed=self.sealed,
                validation=read_validation(study.plan, self.committed[1]),
                stop=stop,
                committed=self.committed,
            ),
            on_progress=self._step,
        )
        service.serve()
        guard = threading.Timer(timeout_s, stop.set)
        guard.start()
        try:
            service.run(until_settled=True)
        finally:
            guard.cancel()
        assert self.history.state.settled, service.status()
        return self.history.state

    def entries(self) -> list[Entry]:
        """The log's entries, opened."""
        signers = (self.study.key.public, KEY.public)
        return [open_signed_entry(data, signers=signers)[0] for data in self.log.entries()]

    def _step(self, _status: dict[str, Any]) -> None:
        for institution in self.study.institutions.values():
            if institution.node is not None:
                institution.node.tick()

    def _allowed(self, peer: Any) -> bool:
        known = self.history.state.agreements if hasattr(self, "history") else {}
        return peer == self.study.key.public or peer.did in known

    def _address(self) -> str:
        return f"/memory/1/p2p/{self.study.key.public.peer_id}"
