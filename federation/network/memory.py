"""The network's in-memory twin: several parties in one process, deterministic and without sockets.

A request runs the peer's handler at once, in the requester's own thread, so a test knows the order of everything. It
keeps the port's rules (gate, strangers, sizes, errors that travel, "nobody there") and can be told to misbehave as a
network does: a :data:`Courier` decides about every request whether it arrives, arrives twice, or is answered into the
void. A courier that sends something else before it returns reorders messages.

What it leaves out: time. A handler that takes longer than ``timeout_s`` is waited for.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Self, TypeAlias

from federation.errors import OperatorError, UnavailableError
from federation.network.answers import answer, begun_answer, open_answer
from federation.network.exchange import Gate, Handler, OnBreak, everybody, peer_of
from federation.rules.keys import PrivateKey, PublicKey


class Fate(Enum):
    """What the network does with one request."""

    DELIVERED = auto()
    REQUEST_LOST = auto()
    """The handler never sees it."""
    ANSWER_LOST = auto()
    """The handler runs, the requester learns nothing."""
    ANSWER_BROKEN = auto()
    """The same, but half of the answer arrives."""
    DUPLICATED = auto()
    """The handler runs twice, the requester gets the second answer."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request under way."""

    sender: PublicKey
    receiver: PublicKey
    protocol: str
    payload: bytes


Courier: TypeAlias = Callable[[Delivery], Fate]


@dataclass(frozen=True, slots=True)
class _Service:
    handler: Handler
    max_bytes: int
    strangers: bool
    guests: Gate | None


class MemoryNetwork:
    """Where in-memory parties meet.

    Args:
        courier: decides each request's fate; None delivers all.
    """

    def __init__(self, courier: Courier | None = None) -> None:
        self.courier = courier
        self._parties: dict[PublicKey, MemoryExchange] = {}
        self._links: set[frozenset[PublicKey]] = set()
        self._kept: set[tuple[PublicKey, PublicKey]] = set()
        self._lock = threading.Lock()

    def exchange(self, key: PrivateKey, *, allowed: Gate = everybody) -> "MemoryExchange":
        """A new party. A key that is here already comes back as its new self: the old one is closed."""
        party = MemoryExchange(self, key, allowed)
        with self._lock:
            before = self._parties.get(key.public)
        if before is not None:
            before.close()
        with self._lock:
            self._parties[key.public] = party
        return party

    def link(self, one: PublicKey, other: PublicKey) -> bool:
        """Connect two parties; False if one of them is not here."""
        with self._lock:
            if one not in self._parties or other not in self._parties:
                return False
            self._links.add(frozenset((one, other)))
            return True

    def keep(self, one: PublicKey, other: PublicKey) -> None:
        """Connect two parties whenever both are here, until ``one`` unlinks them or leaves."""
        with self._lock:
            self._kept.add((one, other))

    def unlink(self, one: PublicKey, other: PublicKey) -> None:
        """Cut the connection between two parties; what ``other`` keeps comes back at once."""
        with self._lock:
            self._links.discard(frozenset((one, other)))
            self._kept.discard((one, other))

    def linked(self, one: PublicKey) -> frozenset[PublicKey]:
        """Whom ``one`` is connected to."""
        with self._lock:
            links = self._links | {frozenset(pair) for pair in self._kept}
            peers = {peer for link in links if one in link for peer in link if peer != one}
            return frozenset(peer for peer in peers if one in self._parties and peer in self._parties)

    def leave(self, party: "MemoryExchange") -> None:
        """Take ``party`` and its connections out."""
        with self._lock:
            if self._parties.get(party.public) is party:
                del self._parties[party.public]
                self._links = {link for link in self._links if party.public not in link}
                self._kept = {pair for pair in self._kept if pair[0] != party.public}

    def party(self, key: PublicKey) -> "MemoryExchange | None":
        """Who holds ``key``, if it is here."""
        with self._lock:
            return self._parties.get(key)

    def fate(self, delivery: Delivery) -> Fate:
        """What happens to ``delivery``."""
        return Fate.DELIVERED if self.courier is None else self.courier(delivery)


class MemoryExchange:
    """One party on a :class:`MemoryNetwork`; made by :meth:`MemoryNetwork.exchange`."""

    def __init__(self, network: MemoryNetwork, key: PrivateKey, allowed: Gate) -> None:
        self._network = network
        self._public = key.public
        self._allowed = allowed
        self._services: dict[str, _Service] = {}
        self._open = True

    @property
    def public(self) -> PublicKey:
        """This party's key."""
        return self._public

    def addresses(self) -> tuple[str, ...]:
        """``/memory/1/p2p/PEER_ID``."""
        return (f"/memory/1/p2p/{self._public.peer_id}",) if self._open else ()

    def serve(
        self, protocol: str, handler: Handler, *, max_bytes: int, strangers: bool = False, guests: Gate | None = None
    ) -> None:
        """See :meth:`Exchange.serve`."""
        self._services[protocol] = _Service(handler=handler, max_bytes=max_bytes, strangers=strangers, guests=guests)

    def request(
        self,
        peer: PublicKey,
        protocol: str,
        payload: bytes,
        *,
        timeout_s: float,
        max_bytes: int,
        on_break: OnBreak | None = None,
    ) -> bytes:
        """See :meth:`Exchange.request`; ``timeout_s`` only matters to real networks."""
        del timeout_s
        target = self._network.party(peer) if peer in self._network.linked(self._public) else None
        if target is None:
            raise _silent(peer, "it is not connected")
        fate = self._network.fate(Delivery(self._public, peer, protocol, payload))
        if fate is Fate.REQUEST_LOST:
            raise _silent(peer, "the request was lost")
        data = target.deliver(self._public, protocol, payload)
        if fate is Fate.DUPLICATED:
            data = target.deliver(self._public, protocol, payload)
        if fate is Fate.ANSWER_BROKEN and on_break is not None:
            on_break(begun_answer(data[: len(data) // 2], max_bytes=max_bytes))
        if fate in (Fate.ANSWER_LOST, Fate.ANSWER_BROKEN):
            raise _silent(peer, "the answer was lost")
        return open_answer(data, peer=peer, max_bytes=max_bytes)

    def deliver(self, sender: PublicKey, protocol: str, payload: bytes) -> bytes:
        """Take one request in, at the gate.

        Raises:
            UnavailableError: a stranger, an unknown protocol or too large a payload meets nobody.
        """
        service = self._services.get(protocol)
        if (
            service is None
            or not self._open
            or len(payload) > service.max_bytes
            or not (service.strangers or self._allowed(sender) or (service.guests and service.guests(sender)))
        ):
            raise _silent(self._public, f"it does not accept this key, or {len(payload)} bytes on {protocol}")
        return answer(service.handler, sender, protocol, payload)

    def connect(self, address: str, *, timeout_s: float) -> PublicKey:
        """See :meth:`Exchange.connect`."""
        del timeout_s
        peer = self._other(address)
        if not self._open or not self._network.link(self._public, peer):
            raise _silent(peer, "nobody answers at its address")
        return peer

    def keep_connected(self, address: str) -> PublicKey:
        """See :meth:`Exchange.keep_connected`."""
        peer = self._other(address)
        if self._open:
            self._network.keep(self._public, peer)
        return peer

    def connected(self) -> frozenset[PublicKey]:
        """See :meth:`Exchange.connected`."""
        return frozenset(peer for peer in self._network.linked(self._public) if self._allowed(peer))

    def trouble(self, peer: PublicKey) -> str:  # noqa: ARG002 -- the port's signature; nothing is in the way in memory
        """See :meth:`Exchange.trouble`."""
        return ""

    def disconnect(self, peer: PublicKey) -> None:
        """See :meth:`Exchange.disconnect`."""
        self._network.unlink(self._public, peer)

    def close(self) -> None:
        """See :meth:`Exchange.close`."""
        self._open = False
        self._network.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _other(self, address: str) -> PublicKey:
        peer = peer_of(address)
        if peer == self._public:
            raise OperatorError("The address is this party's own.", remedy="Give the address of the other party.")
        return peer


def _silent(peer: PublicKey, why: str) -> UnavailableError:
    return UnavailableError(
        f"{peer.did} does not answer: {why}.", remedy="Check that it runs and expects this key, then try again."
    )
