"""The node as a witness: it replays the coordinator's log and cosigns only what it has checked.

Checked before a cosignature: every entry by the log's rules, every round's aggregate from the blobs, every settlement
from the opened value tables, every case against a stake from its proof, and that the tree extends the one cosigned
last. The replica is on disk before anything is signed, so a witness never signs two trees that do not fit. A fork that
the coordinator signed is kept as evidence. No stake is released or burned before its time by this witness's own clock,
and none is released while a case that this institution brought in time is missing in the log.

When the plan's standby takes over (``federation.rules.succession``) the replica goes on in the new term; entries of the
old one that never became final are set aside, not deleted.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from clients.fencing import Fence, MemoryPromises, is_standby
from federation.coordinator.protocols import CosignReply, CosignRequest, PromiseRequest
from federation.errors import PeerError
from federation.learning.evaluation import committed_utility
from federation.rules import audit
from federation.rules.checkpoint import SignedCheckpoint, cosign, cosignature_line, open_checkpoint
from federation.rules.entries import Entry, RoundClosed, StakeBurned, StakeReleased, StudySettled
from federation.rules.equivocation import Evidence, two_leaves, two_roots
from federation.rules.evidence import check_evidence
from federation.rules.failover import TermBegan
from federation.rules.instant import parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import EMPTY_ROOT, leaf_hash
from federation.rules.pledges import Accusation
from federation.rules.replay import apply, begin, replay
from federation.rules.stakes import heard_until
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan, read
from federation.rules.succession import open_next
from federation.storage.evidence import EvidenceStore
from federation.storage.log import MerkleLog

logger = logging.getLogger(__name__)

Blobs = Callable[[str], bytes]
SKEW_S: Final = 300
"""How far an entry's time may be ahead of this machine's clock, where time is what it rests on."""


class Witness:
    """One institution's replica of one study's log.

    Args:
        plan: the study's plan.
        plan_blob: SHA-256 of the signed plan's bytes.
        coordinator: whose log it is.
        key: the institution's key.
        log: where the replica is kept.
        blobs: fetches a blob by its name (from the node's store, else from the coordinator).
        evidence: where proofs of split views are kept.
        clock: stamps cosignatures.
        proofs: as ``blobs``, for the proofs that cases against stakes rest on, which are longer; None: ``blobs``.
        accusations: what this institution holds against parties.
        on_fork: told of every fork that is kept.
        fence: keeps this witness's word in a failover; None: one that forgets.
    """

    def __init__(
        self,
        *,
        plan: StudyPlan,
        plan_blob: str,
        coordinator: PublicKey,
        key: PrivateKey,
        log: MerkleLog,
        blobs: Blobs,
        evidence: EvidenceStore,
        clock: Callable[[], datetime],
        proofs: Blobs | None = None,
        accusations: Callable[[], Iterable[Accusation]] = tuple,
        on_fork: Callable[[Evidence], None] = lambda _evidence: None,
        fence: Fence | None = None,
    ) -> None:
        self._key = key
        self._log = log
        self._blobs = blobs
        self._evidence = evidence
        self._clock = clock
        self._proofs = proofs or blobs
        self._accusations = accusations
        self._on_fork = on_fork
        self._fence = fence or Fence(key, MemoryPromises())
        self._lock = threading.Lock()
        self._begin = begin(plan, plan_blob=plan_blob, coordinator=coordinator)
        self._state = replay(self._begin, log.entries(0, log.size))

    @property
    def state(self) -> StudyState:
        """What the replica says."""
        return self._state

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Answer the coordinator's request to check entries and to cosign a checkpoint.

        Raises:
            PeerError: not the coordinator, an entry that breaks a rule, a false aggregate or settlement, or a
                checkpoint that is not the tree that this witness has.
        """
        request = read(CosignRequest, payload, max_bytes=len(payload))
        self._check_asker(peer, request.study)
        with self._lock:
            began = self._state.began
            if began is not None and peer != self._state.leader:
                proof = self._log.entry(began).decode("utf-8")
                return CosignReply(size=self._log.size, superseded=proof).to_payload()
            self._extend(request)
            leads = peer == self._state.leader
            line = self._cosign(request.checkpoint) if request.checkpoint is not None and leads else None
            return CosignReply(size=self._log.size, cosignature=line).to_payload()

    def promise(self, peer: PublicKey, payload: bytes) -> bytes:
        """Answer the standby's request for a promise; nothing is cosigned meanwhile.

        Raises:
            PeerError: not the standby, or another study.
            UnavailableError: the coordinator was heard too lately.
        """
        request = read(PromiseRequest, payload, max_bytes=len(payload))
        if not is_standby(peer, self._state):
            raise PeerError("Only the standby that the plan names is promised anything.", remedy="Read the plan.")
        with self._lock:
            return self._fence.promise(request, self._state, self._last_tree())

    def _check_asker(self, peer: PublicKey, study: str) -> None:
        state = self._state
        if study != state.study or not (peer == state.coordinator or is_standby(peer, state)):
            raise PeerError("This witness follows another study.", remedy="Ask the study's own witnesses.")

    def _last_tree(self) -> tuple[int, bytes]:
        """Size and root of the tree that was cosigned last."""
        last = self._log.latest_checkpoint()
        return (0, EMPTY_ROOT) if last is None else (last[0], self._log.root(last[0]))

    def _extend(self, request: CosignRequest) -> None:
        """Append the entries that are new, each after its check; those that are known must be the same."""
        for index, text in enumerate(request.entries, start=request.first):
            data = text.encode("utf-8")
            if index > self._log.size:
                return  # a gap: the reply's size tells the coordinator where to begin
            if index < self._log.size:
                if self._log.entry(index) == data:
                    continue
                if not self._turn_to(index, data):
                    self._keep(self._fork_of(request))
                    raise PeerError(
                        f"Entry {index} is not the one that this witness was shown before: the log is forked.",
                        remedy="Keep both as evidence; this node no longer cosigns this log.",
                    )
            entry = open_next(self._state, data, self._log.leaf_hashes())
            self._append(entry, data)

    def _append(self, entry: Entry, data: bytes) -> None:
        after = apply(self._state, entry)
        if isinstance(entry.body, RoundClosed) and entry.body.outcome == "aggregated":
            audit.check_round(after.closed[-1], after, self._blobs)
        if isinstance(entry.body, StudySettled):
            audit.check_settlement(self._state, entry.body, self._blobs)
        check_evidence(after, entry, self._proofs, committed_utility)
        self._check_stake(entry)
        self._log.append(entry.id, data)
        self._state = after

    def _turn_to(self, index: int, data: bytes) -> bool:
        """Set the entries from ``index`` on aside, if ``data`` proves that the standby took over there.

        The witness binds itself first: were it stopped in between, it would not cosign in the old term any more.
        """
        if self._state.began is not None or self._state.plan.failover is None:
            return False
        before = replay(self._begin, self._log.entries(0, index))
        try:
            entry = open_next(before, data, self._log.leaf_hashes(index))
            apply(before, entry)
        except PeerError:
            return False
        if not isinstance(entry.body, TermBegan):
            return False
        self._fence.bind(self._state, self._last_tree())
        logger.warning("the standby took over after %d entries; %d are set aside", index, self._log.size - index)
        self._log.set_aside(index)
        self._state = before
        return True

    def _check_stake(self, entry: Entry) -> None:
        """That a stake ends neither before its time nor over a case that should have been heard."""
        if not isinstance(entry.body, StakeBurned | StakeReleased):
            return
        if entry.at > self._clock() + timedelta(seconds=SKEW_S):
            raise PeerError(
                "The entry's time is ahead of this witness's clock.", remedy="Wait, or set the clock that is wrong."
            )
        if isinstance(entry.body, StakeReleased):
            logged = [slash.case for slash in self._state.slashes.values() if slash.party == entry.party]
            for each in self._accusations():
                in_time = parse_instant(each.signed_at) <= heard_until(self._state)
                if each.accused == entry.party and in_time and each.case not in logged:
                    raise PeerError(
                        "A stake is released although this institution brought a case against it in time.",
                        remedy="Log the case first: `accord stake status` at the institution shows it.",
                    )

    def _cosign(self, note: str) -> str | None:
        """The cosignature line for a checkpoint of exactly the replica; None while entries are missing."""
        self._fence.check(self._state)
        signed = self._open(note.encode("utf-8"), self._state.leader)
        checkpoint = signed.checkpoint
        if checkpoint.size > self._log.size:
            return None
        last = self._log.latest_checkpoint()
        if last is not None and checkpoint.size < last[0]:
            self._keep(self._second_root(signed))
            raise PeerError("The checkpoint is older than the one cosigned last.", remedy="Show the newest one.")
        if checkpoint.root != self._log.root(checkpoint.size):
            self._keep(self._second_root(signed))
            raise PeerError(
                f"The checkpoint of size {checkpoint.size} is not the tree that this witness was shown.",
                remedy="Keep the checkpoint as evidence: its signer shows different logs to different parties.",
            )
        self._log.save_checkpoint(note.encode("utf-8"), checkpoint.size)
        line = cosignature_line(cosign(checkpoint, self._key, timestamp=int(self._clock().timestamp())))
        logger.info("cosigned size %d", checkpoint.size)
        return line

    def _open(self, note: bytes, signer: PublicKey) -> SignedCheckpoint:
        state = self._state
        return open_checkpoint(note, origin=state.plan.origin, signer=signer, witnesses=state.witnesses)

    def _second_root(self, shown: SignedCheckpoint) -> Evidence | None:
        """Evidence, if another tree of this size was cosigned before."""
        size = shown.checkpoint.size
        stored = self._log.checkpoint(size)
        return None if stored is None else two_roots(self._open(stored, self._state.leader_at(size)), shown)

    def _fork_of(self, request: CosignRequest) -> Evidence | None:
        """Evidence, if the checkpoint that came with other entries than the known ones proves that both were signed.

        Without a checkpoint over them the coordinator has signed entries, but no second tree.
        """
        last = self._log.latest_checkpoint()
        if request.checkpoint is None or last is None:
            return None
        body, _, lines = request.checkpoint.partition("\n\n")  # another history may name other witnesses
        shown = self._open(f"{body}\n\n{lines.partition(chr(10))[0]}\n".encode(), self._state.leader)
        mine = self._open(last[1], self._state.leader_at(last[0]))
        known = list(self._log.leaf_hashes())
        theirs = known[: request.first] + [leaf_hash(text.encode("utf-8")) for text in request.entries]
        return two_leaves(mine, known[: last[0]], shown, theirs) or self._second_root(shown)

    def _keep(self, fork: Evidence | None) -> None:
        if fork is not None:
            place = self._evidence.keep(fork)
            logger.error(
                "SPLIT VIEW: the coordinator signed two logs. Anybody can check the proof: "
                "accord log evidence %s --key %s",
                place,
                fork.signer,
            )
            self._on_fork(fork)
