"""The bytes of a connection at a quarter of py-libp2p's own cost; the same Noise and Yamux on the wire.

Measured with py-libp2p 0.8.1: a Noise message took two and more reads of the socket and a dozen copies; each read of a
stream answered with a frame of credit, sealed and sent by itself; a writer whose window was empty slept 10 ms. Here:

- :class:`QuickNoise` reads the socket in long strides and copies a message twice;
- :func:`widen` grants a stream that is expected to bring much a long window at once, and
  :class:`WindowedReader` renews it by halves;
- :func:`write` sends several messages as one frame.

What Noise and Yamux say and mean is untouched: other implementations notice nothing.
"""

import struct
from collections.abc import Sequence
from typing import Final, cast

from libp2p.abc import INetStream, IRawConnection, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, SIZE_NOISE_MESSAGE_LEN, NoiseTransportReadWriter
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, YAMUX_HEADER_FORMAT, YamuxStream

WINDOW_BYTES: Final = 4 << 20
"""The longest window that :func:`widen` grants."""
_STRIDE_BYTES: Final = 256 << 10


class QuickNoise(NoiseTransport):
    """py-libp2p's Noise; what follows the handshake goes through a :class:`_Session`."""

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        """See the base class."""
        return _quick(await super().secure_inbound(conn), conn)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """See the base class."""
        return _quick(await super().secure_outbound(conn, peer_id), conn)


def _quick(session: ISecureConn, conn: IRawConnection) -> ISecureConn:
    made = cast("SecureSession", session)
    state = cast("NoiseTransportReadWriter", made.conn).noise_state
    return _Session(
        local_peer=made.local_peer,
        local_private_key=made.local_private_key,
        remote_peer=made.remote_peer,
        remote_permanent_pubkey=made.remote_permanent_pubkey,
        is_initiator=made.is_initiator,
        conn=_Messages(conn, state),
    )


class _Messages(NoiseTransportReadWriter):
    """Noise messages, read from the socket many at a time, and written so."""

    def __init__(self, conn: IRawConnection, noise_state: object) -> None:
        super().__init__(conn, noise_state)
        self._raw = conn
        self._buffer = bytearray()
        self._at = 0

    async def write_msg(self, msg: bytes, prefix_encoded: bool = False) -> None:
        """Seal ``msg`` in as many messages as it takes, and send them in one go."""
        if prefix_encoded or len(msg) <= MAX_PLAINTEXT_LENGTH:
            await super().write_msg(msg, prefix_encoded)
            return
        sealed = [
            self.encrypt(msg[start : start + MAX_PLAINTEXT_LENGTH])
            for start in range(0, len(msg), MAX_PLAINTEXT_LENGTH)
        ]
        framed = [part for each in sealed for part in (len(each).to_bytes(SIZE_NOISE_MESSAGE_LEN, "big"), each)]
        await self._raw.write(b"".join(framed))

    async def read_msg(self, prefix_encoded: bool = False) -> bytes:
        """The next message, opened."""
        if prefix_encoded:
            raise NotImplementedError("only handshakes have a prefix")
        await self._have(SIZE_NOISE_MESSAGE_LEN)
        start = self._at + SIZE_NOISE_MESSAGE_LEN
        length = int.from_bytes(self._buffer[self._at : start], "big")
        await self._have(SIZE_NOISE_MESSAGE_LEN + length)
        start = self._at + SIZE_NOISE_MESSAGE_LEN
        with memoryview(self._buffer) as view:
            sealed = bytes(view[start : start + length])
        self._at = start + length
        return self.decrypt(sealed)

    async def _have(self, count: int) -> None:
        """Read until ``count`` bytes are there that nobody took."""
        while len(self._buffer) - self._at < count:
            if self._at:
                del self._buffer[: self._at]
                self._at = 0
            data = await self._raw.read(_STRIDE_BYTES)
            if not data:
                raise IncompleteReadError(
                    "The connection was closed.", expected_bytes=count, received_bytes=len(self._buffer)
                )
            self._buffer += data


class _Session(SecureSession):
    """A secured connection that holds at most one opened message."""

    _message: bytes = b""
    _taken: int = 0

    async def read(self, n: int | None = None) -> bytes:
        """As the base class: exactly ``n`` bytes unless the connection ends; None: whatever comes next."""
        if n is None:
            if self._taken == len(self._message):
                await self._next()
            rest, self._message, self._taken = self._message[self._taken :], b"", 0
            return rest
        parts: list[bytes] = []
        while n > 0:
            if self._taken == len(self._message):
                await self._next()
            part = self._message[self._taken : self._taken + n]
            self._taken += len(part)
            n -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _next(self) -> None:
        self._message, self._taken = await self.conn.read_msg(), 0
        if not self._message:
            raise ConnectionClosedError("Connection closed")


async def widen(stream: INetStream, expected: int) -> None:
    """Let the other side send ``expected`` bytes (at most ``WINDOW_BYTES``) before it hears that they were read.

    Only for a stream whose reader keeps reading: what is granted may have to be held.
    """
    muxed = _yamux(stream)
    more = min(expected, WINDOW_BYTES) - muxed.target_recv_window
    if more > 0:
        muxed.target_recv_window += more
        muxed.recv_window += more
        await muxed.send_window_update(more)


class WindowedReader:
    """Reads a stream, and renews its window whenever half of it was read. The only reader of the stream."""

    def __init__(self, stream: INetStream) -> None:
        self._muxed = _yamux(stream)
        self._due = 0

    async def read(self, count: int) -> bytes:
        """What has come of the next ``count`` bytes, at least one; nothing at the stream's end."""
        muxed = self._muxed
        try:
            data = await muxed.conn.read_stream(muxed.stream_id, count)
        except MuxedStreamEOF:
            return b""
        self._due += len(data)
        if 2 * self._due >= muxed.target_recv_window:
            credit, self._due = self._due, 0
            muxed.recv_window += credit
            await muxed.send_window_update(credit)
        return data


async def write(stream: INetStream, pieces: Sequence[bytes]) -> None:
    """Write pieces of at most ``PIECE_BYTES`` each: in one frame where the window allows it, as Yamux does as well."""
    muxed = _yamux(stream)
    whole = sum(map(len, pieces))
    async with muxed.window_lock:
        fits = muxed.send_window >= whole and not muxed.send_closed and not muxed.closed
        if fits:
            muxed.send_window -= whole
    if not fits:
        for piece in pieces:
            await stream.write(piece)
        return
    header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, muxed.stream_id, whole)
    await muxed.conn._write_frame(b"".join((header, *pieces)))  # noqa: SLF001 - py-libp2p's own frames are short


def _yamux(stream: INetStream) -> YamuxStream:
    return cast("YamuxStream", cast("NetStream", stream).muxed_stream)
