"""Who has what of a model: so that it leaves the coordinator about once, however many nodes fetch it.

The coordinator gives each piece to one node that passes pieces on, and sends the others there. It knows who holds what
from the nodes' own words and from what it let them take; a promise that is not kept within seconds is forgotten, and
the piece is given again. Nothing depends on it: a node that gets a piece from nobody takes it from the coordinator's
blobs, as always.

Only parties of the study ask and are named, only for models that the study's log names. An address that a node gives
out must end in its own key, so that nobody can send others' connections to a third party that would be taken for a
peer.
"""

import hashlib
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from federation.errors import PeerError, UnavailableError
from federation.network.blobs import PIECE_BYTES
from federation.network.exchange import Exchange
from federation.network.pieces import (
    LEADS_MAX,
    PIECES_MAX,
    SOURCES,
    SOURCES_BYTES_MAX,
    Lead,
    SourcesReply,
    SourcesRequest,
    all_of,
    numbers,
    piece_count,
)
from federation.rules.keys import PublicKey
from federation.rules.study import read
from federation.storage.blobs import BlobStore

from .rate import RateBound

PER_S: Final = 10.0
BURST: Final = 100
TAKE_MAX: Final = 4
"""Pieces that one answer lets a node take from the coordinator."""
PROMISE_S: Final = 30.0
"""How long a node that took a piece may not have it yet."""
_BLOBS_MAX: Final = 4


@dataclass(slots=True)
class _Holder:
    """One node that passes pieces on."""

    addresses: tuple[str, ...]
    seen: float
    held: int = 0
    promised: dict[int, float] = field(default_factory=dict)

    def has(self, now: float) -> int:
        """What it holds or will hold in a moment."""
        self.promised = {number: until for number, until in self.promised.items() if until > now}
        return self.held | sum(1 << number for number in self.promised if not self.held >> number & 1)


@dataclass(slots=True)
class _Cut:
    """One blob as it is cut, and who holds what of it."""

    size: int
    pieces: tuple[str, ...]
    holders: dict[PublicKey, _Holder] = field(default_factory=dict)


class Sources:
    """The door of one study.

    Args:
        exchange: the coordinator's end of the network.
        store: where the models are.
        study: the study's id.
        party: whether a key is a party of the study whose agreement holds.
        named: whether the study's log names a blob as a model.
        rate: how often one party may ask.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        exchange: Exchange,
        store: BlobStore,
        study: str,
        *,
        party: Callable[[PublicKey], bool],
        named: Callable[[str], bool],
        rate: RateBound | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange, self._store, self._study = exchange, store, study
        self._party, self._named, self._clock = party, named, clock
        self._rate = rate or RateBound(per_s=PER_S, burst=BURST)
        self._cuts: OrderedDict[str, _Cut] = OrderedDict()
        self._lock = threading.Lock()
        # Spreads load; nothing secret or fair hangs on it.
        self._shuffle = random.Random(0).shuffle  # noqa: S311 - see above

    def serve(self) -> None:
        """Open the door."""
        self._exchange.serve(SOURCES, self.handle, max_bytes=SOURCES_BYTES_MAX)

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Say how a model is cut and who has it.

        Raises:
            PeerError: malformed, another study, no party, no model of the study, or somebody else's address.
            UnavailableError: the model is not here, too large to be shared, or this party asks too often.
        """
        self._rate.take(peer)
        request = read(SourcesRequest, payload, max_bytes=SOURCES_BYTES_MAX)
        if request.study != self._study or not self._party(peer) or not self._named(request.name):
            raise _refused("sources are named only to parties of a study, for the models of its log")
        if any(not address.endswith(f"/p2p/{peer.peer_id}") for address in request.addresses):
            raise _refused("an address must end in the asking party's own key")
        held = int(request.held, 16)
        with self._lock:
            cut = self._cut(request.name)
            if held.bit_length() > len(cut.pieces):
                raise _refused("more pieces are said to be held than there are")
            take, leads = self._choose(cut, peer, request.addresses, held)
        pieces = cut.pieces if request.cut else None
        return SourcesReply(size=cut.size, pieces=pieces, take=take, leads=leads).to_payload()

    def _cut(self, name: str) -> _Cut:
        cut = self._cuts.get(name)
        if cut is None:
            size, _ = self._store.piece(name, 0, 0)
            count = piece_count(size)
            if count > PIECES_MAX:
                raise UnavailableError("The model is too large to be shared.", remedy="Fetch it as a blob.")
            cut = _Cut(
                size,
                tuple(
                    hashlib.sha256(self._store.piece(name, number * PIECE_BYTES, PIECE_BYTES)[1]).hexdigest()
                    for number in range(count)
                ),
            )
        self._cuts[name] = cut
        self._cuts.move_to_end(name)
        while len(self._cuts) > _BLOBS_MAX:
            self._cuts.popitem(last=False)
        return cut

    def _choose(
        self, cut: _Cut, peer: PublicKey, addresses: tuple[str, ...], held: int
    ) -> tuple[tuple[int, ...], tuple[Lead, ...]]:
        """Note what ``peer`` holds; which pieces it takes from here, and who else has some that it lacks."""
        now, connected = self._clock(), self._exchange.connected()
        missing = all_of(len(cut.pieces)) & ~held
        elsewhere, leads = 0, []
        for other, holder in cut.holders.items():
            has = holder.has(now)
            there = other in connected or now - holder.seen < PROMISE_S  # a busy node may miss its heartbeats
            if other != peer and there and self._party(other) and has & missing:
                elsewhere |= has
                leads.append(Lead(address=holder.addresses[0], held=f"{has:x}"))
        self._shuffle(leads)
        take = tuple(numbers(missing & ~elsewhere)[:TAKE_MAX])
        if addresses:
            mine = cut.holders.setdefault(peer, _Holder(addresses, now))
            mine.addresses, mine.held, mine.seen = addresses, held, now
            mine.promised |= dict.fromkeys(take, now + PROMISE_S)
        else:
            cut.holders.pop(peer, None)
        return take, tuple(leads[:LEADS_MAX])


def _refused(why: str) -> PeerError:
    return PeerError(f"A request for sources is refused: {why}.", remedy="Fetch the blob from the coordinator.")
