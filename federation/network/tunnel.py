"""Out through a web proxy: CONNECT (RFC 9110, section 9.3.6), for sites whose firewall lets nothing else out.

The proxy learns the coordinator's name and port, and carries bytes. What runs inside is the same Noise connection to
the same key as without it: a proxy that reads, alters or answers in the coordinator's place gets nowhere. libp2p dials
a port of this machine that takes one connection and hands it on.
"""

import base64
import logging
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

import trio
from multiaddr import Multiaddr

from federation.errors import OperatorError, UnavailableError
from federation.network.addresses import target_of

ANSWER_BYTES_MAX: Final = 8192
CONNECT_S_MAX: Final = 10.0
_PIECE_BYTES: Final = 65_536
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r\n")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A web proxy; its password is in no text that this shows.

    Attributes:
        host: its name or address.
        port: where it listens.
        authorization: the value of the header ``Proxy-Authorization``; empty: it asks nobody.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_of(url: str) -> Proxy:
    """Read ``http://[USER:PASSWORD@]HOST:PORT``; user and password may be percent-encoded.

    Raises:
        OperatorError: anything else.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise OperatorError(
            "The proxy in accord.toml is not understood.",
            remedy='Write proxy = "http://HOST:PORT", or http://USER:PASSWORD@HOST:PORT.',
        )
    if parts.username is None:
        return Proxy(host, port)
    secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(host, port, f"Basic {base64.b64encode(secret).decode('ascii')}")


def destination(target: str) -> tuple[str, int]:
    """Host and port of a multiaddress, the name as it stands: the proxy looks it up.

    Raises:
        OperatorError: it is not TCP.
    """
    found = target_of(target)
    if found is None:
        raise OperatorError(f"{target[:200]} is not a TCP address.", remedy="Ask the coordinator for an invitation.")
    return found.host, found.port


def status_of(head: bytes) -> int | None:
    """The status code of a complete answer's head (up to its empty line); None for what is no HTTP."""
    found = _STATUS.match(head)
    return None if found is None else int(found[1])


async def connect_through(proxy: Proxy, host: str, port: int) -> tuple[trio.SocketStream, bytes]:
    """A connection to ``host:port`` by way of the proxy, and what arrived on it already.

    Raises:
        UnavailableError: the proxy is not there, refuses, or does not speak HTTP; the remedy says whom to ask.
    """
    stream: trio.SocketStream | None = None
    try:
        with trio.fail_after(CONNECT_S_MAX):
            stream = await trio.open_tcp_stream(proxy.host, proxy.port)
            await stream.send_all(_request(proxy, host, port))
            head, rest = await _head(stream)
    except (OSError, UnicodeError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        await _shut(stream)
        late = isinstance(error, trio.TooSlowError)
        why = f"it took longer than {CONNECT_S_MAX:g} s" if late else "it is not there, or it hung up"
        raise _failed(proxy, why, "Check `proxy` in accord.toml with whoever runs it.") from None
    except BaseException:
        await _shut(stream)
        raise
    code = status_of(head)
    if code is not None and 200 <= code < 300:  # noqa: PLR2004 - the class of success
        return stream, rest
    await _shut(stream)
    raise _refused(proxy, f"{host}:{port}", code)


async def hand_on(listener: trio.SocketListener, far: trio.SocketStream, rest: bytes) -> None:
    """Take one connection on a port of this machine and carry bytes both ways until either end is done.

    Args:
        listener: of :func:`local_end`; it is closed once somebody came, or after :data:`CONNECT_S_MAX`.
        far: the connection that the proxy made.
        rest: what arrived on it already.
    """
    near: trio.SocketStream | None = None
    try:
        with trio.move_on_after(CONNECT_S_MAX):
            near = await listener.accept()
        if near is not None:
            await listener.aclose()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_carry, far, near, rest, nursery.cancel_scope)
                nursery.start_soon(_carry, near, far, b"", nursery.cancel_scope)
    finally:
        await _shut(near)
        await _shut(far)
        await _shut(listener)


async def local_end() -> tuple[trio.SocketListener, Multiaddr]:
    """A port of this machine for one connection, and its address."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1)
    return listener, Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}")


def greeting_through(proxy: Proxy, host: str, port: int, *, greeting: bytes) -> bytes:
    """What is said at ``host:port`` first, in answer to ``greeting``: at most as many bytes, within ten seconds.

    Raises:
        UnavailableError: as :func:`connect_through`.
    """

    async def ask() -> bytes:
        stream, heard = await connect_through(proxy, host, port)
        try:
            with trio.move_on_after(CONNECT_S_MAX):
                await stream.send_all(greeting)
                while len(heard) < len(greeting):
                    piece = await stream.receive_some(len(greeting) - len(heard))
                    if not piece:
                        break
                    heard += bytes(piece)
        except trio.BrokenResourceError:
            return heard
        finally:
            await _shut(stream)
        return heard[: len(greeting)]

    return trio.run(ask)


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _head(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """The answer up to its empty line, and what came behind it; an answer that is too long ends where it is cut."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < ANSWER_BYTES_MAX:
        piece = await stream.receive_some(ANSWER_BYTES_MAX - len(data))
        if not piece:
            return b"", b""
        data += bytes(piece)
    head, end, rest = data.partition(b"\r\n\r\n")
    return (head + end, rest) if end else (b"", b"")


async def _carry(source: trio.SocketStream, sink: trio.SocketStream, first: bytes, scope: trio.CancelScope) -> None:
    try:
        piece: bytes | bytearray = first or await source.receive_some(_PIECE_BYTES)
        while piece:
            await sink.send_all(bytes(piece))
            piece = await source.receive_some(_PIECE_BYTES)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        logger.debug("A connection through the proxy broke; the one inside notices, and dials again.")
    scope.cancel()


async def _shut(resource: trio.abc.AsyncResource | None) -> None:
    """Close at once, also while being cancelled; what is closed already stays closed."""
    if resource is not None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(resource)


def _refused(proxy: Proxy, place: str, code: int | None) -> UnavailableError:
    match code:
        case None:
            why, remedy = "what it answers is no HTTP", "Check host and port of `proxy` in accord.toml."
        case 407:
            why = "it wants a user name and a password" if not proxy.authorization else "it does not take the password"
            remedy = 'Write them into accord.toml: proxy = "http://USER:PASSWORD@HOST:PORT" (mode 0600).'
        case 403 | 405:
            why = f"it forbids CONNECT to {place} ({code})"
            remedy = f"Ask whoever runs it to allow CONNECT to {place}: it is encrypted and authenticated by itself."
        case 502 | 503 | 504:
            why = f"it cannot reach {place} ({code})"
            remedy = "The coordinator may be down, or the proxy cannot look up its name: ask both."
        case _:
            why, remedy = f"it answers {code}", f"Ask whoever runs it about CONNECT to {place}."
    return _failed(proxy, why, remedy)


def _failed(proxy: Proxy, why: str, remedy: str) -> UnavailableError:
    return UnavailableError(f"The proxy {proxy} does not let this party out: {why}.", remedy=remedy)
