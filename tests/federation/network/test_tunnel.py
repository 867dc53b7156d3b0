"""Out through a web proxy: a live pair of hosts, what proxies say when they refuse, and answers that are no answers."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from web_proxy import web_proxy

from federation.errors import OperatorError, UnavailableError
from federation.network.host import Libp2pHost
from federation.network.tunnel import Proxy, connect_through, destination, greeting_through, proxy_of, status_of
from federation.rules.keys import PrivateKey

COORDINATOR, NODE = PrivateKey(bytes([7]) * 32), PrivateKey(bytes([8]) * 32)
NAME = "coordinator.invalid"
"""No name server knows it: only the proxy does."""


@pytest.fixture
def coordinator() -> Iterator[Libp2pHost]:
    with Libp2pHost(COORDINATOR) as host:
        host.serve("/echo/1", lambda _peer, payload: payload, max_bytes=1 << 22)
        yield host


def named(host: Libp2pHost) -> str:
    """The coordinator's address, with a name that only the proxy can look up."""
    return re.sub(r"^/ip4/127\.0\.0\.1", f"/dns4/{NAME}", host.addresses()[0])


def test_a_node_speaks_with_the_coordinator_through_a_proxy_alone(coordinator: Libp2pHost) -> None:
    payload = bytes(range(256)) * 8192  # 2 MiB
    with web_proxy(names={NAME: "127.0.0.1"}, password="ward:s3cret") as proxy:
        url = f"http://ward:s3cret@127.0.0.1:{proxy.port}"
        with Libp2pHost(NODE, listen=None, proxy=proxy_of(url)) as node:
            peer = node.connect(named(coordinator), timeout_s=10)
            assert peer == COORDINATOR.public
            assert node.request(peer, "/echo/1", payload, timeout_s=20, max_bytes=1 << 22) == payload
        assert proxy.asked[0].startswith(f"{NAME}:")
        assert len(proxy.carried) > 2 * len(payload)
        assert bytes(range(64)) not in bytes(proxy.carried), "what it carries it cannot read"


def test_the_other_direction_works_as_well_over_the_connection_that_the_node_dialled(coordinator: Libp2pHost) -> None:
    with (
        web_proxy(names={NAME: "127.0.0.1"}) as proxy,
        Libp2pHost(NODE, listen=None, proxy=Proxy("127.0.0.1", proxy.port)) as node,
    ):
        node.serve("/ask/1", lambda _peer, payload: payload[::-1], max_bytes=100)
        node.connect(named(coordinator), timeout_s=10)
        wait_until(lambda: NODE.public in coordinator.connected())  # its end of the connection is up a little later
        assert coordinator.request(NODE.public, "/ask/1", b"abc", timeout_s=10, max_bytes=100) == b"cba"


@pytest.mark.parametrize(
    ("settings", "why", "remedy"),
    [
        ({"password": "a:b"}, "wants a user name and a password", "USER:PASSWORD"),
        ({"answer": b"HTTP/1.1 403 Forbidden\r\n\r\n"}, "forbids CONNECT to coordinator.invalid:4001", "allow CONNECT"),
        ({"answer": b"HTTP/1.0 405 Method Not Allowed\r\n\r\n"}, "forbids CONNECT", "allow CONNECT"),
        ({}, "cannot reach coordinator.invalid:4001", "look up its name"),
        ({"answer": b"HTTP/1.1 500 x\r\n\r\n"}, "answers 500", "CONNECT to coordinator.invalid:4001"),
        ({"answer": b"SSH-2.0-OpenSSH\r\n\r\n"}, "no HTTP", "host and port"),
        ({"answer": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000}, "no HTTP", "host and port"),
        ({"answer": b""}, "no HTTP", "host and port"),
    ],
    ids=["407", "403", "405", "502", "500", "ssh", "endless", "silent"],
)
def test_a_proxy_that_refuses_is_quoted_with_what_to_do(settings: dict[str, object], why: str, remedy: str) -> None:
    with web_proxy(**settings) as running, pytest.raises(UnavailableError) as refused:
        trio.run(connect_through, Proxy("127.0.0.1", running.port), NAME, 4001)
    assert why in refused.value.message
    assert remedy in refused.value.remedy
    assert f"127.0.0.1:{running.port}" in refused.value.message


def test_a_password_that_is_not_taken_is_told_and_never_shown() -> None:
    with web_proxy(password="ward:right") as running:
        proxy = proxy_of(f"http://ward:wr%20ng@127.0.0.1:{running.port}")
        with pytest.raises(UnavailableError, match="does not take the password") as refused:
            trio.run(connect_through, proxy, NAME, 4001)
    shown = f"{proxy} {proxy!r} {refused.value.message} {refused.value.remedy}"
    assert "wr ng" not in shown
    assert proxy.authorization not in shown


def test_a_proxy_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not let this party out: it is not there"):
        trio.run(connect_through, Proxy("127.0.0.1", 1), NAME, 4001)


@pytest.mark.parametrize("host", ["proxy..example", "x" * 64 + ".example"])
def test_a_proxy_whose_name_is_none_is_named(host: str) -> None:
    with pytest.raises(UnavailableError, match="it is not there"):
        trio.run(connect_through, Proxy(host, 3128), NAME, 4001)


def test_what_comes_with_the_answer_belongs_to_the_connection(coordinator: Libp2pHost) -> None:
    """A libp2p peer may greet at once; those bytes must not be lost behind the proxy's own."""
    port = int(coordinator.addresses()[0].split("/")[4])
    greeting = b"\x13/multistream/1.0.0\n"
    with web_proxy() as running:
        proxy = Proxy("127.0.0.1", running.port)
        assert greeting_through(proxy, "127.0.0.1", port, greeting=greeting) == greeting
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + greeting
    with web_proxy(answer=answer) as running:
        _stream, rest = trio.run(connect_through, Proxy("127.0.0.1", running.port), "x", 1)
        assert rest == greeting


def test_a_node_that_keeps_trying_says_what_is_in_the_way_and_gets_through_when_it_is_gone(
    coordinator: Libp2pHost,
) -> None:
    with (
        web_proxy(names={NAME: "127.0.0.1"}, answer=b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy,
        Libp2pHost(NODE, listen=None, proxy=Proxy("127.0.0.1", proxy.port)) as node,
    ):
        peer = node.keep_connected(named(coordinator))
        wait_until(lambda: "forbids CONNECT" in node.trouble(peer))
        assert "allow CONNECT" in node.trouble(peer)
        proxy.answer = None
        wait_until(lambda: peer in node.connected())
        assert node.trouble(peer) == ""


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_somebody_else_behind_the_proxy_is_not_the_coordinator() -> None:
    with (
        Libp2pHost(PrivateKey(bytes([9]) * 32)) as impostor,
        web_proxy(names={NAME: "127.0.0.1"}) as proxy,
        Libp2pHost(NODE, listen=None, proxy=Proxy("127.0.0.1", proxy.port)) as node,
    ):
        place = impostor.addresses()[0].split("/p2p/")[0].replace("/ip4/127.0.0.1", f"/dns4/{NAME}")
        with pytest.raises(UnavailableError, match="nobody with this key"):
            node.connect(f"{place}/p2p/{COORDINATOR.public.peer_id}", timeout_s=10)


@pytest.mark.parametrize(
    "url", ["https://proxy:3128", "proxy:3128", "http://proxy", "http://:1", "http://proxy:3128/path", "http://p:99999"]
)
def test_a_proxy_that_is_not_understood_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(OperatorError, match="not understood") as refused:
        proxy_of(url)
    assert "http://HOST:PORT" in refused.value.remedy


def test_a_destination_keeps_its_name() -> None:
    key = COORDINATOR.public.peer_id
    assert destination(f"/dns4/study.example.org/tcp/443/p2p/{key}") == ("study.example.org", 443)
    assert destination("/ip6/::1/tcp/4001") == ("::1", 4001)
    for other in ("/ip4/127.0.0.1/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/65536"):
        with pytest.raises(OperatorError, match="not a TCP address"):
            destination(other)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_none(head: bytes) -> None:
    code = status_of(head)
    assert code is None or 0 <= code <= 999
    assert status_of(b"HTTP/1.1 200\r\n" + head) == 200
