"""A model from whoever has it: pieces from other nodes and from the coordinator, each checked when it comes.

The coordinator says how the model is cut and who has what (``coordinator.sources``); this module asks several sources
at once, one piece at a time each, and puts the pieces together in the store. A piece that came is passed on at once,
long before the model is whole. What lies in the store is judged by its hashes again after a restart, so that nothing
else has to be remembered.

Rules:

- A peer that sends a wrong piece is not asked again while this process runs. One that cannot be reached, or three
  times gives nothing in time, is not asked again for this model; its pieces come from somebody else.
- Whatever other nodes do, a model arrives: after ``PATIENCE_S`` without progress pieces come from the coordinator, at
  ever shorter intervals, and a coordinator that does not know of sharing is asked for the whole blob.
- Pieces are given only for models that the study's log names, to parties whose agreement it holds, as this node knows
  the log; such a *guest* reaches nothing else here.
"""

import hashlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final

from federation.errors import AccordError, PeerError, UnavailableError
from federation.network.blobs import BLOB, PIECE_BYTES, fetch_blob
from federation.network.exchange import Exchange, peer_of
from federation.network.pieces import (
    ADDRESSES_MAX,
    PIECE,
    PIECE_REPLY_BYTES_MAX,
    PIECE_REQUEST_BYTES_MAX,
    SOURCES,
    SOURCES_REPLY_BYTES_MAX,
    PieceRequest,
    SourcesReply,
    SourcesRequest,
    all_of,
    numbers,
    open_piece,
    piece_answer,
    piece_count,
    piece_length,
)
from federation.rules.canonical import canonical_bytes
from federation.rules.keys import PublicKey
from federation.rules.study import read
from federation.storage.blobs import BlobStore

PEERS_MAX: Final = 4
"""How many other nodes are asked at a time."""
PIECE_S: Final = 30.0
"""How long one piece may take."""
STRIKES: Final = 3
"""A peer that gave nothing so often is not asked again for this model; in between it is left alone for a while."""
PAUSE_S: Final = 1.0
CONNECT_S: Final = 5.0
NEWS_S: Final = 0.4
"""How often the coordinator is asked anew while something is missing."""
PATIENCE_S: Final = 3.0
"""After so long without a new piece the coordinator gives one; where pieces are slow, after longer (``_SLOWER``)."""
IDLE_S: Final = 60.0
"""A connection to another node is given up so long after its last use."""
_SLOWER: Final = 3.0
"""Times what the slowest piece took."""
_NEWS_S_MAX: Final = 15.0
_SIZE_BYTES: Final = 8
_NOWHERE: Final = ("/ip4/0.0.0.0/", "/ip6/::/")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """One model under way; what is held is changed by the fetching thread alone."""

    name: str
    size: int
    pieces: tuple[str, ...]
    held: int = 0
    take: tuple[int, ...] = ()
    peers: dict[PublicKey, str] = field(default_factory=dict)
    has: dict[PublicKey, int] = field(default_factory=dict)
    strikes: Counter[PublicKey] = field(default_factory=Counter)
    paused: dict[PublicKey, float] = field(default_factory=dict)
    under_way: dict[Future[bytes], tuple[PublicKey, int]] = field(default_factory=dict)
    progress: float = 0.0
    slowest_s: float = 0.0
    haste: int = 1
    not_before: float = 0.0

    @property
    def missing(self) -> int:
        """Pieces that are not here, as bits."""
        return all_of(len(self.pieces)) & ~self.held

    def patient_until(self) -> float:
        """How long others are waited for: shorter and shorter while nothing comes of them."""
        return self.progress + max(PATIENCE_S, _SLOWER * self.slowest_s) / self.haste

    def asked(self, peer: PublicKey, now: float) -> bool:
        """Whether ``peer`` may be asked now."""
        return self.strikes[peer] < STRIKES and now >= self.paused.get(peer, 0.0)

    def strike(self, peer: PublicKey, count: int = 1) -> None:
        """Note that ``peer`` gave nothing."""
        self.strikes[peer] += count
        self.paused[peer] = time.monotonic() + PAUSE_S * self.strikes[peer]

    def lost(self) -> int:
        """Pieces that only peers claimed to have which are not asked any more."""
        claimed = kept = 0
        for peer, held in self.has.items():
            claimed |= held
            kept |= held if self.strikes[peer] < STRIKES else 0
        return claimed & ~kept


@dataclass(frozen=True, slots=True)
class Gates:
    """What the study's log says, as this party knows it.

    Attributes:
        party: whether a key is a party of the study whose agreement holds.
        named: whether a blob is a model of the study.
    """

    party: Callable[[PublicKey], bool]
    named: Callable[[str], bool]


class Sharing:
    """One node's part in passing a study's models on.

    Args:
        exchange: this node's end of the network.
        coordinator: who names the sources, and has everything.
        study: the study's id.
        store: where models are put, and given from.
        gates: who may have which models.
        gives: whether this node passes pieces on to others.
    """

    def __init__(
        self,
        exchange: Exchange,
        coordinator: PublicKey,
        study: str,
        store: BlobStore,
        *,
        gates: Gates,
        gives: bool,
    ) -> None:
        self._exchange, self._coordinator, self._study, self._store = exchange, coordinator, study, store
        self._gates, self._gives = gates, gives
        self._jobs: dict[str, _Job] = {}
        self._begun: dict[tuple[str, int], bytearray] = {}
        self._liars: set[PublicKey] = set()
        self._used: dict[PublicKey, float] = {}
        self._fetching, self._straight = threading.Lock(), threading.Lock()
        # Spreads load; nothing secret or fair hangs on it.
        self._choice = random.Random(exchange.public.raw).choice  # noqa: S311 - see above

    def serve(self) -> None:
        """Open the door to the study's other parties."""
        self._exchange.serve(PIECE, self._give, max_bytes=PIECE_REQUEST_BYTES_MAX, guests=self._gates.party)

    def fetch(self, name: str, *, timeout_s: float, max_bytes: int) -> bytes:
        """The model ``name``: from the store, from other nodes, from the coordinator.

        Args:
            name: SHA-256 of its bytes.
            timeout_s: the time for all of it.
            max_bytes: the largest model that is accepted.

        Raises:
            UnavailableError: it did not arrive in time; what came is kept for the next attempt.
            PeerError: the coordinator's list of pieces is not of this blob, or it breaks the protocol.
        """
        deadline = time.monotonic() + timeout_s
        if not self._fetching.acquire(timeout=timeout_s):
            raise _late(name)
        try:
            if not self._store.has(name):
                self._put_together(name, deadline, max_bytes)
            return self._store.get(name)
        finally:
            self._fetching.release()

    def tidy(self) -> None:
        """Give up connections to other nodes that were not used for a while."""
        now = time.monotonic()
        for peer in [peer for peer, used in list(self._used.items()) if now - used > IDLE_S]:
            del self._used[peer]
            self._exchange.disconnect(peer)

    # Fetching.

    def _put_together(self, name: str, deadline: float, max_bytes: int) -> None:
        reply = None
        try:
            reply = self._ask(name, 0, cut=True)
        except AccordError as error:
            logger.info("nobody names sources of %s: %s", name, error.message)
        if reply is None or not reply.pieces:
            timeout_s = max(1.0, deadline - time.monotonic())
            fetch_blob(self._exchange, self._coordinator, name, self._store, timeout_s=timeout_s, max_bytes=max_bytes)
            return
        if reply.size > max_bytes or len(reply.pieces) != piece_count(reply.size):
            raise _refused(f"{reply.size} bytes in {len(reply.pieces)} pieces are announced for {name}")
        job = _Job(name, reply.size, reply.pieces, progress=time.monotonic())
        self._recall(job)
        self._news(job, reply)
        self._jobs[name] = job
        pool = ThreadPoolExecutor(PEERS_MAX + 2, thread_name_prefix="pieces")
        try:
            self._gather(job, pool, deadline)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever stalls is not waited for
            del self._jobs[name]
        self._begun.clear()
        if not self._store.complete(name):
            self._store.forget(name)
            raise _refused(f"the pieces that the coordinator lists for {name} do not make it")
        if self._gives:
            self._told(job)  # the whole is here, for others

    def _gather(self, job: _Job, pool: ThreadPoolExecutor, deadline: float) -> None:
        """Keep every source busy until nothing is missing."""
        asked, news = time.monotonic(), None
        while job.missing:
            now = time.monotonic()
            if now > deadline:
                raise _late(job.name)
            if now - asked >= NEWS_S and (news is None or news.done()):
                asked, news = now, pool.submit(self._told, job)
            self._hand_out(job, pool, now)
            done, _ = wait(job.under_way, timeout=NEWS_S, return_when=FIRST_COMPLETED)
            for future in done:
                self._take_in(job, future)
            if not job.under_way:
                time.sleep(NEWS_S / 10)

    def _hand_out(self, job: _Job, pool: ThreadPoolExecutor, now: float) -> None:
        """Give each idle source a piece to fetch."""
        busy = {source for source, _ in job.under_way.values()}
        coming = sum({1 << number for _, number in job.under_way.values()})
        job.strikes.update(dict.fromkeys(self._liars, STRIKES))
        for peer in [peer for peer in job.peers if peer not in busy and job.asked(peer, now)]:
            wanted = numbers(job.has[peer] & job.missing & ~coming)
            if wanted and len(busy - {self._coordinator}) < PEERS_MAX:
                number = self._choice(wanted)
                job.under_way[pool.submit(self._from_peer, job, peer, number)] = (peer, number)
                busy.add(peer)
                coming |= 1 << number
        if self._coordinator in busy or now < job.not_before:
            return
        wanted = [number for number in job.take if (job.missing & ~coming) >> number & 1]
        wanted = wanted or numbers(job.missing & ~coming & job.lost())
        if not wanted and now > job.patient_until():
            wanted = numbers(job.missing)
            job.haste *= 2
        if wanted:
            number = wanted[0]
            job.under_way[pool.submit(self._from_coordinator, job, number)] = (self._coordinator, number)

    def _take_in(self, job: _Job, future: "Future[bytes]") -> None:
        """Check what a source brought, keep it, or drop the source."""
        source, number = job.under_way.pop(future)
        try:
            piece = future.result()
            if not piece:
                return
            self._begun.pop((job.name, number), None)
            if hashlib.sha256(piece).hexdigest() != job.pieces[number]:
                raise _refused(f"{source.did} sent a false piece {number} of {job.name}")
        except UnavailableError as error:
            logger.info("a piece did not come: %s", error.message)
            if source == self._coordinator:
                job.not_before = time.monotonic() + NEWS_S
            else:
                job.strike(source)
        except AccordError as error:
            if source == self._coordinator:
                raise
            logger.warning("a node is not asked for models any more: %s", error.message)
            self._liars.add(source)
        else:
            if not job.held >> number & 1:
                self._store.place(job.name, number * PIECE_BYTES, piece)
                job.held |= 1 << number
            job.progress = time.monotonic()
            if source != self._coordinator:
                job.haste = 1

    def _from_peer(self, job: _Job, peer: PublicKey, number: int) -> bytes:
        """The piece from another node; nothing if it does not have it yet."""
        self._used[peer] = time.monotonic()
        try:
            self._exchange.connect(job.peers[peer], timeout_s=CONNECT_S)
        except UnavailableError:
            job.strike(peer, STRIKES - 1)  # one who cannot be reached will not be in a moment
            raise
        request = PieceRequest(study=self._study, name=job.name, number=number).to_payload()
        began = time.monotonic()
        answer = self._exchange.request(peer, PIECE, request, timeout_s=PIECE_S, max_bytes=PIECE_REPLY_BYTES_MAX)
        job.slowest_s = max(job.slowest_s, time.monotonic() - began)
        job.has[peer], piece = open_piece(answer, count=len(job.pieces))
        return piece

    def _from_coordinator(self, job: _Job, number: int) -> bytes:
        """The piece by its place in the coordinator's blob; goes on behind what came of it before a break."""
        with self._straight:  # one after the other, also one of an attempt that has ended
            begun = self._begun.setdefault((job.name, number), bytearray())
            lacking = piece_length(job.size, number) - len(begun)
            if lacking > 0:
                begin = number * PIECE_BYTES + len(begun)
                request = canonical_bytes({"name": job.name, "offset": begin, "length": lacking})
                begun += self._exchange.request(
                    self._coordinator,
                    BLOB,
                    request,
                    timeout_s=PIECE_S,
                    max_bytes=_SIZE_BYTES + lacking,
                    on_break=lambda answer: begun.extend(answer[_SIZE_BYTES:]),
                )[_SIZE_BYTES:]
            return bytes(begun)

    def _recall(self, job: _Job) -> None:
        """Find what an earlier attempt left: whatever has the right hash."""
        for number, digest in enumerate(job.pieces):
            piece = self._store.placed(job.name, number * PIECE_BYTES, piece_length(job.size, number))
            if not piece:
                return
            if hashlib.sha256(piece).hexdigest() == digest:
                job.held |= 1 << number

    # What the coordinator is told, and tells.

    def _told(self, job: _Job) -> None:
        """Tell the coordinator what is here, and hear who has more; it may be away for a while."""
        try:
            self._news(job, self._ask(job.name, job.held, cut=False))
        except AccordError as error:
            logger.info("no news of sources: %s", error.message)

    def _news(self, job: _Job, reply: SourcesReply) -> None:
        job.take = tuple(number for number in reply.take if number < len(job.pieces))
        for lead in reply.leads:
            peer, held = peer_of(lead.address), int(lead.held, 16)
            known = peer not in (self._exchange.public, self._coordinator) and self._gates.party(peer)
            if known and held.bit_length() <= len(job.pieces):
                job.peers[peer] = lead.address
                job.has[peer] = job.has.get(peer, 0) | held

    def _ask(self, name: str, held: int, *, cut: bool) -> SourcesReply:
        mine = self._exchange.addresses() if self._gives else ()
        given = [each for each in mine if not each.startswith(_NOWHERE)]
        request = SourcesRequest(
            study=self._study, name=name, held=f"{held:x}", addresses=tuple(given[:ADDRESSES_MAX]), cut=cut
        )
        answer = self._exchange.request(
            self._coordinator,
            SOURCES,
            request.to_payload(),
            timeout_s=_NEWS_S_MAX,
            max_bytes=SOURCES_REPLY_BYTES_MAX,
        )
        return read(SourcesReply, answer, max_bytes=SOURCES_REPLY_BYTES_MAX)

    # Giving.

    def _give(self, _peer: PublicKey, payload: bytes) -> bytes:
        """Answer another party: what is here of the model, and the piece.

        Raises:
            PeerError: malformed, another study, or no model of it.
            UnavailableError: nothing of it is here, or this node does not pass models on.
        """
        request = read(PieceRequest, payload, max_bytes=PIECE_REQUEST_BYTES_MAX)
        if request.study != self._study or not self._gates.named(request.name):
            raise _refused("pieces are given only of the models of this study")
        if not self._gives:
            raise UnavailableError("This node passes nothing on.", remedy="Fetch the model from the coordinator.")
        begin = request.number * PIECE_BYTES
        job = self._jobs.get(request.name)
        if job is None:
            size, piece = self._store.piece(request.name, begin, PIECE_BYTES)
            return piece_answer(all_of(piece_count(size)), piece)
        held = job.held
        if not held >> request.number & 1:
            return piece_answer(held, b"")
        return piece_answer(held, self._store.placed(job.name, begin, piece_length(job.size, request.number)))


def _late(name: str) -> UnavailableError:
    return UnavailableError(f"The model {name} did not arrive in time.", remedy="Try again; what has arrived is kept.")


def _refused(why: str) -> PeerError:
    return PeerError(f"A shared model is refused: {why}.", remedy="Tell this party's operator; others are asked.")
