"""Models that nodes pass on to each other (``federation.network.sharing``, ``federation.coordinator.sources``)."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.coordinator.rate import RateBound
from federation.coordinator.sources import Sources
from federation.errors import PeerError, UnavailableError
from federation.network import sharing
from federation.network.blobs import BLOB, PIECE_BYTES, serve_blobs
from federation.network.exchange import Exchange
from federation.network.host import Libp2pHost
from federation.network.memory import Delivery, Fate, MemoryNetwork
from federation.network.pieces import PIECE, PIECE_REPLY_BYTES_MAX, SOURCES, PieceRequest, all_of, open_piece
from federation.network.sharing import Gates, Sharing
from federation.rules.keys import PrivateKey, PublicKey
from federation.storage.blobs import BlobStore, FolderBlobStore, MemoryBlobStore

COORDINATOR, ASH, BIRCH, CEDAR, STRANGER = (PrivateKey(bytes([seed]) * 32) for seed in (1, 2, 3, 4, 5))
PARTIES = frozenset({ASH.public, BIRCH.public, CEDAR.public})
STUDY = "small-0123456789ab"
MAX = 32 << 20


class Study:
    """A coordinator with one model of ``pieces`` pieces, and nodes that fetch it; in memory unless a host is given."""

    def __init__(self, *, pieces: int = 6, tail: int = 100) -> None:
        self.asked: Counter[tuple[PublicKey, str]] = Counter()
        self.fates: Callable[[Delivery], Fate] = lambda _delivery: Fate.DELIVERED
        self.network = MemoryNetwork(self.courier)
        self.data = os.urandom((pieces - 1) * PIECE_BYTES + tail)
        self.blobs = MemoryBlobStore()
        self.name = self.blobs.put(self.data)
        self.coordinator = self.network.exchange(COORDINATOR, allowed=PARTIES.__contains__)
        self.open(self.coordinator)

    def open(self, exchange: Exchange) -> None:
        serve_blobs(exchange, self.blobs)
        self.sources = Sources(
            exchange,
            self.blobs,
            STUDY,
            party=PARTIES.__contains__,
            named=lambda name: name == self.name,
            rate=RateBound(per_s=1000, burst=1000),
        )
        self.sources.serve()

    def courier(self, delivery: Delivery) -> Fate:
        self.asked[delivery.receiver, delivery.protocol] += 1
        return self.fates(delivery)

    def node(self, key: PrivateKey, store: BlobStore | None = None, *, gives: bool = True) -> Sharing:
        exchange = self.network.exchange(key, allowed=lambda peer: peer == COORDINATOR.public)
        exchange.connect(self.coordinator.addresses()[0], timeout_s=1)
        return self.sharing(exchange, store or MemoryBlobStore(), gives=gives)

    def sharing(self, exchange: Exchange, store: BlobStore, *, gives: bool = True) -> Sharing:
        gates = Gates(party=PARTIES.__contains__, named=lambda name: name == self.name)
        made = Sharing(exchange, COORDINATOR.public, STUDY, store, gates=gates, gives=gives)
        made.serve()
        return made

    def fetch(self, node: Sharing) -> bytes:
        return node.fetch(self.name, timeout_s=30, max_bytes=MAX)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, whoever answers is waited for."""
    monkeypatch.setattr(sharing, "PATIENCE_S", 60.0)
    monkeypatch.setattr(sharing, "NEWS_S", 0.02)


def test_the_second_node_has_the_model_from_the_first() -> None:
    study = Study()
    first, second = study.node(ASH), study.node(BIRCH)
    assert study.fetch(first) == study.data
    assert study.asked[COORDINATOR.public, BLOB] == 6
    assert study.fetch(second) == study.data
    assert (study.asked[COORDINATOR.public, BLOB], study.asked[ASH.public, PIECE]) == (6, 6)


def test_a_node_that_passes_nothing_on_is_not_named() -> None:
    study = Study()
    assert study.fetch(study.node(ASH, gives=False)) == study.data
    assert study.fetch(study.node(BIRCH)) == study.data
    assert (study.asked[COORDINATOR.public, BLOB], study.asked[ASH.public, PIECE]) == (12, 0)


def test_a_false_piece_is_noticed_its_sender_dropped_and_the_model_still_arrives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = Study()
    liar, honest = study.node(ASH), study.node(BIRCH)
    for node in (liar, honest):
        study.fetch(node)

    def lie(_peer: PublicKey, _payload: bytes) -> bytes:
        return sharing.piece_answer(all_of(6), bytes(PIECE_BYTES))

    party = study.network.party(ASH.public)
    assert party is not None
    party.serve(PIECE, lie, max_bytes=1024, guests=PARTIES.__contains__)
    study.asked.clear()
    store = MemoryBlobStore()
    assert study.fetch(study.node(CEDAR, store)) == study.data
    assert store.get(study.name) == study.data
    assert study.asked[ASH.public, PIECE] == 1
    assert ASH.public.did in caplog.text


def test_peers_that_do_not_answer_are_dropped_and_the_coordinator_gives_all() -> None:
    study = Study()
    for key in (ASH, BIRCH):
        study.fetch(study.node(key))
    study.asked.clear()
    study.fates = lambda each: Fate.REQUEST_LOST if each.protocol == PIECE else Fate.DELIVERED
    assert study.fetch(study.node(CEDAR)) == study.data
    assert study.asked[COORDINATOR.public, BLOB] == 6
    assert study.asked[ASH.public, PIECE] + study.asked[BIRCH.public, PIECE] <= 2 * sharing.STRIKES


def test_a_stalled_peer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PATIENCE_S", 0.2)
    study, stalled = Study(), threading.Event()
    study.fetch(study.node(ASH))
    party = study.network.party(ASH.public)
    assert party is not None

    def stall(_peer: PublicKey, _payload: bytes) -> bytes:
        stalled.wait(60)
        return b""

    party.serve(PIECE, stall, max_bytes=1024, guests=PARTIES.__contains__)
    assert study.fetch(study.node(BIRCH)) == study.data
    assert not stalled.is_set()
    stalled.set()


def test_what_arrived_is_not_fetched_again_by_the_next_process(tmp_path: Path) -> None:
    study = Study()
    study.fates = lambda each: (
        Fate.REQUEST_LOST
        if each.protocol == BLOB and study.asked[COORDINATOR.public, BLOB] > 3
        else Fate.ANSWER_BROKEN
        if each.protocol == BLOB and study.asked[COORDINATOR.public, BLOB] == 3
        else Fate.DELIVERED
    )
    with pytest.raises(UnavailableError, match="in time"):
        study.node(ASH, FolderBlobStore(tmp_path)).fetch(study.name, timeout_s=2, max_bytes=MAX)
    study.fates = lambda _each: Fate.DELIVERED
    study.asked.clear()
    after = FolderBlobStore(tmp_path)
    assert study.fetch(study.node(ASH, after)) == study.data
    assert study.asked[COORDINATOR.public, BLOB] == 4
    assert list(tmp_path.iterdir()) == [tmp_path / study.name]


def test_a_coordinator_that_does_not_share_is_asked_for_the_whole_blob() -> None:
    study = Study()
    study.fates = lambda each: Fate.REQUEST_LOST if each.protocol == SOURCES else Fate.DELIVERED
    assert study.fetch(study.node(ASH)) == study.data


def test_a_false_list_of_pieces_is_noticed_and_nothing_is_kept(tmp_path: Path) -> None:
    study, other = Study(), os.urandom(2 * PIECE_BYTES)
    node = study.node(ASH, FolderBlobStore(tmp_path))
    study.blobs._blobs[study.name] = other  # a coordinator that gives something else under the model's name
    with pytest.raises(PeerError, match="do not make it"):
        study.fetch(node)
    assert list(tmp_path.iterdir()) == []


def test_a_larger_model_than_expected_is_refused() -> None:
    study = Study()
    with pytest.raises(PeerError, match="announced"):
        study.node(ASH).fetch(study.name, timeout_s=5, max_bytes=2 * PIECE_BYTES)


def test_somebody_elses_address_is_refused() -> None:
    study = Study()
    request = sharing.SourcesRequest(
        study=STUDY, name=study.name, held="0", addresses=(f"/ip4/192.0.2.1/tcp/1/p2p/{CEDAR.public.peer_id}",)
    )
    with pytest.raises(PeerError, match="own key"):
        study.sources.handle(ASH.public, request.to_payload())


@pytest.mark.parametrize(
    ("key", "change"),
    [(STRANGER, {}), (ASH, {"study": "another"}), (ASH, {"name": "0" * 64}), (ASH, {"held": "40"})],
)
def test_sources_are_named_only_to_parties_for_models_of_the_study(key: PrivateKey, change: dict[str, str]) -> None:
    study = Study()
    asked = sharing.SourcesRequest(**({"study": STUDY, "name": study.name, "held": "0"} | change))
    with pytest.raises(PeerError):
        study.sources.handle(key.public, asked.to_payload())


class TestOnSockets:
    """The same between libp2p hosts: what a key can reach."""

    @pytest.fixture
    def study(self) -> Study:
        return Study(pieces=3)

    def test_a_model_comes_from_a_node_that_listens_and_its_door_is_shut_to_everybody_else(self, study: Study) -> None:
        only = {"allowed": lambda peer: peer == COORDINATOR.public}
        with (
            Libp2pHost(COORDINATOR, allowed=PARTIES.__contains__) as coordinator,
            Libp2pHost(ASH, **only) as ash,
            Libp2pHost(BIRCH, listen=None, **only) as birch,
            Libp2pHost(STRANGER, listen=None) as stranger,
        ):
            study.open(coordinator)
            for host in (ash, birch):
                host.connect(coordinator.addresses()[0], timeout_s=10)
            ash.serve("/private", lambda _peer, _payload: b"secret", max_bytes=100)
            theirs = MemoryBlobStore()
            assert study.fetch(study.sharing(ash, theirs)) == study.data
            served = coordinator_pieces(study)
            assert study.fetch(study.sharing(birch, MemoryBlobStore(), gives=False)) == study.data
            assert served == [0]

            request = PieceRequest(study=STUDY, name=study.name, number=0).to_payload()
            limits = {"timeout_s": 10, "max_bytes": PIECE_REPLY_BYTES_MAX}
            held, piece = open_piece(birch.request(ASH.public, PIECE, request, **limits), count=3)
            assert (held, piece) == (7, study.data[:PIECE_BYTES])
            with pytest.raises(UnavailableError):  # a guest is a guest of one protocol
                birch.request(ASH.public, "/private", b"", **limits)
            stranger.connect(ash.addresses()[0], timeout_s=10)
            with pytest.raises(UnavailableError):
                stranger.request(ASH.public, PIECE, request, **limits)
            for refused in ({"study": "another"}, {"name": "0" * 64}):
                other = PieceRequest(**({"study": STUDY, "name": study.name, "number": 0} | refused)).to_payload()
                with pytest.raises(PeerError, match="of this study"):
                    birch.request(ASH.public, PIECE, other, **limits)
            assert birch.public not in ash.connected()


def coordinator_pieces(study: Study) -> list[int]:
    """Counts the pieces that the coordinator's store gives from now on."""
    count, before = [0], study.blobs.piece

    def piece(name: str, offset: int, length: int) -> tuple[int, bytes]:
        count[0] += length > 0
        return before(name, offset, length)

    study.blobs.piece = piece  # type: ignore[method-assign]  # a counter around the store's own
    return count
