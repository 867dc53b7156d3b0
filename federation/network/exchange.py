"""The port between Accord and any network: authenticated request and answer between keys.

Why a port: the coordinator, the node and Flower's grid need four things of a network and no more: to know which key is
at the other end, to ask it something with a limit in time and size, to answer, and to know who is there. They import
this module only; ``host`` brings it to libp2p, ``memory`` to one process.

Rules that every implementation keeps:

- The peer's key that a handler is given is authenticated; nothing in the payload can change it.
- The gate ``allowed`` is asked at every request, so that a key loses access the moment the answer changes. A key that
  is not allowed (a *stranger*) reaches only protocols that are served with ``strangers=True``, and those whose own gate
  takes it as a *guest*; everything else looks to it as if nobody were there.
- An :class:`~federation.errors.AccordError` that a handler raises arrives at the requester as the same class with the
  same words; any other exception is logged here and arrives as an internal error without details.
- Sizes are checked before anything is allocated, times at every step.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias, runtime_checkable

from federation.errors import OperatorError, PeerError
from federation.rules.keys import PublicKey

Handler: TypeAlias = Callable[[PublicKey, bytes], bytes]
"""Answers one request: (authenticated peer, payload) -> answer. Called in a worker thread; may raise AccordError."""

Gate: TypeAlias = Callable[[PublicKey], bool]
"""Whether a key may reach the protocols that are not open to strangers. Asked at every request; quick, never raises."""


OnBreak: TypeAlias = Callable[[bytes], None]
"""Takes the beginning of an answer that broke off: authenticated by the connection, at most as long as was allowed."""


@runtime_checkable
class Exchange(Protocol):
    """One party's end of the network. All methods may be called from any thread."""

    @property
    def public(self) -> PublicKey:
        """This party's key, which every peer sees."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Where this party can be dialled, each ending in ``/p2p/PEER_ID``; empty after :meth:`close`."""
        ...

    def serve(
        self, protocol: str, handler: Handler, *, max_bytes: int, strangers: bool = False, guests: Gate | None = None
    ) -> None:
        """Answer requests of at most ``max_bytes`` on ``protocol``; a second call replaces the first handler.

        ``guests`` is the protocol's own gate: who passes it reaches this protocol and no other. Asked at every request.
        """
        ...

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
        """Ask ``peer`` and wait for its answer of at most ``max_bytes``.

        Where an answer breaks off (UnavailableError), ``on_break`` is given what has come of it, before the error.

        Raises:
            UnavailableError: not connected, no answer within ``timeout_s``, the peer went away, or refuses this key,
                this protocol or this size.
            PeerError: the answer is malformed or too large, or the peer failed inside.
            AccordError: whatever subclass the peer's handler raised.
        """
        ...

    def connect(self, address: str, *, timeout_s: float) -> PublicKey:
        """Dial ``address`` once; the key at the other end is proven to be the one that the address names.

        Raises:
            OperatorError: the address is malformed, or names this party itself.
            UnavailableError: nobody answers there, or it is somebody else.
        """
        ...

    def keep_connected(self, address: str) -> PublicKey:
        """Dial ``address`` now and again whenever the connection is lost, until :meth:`disconnect` or :meth:`close`.

        Returns at once with the key that the address names; :meth:`connected` tells when it is there.

        Raises:
            OperatorError: the address is malformed, or names this party itself.
        """
        ...

    def connected(self) -> frozenset[PublicKey]:
        """The allowed peers that were heard from in the last seconds."""
        ...

    def trouble(self, peer: PublicKey) -> str:
        """Why ``peer``, which is to be kept connected, could not be reached last, and what to do; empty: it could."""
        ...

    def disconnect(self, peer: PublicKey) -> None:
        """Close the connection to ``peer``, and stop redialling it. No error if there is none."""
        ...

    def close(self) -> None:
        """Close everything. Idempotent; requests under way end with UnavailableError."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def everybody(_peer: PublicKey) -> bool:
    """The gate that lets every key in."""
    return True


def peer_of(address: str) -> PublicKey:
    """The key that ``.../p2p/PEER_ID`` names.

    Raises:
        OperatorError: the address does not end in the peer id of an Ed25519 key.
    """
    remedy = "Copy the whole address, with /p2p/ and what follows, from `accord coordinator status`."
    head, found, peer_id = address.rpartition("/p2p/")
    if not found or not head.startswith("/"):
        raise OperatorError(f"{address[:200]!r} is not an address: it must end in /p2p/PEER_ID.", remedy=remedy)
    try:
        return PublicKey.from_peer_id(peer_id)
    except PeerError as error:
        raise OperatorError(f"{address[:200]!r} is not an address: {error.message}", remedy=remedy) from error
