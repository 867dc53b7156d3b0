"""Answering requests that come on libp2p streams: the gate, the places, the handler in a worker thread.

Rules: a request is drained from its stream before it is handled (a Yamux writer gives up when its reader pauses for
5 s); handlers run in worker threads, so that none stalls the loop; places are limited per peer, and for strangers much
tighter, one by one and together; whatever a peer does wrong costs it its stream and nobody else anything.
"""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio
from libp2p.abc import INetStream

from federation.errors import PeerError
from federation.network import streams
from federation.network.answers import answer
from federation.network.exchange import Gate, Handler
from federation.network.liveness import HEARTBEAT, Liveness
from federation.network.quick import widen
from federation.rules.keys import PublicKey

IDLE_S_MAX: Final = 20.0
"""How long a request under way may pause between two pieces."""
BYTES_PER_S_MIN: Final = 1000.0
"""How quickly a request must come that takes longer than that."""
STREAMS_PER_PEER_MAX: Final = 32
STREAMS_PER_GUEST_MAX: Final = 4
STREAMS_OF_GUESTS_MAX: Final = 16
STREAMS_PER_STRANGER_MAX: Final = 4
STREAMS_OF_STRANGERS_MAX: Final = 32
WORKERS: Final = 32
_ANSWER_S_MAX: Final = 20.0
_ANSWER_BYTES_PER_S_MIN: Final = 100_000

OnHeartbeat: TypeAlias = Callable[[INetStream, PublicKey], Awaitable[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What is served on one protocol."""

    handler: Handler
    max_bytes: int
    strangers: bool
    guests: Gate | None = None

    def invites(self, peer: PublicKey) -> bool:
        """Whether ``peer`` may use this service, whatever the host's gate says."""
        return self.guests is not None and self.guests(peer)


class Reception:
    """Takes streams in.

    Args:
        allowed: the gate.
        liveness: told of every peer that is heard.
        on_heartbeat: called with the stream of each heartbeat.
    """

    def __init__(self, allowed: Gate, liveness: Liveness, on_heartbeat: OnHeartbeat) -> None:
        self.services: dict[str, Service] = {}
        self._allowed, self._liveness, self._on_heartbeat = allowed, liveness, on_heartbeat
        self._places: Counter[PublicKey] = Counter()
        self._guests = self._strangers = 0
        self._workers = trio.CapacityLimiter(WORKERS)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return bool(self._places)

    def invites(self, peer: PublicKey) -> bool:
        """Whether some service takes ``peer`` as its guest."""
        return any(service.invites(peer) for service in list(self.services.values()))

    async def accept(self, protocol: str, stream: INetStream) -> None:
        """Answer the one request on ``stream``; whatever goes wrong ends with the stream."""
        peer = key_of(str(stream.muxed_conn.peer_id))
        service = self.services.get(protocol)
        try:
            if peer is None or service is None:
                await streams.abandon(stream)
                return
            with self._place(peer, service, beats=protocol == HEARTBEAT) as admitted:
                if admitted:
                    await self._answer(protocol, service, peer, stream)
                else:
                    await streams.abandon(stream)
        except trio.Cancelled:
            await streams.abandon(stream)
            raise
        except Exception as error:  # noqa: BLE001  # the task boundary: a peer's misbehaviour ends with its stream
            logger.debug("A request on %s of %s was dropped: %r", protocol, peer and peer.did, error)
            await streams.abandon(stream)

    async def _answer(self, protocol: str, service: Service, peer: PublicKey, stream: INetStream) -> None:
        if self._allowed(peer):
            await widen(stream, service.max_bytes)
        payload = await streams.read_frame(
            stream, service.max_bytes, idle_s_max=IDLE_S_MAX, bytes_s_min=BYTES_PER_S_MIN
        )
        self._liveness.heard(peer, time.monotonic())
        if protocol == HEARTBEAT:  # at once, however busy the workers are
            await self._on_heartbeat(stream, peer)
            data = answer(service.handler, peer, protocol, payload)
        else:
            data = await trio.to_thread.run_sync(
                answer,
                service.handler,
                peer,
                protocol,
                payload,
                limiter=self._workers,
                abandon_on_cancel=True,  # type: ignore[call-arg]  # trio-typing's stubs are older than trio
            )
        with trio.fail_after(_ANSWER_S_MAX + len(data) / _ANSWER_BYTES_PER_S_MIN):
            await streams.write_frame(stream, data)
            await stream.close()

    @contextmanager
    def _place(self, peer: PublicKey, service: Service, *, beats: bool) -> Iterator[bool]:
        """Pass the gate, and hold one of the peer's places while inside; False if there is no way in.

        A known peer's heartbeat needs no place: a busy peer is not a dead one.
        """
        known = self._allowed(peer)
        if known and beats:
            yield True
            return
        guest = not known and service.invites(peer)
        stranger = not (known or guest)
        places = STREAMS_PER_PEER_MAX if known else STREAMS_PER_GUEST_MAX if guest else STREAMS_PER_STRANGER_MAX
        crowded = (guest and self._guests >= STREAMS_OF_GUESTS_MAX) or (
            stranger and self._strangers >= STREAMS_OF_STRANGERS_MAX
        )
        if (stranger and not service.strangers) or crowded or self._places[peer] >= places:
            logger.debug("A request of %s is not admitted.", peer.did)
            yield False
            return
        self._places[peer] += 1
        self._guests += guest
        self._strangers += stranger
        try:
            yield True
        finally:
            self._guests -= guest
            self._strangers -= stranger
            self._places[peer] -= 1
            if not self._places[peer]:
                del self._places[peer]


def key_of(peer_id: str) -> PublicKey | None:
    """The key behind a peer id, which the Noise handshake proved; None for one that Accord does not take.

    That is: not Ed25519, or weak.
    """
    try:
        return PublicKey.from_peer_id(peer_id)
    except PeerError:
        return None
