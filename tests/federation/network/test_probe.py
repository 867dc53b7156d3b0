"""Measuring the line to a peer: the figures are those of the line, and nobody gives more than one piece."""

from datetime import UTC, datetime, timedelta

import pytest

from federation.errors import PeerError, UnavailableError
from federation.network.blobs import PIECE_BYTES
from federation.network.host import Libp2pHost
from federation.network.memory import MemoryNetwork
from federation.network.probe import PROBE, measure, serve_probe
from federation.rules.keys import PrivateKey

KEY, OTHER = PrivateKey(bytes(32)), PrivateKey(bytes([1] * 32))


def clock() -> datetime:
    return datetime.now(UTC)


def test_the_line_and_the_clock_are_measured_over_libp2p() -> None:
    with Libp2pHost(KEY) as here, Libp2pHost(OTHER, listen=None) as there:
        serve_probe(here, lambda: clock() + timedelta(seconds=90))
        there.connect(here.addresses()[0], timeout_s=10)
        line = measure(there, KEY.public, clock, seconds=0.2)
    assert line.clock_ahead_s == pytest.approx(90, abs=2)
    assert 0 < line.round_trip_s < 5
    assert min(line.down_bytes_s, line.up_bytes_s) > 0


def test_a_stranger_measures_nothing() -> None:
    network = MemoryNetwork()
    here = network.exchange(KEY, allowed=lambda _peer: False)
    there = network.exchange(OTHER)
    serve_probe(here, clock)
    there.connect(here.addresses()[0], timeout_s=1)
    with pytest.raises(UnavailableError):
        measure(there, KEY.public, clock, seconds=0.1)


@pytest.mark.parametrize("request_", [b"", b"\0" * 7, (PIECE_BYTES + 1).to_bytes(8, "big"), b"\xff" * 8])
def test_nobody_gives_more_than_one_piece(request_: bytes) -> None:
    network = MemoryNetwork()
    here, there = network.exchange(KEY), network.exchange(OTHER)
    serve_probe(here, clock)
    there.connect(here.addresses()[0], timeout_s=1)
    with pytest.raises(PeerError):
        there.request(KEY.public, PROBE, request_, timeout_s=1, max_bytes=2 * PIECE_BYTES)


def test_a_peer_that_answers_something_else_is_refused() -> None:
    network = MemoryNetwork()
    here, there = network.exchange(KEY), network.exchange(OTHER)
    here.serve(PROBE, lambda _peer, _payload: b"x" * 9, max_bytes=2 * PIECE_BYTES)
    there.connect(here.addresses()[0], timeout_s=1)
    with pytest.raises(PeerError, match="bytes came"):
        measure(there, KEY.public, clock, seconds=0.1)
