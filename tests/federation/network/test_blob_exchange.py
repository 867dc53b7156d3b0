"""Fetching blobs (``federation.network.blobs``)."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError, UnavailableError
from federation.network import blobs
from federation.network.blobs import BLOB, PIECE_BYTES, fetch_blob, serve_blobs
from federation.network.memory import Delivery, Fate, MemoryExchange, MemoryNetwork
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.keys import PrivateKey, PublicKey
from federation.storage.blobs import FolderBlobStore, MemoryBlobStore

HOLDER = PrivateKey(b"h" * 32)
SEEKER = PrivateKey(b"s" * 32)
MAX = 8 << 20


def parties(network: MemoryNetwork) -> tuple[MemoryExchange, MemoryExchange, MemoryBlobStore]:
    holder, seeker = network.exchange(HOLDER), network.exchange(SEEKER)
    store = MemoryBlobStore()
    serve_blobs(holder, store)
    seeker.connect(holder.addresses()[0], timeout_s=1)
    return holder, seeker, store


def fetch(seeker: MemoryExchange, name: str, store: MemoryBlobStore, max_bytes: int = MAX) -> bytes:
    return fetch_blob(seeker, HOLDER.public, name, store, timeout_s=10, max_bytes=max_bytes)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line counts as slow, whatever the machine does: all pieces have the same length."""
    monkeypatch.setattr(blobs, "_QUICK_S", 0.0)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_blob_arrives_and_is_stored(size: int) -> None:
    _, seeker, theirs = parties(MemoryNetwork())
    ours, data = MemoryBlobStore(), os.urandom(size)
    name = theirs.put(data)
    assert fetch(seeker, name, ours) == data
    assert ours.get(name) == data


def test_pieces_grow_while_the_line_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_QUICK_S", 600.0)
    asked: list[tuple[int, int]] = []

    def courier(delivery: Delivery) -> Fate:
        request = parse(delivery.payload)
        asked.append((request["offset"], request["length"]))
        return Fate.DELIVERED

    _, seeker, theirs = parties(MemoryNetwork(courier))
    name = theirs.put(bytes(12 * PIECE_BYTES))
    fetch(seeker, name, MemoryBlobStore(), max_bytes=12 * PIECE_BYTES)
    assert [(at // PIECE_BYTES, length // PIECE_BYTES) for at, length in asked] == [
        (0, 1),
        (1, 2),
        (3, 4),
        (7, 4),
        (11, 4),
    ]


def test_what_is_stored_is_not_fetched() -> None:
    _, seeker, _ = parties(MemoryNetwork(lambda _delivery: Fate.REQUEST_LOST))
    ours = MemoryBlobStore()
    assert fetch(seeker, ours.put(b"here"), ours) == b"here"


def test_a_broken_transfer_goes_on_where_it_stopped() -> None:
    offsets: list[int] = []
    broken = True

    def courier(delivery: Delivery) -> Fate:
        offset = parse(delivery.payload)["offset"]
        offsets.append(offset)
        return Fate.REQUEST_LOST if broken and offset >= 2 * PIECE_BYTES else Fate.DELIVERED

    _, seeker, theirs = parties(MemoryNetwork(courier))
    ours, data = MemoryBlobStore(), os.urandom(4 * PIECE_BYTES)
    name = theirs.put(data)
    with pytest.raises(UnavailableError):
        fetch(seeker, name, ours)
    assert not ours.has(name)
    broken = False
    offsets.clear()
    assert fetch(seeker, name, ours) == data
    assert offsets == [2 * PIECE_BYTES, 3 * PIECE_BYTES]


def test_what_arrived_survives_the_process(tmp_path: Path) -> None:
    asked: list[int] = []

    def courier(delivery: Delivery) -> Fate:
        asked.append(parse(delivery.payload)["offset"])
        return Fate.ANSWER_LOST if len(asked) == 3 else Fate.DELIVERED

    _, seeker, theirs = parties(MemoryNetwork(courier))
    data = os.urandom(4 * PIECE_BYTES)
    name = theirs.put(data)
    with pytest.raises(UnavailableError):
        fetch(seeker, name, FolderBlobStore(tmp_path))
    after = FolderBlobStore(tmp_path)
    assert (after.begun(name), after.names()) == (2 * PIECE_BYTES, [])
    assert fetch(seeker, name, after) == data
    assert asked == [part * PIECE_BYTES for part in (0, 1, 2, 2, 3)]
    assert (after.begun(name), FolderBlobStore(tmp_path).get(name)) == (0, data)


def test_a_liars_beginning_does_not_make_a_liar_of_an_honest_peer() -> None:
    _, seeker, theirs = parties(MemoryNetwork())
    ours, data = MemoryBlobStore(), os.urandom(3 * PIECE_BYTES)
    name = theirs.put(data)
    ours.extend(name, 0, bytes(PIECE_BYTES))
    assert fetch(seeker, name, ours) == data


def test_the_beginning_of_a_piece_that_broke_off_is_not_fetched_again() -> None:
    asked: list[int] = []

    def courier(delivery: Delivery) -> Fate:
        asked.append(parse(delivery.payload)["offset"])
        return Fate.ANSWER_BROKEN if len(asked) == 2 else Fate.DELIVERED

    _, seeker, theirs = parties(MemoryNetwork(courier))
    ours, data = MemoryBlobStore(), os.urandom(3 * PIECE_BYTES)
    name = theirs.put(data)
    with pytest.raises(UnavailableError):
        fetch(seeker, name, ours)
    half = ours.begun(name)
    assert PIECE_BYTES < half < 2 * PIECE_BYTES
    assert fetch(seeker, name, ours) == data
    assert asked == [0, PIECE_BYTES, half, half + PIECE_BYTES]


def test_a_blob_that_the_peer_does_not_have_is_unavailable() -> None:
    _, seeker, _ = parties(MemoryNetwork())
    with pytest.raises(UnavailableError):
        fetch(seeker, "0" * 64, MemoryBlobStore())


def test_a_lie_is_found_and_nothing_of_it_is_kept() -> None:
    holder, seeker, _ = parties(MemoryNetwork())
    name = hashlib.sha256(b"wanted").hexdigest()
    ours = MemoryBlobStore()
    holder.serve(BLOB, lambda _peer, _data: (6).to_bytes(8, "big") + b"forged", max_bytes=256)
    with pytest.raises(PeerError, match="another hash"):
        fetch(seeker, name, ours)
    assert ours.names() == []
    holder.serve(BLOB, lambda _peer, _data: (6).to_bytes(8, "big") + b"wanted", max_bytes=256)
    assert fetch(seeker, name, ours) == b"wanted"


def test_a_blob_above_the_limit_is_refused_before_it_is_fetched() -> None:
    _, seeker, theirs = parties(MemoryNetwork())
    with pytest.raises(PeerError, match="at most 100"):
        fetch(seeker, theirs.put(bytes(101)), MemoryBlobStore(), max_bytes=100)


@pytest.mark.parametrize("name", ["", "x" * 64, "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_names_are_asked_for(name: str) -> None:
    _, seeker, _ = parties(MemoryNetwork())
    with pytest.raises(PeerError, match="not a blob's name"):
        fetch(seeker, name, MemoryBlobStore())


@given(answer=st.binary(max_size=64))
def test_any_answer_ends_in_the_blob_or_in_a_refusal(answer: bytes) -> None:
    holder, seeker, _ = parties(MemoryNetwork())
    holder.serve(BLOB, lambda _peer, _data: answer, max_bytes=256)
    with pytest.raises(PeerError):
        fetch(seeker, "0" * 64, MemoryBlobStore())


@pytest.mark.parametrize(
    "request_document",
    [
        {},
        {"name": "0" * 64, "offset": 0},
        {"name": "0" * 64, "offset": -1, "length": 1},
        {"name": "0" * 64, "offset": 0, "length": -1},
        {"name": "0" * 64, "offset": True, "length": 1},
        {"name": 1, "offset": 0, "length": 1},
    ],
)
def test_a_malformed_request_is_refused(request_document: dict[str, object]) -> None:
    _, seeker, _ = parties(MemoryNetwork())
    with pytest.raises(PeerError):
        seeker.request(HOLDER.public, BLOB, canonical_bytes(request_document), timeout_s=1, max_bytes=100)


def test_strangers_get_no_blobs() -> None:
    network = MemoryNetwork()
    allowed: set[PublicKey] = set()
    holder = network.exchange(HOLDER, allowed=allowed.__contains__)
    seeker = network.exchange(SEEKER)
    theirs = MemoryBlobStore()
    serve_blobs(holder, theirs)
    seeker.connect(holder.addresses()[0], timeout_s=1)
    with pytest.raises(UnavailableError):
        fetch(seeker, theirs.put(b"inner"), MemoryBlobStore())
