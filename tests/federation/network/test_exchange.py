"""The rules of the port, kept by the libp2p host and by its in-memory twin alike."""

import logging
import time
from collections.abc import Callable

import pytest

from federation.errors import (
    AccordError,
    ConsentError,
    OperatorError,
    PeerError,
    PrivacyError,
    UnavailableError,
    UnprovenSignerError,
)
from federation.network.exchange import Exchange, peer_of
from federation.rules.keys import PrivateKey, PublicKey

COORDINATOR = PrivateKey(b"c" * 32)
NODE = PrivateKey(b"n" * 32)
STRANGER = PrivateKey(b"s" * 32)

Make = Callable[..., Exchange]


def eventually(condition: Callable[[], bool], within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def pair(party: Make) -> tuple[Exchange, Exchange]:
    """A coordinator, and a node that listens nowhere and has dialled it."""
    coordinator = party(COORDINATOR, {NODE.public})
    node = party(NODE, {COORDINATOR.public}, listens=False)
    assert node.connect(coordinator.addresses()[0], timeout_s=10) == COORDINATOR.public
    return coordinator, node


def test_both_sides_are_the_port(pair: tuple[Exchange, Exchange]) -> None:
    assert all(isinstance(each, Exchange) for each in pair)


def test_addresses_end_in_the_peer_id(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, _ = pair
    assert coordinator.public == COORDINATOR.public
    assert all(peer_of(address) == COORDINATOR.public for address in coordinator.addresses())


def test_requests_travel_in_both_directions_over_the_connection_that_the_node_dialled(
    pair: tuple[Exchange, Exchange],
) -> None:
    coordinator, node = pair
    coordinator.serve("/up", lambda peer, data: peer.did.encode() + data, max_bytes=100)
    node.serve("/down", lambda peer, data: data + peer.did.encode(), max_bytes=100)
    up = node.request(COORDINATOR.public, "/up", b"!", timeout_s=10, max_bytes=1000)
    down = coordinator.request(NODE.public, "/down", b"?", timeout_s=10, max_bytes=1000)
    assert up == NODE.public.did.encode() + b"!"
    assert down == b"?" + COORDINATOR.public.did.encode()


@pytest.mark.parametrize("size", [0, 1, 65_499, 65_500, 300_000])
def test_payloads_of_any_size_arrive_unchanged(pair: tuple[Exchange, Exchange], size: int) -> None:
    coordinator, node = pair
    payload = bytes(index % 251 for index in range(size))
    coordinator.serve("/echo", lambda _peer, data: data, max_bytes=300_000)
    assert node.request(COORDINATOR.public, "/echo", payload, timeout_s=20, max_bytes=300_000) == payload


@pytest.mark.parametrize(
    "kind", [OperatorError, UnprovenSignerError, PeerError, PrivacyError, ConsentError, UnavailableError]
)
def test_an_error_of_the_handler_is_raised_at_the_requester(
    pair: tuple[Exchange, Exchange], kind: type[AccordError]
) -> None:
    def refuse(_peer: PublicKey, _data: bytes) -> bytes:
        raise kind("The budget\x1b[31m is spent.", remedy="Wait.")

    coordinator, node = pair
    coordinator.serve("/refuse", refuse, max_bytes=10)
    with pytest.raises(kind, match=r"The budget \[31m is spent\.") as caught:
        node.request(COORDINATOR.public, "/refuse", b"", timeout_s=10, max_bytes=0)
    assert type(caught.value) is kind
    assert caught.value.remedy == "Wait."


def test_a_handlers_defect_arrives_without_details(
    pair: tuple[Exchange, Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_peer: PublicKey, _data: bytes) -> bytes:
        raise ZeroDivisionError("a secret")

    coordinator, node = pair
    coordinator.serve("/fail", fail, max_bytes=10)
    with caplog.at_level(logging.ERROR), pytest.raises(PeerError, match="internal error") as caught:
        node.request(COORDINATOR.public, "/fail", b"", timeout_s=10, max_bytes=10)
    assert "secret" not in str(caught.value) + caught.value.remedy
    assert "a secret" in caplog.text


def test_a_request_above_the_limit_is_refused_and_the_connection_survives(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    seen: list[int] = []
    coordinator.serve("/small", lambda _peer, data: bytes(seen.append(len(data)) or b""), max_bytes=1000)
    with pytest.raises(UnavailableError):
        node.request(COORDINATOR.public, "/small", b"x" * 1001, timeout_s=10, max_bytes=10)
    node.request(COORDINATOR.public, "/small", b"x" * 1000, timeout_s=10, max_bytes=10)
    assert seen == [1000]


def test_an_answer_above_the_limit_is_refused(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    coordinator.serve("/large", lambda _peer, _data: b"x" * 100_000, max_bytes=10)
    with pytest.raises(PeerError, match="more than"):
        node.request(COORDINATOR.public, "/large", b"", timeout_s=10, max_bytes=50)


def test_a_protocol_that_nobody_serves_is_unavailable(pair: tuple[Exchange, Exchange]) -> None:
    _, node = pair
    with pytest.raises(UnavailableError):
        node.request(COORDINATOR.public, "/nothing", b"", timeout_s=10, max_bytes=10)


def test_a_peer_that_is_not_connected_is_unavailable(pair: tuple[Exchange, Exchange]) -> None:
    _, node = pair
    with pytest.raises(UnavailableError, match="not connected"):
        node.request(STRANGER.public, "/any", b"", timeout_s=10, max_bytes=10)


def test_a_stranger_reaches_only_what_is_open_to_strangers(pair: tuple[Exchange, Exchange], party: Make) -> None:
    coordinator, _ = pair
    coordinator.serve("/inner", lambda _peer, _data: b"inside", max_bytes=10)
    coordinator.serve("/join", lambda _peer, _data: b"welcome", max_bytes=10, strangers=True)
    stranger = party(STRANGER, {COORDINATOR.public}, listens=False)
    stranger.connect(coordinator.addresses()[0], timeout_s=10)
    assert stranger.request(COORDINATOR.public, "/join", b"", timeout_s=10, max_bytes=10) == b"welcome"
    with pytest.raises(UnavailableError):
        stranger.request(COORDINATOR.public, "/inner", b"", timeout_s=10, max_bytes=10)
    assert STRANGER.public not in coordinator.connected()


def test_the_gate_is_asked_at_every_request(party: Make) -> None:
    allowed: set[PublicKey] = set()
    coordinator = party(COORDINATOR, allowed)
    coordinator.serve("/inner", lambda _peer, _data: b"inside", max_bytes=10)
    node = party(NODE, {COORDINATOR.public}, listens=False)
    node.connect(coordinator.addresses()[0], timeout_s=10)
    with pytest.raises(UnavailableError):
        node.request(COORDINATOR.public, "/inner", b"", timeout_s=10, max_bytes=10)
    allowed.add(NODE.public)
    assert node.request(COORDINATOR.public, "/inner", b"", timeout_s=10, max_bytes=10) == b"inside"
    allowed.clear()
    with pytest.raises(UnavailableError):
        node.request(COORDINATOR.public, "/inner", b"", timeout_s=10, max_bytes=10)


def test_serving_again_replaces_the_handler(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    coordinator.serve("/x", lambda _peer, _data: b"old", max_bytes=10)
    coordinator.serve("/x", lambda _peer, _data: b"new", max_bytes=10)
    assert node.request(COORDINATOR.public, "/x", b"", timeout_s=10, max_bytes=10) == b"new"


def test_a_handler_may_itself_ask(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    node.serve("/name", lambda _peer, _data: b"node", max_bytes=10)
    coordinator.serve(
        "/greet",
        lambda peer, _data: b"hello " + coordinator.request(peer, "/name", b"", timeout_s=5, max_bytes=10),
        max_bytes=10,
    )
    assert node.request(COORDINATOR.public, "/greet", b"", timeout_s=10, max_bytes=100) == b"hello node"


def test_who_is_connected_is_known_on_both_sides(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    assert eventually(lambda: coordinator.connected() == {NODE.public})
    assert eventually(lambda: node.connected() == {COORDINATOR.public})
    node.disconnect(COORDINATOR.public)
    assert node.connected() == frozenset()
    assert eventually(lambda: coordinator.connected() == frozenset())


def test_disconnecting_from_nobody_is_no_error(pair: tuple[Exchange, Exchange]) -> None:
    pair[0].disconnect(STRANGER.public)


def test_a_closed_party_is_gone_for_the_others(pair: tuple[Exchange, Exchange]) -> None:
    coordinator, node = pair
    assert eventually(lambda: node.connected() == {COORDINATOR.public})
    coordinator.close()
    coordinator.close()
    assert coordinator.addresses() == ()
    assert eventually(lambda: node.connected() == frozenset())
    with pytest.raises(UnavailableError):
        node.request(COORDINATOR.public, "/x", b"", timeout_s=5, max_bytes=10)
    with pytest.raises(UnavailableError):
        coordinator.request(NODE.public, "/x", b"", timeout_s=5, max_bytes=10)


def test_a_kept_connection_comes_back(party: Make) -> None:
    coordinator = party(COORDINATOR, {NODE.public})
    coordinator.serve("/x", lambda _peer, _data: b"here", max_bytes=10)
    node = party(NODE, {COORDINATOR.public}, listens=False)
    assert node.keep_connected(coordinator.addresses()[0]) == COORDINATOR.public
    assert eventually(lambda: node.connected() == {COORDINATOR.public})
    coordinator.disconnect(NODE.public)
    assert eventually(lambda: coordinator.connected() == {NODE.public})
    assert node.request(COORDINATOR.public, "/x", b"", timeout_s=10, max_bytes=10) == b"here"


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001/p2p/", "/ip4/127.0.0.1/tcp/4001/p2p/Qm123"],
)
def test_a_malformed_address_is_the_operators_to_mend(party: Make, address: str) -> None:
    node = party(NODE, set())
    for dial in (lambda: node.connect(address, timeout_s=1), lambda: node.keep_connected(address)):
        with pytest.raises(OperatorError, match="not an address") as caught:
            dial()
        assert "accord coordinator status" in caught.value.remedy


def test_dialling_oneself_is_refused(party: Make) -> None:
    node = party(NODE, set())
    with pytest.raises(OperatorError, match="own"):
        node.connect(node.addresses()[0], timeout_s=1)


def test_an_address_with_nobody_there_is_unavailable(party: Make) -> None:
    coordinator = party(COORDINATOR, set())
    address = coordinator.addresses()[0]
    coordinator.close()
    with pytest.raises(UnavailableError):
        party(NODE, set()).connect(address, timeout_s=5)
