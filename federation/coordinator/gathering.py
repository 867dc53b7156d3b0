"""The arrays of the updates that were shown: fetched from all institutions at once, each checked once, as they come.

Every institution has a thread of its own, so that a slow line, or one that is held up on purpose, keeps nobody else
waiting; there are at most as many as the plan has participants. Two updates at a time are read and checked. What
passed is kept as integers until the round closes: the value table needs all of them at once, so that this is the memory
that a round takes (at most 14 x 2^20 integers of 8 bytes, however many institutions share them). What the next process
lacks after a restart it reads from the store.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from federation.errors import AccordError, UnavailableError
from federation.network.blobs import bring_blob
from federation.network.exchange import Exchange
from federation.rules.admission import AdmissionError
from federation.rules.audit import Vector
from federation.rules.documents import CHUNK_BYTES_MAX, Update
from federation.rules.keys import PublicKey
from federation.storage.blobs import BlobStore

Check = Callable[[Update, bytes], Vector]

_BLOB_TIMEOUT_S: Final = 30.0
_CHECKED_AT_ONCE: Final = 2
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What became of one update: ``error`` says why it cannot be had, or is refused (AdmissionError)."""

    party: PublicKey
    data: bytes
    error: AccordError | None


class Gathering:
    """Brings and checks arrays in the background. :meth:`begin` and :meth:`ended` are called by one thread.

    Args:
        exchange: the network.
        blobs: where chunks are put, and may be already.
        check: the vector (int64 ``[P]``) of an update's packed bytes; raises AdmissionError.
    """

    def __init__(self, exchange: Exchange, blobs: BlobStore, check: Check) -> None:
        self._exchange = exchange
        self._blobs = blobs
        self._check = check
        self._checking = threading.Semaphore(_CHECKED_AT_ONCE)
        self._ended: queue.SimpleQueue[tuple[Gathered, Update, Vector | None]] = queue.SimpleQueue()
        self._under_way: set[str] = set()
        self._passed: dict[str, Vector] = {}
        self._bytes_s: dict[str, int] = {}

    @property
    def under_way(self) -> frozenset[str]:
        """The parties (did) whose arrays are on their way."""
        return frozenset(self._under_way)

    def bytes_s(self, party: PublicKey) -> int | None:
        """How quickly the last update of ``party`` came, in bytes per second; None: none came."""
        return self._bytes_s.get(party.did)

    def begin(self, party: PublicKey, data: bytes, update: Update) -> None:
        """Fetch and check the arrays of ``update``, which ``data`` signs; nothing if that is under way already."""
        if party.did not in self._under_way:
            self._under_way.add(party.did)
            name = f"gather-{party.peer_id[-6:]}"
            threading.Thread(target=self._bring, args=(party, data, update), name=name, daemon=True).start()

    def ended(self) -> list[Gathered]:
        """What has come to an end since the last call."""
        found = []
        while not self._ended.empty():
            gathered, update, vector = self._ended.get()
            self._under_way.discard(gathered.party.did)
            if vector is not None:
                self._passed[update.update] = vector
            found.append(gathered)
        return found

    def take(self, updates: Mapping[str, Update]) -> dict[str, Vector]:
        """The vectors of admitted updates, by the same keys in order; those of others are dropped.

        Raises:
            AccordError: arrays that another process checked are not in the store any more, or do not pass.
        """
        passed, self._passed = self._passed, {}
        return {
            name: passed[update.update] if update.update in passed else self._read(update)
            for name, update in sorted(updates.items())
        }

    def _bring(self, party: PublicKey, data: bytes, update: Update) -> None:
        """Fetch, then check (a thread's body)."""
        vector, error = None, None
        try:
            began = time.monotonic()
            for name in update.chunks:
                bring_blob(
                    self._exchange, party, name, self._blobs, timeout_s=_BLOB_TIMEOUT_S, max_bytes=CHUNK_BYTES_MAX
                )
            self._bytes_s[party.did] = max(1, int(update.update_bytes / max(time.monotonic() - began, 1e-3)))
            with self._checking:
                vector = self._read(update)
        except AccordError as failed:
            error = failed
        except Exception:
            logger.exception("An update could not be fetched.")
            error = UnavailableError("The update could not be fetched.", remedy="Look at the coordinator's log.")
        self._ended.put((Gathered(party, data, error), update, vector))

    def _read(self, update: Update) -> Vector:
        """Check what is stored by the hash of the whole alone; chunk by chunk only to find out whose fault it is."""
        pieces = (self._blobs.piece(name, 0, CHUNK_BYTES_MAX)[1] for name in update.chunks)
        try:
            return self._check(update, b"".join(pieces))
        except AdmissionError:
            return self._check(update, b"".join(self._blobs.get(name) for name in update.chunks))
