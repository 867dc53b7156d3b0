"""One request on one libp2p stream: write a frame, read a frame, within a time.

Rules: a stream is always closed or reset, whatever happens; libp2p's many exceptions leave as UnavailableError; a write
that is cut off in the middle would corrupt the connection for every other stream, so the connection is closed with it.
"""

import logging
from typing import Final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from federation.errors import AccordError, UnavailableError
from federation.network import quick
from federation.network.frames import PIECE_BYTES, SHORT_PIECE_BYTES, FrameReader, pieces
from federation.network.traffic import TRAFFIC
from federation.rules.keys import PublicKey

_CLEAN_UP_S_MAX: Final = 1.0
_QUICK_BYTES_S: Final = 500_000
"""Of one stream: ten that share a quick line are still quick, and a whole piece takes an eighth of a second."""
_BATCH: Final = 4
_VERY_QUICK_BYTES_S: Final = 8_000_000
"""A stream that moves so much gets several pieces at a time: a quarter of a megabyte, in a thirtieth of a second."""
logger = logging.getLogger(__name__)


def peer_id_of(peer: PublicKey) -> ID:
    """libp2p's own name of ``peer``."""
    return ID.from_string(peer.peer_id)


async def ask(
    host: IHost, peer: PublicKey, protocol: str, payload: bytes, *, timeout_s: float, reader: FrameReader
) -> bytes:
    """Send ``payload`` over the existing connection to ``peer`` and read the frame that answers it into ``reader``.

    Raises:
        UnavailableError: no connection, no answer in time, or the stream was refused or lost.
        PeerError: the answer breaks the framing, or is longer than ``reader`` allows.
    """
    peer_id = peer_id_of(peer)
    if not host.get_network().get_connections(peer_id):
        raise silent(peer, "it is not connected")
    stream: INetStream | None = None
    writing = False
    try:
        with trio.fail_after(timeout_s):
            stream = await host.new_stream(peer_id, [TProtocol(protocol)])
            writing = True
            await quick.widen(stream, reader.bytes_max)
            await write_frame(stream, payload)
            writing = False
            await _fill(reader, stream)
            await stream.close()
            stream = None
            return reader.payload()
    except trio.TooSlowError:
        if writing:
            await sever(host, peer_id)
            stream = None
        raise silent(peer, f"{protocol} took longer than {timeout_s:g} s") from None
    except AccordError:
        raise
    except Exception as error:
        logger.debug("%s on %s failed: %r", protocol, peer.did, error)
        raise silent(peer, f"it closed {protocol}; it may not accept this key, this protocol or this size") from error
    finally:
        if stream is not None:
            await abandon(stream)


async def write_frame(stream: INetStream, payload: bytes) -> None:
    """Write one frame: in short pieces until the line turns out to be quick."""
    began, written = trio.current_time(), 0

    def bytes_max() -> int:
        quick = written > _QUICK_BYTES_S * (trio.current_time() - began)
        return PIECE_BYTES if written and quick else SHORT_PIECE_BYTES

    batch: list[bytes] = []
    for piece in pieces(payload, bytes_max):
        batch.append(piece)
        if len(batch) < _BATCH and written > _VERY_QUICK_BYTES_S * (trio.current_time() - began):
            continue
        await quick.write(stream, batch)
        size = sum(map(len, batch))
        written += size
        TRAFFIC.sent += size
        batch = []
    if batch:
        await quick.write(stream, batch)
        TRAFFIC.sent += sum(map(len, batch))


async def read_frame(stream: INetStream, max_bytes: int, *, idle_s_max: float, bytes_s_min: float) -> bytes:
    """Read one frame of at most ``max_bytes``.

    Args:
        stream: where it comes from.
        max_bytes: the largest payload that is accepted.
        idle_s_max: how long nothing may come; a frame that takes longer must have come at ``bytes_s_min`` on average.
        bytes_s_min: bytes per second, so that nobody holds a place for ever with a byte now and then.

    Raises:
        UnavailableError: the stream ended inside the frame.
        PeerError: the framing is broken, or the frame is too large.
        trio.TooSlowError: nothing came for too long, or too little.
    """
    reader = FrameReader(max_bytes)
    await _fill(reader, stream, idle_s_max=idle_s_max, bytes_s_min=bytes_s_min)
    return reader.payload()


async def _fill(
    reader: FrameReader, stream: INetStream, *, idle_s_max: float = float("inf"), bytes_s_min: float = float("inf")
) -> None:
    began, received, source = trio.current_time(), 0, quick.WindowedReader(stream)
    while reader.wanted:
        due = began + idle_s_max + received / bytes_s_min
        with trio.fail_at(min(due, trio.current_time() + idle_s_max)):
            data = await source.read(reader.wanted)
        received += len(data)
        TRAFFIC.received += len(data)
        reader.feed(data)


async def abandon(stream: INetStream) -> None:
    """Reset ``stream``, quickly, even while being cancelled."""
    with trio.move_on_after(_CLEAN_UP_S_MAX) as scope:
        scope.shield = True
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001  # a stream that cannot even be reset is gone: that is what was wanted
            logger.debug("A stream could not be reset: %r", error)


async def sever(host: IHost, peer_id: ID) -> None:
    """Close every connection to ``peer_id``, quickly."""
    with trio.move_on_after(_CLEAN_UP_S_MAX) as scope:
        scope.shield = True
        try:
            await host.get_network().close_peer(peer_id)
        except Exception as error:  # noqa: BLE001  # as above
            logger.debug("A connection to %s could not be closed: %r", peer_id, error)


def silent(peer: PublicKey, why: str) -> UnavailableError:
    """The error of a peer that does not answer."""
    return UnavailableError(
        f"{peer.did} does not answer: {why}.", remedy="Check that it runs and expects this key, then try again."
    )
