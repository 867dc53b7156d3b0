"""What only real sockets show: hostile, frozen and restarted peers. Small and on loopback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr

from federation.errors import OperatorError, UnavailableError
from federation.network import reception
from federation.network.host import Libp2pHost
from federation.network.reception import STREAMS_OF_STRANGERS_MAX, STREAMS_PER_PEER_MAX, STREAMS_PER_STRANGER_MAX
from federation.network.streams import peer_id_of
from federation.rules.keys import PrivateKey, PublicKey

COORDINATOR = PrivateKey(b"c" * 32)
NODE = PrivateKey(b"n" * 32)

FROZEN = """
import sys, time
from federation.network.host import Libp2pHost
from federation.rules.keys import PrivateKey
host = Libp2pHost(PrivateKey(b"n" * 32), listen=None)
host.serve("/echo", lambda peer, data: data, max_bytes=1 << 26)
host.keep_connected(sys.argv[1])
print("ready", flush=True)
time.sleep(120)
"""


def eventually(condition: Callable[[], bool], within_s: float = 15) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def coordinator() -> Iterator[Libp2pHost]:
    with Libp2pHost(COORDINATOR, allowed={NODE.public}.__contains__) as host:
        host.serve("/echo", lambda _peer, data: data, max_bytes=1 << 26)
        yield host


@pytest.fixture
def node(coordinator: Libp2pHost) -> Iterator[Libp2pHost]:
    with Libp2pHost(NODE, listen=None, allowed={COORDINATOR.public}.__contains__) as host:
        host.serve("/echo", lambda _peer, data: data, max_bytes=1 << 26)
        host.connect(coordinator.addresses()[0], timeout_s=10)
        yield host


def port_of(host: Libp2pHost) -> int:
    return int(host.addresses()[0].split("/")[4])


def test_the_peer_id_is_the_partys_own_key(coordinator: Libp2pHost) -> None:
    assert coordinator.addresses()[0].endswith("/p2p/" + COORDINATOR.public.peer_id)


def test_announced_addresses_replace_those_listened_on() -> None:
    with Libp2pHost(COORDINATOR, announce=("/dns4/example.org/tcp/4001",)) as host:
        assert host.addresses() == (f"/dns4/example.org/tcp/4001/p2p/{COORDINATOR.public.peer_id}",)


def test_megabytes_travel_both_ways_at_once(coordinator: Libp2pHost, node: Libp2pHost) -> None:
    payload = os.urandom(3 << 20)
    results: list[bytes] = []

    def ask(host: Libp2pHost, peer: PublicKey) -> None:
        results.append(host.request(peer, "/echo", payload, timeout_s=60, max_bytes=1 << 26))

    both = [
        threading.Thread(target=ask, args=(coordinator, NODE.public)),
        threading.Thread(target=ask, args=(node, COORDINATOR.public)),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert results == [payload, payload]


def test_a_peer_that_offers_only_plaintext_is_refused(coordinator: Libp2pHost) -> None:
    pair = create_new_key_pair(NODE.seed)

    async def dial() -> None:
        plain = new_host(key_pair=pair, sec_opt={TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(pair)})
        plain.get_network().retry_config.max_retries = 0
        async with plain.run(listen_addrs=[]):
            with trio.fail_after(15):
                await plain.connect(info_from_p2p_addr(Multiaddr(coordinator.addresses()[0])))

    with pytest.RaisesGroup(SwarmException, flatten_subgroups=True):
        trio.run(dial)
    assert coordinator.connected() == frozenset()


def test_an_address_with_somebody_elses_key_is_unavailable(coordinator: Libp2pHost) -> None:
    address = f"/ip4/127.0.0.1/tcp/{port_of(coordinator)}/p2p/{PrivateKey(b'x' * 32).public.peer_id}"
    with Libp2pHost(NODE, listen=None) as dialler, pytest.raises(UnavailableError, match="this key"):
        dialler.connect(address, timeout_s=10)


def test_a_port_in_use_is_refused_with_a_remedy(coordinator: Libp2pHost) -> None:
    with pytest.raises(UnavailableError, match="in use") as caught:
        Libp2pHost(NODE, listen=f"/ip4/127.0.0.1/tcp/{port_of(coordinator)}")
    assert "another" in caught.value.remedy


def test_a_malformed_address_to_listen_on_is_refused() -> None:
    with pytest.raises(OperatorError):
        Libp2pHost(NODE, listen="localhost:4001")


def test_garbage_on_the_port_harms_nobody(coordinator: Libp2pHost, node: Libp2pHost) -> None:
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n" + b"\xff" * 200, os.urandom(2000), b""):
        with socket.create_connection(("127.0.0.1", port_of(coordinator)), timeout=5) as raw:
            raw.sendall(junk)
    assert node.request(COORDINATOR.public, "/echo", b"fine", timeout_s=10, max_bytes=10) == b"fine"


def test_an_oversize_header_is_cut_off_before_its_body(node: Libp2pHost) -> None:
    async def announce() -> bytes:
        assert node._host is not None
        stream = await node._host.new_stream(peer_id_of(COORDINATOR.public), [TProtocol("/echo")])
        await stream.write((1 << 62).to_bytes(8, "big") + b"x")
        with trio.fail_after(10):
            try:
                return await stream.read(1)
            except Exception as error:
                raise ConnectionResetError from error

    with pytest.raises(ConnectionResetError):
        node._loop.run(announce)
    assert node.request(COORDINATOR.public, "/echo", b"fine", timeout_s=10, max_bytes=10) == b"fine"


def test_a_request_that_never_ends_is_dropped(
    coordinator: Libp2pHost, node: Libp2pHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "IDLE_S_MAX", 0.3)

    async def dawdle() -> None:
        assert node._host is not None
        stream = await node._host.new_stream(peer_id_of(COORDINATOR.public), [TProtocol("/echo")])
        await stream.write((100).to_bytes(8, "big") + b"half")
        with trio.fail_after(10):
            try:
                await stream.read(1)
            except Exception as error:
                raise ConnectionResetError from error

    with pytest.raises(ConnectionResetError):
        node._loop.run(dawdle)
    assert eventually(lambda: not coordinator._reception.busy)


def test_a_slow_handler_costs_only_its_requester(coordinator: Libp2pHost, node: Libp2pHost) -> None:
    release = threading.Event()
    coordinator.serve("/slow", lambda _peer, _data: bytes(release.wait(20)), max_bytes=10)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="longer than"):
        node.request(COORDINATOR.public, "/slow", b"", timeout_s=0.5, max_bytes=10)
    assert time.monotonic() - started < 5
    assert node.request(COORDINATOR.public, "/echo", b"fine", timeout_s=10, max_bytes=10) == b"fine"
    release.set()


def test_one_peer_holds_only_so_many_streams(coordinator: Libp2pHost, node: Libp2pHost) -> None:
    release = threading.Event()
    coordinator.serve("/hold", lambda _peer, _data: b"held" if release.wait(30) else b"", max_bytes=10)
    outcomes: list[bytes | None] = []

    def hold() -> None:
        try:
            outcomes.append(node.request(COORDINATOR.public, "/hold", b"", timeout_s=30, max_bytes=10))
        except UnavailableError:
            outcomes.append(None)

    threads = [threading.Thread(target=hold) for _ in range(STREAMS_PER_PEER_MAX + 4)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: outcomes.count(None) >= 4)
    release.set()
    for thread in threads:
        thread.join(30)
    # A heartbeat may have held one place for a moment.
    assert outcomes.count(b"held") >= STREAMS_PER_PEER_MAX - 1
    assert node.request(COORDINATOR.public, "/echo", b"fine", timeout_s=10, max_bytes=10) == b"fine"


def test_a_stranger_cannot_take_all_places_of_strangers(coordinator: Libp2pHost) -> None:
    release = threading.Event()
    coordinator.serve("/join", lambda _peer, _data: bytes(release.wait(30)), max_bytes=10, strangers=True)
    outcomes: list[str] = []

    def join(host: Libp2pHost) -> None:
        try:
            host.request(COORDINATOR.public, "/join", b"", timeout_s=30, max_bytes=10)
            outcomes.append("joined")
        except UnavailableError:
            outcomes.append("refused")

    assert 2 * STREAMS_PER_STRANGER_MAX <= STREAMS_OF_STRANGERS_MAX
    with (
        Libp2pHost(PrivateKey(b"x" * 32), listen=None) as greedy,
        Libp2pHost(PrivateKey(b"y" * 32), listen=None) as other,
    ):
        for host in (greedy, other):
            host.connect(coordinator.addresses()[0], timeout_s=10)
        threads = [threading.Thread(target=join, args=(greedy,)) for _ in range(STREAMS_PER_STRANGER_MAX + 3)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: outcomes.count("refused") >= 3)
        threads.append(threading.Thread(target=join, args=(other,)))
        threads[-1].start()
        time.sleep(0.3)
        release.set()
        for thread in threads:
            thread.join(30)
    # A heartbeat may have held one of the greedy one's places for a moment.
    assert outcomes.count("joined") >= STREAMS_PER_STRANGER_MAX


def test_many_reconnections_exhaust_nothing(coordinator: Libp2pHost) -> None:
    with Libp2pHost(NODE, listen=None, allowed={COORDINATOR.public}.__contains__) as node:
        for turn in range(12):
            node.connect(coordinator.addresses()[0], timeout_s=10)
            assert node.request(COORDINATOR.public, "/echo", b"%d" % turn, timeout_s=10, max_bytes=10) == b"%d" % turn
            node.disconnect(COORDINATOR.public)


def test_a_kept_connection_survives_a_restart_on_the_same_port() -> None:
    first = Libp2pHost(COORDINATOR)
    listen = f"/ip4/127.0.0.1/tcp/{port_of(first)}"
    with Libp2pHost(NODE, listen=None) as node:
        node.serve("/echo", lambda _peer, data: data, max_bytes=100)
        node.keep_connected(first.addresses()[0])
        assert eventually(lambda: COORDINATOR.public in node.connected())
        first.close()
        assert eventually(lambda: not node.connected())
        time.sleep(0.5)
        with Libp2pHost(COORDINATOR, listen=listen) as second:
            assert eventually(lambda: COORDINATOR.public in node.connected())
            assert eventually(lambda: NODE.public in second.connected())
            assert second.request(NODE.public, "/echo", b"again", timeout_s=10, max_bytes=100) == b"again"


def test_libp2ps_failure_is_repaired_on_the_same_port(coordinator: Libp2pHost, node: Libp2pHost) -> None:
    before = coordinator.addresses()

    async def break_down() -> None:
        assert coordinator._host is not None
        await coordinator._host.get_network().get_manager().stop()

    coordinator._loop.run(break_down)
    node.keep_connected(before[0])
    assert eventually(lambda: COORDINATOR.public in node.connected(), 20)
    assert coordinator.addresses() == before
    assert node.request(COORDINATOR.public, "/echo", b"up", timeout_s=10, max_bytes=10) == b"up"


@pytest.mark.processes
def test_a_frozen_process_is_noticed_and_comes_back(coordinator: Libp2pHost) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, coordinator.addresses()[0]], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert eventually(lambda: coordinator.connected() == {NODE.public}, 30)
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            coordinator.request(NODE.public, "/echo", b"x" * (1 << 24), timeout_s=2, max_bytes=1 << 25)
        assert time.monotonic() - started < 6
        assert eventually(lambda: coordinator.connected() == frozenset())
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: coordinator.connected() == {NODE.public}, 30)
        assert coordinator.request(NODE.public, "/echo", b"back", timeout_s=10, max_bytes=10) == b"back"
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def test_closing_is_quick_even_while_handlers_hang() -> None:
    hang = threading.Event()
    with Libp2pHost(COORDINATOR) as coordinator, Libp2pHost(NODE, listen=None) as node:
        coordinator.serve("/hang", lambda _peer, _data: bytes(hang.wait(30)), max_bytes=10)
        node.connect(coordinator.addresses()[0], timeout_s=10)
        failed: list[UnavailableError] = []

        def ask() -> None:
            try:
                node.request(COORDINATOR.public, "/hang", b"", timeout_s=30, max_bytes=10)
            except UnavailableError as error:
                failed.append(error)

        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(0.3)
        started = time.monotonic()
        coordinator.close()
        node.close()
        waiting.join(5)
        assert time.monotonic() - started < 5
        assert len(failed) == 1
    hang.set()
