"""A study's log with its fold: the one way in which the coordinator decides anything.

``append`` checks the entry against the fold, stores it durably, then moves the fold on; an entry that is there
already is not appended again. Restarting is opening: the fold is replayed from the stored entries.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from federation.errors import UnavailableError
from federation.rules.checkpoint import Checkpoint, Cosignature, SignedCheckpoint, open_checkpoint, sign_checkpoint
from federation.rules.entries import Body, entry_id, make_entry
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.replay import apply, begin, replay
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.storage.log import MerkleLog

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The machine's clock, UTC."""
    return datetime.now(UTC)


class StudyHistory:
    """The log of one study and what it says. Safe to use from several threads.

    Raises:
        PeerError: on opening, when a stored entry breaks a rule.
    """

    def __init__(
        self, *, plan: StudyPlan, plan_blob: str, key: PrivateKey, log: MerkleLog, clock: Clock = system_clock
    ) -> None:
        self._key = key
        self._log = log
        self._clock = clock
        self._lock = threading.RLock()
        start = begin(plan, plan_blob=plan_blob, coordinator=key.public)
        self._state = replay(start, log.entries(0, log.size))

    @property
    def state(self) -> StudyState:
        """What the log says now."""
        with self._lock:
            return self._state

    @property
    def log(self) -> MerkleLog:
        """The entries themselves."""
        return self._log

    def now(self) -> datetime:
        """The clock, never before the last entry."""
        last = self._state.last_time
        return max(self._clock(), last) if last else self._clock()

    def append(self, body: Body, *, round_number: int | None = None, party: PublicKey | None = None) -> StudyState:
        """Append what ``body`` says, unless it is there already; the state after it.

        Raises:
            PeerError: it breaks a rule of the log; nothing is stored.
        """
        with self._lock:
            state = self._catch_up()
            known = entry_id(
                body, study=state.study, term=0, round_number=round_number, party=party.did if party else None
            )
            if known in state.entry_ids:
                return state
            entry = make_entry(body, study=state.study, now=self.now(), round_number=round_number, party=party)
            after = apply(state, entry)
            self._log.append(entry.id, entry.sign(self._key).to_bytes())
            self._state = after
            return after

    def _catch_up(self) -> StudyState:
        """Take in what was stored although its append reported a failure: nothing is appended a second time."""
        if self._log.size > self._state.size:
            self._state = replay(self._state, self._log.entries(self._state.size, self._log.size))
        return self._state

    def checkpoint(self) -> SignedCheckpoint:
        """The signed checkpoint of the log as it is now, with the cosignatures that are stored for it."""
        with self._lock:
            size = self._log.size
            stored = self._log.checkpoint(size)
            if stored is not None:
                return self.open(stored)
            signed = sign_checkpoint(
                Checkpoint(origin=self._state.plan.origin, size=size, root=self._log.root(size)), self._key
            )
            self._log.save_checkpoint(signed.to_bytes(), size)
            return signed

    def newest_note(self) -> bytes:
        """The newest checkpoint that was signed, with its cosignatures, as it is stored.

        Raises:
            UnavailableError: none was signed yet.
        """
        latest = self._log.latest_checkpoint()
        if latest is None:
            raise UnavailableError("The log has no checkpoint yet.", remedy="Ask again once the study has started.")
        return latest[1]

    def add_cosignature(self, size: int, cosignature: Cosignature) -> SignedCheckpoint:
        """Store a witness's verified cosignature with the checkpoint of ``size``."""
        with self._lock:
            stored = self._log.checkpoint(size)
            signed = self.open(stored) if stored is not None else self.checkpoint()
            if any(known.witness == cosignature.witness for known in signed.cosignatures):
                return signed
            signed = signed.with_cosignatures((*signed.cosignatures, cosignature))
            self._log.save_checkpoint(signed.to_bytes(), size)
            return signed

    def open(self, data: bytes) -> SignedCheckpoint:
        """Read a stored checkpoint of this log."""
        state = self._state
        return open_checkpoint(data, origin=state.plan.origin, signer=self._key.public, witnesses=state.witnesses)
