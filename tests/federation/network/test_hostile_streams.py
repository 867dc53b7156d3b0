"""Streams that are opened to hold something: they cost whoever opened them, while an honest peer's transfer goes on."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from libp2p.abc import IMuxedConn
from libp2p.custom_types import TProtocol

from federation.errors import AccordError
from federation.network import reception
from federation.network.bounds import STRANGER_STREAMS_MAX
from federation.network.host import Libp2pHost
from federation.network.liveness import HEARTBEAT
from federation.network.streams import peer_id_of
from federation.rules.keys import PrivateKey

COORDINATOR, NODE, STRANGER = (PrivateKey(name * 32) for name in (b"c", b"n", b"x"))
PAYLOAD = os.urandom(1 << 20)


@pytest.fixture
def coordinator() -> Iterator[Libp2pHost]:
    with Libp2pHost(COORDINATOR, allowed={NODE.public}.__contains__) as host:
        host.serve("/echo", lambda _peer, data: data, max_bytes=1 << 26)
        yield host


@contextmanager
def dialled(coordinator: Libp2pHost, key: PrivateKey) -> Iterator[Libp2pHost]:
    with Libp2pHost(key, listen=None) as host:
        host.connect(coordinator.addresses()[0], timeout_s=10)
        yield host


@pytest.fixture
def honest(coordinator: Libp2pHost) -> Iterator[list[bool]]:
    """Whether each of a node's transfers arrived: one after the other, until the test is over, one at least."""
    arrived: list[bool] = []
    over = threading.Event()

    def transfer(node: Libp2pHost) -> None:
        while not (over.is_set() and arrived):
            try:
                answer = node.request(COORDINATOR.public, "/echo", PAYLOAD, timeout_s=20, max_bytes=1 << 21)
                arrived.append(answer == PAYLOAD)
            except AccordError:
                arrived.append(False)

    with dialled(coordinator, NODE) as node:
        thread = threading.Thread(target=transfer, args=(node,))
        thread.start()
        yield arrived
        over.set()
        thread.join(30)
    assert arrived
    assert all(arrived)


def eventually(condition: Callable[[], bool], within_s: float = 15) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end and not condition():
        time.sleep(0.02)
    return condition()


def connection(host: Libp2pHost) -> IMuxedConn:
    assert host._host is not None
    return host._host.get_network().get_connections(peer_id_of(COORDINATOR.public))[0].muxed_conn


def cut_off(host: Libp2pHost) -> bool:
    assert host._host is not None
    return not host._host.get_network().get_connections(peer_id_of(COORDINATOR.public))


@pytest.mark.usefixtures("honest")
def test_a_request_that_drips_is_dropped(coordinator: Libp2pHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "IDLE_S_MAX", 0.5)
    coordinator.serve("/join", lambda _peer, data: data, max_bytes=1 << 20, strangers=True)
    with dialled(coordinator, STRANGER) as stranger:

        async def drip() -> int:
            assert stranger._host is not None
            stream = await stranger._host.new_stream(peer_id_of(COORDINATOR.public), [TProtocol("/join")])
            await stream.write((1 << 20).to_bytes(8, "big"))
            for sent in range(200):
                try:
                    await stream.write(b".")
                except Exception:  # noqa: BLE001 - however libp2p says that the stream was reset
                    return sent
                await trio.sleep(0.05)
            return 200

        assert stranger._loop.run(drip) < 200
        assert not cut_off(stranger), "its other streams are its own affair"


@pytest.mark.usefixtures("honest")
def test_thousands_of_idle_streams_cost_their_opener_the_connection(coordinator: Libp2pHost) -> None:
    with dialled(coordinator, STRANGER) as stranger:

        async def open_many() -> int:
            muxed = connection(stranger)
            muxed.stream_backlog_semaphore = trio.Semaphore(10_000)  # the library's own politeness
            for opened in range(5000):
                try:
                    await muxed.open_stream()
                except Exception:  # noqa: BLE001 - as above
                    return opened
            return 5000

        assert stranger._loop.run(open_many) > STRANGER_STREAMS_MAX
        assert eventually(lambda: cut_off(stranger))


@pytest.mark.usefixtures("honest")
def test_a_flood_on_an_answered_stream_is_ended_before_it_fills_the_memory(coordinator: Libp2pHost) -> None:
    with dialled(coordinator, STRANGER) as stranger:

        async def flood() -> int:
            assert stranger._host is not None
            stream = await stranger._host.new_stream(peer_id_of(COORDINATOR.public), [TProtocol(HEARTBEAT)])
            await stream.write(bytes(8))
            assert await stream.read(9) == bytes(7) + b"\x01\x00"
            stream.muxed_stream.send_window = 1 << 40  # no window was given for this
            for sent in range(400):
                try:
                    await stream.write(bytes(1 << 20))
                except Exception:  # noqa: BLE001 - as above
                    return sent
            return 400

        assert stranger._loop.run(flood) < 200
        assert eventually(lambda: cut_off(stranger))


@pytest.mark.usefixtures("honest")
def test_a_protocol_that_nobody_serves_is_refused_and_the_connection_stands(coordinator: Libp2pHost) -> None:
    with dialled(coordinator, STRANGER) as stranger:

        async def ask(protocol: str) -> None:
            assert stranger._host is not None
            await stranger._host.new_stream(peer_id_of(COORDINATOR.public), [TProtocol(protocol)])

        for protocol in ("/accord/join/999", "", "x" * 5000):
            with pytest.raises(Exception, match=r"(?i)protocol|stream"):
                stranger._loop.run(ask, protocol)
        assert not cut_off(stranger)
        assert stranger.request(COORDINATOR.public, HEARTBEAT, b"", timeout_s=10, max_bytes=0) == b""
