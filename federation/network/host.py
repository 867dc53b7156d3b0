"""The :class:`~federation.network.exchange.Exchange` on libp2p: TCP or WebSocket, Noise, Yamux, in a trio thread.

How it keeps the port's rules:

- Nodes dial out and need no inbound port; requests travel in both directions over the connection that a node dialled.
- ``reception`` takes requests in; ``streams`` sends them.
- Whoever dials sends heartbeats. A peer that stays silent is cut off and, if it is to be kept, dialled again with
  growing, jittered pauses. Whoever accepts keeps one connection per peer, the one with the latest heartbeat, and closes
  those that stay silent.
- If libp2p itself fails, the host is built anew on the same port; a peer that speaks gibberish can at worst cost its
  own connection.
"""

import logging
import secrets
import threading
import time
from functools import partial
from types import TracebackType
from typing import Final, Self

import trio
from libp2p.abc import IHost, INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr

from federation.errors import AccordError, OperatorError, PeerError, UnavailableError
from federation.network import streams
from federation.network.addresses import is_websocket
from federation.network.answers import ERROR_BYTES_MAX, HEADER_BYTES, begun_answer, open_answer
from federation.network.bounds import LOOK_S, within
from federation.network.exchange import Gate, Handler, OnBreak, everybody, peer_of
from federation.network.frames import FrameReader
from federation.network.liveness import BEAT_S, BEAT_S_MAX, HEARTBEAT, SEVER_S, Liveness
from federation.network.reception import Reception, Service, key_of
from federation.network.transport import check_port_free, listen_address, noise_host, quiet_libp2p_logs
from federation.network.trio_thread import TrioThread
from federation.network.tunnel import Proxy, connect_through, destination, hand_on, local_end
from federation.rules.keys import PrivateKey, PublicKey

DIAL_S_MAX: Final = 10.0
_START_S_MAX: Final = 20.0
_CLOSE_S_MAX: Final = 5.0
_PAUSE_S: Final = 0.2
_PAUSE_S_MAX: Final = 3.0
_SILENT_S_MAX: Final = 60.0
"""An accepted connection that says nothing for so long is closed (strangers, frozen machines)."""

logger = logging.getLogger(__name__)


class Libp2pHost:
    """A party on libp2p, running from construction to :meth:`close`.

    Args:
        key: the party's key; its peer id is the host's.
        listen: ``/ip4/ADDRESS/tcp/PORT``, port 0 for the system's choice; None listens nowhere and only dials.
        websocket: the same, ``/ws`` behind it: where it listens for WebSockets as well; None: nowhere.
        announce: addresses to give out instead of the ones listened on (behind NAT or a name), without ``/p2p/``.
        allowed: the gate.
        proxy: the web proxy that every connection goes out through; None: none.

    Raises:
        OperatorError: ``listen`` or ``websocket`` is malformed.
        UnavailableError: the port is in use.
    """

    def __init__(
        self,
        key: PrivateKey,
        *,
        listen: str | None = "/ip4/127.0.0.1/tcp/0",
        websocket: str | None = None,
        announce: tuple[str, ...] = (),
        allowed: Gate = everybody,
        proxy: Proxy | None = None,
    ) -> None:
        self._proxy = proxy
        self._troubles: dict[PublicKey, str] = {}
        self._key, self._public, self._allowed, self._announce = key, key.public, allowed, announce
        self._listen = [listen_address(text) for text in (listen, websocket) if text is not None]
        for address in self._listen:
            check_port_free(address)
        quiet_libp2p_logs()
        self._liveness = Liveness()
        self._reception = Reception(allowed, self._liveness, self._keep_only)
        self._links: dict[PublicKey, trio.CancelScope] = {}
        self._dialling: dict[PublicKey, trio.Lock] = {}
        self._host: IHost | None = None
        self._addresses: tuple[str, ...] = ()
        self._up = threading.Event()
        self._down: Exception | None = None
        self._loop = TrioThread(f"libp2p-{self._public.peer_id[-6:]}")
        self._loop.start(self._supervise)
        if not self._up.wait(_START_S_MAX) or self._down is not None:
            self.close()
            raise UnavailableError(
                f"The network did not start on {listen}: {self._down or 'it took too long'}.",
                remedy="Set another address to listen on (`listen` in accord.toml), or try again.",
            ) from self._down
        self.serve(HEARTBEAT, lambda _peer, _payload: b"", max_bytes=0, strangers=True)

    @property
    def public(self) -> PublicKey:
        """This party's key."""
        return self._public

    def addresses(self) -> tuple[str, ...]:
        """See :meth:`Exchange.addresses`."""
        return self._addresses

    def serve(
        self, protocol: str, handler: Handler, *, max_bytes: int, strangers: bool = False, guests: Gate | None = None
    ) -> None:
        """See :meth:`Exchange.serve`."""
        self._reception.services[protocol] = Service(handler, max_bytes, strangers, guests)
        self._loop.run(self._register, protocol)

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
        """See :meth:`Exchange.request`."""
        reader = FrameReader(HEADER_BYTES + max(max_bytes, ERROR_BYTES_MAX))
        try:
            data = self._loop.run(partial(self._ask, timeout_s, reader), peer, protocol, payload)
        except UnavailableError:
            if on_break is not None:
                on_break(begun_answer(reader.begun, max_bytes=max_bytes))
            raise
        return open_answer(data, peer=peer, max_bytes=max_bytes)

    def connect(self, address: str, *, timeout_s: float) -> PublicKey:
        """See :meth:`Exchange.connect`."""
        peer, target = self._other(address)
        self._loop.run(self._dial, peer, target, timeout_s)
        self._loop.start(self._link, peer, None)
        return peer

    def keep_connected(self, address: str) -> PublicKey:
        """See :meth:`Exchange.keep_connected`."""
        peer, target = self._other(address)
        self._loop.start(self._link, peer, target)
        return peer

    def connected(self) -> frozenset[PublicKey]:
        """See :meth:`Exchange.connected`."""
        host = self._host
        if host is None:
            return frozenset()
        there = {str(peer_id) for peer_id in list(host.get_network().connections)}
        alive = self._liveness.alive(time.monotonic())
        return frozenset(peer for peer in alive if peer.peer_id in there and self._allowed(peer))

    def trouble(self, peer: PublicKey) -> str:
        """See :meth:`Exchange.trouble`."""
        return self._troubles.get(peer, "")

    def disconnect(self, peer: PublicKey) -> None:
        """See :meth:`Exchange.disconnect`."""
        self._loop.run(self._drop, peer)

    def close(self) -> None:
        """See :meth:`Exchange.close`."""
        self._addresses = ()
        try:
            self._loop.run(self._leave)
        except UnavailableError:
            logger.debug("The network was closed already.")
        self._loop.close(_CLOSE_S_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The host's life.

    async def _supervise(self) -> None:
        """Run the host until cancelled; a host that fails after it was up once is built anew."""
        while True:
            try:
                await self._run_host()
            except Exception as error:
                if not self._up.is_set():
                    self._down = error
                    self._up.set()
                    raise
                logger.exception("libp2p failed; its host is started again.")
            finally:
                self._host = None
            await trio.sleep(_PAUSE_S)

    async def _run_host(self) -> None:
        host = noise_host(self._key, proxy=self._proxy)
        async with host.run(listen_addrs=self._listen):
            bound = host.get_network().listeners.values()
            transports = [address for listener in bound for address in listener.get_addrs()]
            if len(transports) != len(self._listen):
                raise UnavailableError("the port is taken", remedy="Set another port.")
            self._listen = sorted(transports, key=lambda address: str(address).endswith("/ws"))
            transports = self._listen
            shown = self._announce or tuple(str(address) for address in transports)
            self._addresses = tuple(f"{address}/p2p/{self._public.peer_id}" for address in shown)
            self._host = host
            for protocol in list(self._reception.services):
                await self._register(protocol)
            self._up.set()
            await self._sweep(host)

    async def _leave(self) -> None:
        """Say goodbye: peers see closed connections at once, instead of silence."""
        for scope in list(self._links.values()):
            scope.cancel()
        host, self._host = self._host, None
        async with trio.open_nursery() as nursery:
            for peer_id in list(host.get_network().connections) if host else ():
                nursery.start_soon(streams.sever, host, peer_id)

    async def _register(self, protocol: str) -> None:
        if self._host is not None:
            self._host.set_stream_handler(TProtocol(protocol), partial(self._reception.accept, protocol))

    async def _sweep(self, host: IHost) -> None:
        """Close connections that stay silent or hold too much, and see that libp2p itself is alive."""
        network = host.get_network()
        first_seen: dict[int, float] = {}
        while True:
            await trio.sleep(LOOK_S)
            if not network.get_manager().is_running:
                raise UnavailableError("libp2p's services have stopped.", remedy="Nothing: they are started again.")
            now = time.monotonic()
            connections = [connection for each in list(network.connections.values()) for connection in each]
            first_seen = {id(each): first_seen.get(id(each), now) for each in connections}
            for connection in connections:
                peer = key_of(str(connection.muxed_conn.peer_id))
                old = _accepted(connection) and now - first_seen[id(connection)] >= _SILENT_S_MAX
                silent = old and (peer is None or self._liveness.silence_s(peer, now) > _SILENT_S_MAX)
                if silent or not self._bounded(connection, peer):
                    with trio.move_on_after(BEAT_S):
                        await connection.close()

    def _bounded(self, connection: INetConn, peer: PublicKey | None) -> bool:
        """Whether a connection holds what its peer may; the gate is asked only where a stranger's bounds are passed."""
        if within(connection.muxed_conn, known=False):
            return True
        known = peer is not None and (self._allowed(peer) or self._reception.invites(peer))
        return known and within(connection.muxed_conn, known=True)

    async def _keep_only(self, stream: INetStream, peer: PublicKey) -> None:
        """A heartbeat came on this connection: close older ones that ``peer`` opened and lost."""
        current = stream.muxed_conn
        host = self._host
        for connection in list(host.get_network().get_connections(streams.peer_id_of(peer))) if host else ():
            if connection.muxed_conn is not current and _accepted(connection):
                with trio.move_on_after(BEAT_S):
                    await connection.close()

    async def _ask(
        self, timeout_s: float, reader: FrameReader, peer: PublicKey, protocol: str, payload: bytes
    ) -> bytes:
        if self._host is None:
            raise streams.silent(peer, "it is not connected")
        data = await streams.ask(self._host, peer, protocol, payload, timeout_s=timeout_s, reader=reader)
        self._liveness.heard(peer, time.monotonic())
        return data

    def _other(self, address: str) -> tuple[PublicKey, Multiaddr]:
        peer = peer_of(address)
        if peer == self._public:
            raise OperatorError("The address is this party's own.", remedy="Give the address of the other party.")
        try:
            return peer, Multiaddr(address)
        except ValueError as error:
            raise OperatorError(
                f"{address[:200]!r} is not an address: {error}.",
                remedy="Copy the whole address from `accord coordinator status`.",
            ) from error

    async def _dial(self, peer: PublicKey, target: Multiaddr, timeout_s: float) -> None:
        async with self._dialling.setdefault(peer, trio.Lock()):
            if self._host is None:
                raise streams.silent(peer, "this party's network is starting")
            network = self._host.get_network()
            if network.get_connections(streams.peer_id_of(peer)):
                return
            try:
                with trio.fail_after(timeout_s):
                    if self._proxy is not None and not is_websocket(target):
                        target = await self._through(self._proxy, target)
                    await network.dial_addr(target, streams.peer_id_of(peer))
            except trio.TooSlowError:
                raise streams.silent(peer, f"{target} took longer than {timeout_s:g} s") from None
            except AccordError:
                raise
            except Exception as error:
                refused = _of_ours(error)
                if refused is not None:
                    raise refused from error
                raise streams.silent(peer, f"nobody with this key answers at {target}") from error

    async def _through(self, proxy: Proxy, target: Multiaddr) -> Multiaddr:
        """Where to dial on this machine to come out at ``target``, by way of the proxy."""
        host, port = destination(str(target))
        far, rest = await connect_through(proxy, host, port)
        listener, near = await local_end()
        self._loop.start(hand_on, listener, far, rest)
        return near

    async def _link(self, peer: PublicKey, target: Multiaddr | None) -> None:
        """Send heartbeats to ``peer`` while it answers; with a ``target``, dial it again and again when it does not."""
        if target is None and peer in self._links:
            return
        if peer in self._links:
            self._links[peer].cancel()
        with trio.CancelScope() as scope:
            self._links[peer] = scope
            try:
                pause_s = _PAUSE_S
                while True:
                    try:
                        if target is not None:
                            await self._dial(peer, target, DIAL_S_MAX)
                        self._troubles.pop(peer, None)
                        if await self._beat(peer):
                            pause_s = _PAUSE_S
                    except UnavailableError as error:
                        trouble = f"{error.message} {error.remedy}"
                        if self._troubles.get(peer) != trouble:
                            logger.warning("%s", trouble)
                        self._troubles[peer] = trouble
                    if target is None:
                        return
                    await trio.sleep(pause_s * (0.5 + secrets.randbelow(1000) / 1000))
                    pause_s = min(2 * pause_s, _PAUSE_S_MAX)
            finally:
                if self._links.get(peer) is scope:
                    del self._links[peer]

    async def _beat(self, peer: PublicKey) -> bool:
        """Heartbeats until ``peer`` is silent for too long or its connection is gone; whether it ever answered."""
        answered, since = False, time.monotonic()
        while True:
            try:
                await self._ask(BEAT_S_MAX, FrameReader(HEADER_BYTES + ERROR_BYTES_MAX), peer, HEARTBEAT, b"")
                answered = True
            except (UnavailableError, PeerError):
                host = self._host
                gone = host is None or not host.get_network().get_connections(streams.peer_id_of(peer))
                now = time.monotonic()
                if host is not None and (gone or min(self._liveness.silence_s(peer, now), now - since) > SEVER_S):
                    await streams.sever(host, streams.peer_id_of(peer))
                    gone = True
                if gone:
                    return answered
            await trio.sleep(BEAT_S)

    async def _drop(self, peer: PublicKey) -> None:
        scope = self._links.pop(peer, None)
        if scope is not None:
            scope.cancel()
        self._liveness.forget(peer)
        if self._host is not None:
            await streams.sever(self._host, streams.peer_id_of(peer))


def _of_ours(error: BaseException | None) -> AccordError | None:
    """What a transport of ours said, inside the errors that libp2p wraps around it."""
    while error is not None and not isinstance(error, AccordError):
        error = error.__cause__
    return error


def _accepted(connection: INetConn) -> bool:
    """Whether the other side dialled."""
    return getattr(connection, "direction", None) == Direction.INBOUND
