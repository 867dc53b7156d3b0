"""The study's log, and what it rests on, for the standby: given by whoever leads, taken by the standby, checked by it.

The standby asks; it is given entries from an index on, checkpoints with their cosignatures, blobs by name and, it
alone, the sealed value tables and the sponsor's validation set. It replays every entry as a witness does, and takes one
in only when the blobs that the entry rests on are here: so a standby that has an entry can go on from it.

The coordinator shows the end of a round to the witnesses only when the standby has it, as long as the standby is there:
else a table could be lost that the log already names (:meth:`Replication.holds`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from federation.errors import AccordError, PeerError, SupersededError, UnavailableError
from federation.network.blobs import bring_blob, fetch_blob, serve_blobs
from federation.network.exchange import Exchange
from federation.rules.admission import parameter_count
from federation.rules.documents import CHUNK_BYTES_MAX, Update, open_signed
from federation.rules.entries import Entry, RoundClosed, StudySettled, StudyStarted, UpdateAdmitted
from federation.rules.keys import PublicKey
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan, read
from federation.rules.succession import open_next, proves_takeover
from federation.rules.validation import SALT_BYTES, validation_commitment
from federation.rules.vectors import vector_bytes_max
from federation.storage.blobs import BlobStore
from federation.storage.log import MerkleLog

from .history import StudyHistory
from .protocols import (
    COSIGN_ENTRIES_MAX,
    FOLLOW,
    FOLLOW_BYTES_MAX,
    FOLLOW_ENTRIES_BYTES,
    FOLLOW_NOTES_MAX,
    FOLLOW_REPLY_BYTES_MAX,
    SEALED,
    FollowReply,
    FollowRequest,
)

logger = logging.getLogger(__name__)

FOLLOW_S_MAX: Final = 10.0
_CONNECT_S_MAX: Final = 5.0
_BLOB_S_MAX: Final = 120.0
_TABLE_BYTES_MAX: Final = 4 << 20
VALIDATION_BYTES_MAX: Final = 1 << 28

State = Callable[[], StudyState]


class Replication:
    """What a party gives to those who may follow its log.

    Args:
        exchange: this party's end of the network.
        state: what its log says now.
        log: the log.
        may: who may follow.
        validation: the sealed blob of the validation set, where this party has it.
    """

    def __init__(
        self,
        exchange: Exchange,
        state: State,
        log: MerkleLog,
        *,
        may: Callable[[PublicKey], bool],
        validation: str | None = None,
    ) -> None:
        self._exchange, self._state, self._log, self._may = exchange, state, log, may
        self._validation = validation
        self._held, self._asked_at = 0, -math.inf
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Open the door."""
        self._exchange.serve(FOLLOW, self.handle, max_bytes=FOLLOW_BYTES_MAX)

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Answer a request for what is new.

        Raises:
            PeerError: this peer may not follow, or asks for another study.
        """
        request = read(FollowRequest, payload, max_bytes=FOLLOW_BYTES_MAX)
        state = self._state()
        if not self._may(peer) or request.study not in (None, state.study):
            raise PeerError("Only the plan's standby follows this log.", remedy="Name it in the plan (`failover`).")
        with self._lock:
            self._held, self._asked_at = request.first, time.monotonic()
        notes = [note.decode("utf-8") for size, note in self._log.checkpoints() if size >= request.notes]
        return FollowReply(
            study=state.study,
            plan=state.plan_blob,
            validation=self._validation,
            size=state.size,
            entries=tuple(self._entries(request.first)),
            notes=tuple(notes[:FOLLOW_NOTES_MAX]),
            began=None if state.began is None else self._log.entry(state.began).decode("utf-8"),
        ).to_payload()

    def holds(self, size: int, *, patience_s: float) -> bool:
        """Whether the follower has the first ``size`` entries, or has not asked for ``patience_s`` seconds."""
        with self._lock:
            return self._held >= size or time.monotonic() - self._asked_at > patience_s

    def _entries(self, first: int) -> Iterator[str]:
        total = 0
        for data in self._log.entries(first, first + COSIGN_ENTRIES_MAX):
            yield data.decode("utf-8")
            total += len(data)
            if total >= FOLLOW_ENTRIES_BYTES:
                return


def serve_sealed(exchange: Exchange, sealed: BlobStore, standby: PublicKey) -> None:
    """Give what is sealed to the standby, and to nobody else."""
    serve_blobs(exchange, sealed, protocol=SEALED, only=standby)


def seal_validation(sealed: BlobStore, validation: tuple[bytes, bytes]) -> str:
    """Put salt and rows of the validation set among what is sealed; the blob's name."""
    salt, rows = validation
    return sealed.put(salt + rows)


def ask(
    exchange: Exchange, peer: PublicKey, *, study: str | None = None, first: int = 0, notes: int = 0
) -> FollowReply:
    """What ``peer`` has of the log from ``first`` on.

    Raises:
        UnavailableError: it does not answer.
        PeerError: its answer is malformed, or it refuses.
    """
    request = FollowRequest(study=study, first=first, notes=notes).to_payload()
    answer = exchange.request(peer, FOLLOW, request, timeout_s=FOLLOW_S_MAX, max_bytes=FOLLOW_REPLY_BYTES_MAX)
    return read(FollowReply, answer, max_bytes=FOLLOW_REPLY_BYTES_MAX)


def fetch_validation(
    exchange: Exchange, peer: PublicKey, name: str, sealed: BlobStore, plan: StudyPlan
) -> tuple[bytes, bytes]:
    """Salt and rows of the validation set, which must be those of the plan's commitment.

    Raises:
        UnavailableError: the peer does not give them.
        PeerError: they are others.
    """
    data = fetch_blob(
        exchange, peer, name, sealed, timeout_s=_BLOB_S_MAX, max_bytes=VALIDATION_BYTES_MAX, protocol=SEALED
    )
    salt, rows = data[:SALT_BYTES], data[SALT_BYTES:]
    if validation_commitment(salt, rows) != plan.validation.commitment:
        raise PeerError(
            "The validation set is not the one that the plan commits to.", remedy="Ask the coordinator's operator."
        )
    return salt, rows


class Follower:
    """The standby's copy of the log, with the blobs that it rests on.

    Args:
        exchange: the standby's end of the network.
        history: its copy of the log.
        blobs: models, updates, opened tables.
        sealed: tables that wait for the settlement.
    """

    def __init__(self, exchange: Exchange, history: StudyHistory, blobs: BlobStore, sealed: BlobStore) -> None:
        self._exchange, self._history, self._blobs, self._sealed = exchange, history, blobs, sealed

    def take(self, peer: PublicKey) -> bool:
        """Take in what ``peer`` has that is new; whether there was anything.

        Raises:
            UnavailableError: it does not answer, or does not have a blob that an entry rests on.
            PeerError: an entry is not the leader's, or breaks a rule.
        """
        history = self._history
        latest = history.log.latest_checkpoint()
        reply = ask(
            self._exchange,
            peer,
            study=history.state.study,
            first=history.state.size,
            notes=0 if latest is None else latest[0],
        )
        for text in reply.entries:
            data = text.encode("utf-8")
            entry = open_next(history.state, data, history.log.leaf_hashes())
            self._fetch(peer, entry, history.state)
            history.follow(data)
        self._take_notes(reply)
        return bool(reply.entries)

    def _take_notes(self, reply: FollowReply) -> None:
        """Keep the checkpoints over what is here; one that is not over it is refused, and ends nothing."""
        for text in reply.notes:
            note = text.encode("utf-8")
            size = _size_of(note)
            if 0 < size <= self._history.state.size:
                with suppress(PeerError, UnavailableError):
                    self._history.follow_note(note, size)

    def _fetch(self, peer: PublicKey, entry: Entry, state: StudyState) -> None:
        """Fetch the blobs that ``entry`` rests on."""
        body = entry.body
        longest = vector_bytes_max(parameter_count(state.plan), state.plan.aggregation.encoding)
        model_bytes = max(CHUNK_BYTES_MAX, longest)
        if isinstance(body, StudyStarted):
            self._blob(peer, body.base_model, model_bytes)
        elif isinstance(body, UpdateAdmitted):
            update, _ = open_signed(Update, body.envelope.encode("utf-8"))
            for name in update.chunks:
                self._blob(peer, name, CHUNK_BYTES_MAX)
        elif isinstance(body, RoundClosed):
            self._blob(peer, body.model, model_bytes)
            self._table(peer, body.value_table)
        elif isinstance(body, StudySettled):
            for name in body.tables:
                if self._sealed.has(name):
                    self._blobs.put(self._sealed.get(name))
                self._blob(peer, name, _TABLE_BYTES_MAX)

    def _table(self, peer: PublicKey, name: str) -> None:
        try:
            bring_blob(
                self._exchange,
                peer,
                name,
                self._sealed,
                timeout_s=_BLOB_S_MAX,
                max_bytes=_TABLE_BYTES_MAX,
                protocol=SEALED,
            )
        except UnavailableError as error:
            raise UnavailableError(
                f"The sealed value table {name[:12]} of a closed round is not here: {error.message}",
                remedy="Only the coordinator has it: start the coordinator again, if it can be.",
            ) from error

    def _blob(self, peer: PublicKey, name: str, max_bytes: int) -> None:
        bring_blob(self._exchange, peer, name, self._blobs, timeout_s=_BLOB_S_MAX, max_bytes=max_bytes)


def fetch_plan(exchange: Exchange, peer: PublicKey, reply: FollowReply, blobs: BlobStore) -> bytes:
    """The signed plan that ``peer`` names.

    Raises:
        UnavailableError: it does not give it.
    """
    return fetch_blob(exchange, peer, reply.plan, blobs, timeout_s=_BLOB_S_MAX, max_bytes=CHUNK_BYTES_MAX)


def _size_of(note: bytes) -> int:
    """The size that a note claims; 0 where it claims none (its signature is checked later)."""
    lines = note.split(b"\n", 2)
    text = lines[1] if len(lines) > 1 else b""
    return int(text) if text.isdigit() and len(text) <= 16 else 0  # noqa: PLR2004 -- digits of the largest size


def check_leads(exchange: Exchange, history: StudyHistory) -> None:
    """Ask the plan's standby whether it leads; what it does not answer, the witnesses will.

    Raises:
        SupersededError: it does, and proves it.
    """
    state = history.state
    if state.plan.failover is None:
        return
    try:
        standby = exchange.connect(state.plan.failover.dial, timeout_s=_CONNECT_S_MAX)
        reply = ask(exchange, standby, study=state.study, first=state.size)
    except AccordError as error:
        logger.info("the standby was not asked: %s", error.message)
        return
    if reply.began is not None:
        stop_if_superseded(state, reply.began)


def stop_if_superseded(state: StudyState, proof: str) -> None:
    """End this coordinator's part, if ``proof`` shows that the standby leads.

    Raises:
        SupersededError: it does.
    """
    try:
        proves_takeover(state, proof.encode("utf-8"))
    except PeerError as error:
        logger.warning("something that is no proof of a takeover was shown: %s", error.message)
        return
    standby = state.plan.failover.standby if state.plan.failover else ""
    raise SupersededError(
        f"The standby {standby} leads {state.study}: this coordinator was silent for too long, and has ended.",
        remedy="Keep this folder as it is. The standby settles the study; ask its operator for the export.",
    )
