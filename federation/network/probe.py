"""How good the way to a peer is: round-trip time, bytes per second in both directions, and the other side's clock.

Measured with the exchange that a study uses, so that whatever stands between (a slow line, a busy machine) is in the
figure. Only peers whose key is allowed can ask, and a request and its answer are as large as one piece of a blob at
most: asking costs a peer no more than fetching a model would.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from federation.errors import PeerError
from federation.network.blobs import PIECE_BYTES
from federation.network.exchange import Exchange
from federation.rules.keys import PublicKey

PROBE: Final = "/accord/probe/1"
_FIELD_BYTES: Final = 8
_ROUND_TRIPS: Final = 5
_GROWTH: Final = 4
_FIRST_BYTES: Final = 16 * 1024
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of the line to one peer.

    Attributes:
        round_trip_s: the shortest of a few empty requests, in seconds.
        down_bytes_s: bytes per second that arrived, one piece of a blob per request.
        up_bytes_s: bytes per second that were taken, in the same way.
        clock_ahead_s: how far the peer's clock is ahead of ours, in seconds; its error is half the round trip.
    """

    round_trip_s: float
    down_bytes_s: float
    up_bytes_s: float
    clock_ahead_s: float


def serve_probe(exchange: Exchange, clock: Callable[[], datetime]) -> None:
    """Answer measurements of allowed peers: the time here, and as many bytes as were asked for."""

    def handle(_peer: PublicKey, payload: bytes) -> bytes:
        wanted = int.from_bytes(payload[:_FIELD_BYTES], "big")
        if len(payload) < _FIELD_BYTES or wanted > PIECE_BYTES:
            raise _refused("the request asks for more than one piece")
        return round(clock().timestamp() * 1e6).to_bytes(_FIELD_BYTES, "big") + bytes(wanted)

    exchange.serve(PROBE, handle, max_bytes=_FIELD_BYTES + PIECE_BYTES)


def measure(exchange: Exchange, peer: PublicKey, clock: Callable[[], datetime], *, seconds: float) -> Line:
    """Measure the way to ``peer``, for about ``seconds`` in each direction (a slow line: at least one small piece).

    Raises:
        UnavailableError: the peer is not connected or does not answer.
        PeerError: it does not keep to the protocol.
    """
    empty = [_timed(exchange, peer, clock, up=0, down=0) for _ in range(_ROUND_TRIPS)]
    round_trip_s, clock_ahead_s = min(empty)
    return Line(
        round_trip_s=round_trip_s,
        down_bytes_s=_rate(lambda size: _timed(exchange, peer, clock, up=0, down=size)[0], seconds),
        up_bytes_s=_rate(lambda size: _timed(exchange, peer, clock, up=size, down=0)[0], seconds),
        clock_ahead_s=clock_ahead_s,
    )


def _rate(transfer: Callable[[int], float], seconds: float) -> float:
    """Transfer pieces that grow up to a blob's, until the time is over: bytes per second at the largest size."""
    size, rate, spent_s = _FIRST_BYTES, 0.0, 0.0
    moved, during_s = 0, 0.0
    while spent_s < seconds:
        took_s = max(transfer(size), 1e-9)
        spent_s += took_s
        moved, during_s = moved + size, during_s + took_s
        rate = moved / during_s
        if size < PIECE_BYTES and took_s < seconds / _GROWTH:
            size, moved, during_s = min(size * _GROWTH, PIECE_BYTES), 0, 0.0
    return rate


def _timed(
    exchange: Exchange, peer: PublicKey, clock: Callable[[], datetime], *, up: int, down: int
) -> tuple[float, float]:
    """One request: (seconds, how far the peer's clock is ahead)."""
    payload = down.to_bytes(_FIELD_BYTES, "big") + os.urandom(up)
    wall, began = clock().timestamp(), time.monotonic()
    answer = exchange.request(peer, PROBE, payload, timeout_s=_PATIENCE_S, max_bytes=_FIELD_BYTES + PIECE_BYTES)
    took_s = time.monotonic() - began
    if len(answer) != _FIELD_BYTES + down:
        raise _refused(f"{len(answer)} bytes came where {_FIELD_BYTES + down} were due")
    there = int.from_bytes(answer[:_FIELD_BYTES], "big") / 1e6
    return took_s, there - (wall + took_s / 2)


def _refused(why: str) -> PeerError:
    return PeerError(f"A measurement is refused: {why}.", remedy="Both sides need the same version of Accord.")
