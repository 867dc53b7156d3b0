"""The relay door: one protocol, two parties of the study, bounded; it passes on what it cannot change unnoticed."""

import threading
from typing import Any

import pytest

from federation.coordinator.protocols import CONSENT_COSIGN, CONSENT_COSIGN_BYTES_MAX, CONSENT_RELAY, RelayRequest
from federation.coordinator.rate import RateBound
from federation.coordinator.relay import UNDER_WAY_MAX, Relay, ask_through
from federation.errors import ConsentError, PeerError, UnavailableError
from federation.network.memory import MemoryExchange, MemoryNetwork
from federation.rules.keys import PrivateKey, PublicKey

COORDINATOR, ASH, BIRCH, STRANGER = (PrivateKey(bytes([seed]) * 32) for seed in (1, 2, 3, 4))
PARTIES = frozenset({ASH.public, BIRCH.public})
STUDY = "small-0123456789ab"


class Doors:
    """A coordinator with its relay, and two nodes that dialled it; only ``birch`` answers."""

    def __init__(self, **more: Any) -> None:
        self.network = MemoryNetwork()
        self.coordinator = self.network.exchange(COORDINATOR, allowed=lambda peer: peer in PARTIES)
        self.relay = Relay(self.coordinator, STUDY, lambda peer: peer in PARTIES, **more)
        self.relay.serve()
        self.ash, self.birch, self.stranger = (self.node(key) for key in (ASH, BIRCH, STRANGER))
        self.heard: list[tuple[PublicKey, bytes]] = []
        self.birch.serve(CONSENT_COSIGN, self.answer, max_bytes=CONSENT_COSIGN_BYTES_MAX)
        self.stranger.serve(CONSENT_COSIGN, self.answer, max_bytes=CONSENT_COSIGN_BYTES_MAX)

    def node(self, key: PrivateKey) -> MemoryExchange:
        exchange = self.network.exchange(key)
        exchange.keep_connected(self.coordinator.addresses()[0])
        return exchange

    def answer(self, peer: PublicKey, payload: bytes) -> bytes:
        self.heard.append((peer, payload))
        return b"answer to " + payload

    def ask(
        self, witness: PrivateKey, payload: bytes, *, study: str = STUDY, by: MemoryExchange | None = None
    ) -> bytes:
        return ask_through(by or self.ash, lambda: COORDINATOR.public, study, timeout_s=5)(witness.public, payload)


def test_a_request_reaches_the_witness_and_the_answer_comes_back() -> None:
    doors = Doors()
    assert doors.ask(BIRCH, b'{"a":"\\n"}') == b'answer to {"a":"\\n"}'
    assert doors.heard == [(COORDINATOR.public, b'{"a":"\\n"}')]


def test_what_the_witness_refuses_arrives_with_its_own_words() -> None:
    doors = Doors()

    def refuse(_peer: PublicKey, _payload: bytes) -> bytes:
        raise ConsentError("No.", remedy="Ask somebody else.")

    doors.birch.serve(CONSENT_COSIGN, refuse, max_bytes=CONSENT_COSIGN_BYTES_MAX)
    with pytest.raises(ConsentError, match=r"No\."):
        doors.ask(BIRCH, b"x")


@pytest.mark.parametrize("witness", [STRANGER, ASH, COORDINATOR])
def test_it_passes_on_only_between_two_parties(witness: PrivateKey) -> None:
    doors = Doors()
    with pytest.raises(PeerError, match="only between two parties"):
        doors.ask(witness, b"x")
    assert doors.heard == []


def test_strangers_and_other_studies_find_no_door() -> None:
    doors = Doors()
    with pytest.raises(UnavailableError):
        doors.ask(BIRCH, b"x", by=doors.stranger)
    with pytest.raises(PeerError, match="of its study"):
        doors.ask(BIRCH, b"x", study="other-0")
    assert doors.heard == []


def test_another_protocol_is_not_passed_on() -> None:
    doors = Doors()
    doors.birch.serve("/accord/other/1", doors.answer, max_bytes=100)
    request = {**RelayRequest(study=STUDY, witness=BIRCH.public.did, request="x").model_dump(), "protocol": "other"}
    with pytest.raises(PeerError):
        doors.ash.request(COORDINATOR.public, CONSENT_RELAY, repr(request).encode(), timeout_s=5, max_bytes=1000)
    assert doors.heard == []


def test_sizes_are_bounded() -> None:
    doors = Doors()
    assert doors.ask(BIRCH, b'"' * 2000).endswith(b'"' * 2000)
    with pytest.raises(UnavailableError):  # the door takes no larger request
        doors.ash.request(COORDINATOR.public, CONSENT_RELAY, b"x" * 10**6, timeout_s=5, max_bytes=1000)
    doors.birch.serve(CONSENT_COSIGN, lambda _peer, _payload: b"y" * 10_000, max_bytes=CONSENT_COSIGN_BYTES_MAX)
    with pytest.raises(PeerError):  # nor a larger answer
        doors.ask(BIRCH, b"x")


def test_a_witness_that_is_away_is_unavailable() -> None:
    doors = Doors()
    doors.birch.close()
    with pytest.raises(UnavailableError):
        doors.ask(BIRCH, b"x")


def test_who_asks_too_often_waits_and_others_do_not() -> None:
    now = [0.0]
    doors = Doors(rate=RateBound(per_s=1, burst=3, clock=lambda: now[0]))
    for _ in range(3):
        doors.ask(BIRCH, b"x")
    with pytest.raises(UnavailableError, match="too often"):
        doors.ask(BIRCH, b"x")
    doors.ash.serve(CONSENT_COSIGN, doors.answer, max_bytes=CONSENT_COSIGN_BYTES_MAX)
    doors.ask(ASH, b"x", by=doors.birch)
    now[0] += 1.0
    doors.ask(BIRCH, b"x")
    assert len(doors.heard) == 5


def test_witnesses_that_hang_do_not_take_every_place() -> None:
    doors = Doors()
    entered, release = threading.Semaphore(0), threading.Event()

    def hang(_peer: PublicKey, _payload: bytes) -> bytes:
        entered.release()
        release.wait(10)
        return b""

    doors.birch.serve(CONSENT_COSIGN, hang, max_bytes=CONSENT_COSIGN_BYTES_MAX)
    threads = [threading.Thread(target=doors.ask, args=(BIRCH, b"x")) for _ in range(UNDER_WAY_MAX)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert entered.acquire(timeout=10)
    with pytest.raises(UnavailableError, match="Too many requests"):
        doors.ask(BIRCH, b"x")
    release.set()
    for thread in threads:
        thread.join(10)
    doors.ask(BIRCH, b"x")


def test_a_bucket_fills_again_and_forgets_the_oldest_peers() -> None:
    now = [0.0]
    rate = RateBound(per_s=2, burst=2, clock=lambda: now[0])
    rate.take(ASH.public)
    rate.take(ASH.public)
    with pytest.raises(UnavailableError):
        rate.take(ASH.public)
    now[0] += 0.5
    rate.take(ASH.public)
    with pytest.raises(UnavailableError):
        rate.take(ASH.public)
    now[0] += 1000
    rate.take(ASH.public)
    rate.take(ASH.public)
    with pytest.raises(UnavailableError):
        rate.take(ASH.public)
