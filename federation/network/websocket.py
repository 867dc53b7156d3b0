"""WebSocket (RFC 6455) beneath Noise, for sites whose firewall lets out only what looks like the web.

Why our own transport over ``wsproto`` and not py-libp2p 0.8.1's: its listener ignores the bounds that it is given.
(Met: with ``handshake_timeout=2`` half a request held its place for more than 20 s; with ``max_message_size=65536`` a
message of 900,000 bytes was taken.) Here a connection is a stream of bytes: a frame is handed on as it arrives, however
long it says it is, and no message is ever put together.

Rules: the opening handshake has ``HANDSHAKE_S_MAX`` and ``HEAD_BYTES_MAX``; no extensions, so nothing is decompressed;
only binary data. A ``/wss`` (or ``/tls/ws``) address is dialled with TLS and its certificate verified. The certificate
proves only the web server in front: who is really there, the Noise handshake inside proves, as on every transport.
"""

import logging
import ssl
from typing import Final, cast

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.custom_types import THandler
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCPListener
from multiaddr import Multiaddr
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from federation.errors import UnavailableError
from federation.network.addresses import Target, target_of
from federation.network.tunnel import Proxy, connect_through

HANDSHAKE_S_MAX: Final = 10.0
HEAD_BYTES_MAX: Final = 8192
"""Of the handshake's request, and of its answer."""
READ_BYTES: Final = 65_536
_CLOSE_S_MAX: Final = 1.0
_CERTIFICATE: Final = (
    "If your institution inspects TLS, its certificate must be among this machine's (or name its file in "
    "SSL_CERT_FILE); else the coordinator's has run out or is another's."
)

logger = logging.getLogger(__name__)


class WebSocketStream(ReadWriteCloser):
    """The bytes inside an open WebSocket, in both directions.

    Args:
        stream: what carries it.
        protocol: after the handshake.
    """

    def __init__(self, stream: trio.abc.Stream, protocol: WSConnection) -> None:
        self._stream, self._protocol = stream, protocol
        self._arrived = bytearray()
        self._ended = False
        self._reading, self._writing = trio.Lock(), trio.Lock()

    async def read(self, n: int | None = None) -> bytes:
        """Up to ``n`` bytes (None: what there is); nothing at the end.

        Raises:
            ConnectionClosedError: the line broke, or the peer does not keep to the protocol.
        """
        async with self._reading:
            await self._take_in()  # what came together with the handshake
            while not self._arrived and not self._ended:
                try:
                    data = await self._stream.receive_some(READ_BYTES)
                except trio.ClosedResourceError:
                    return b""
                except (trio.BrokenResourceError, ssl.SSLError, OSError) as error:
                    raise _broken(f"the line broke: {error}") from error
                if not data:
                    self._ended = True
                    break
                self._feed(bytes(data))
                await self._take_in()
            piece = bytes(self._arrived if n is None else self._arrived[:n])
            del self._arrived[: len(piece)]
            return piece

    async def write(self, data: bytes) -> None:
        """Send ``data`` as one binary message.

        Raises:
            ConnectionClosedError: the line broke, or the WebSocket is closed.
        """
        await self._send(BytesMessage(data=data))

    async def close(self) -> None:
        """Say goodbye if that is quick, then close."""
        with trio.move_on_after(_CLOSE_S_MAX):
            try:
                await self._send(CloseConnection(code=CloseReason.NORMAL_CLOSURE))
            except ConnectionClosedError as error:
                logger.debug("A WebSocket ended without a goodbye: %s", error)
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: behind a web server it would be the same for everybody."""
        return None

    async def _send(self, event: Event) -> None:
        async with self._writing:
            try:
                await self._stream.send_all(self._protocol.send(event))
            except (LocalProtocolError, trio.ClosedResourceError, trio.BrokenResourceError, OSError) as error:
                raise _broken(f"it is closed: {error}") from error

    def _feed(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
        except RemoteProtocolError as error:
            raise _broken(f"the peer breaks the protocol: {error}") from error

    async def _take_in(self) -> None:
        """Sort what the protocol has read."""
        try:
            for event in self._protocol.events():
                if isinstance(event, BytesMessage):
                    self._arrived += event.data
                elif isinstance(event, Ping):
                    await self._send(event.response())
                elif isinstance(event, CloseConnection):
                    self._ended = True
                elif not isinstance(event, Pong):
                    raise _broken(f"{type(event).__name__} has no place in it")
        except RemoteProtocolError as error:
            raise _broken(f"the peer breaks the protocol: {error}") from error


class WebSocketTransport(ITransport):
    """Dials and takes in WebSockets for libp2p.

    Args:
        proxy: the web proxy that every connection goes out through; None: none.
    """

    def __init__(self, *, proxy: Proxy | None = None) -> None:
        self._proxy = proxy

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Connect, by way of TLS and the proxy where they are named.

        Raises:
            OpenConnectionError: it is no WebSocket's address.
            UnavailableError: as :meth:`open`.
        """
        target = target_of(str(maddr))
        if target is None or not target.websocket:
            raise OpenConnectionError(f"{maddr} is no WebSocket address.")
        return RawConnection(await self.open(target), initiator=True)

    async def open(self, target: Target) -> WebSocketStream:
        """An open WebSocket to ``target``.

        Raises:
            UnavailableError: the proxy does not let it out, nobody is there, the certificate does not hold, or no
                WebSocket answers.
        """
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(HANDSHAKE_S_MAX):
                stream = await self._line(target)
                protocol = await _open(stream, target)
        except BaseException as error:
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
            if isinstance(error, trio.TooSlowError):
                raise _unopened(target, f"it takes longer than {HANDSHAKE_S_MAX:g} s") from None
            if isinstance(error, OSError | trio.BrokenResourceError | RemoteProtocolError):
                raise _unopened(target, str(error)) from error
            raise
        return WebSocketStream(stream, protocol)

    def create_listener(self, handler_function: THandler) -> IListener:
        """A listener that calls ``handler_function`` with each WebSocket that was opened in time."""
        return WebSocketListener(handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether the address is a WebSocket's."""
        target = target_of(str(maddr))
        return target is not None and target.websocket

    def can_listen(self, maddr: Multiaddr) -> bool:
        """The same without TLS: that belongs to the web server in front."""
        target = target_of(str(maddr))
        return target is not None and target.websocket and not target.tls

    def protocols(self) -> list[str]:
        """What stands in the addresses."""
        return ["ws", "wss"]

    async def _line(self, target: Target) -> trio.abc.Stream:
        if self._proxy is None:
            line = await trio.open_tcp_stream(target.host, target.port)
        else:
            line, early = await connect_through(self._proxy, target.host, target.port)
            if early:
                await trio.aclose_forcefully(line)
                raise _unopened(target, "it speaks before it is asked, as no web server does")
        if not target.tls:
            return line
        context = ssl.create_default_context()
        secured = trio.SSLStream(line, context, server_hostname=target.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(line)
            raise _unopened(target, f"TLS failed: {error.__cause__ or error}", _CERTIFICATE) from error
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(line)
            raise
        return secured


class WebSocketListener(IListener):
    """libp2p's TCP listener, with the opening handshake before its handler.

    Args:
        handler: called with each open WebSocket.
    """

    def __init__(self, handler: THandler) -> None:
        self._handler = handler
        self._beneath = TCPListener(self._accept)

    async def listen(self, maddr: Multiaddr) -> None:
        """See :class:`TCPListener`."""
        await self._beneath.listen(maddr)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """Where it listens, each ending in ``/ws``."""
        return tuple(Multiaddr(f"{address}/ws") for address in self._beneath.get_addrs())

    async def close(self) -> None:
        """Stop."""
        await self._beneath.close()

    async def _accept(self, line: ReadWriteCloser) -> None:
        stream = cast("TrioTCPStream", line).stream
        protocol = WSConnection(ConnectionType.SERVER)
        try:
            with trio.fail_after(HANDSHAKE_S_MAX):
                welcome = await _handshake(stream, protocol, Request)
                if welcome:
                    await stream.send_all(protocol.send(AcceptConnection()))
                else:
                    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except (RemoteProtocolError, trio.TooSlowError, trio.BrokenResourceError, OSError) as error:
            logger.debug("A WebSocket was not opened: %r", error)
            welcome = False
        if welcome:
            await self._handler(WebSocketStream(stream, protocol))
        else:
            await trio.aclose_forcefully(stream)


async def _open(stream: trio.abc.Stream, target: Target) -> WSConnection:
    """The dialler's side of the opening handshake."""
    protocol = WSConnection(ConnectionType.CLIENT)
    host = f"[{target.host}]" if target.ipv6 and not target.named else target.host
    await stream.send_all(protocol.send(Request(host=f"{host}:{target.port}", target="/")))
    if not await _handshake(stream, protocol, AcceptConnection):
        raise _unopened(target, "what answers is no WebSocket")
    return protocol


async def _handshake(stream: trio.abc.Stream, protocol: WSConnection, wanted: type[Event]) -> bool:
    """Read until ``wanted`` has come; False for anything else, and for more than ``HEAD_BYTES_MAX`` without it.

    Raises:
        RemoteProtocolError: it is not HTTP, or no request for a WebSocket.
    """
    received = 0
    while received < HEAD_BYTES_MAX:
        data = await stream.receive_some(HEAD_BYTES_MAX - received)
        if not data:
            return False
        received += len(data)
        protocol.receive_data(bytes(data))
        event = next(iter(protocol.events()), None)
        if event is not None:
            return isinstance(event, wanted) and not isinstance(event, RejectConnection | RejectData)
    return False


def knock(target: Target, proxy: Proxy | None) -> None:
    """Open a WebSocket and close it again, to see whether one can be opened.

    Raises:
        UnavailableError: as :meth:`WebSocketTransport.open`.
    """

    async def once() -> None:
        await (await WebSocketTransport(proxy=proxy).open(target)).close()

    trio.run(once)


def _unopened(target: Target, why: str, remedy: str = "") -> UnavailableError:
    return UnavailableError(
        f"No WebSocket is opened at {target.host} port {target.port}: {why}.",
        remedy=remedy or "Ask the coordinator whether its web server hands WebSockets on, and whether it runs.",
    )


def _broken(why: str) -> ConnectionClosedError:
    return ConnectionClosedError(f"A WebSocket ended: {why}.", transport="websocket")
