"""A study's log with its fold: the one way in which the coordinator decides anything.

``append`` checks the entry against the fold, stores it durably, then moves the fold on; an entry that is there
already is not appended again. Restarting is opening: the fold is replayed from the stored entries.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from federation.errors import PeerError, SupersededError, UnavailableError
from federation.rules.checkpoint import Checkpoint, Cosignature, SignedCheckpoint, open_checkpoint, sign_checkpoint
from federation.rules.entries import Body, entry_id, make_entry
from federation.rules.failover import TermBegan
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.replay import apply, begin, replay
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.rules.succession import STANDBY_TERM, check_trees, open_next
from federation.storage.log import MerkleLog

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The machine's clock, UTC."""
    return datetime.now(UTC)


class StudyHistory:
    """The log of one study and what it says. Safe to use from several threads.

    Args:
        plan: the study's plan.
        plan_blob: SHA-256 of the signed plan's bytes.
        key: this party's key: the coordinator's, or the standby's.
        log: where the entries are kept.
        clock: the time.
        coordinator: who signed the plan, if not ``key``.

    Raises:
        PeerError: on opening, when a stored entry breaks a rule.
    """

    def __init__(
        self,
        *,
        plan: StudyPlan,
        plan_blob: str,
        key: PrivateKey,
        log: MerkleLog,
        clock: Clock = system_clock,
        coordinator: PublicKey | None = None,
    ) -> None:
        self._key = key
        self._log = log
        self._clock = clock
        self._lock = threading.RLock()
        self._begin = begin(plan, plan_blob=plan_blob, coordinator=coordinator or key.public)
        self._state = replay(self._begin, log.entries(0, log.size))

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
            term = STANDBY_TERM if isinstance(body, TermBegan) else state.term
            did = party.did if party else None
            known = entry_id(body, study=state.study, term=term, round_number=round_number, party=did)
            if known in state.entry_ids:
                return state
            entry = make_entry(
                body, study=state.study, now=self.now(), term=term, round_number=round_number, party=party
            )
            after = apply(state, entry)
            self._check_leads(after)
            if isinstance(body, TermBegan):
                check_trees(body, self._log.leaf_hashes())
            self._log.append(entry.id, entry.sign(self._key).to_bytes())
            self._state = after
            return after

    def follow(self, data: bytes) -> StudyState:
        """Append an entry that another party signed: the leader's, as a standby receives it; the state after it.

        Raises:
            PeerError: it is not the leader's, or breaks a rule of the log; nothing is stored.
        """
        with self._lock:
            state = self._catch_up()
            entry = open_next(state, data, self._log.leaf_hashes())
            after = apply(state, entry)
            self._log.append(entry.id, data)
            self._state = after
            return after

    def follow_note(self, note: bytes, size: int) -> None:
        """Keep a checkpoint of the leader's over the first ``size`` entries, unless the one here has more cosignatures.

        Raises:
            PeerError: it is not signed, or not over these entries.
            UnavailableError: entries are missing here.
        """
        with self._lock:
            signed = self.open(note, size)
            checkpoint = signed.checkpoint
            if checkpoint.size != size or checkpoint.root != self._log.root(size):
                raise PeerError(
                    f"The checkpoint of size {size} is not over the entries that came with it.",
                    remedy="Keep both: its signer shows different logs to different parties.",
                )
            stored = self._log.checkpoint(size)
            if stored is None or len(self.open(stored, size).cosignatures) < len(signed.cosignatures):
                self._log.save_checkpoint(note, size)

    def _check_leads(self, state: StudyState) -> None:
        if state.leader != self._key.public:
            raise SupersededError(
                f"{state.leader.did} leads this study, not this coordinator.",
                remedy="Ask its operator how the study stands.",
            )

    def _catch_up(self) -> StudyState:
        """Take in what was stored although its append reported a failure: nothing is appended a second time."""
        if self._log.size > self._state.size:
            size = self._state.size
            known = self._log.leaf_hashes(size)
            self._state = replay(self._state, self._log.entries(size, self._log.size), before=known)
        return self._state

    def checkpoint(self) -> SignedCheckpoint:
        """The signed checkpoint of the log as it is now, with the cosignatures that are stored for it."""
        with self._lock:
            size = self._log.size
            stored = self._log.checkpoint(size)
            if stored is not None:
                return self.open(stored, size)
            self._check_leads(self._state)
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
            signed = self.open(stored, size) if stored is not None else self.checkpoint()
            if any(known.witness == cosignature.witness for known in signed.cosignatures):
                return signed
            signed = signed.with_cosignatures((*signed.cosignatures, cosignature))
            self._log.save_checkpoint(signed.to_bytes(), size)
            return signed

    def open(self, data: bytes, size: int) -> SignedCheckpoint:
        """Read a checkpoint of this log over its first ``size`` entries.

        Raises:
            PeerError: it is not the one of who led then, or does not verify.
        """
        state = self._state
        signer = state.leader_at(size)
        return open_checkpoint(data, origin=state.plan.origin, signer=signer, witnesses=state.witnesses)
