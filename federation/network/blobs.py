"""Blobs by name: fetched from a peer in pieces, resumed after a break, believed only when the hash is right.

A blob's name is the SHA-256 of its bytes, so it does not matter from whom it comes. The protocol is one request per
piece, ``{"name", "offset"}`` in canonical JSON; the answer is eight bytes with the blob's size, then at most 1 MiB from
the offset on. What was fetched before a break is kept in this process, and the next attempt goes on behind it.
"""

import hashlib
import threading
import time
from typing import Final

from federation.errors import PeerError, UnavailableError
from federation.network.exchange import Exchange
from federation.rules.canonical import canonical_bytes, parse_canonical
from federation.rules.keys import PublicKey
from federation.storage.blobs import BlobStore

BLOB: Final = "/accord/blob/1"
PIECE_BYTES: Final = 1 << 20
PARTIAL_BYTES_MAX: Final = 256 << 20
"""How much of unfinished blobs a process keeps, in all."""
_REQUEST_BYTES_MAX: Final = 256
_SIZE_BYTES: Final = 8
_NAME_DIGITS: Final = 64

_partial: dict[tuple[PublicKey, str], bytearray] = {}
_partial_lock = threading.Lock()


def serve_blobs(exchange: Exchange, store: BlobStore) -> None:
    """Give ``store``'s blobs to every allowed peer that knows their names."""

    def handle(_peer: PublicKey, payload: bytes) -> bytes:
        document = parse_canonical(payload, max_bytes=_REQUEST_BYTES_MAX)
        if not isinstance(document, dict) or set(document) != {"name", "offset"}:
            raise _refused("the request does not have exactly the fields name and offset")
        name, offset = document["name"], document["offset"]
        if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
            raise _refused("the offset is not a whole number")
        data = store.get(_checked(name))
        return len(data).to_bytes(_SIZE_BYTES, "big") + data[offset : offset + PIECE_BYTES]

    exchange.serve(BLOB, handle, max_bytes=_REQUEST_BYTES_MAX)


def fetch_blob(
    exchange: Exchange, peer: PublicKey, name: str, store: BlobStore, *, timeout_s: float, max_bytes: int
) -> bytes:
    """The blob ``name``: from ``store`` if it is there, else from ``peer`` into ``store``.

    Args:
        exchange: this party's end of the network.
        peer: whom to ask.
        name: SHA-256 of the bytes, 64 hexadecimal digits.
        store: where the verified blob is put.
        timeout_s: the time for the whole blob.
        max_bytes: the largest blob that is accepted.

    Raises:
        UnavailableError: the peer does not have it, or does not answer in time; what came is kept for the next attempt.
        PeerError: what came does not hash to ``name``, or breaks the protocol; nothing of it is kept.
    """
    if store.has(_checked(name)):
        return store.get(name)
    with _partial_lock:
        data = _partial.pop((peer, name), bytearray())
    deadline = time.monotonic() + timeout_s
    try:
        size = None
        while size is None or len(data) < size:
            size = _next_piece(exchange, peer, name, data, size, timeout_s=deadline - time.monotonic(), bound=max_bytes)
    except UnavailableError:
        _keep((peer, name), data)
        raise
    blob = bytes(data)
    if hashlib.sha256(blob).hexdigest() != name:
        raise _refused(f"what {peer.did} sent as {name} has another hash")
    store.put(blob)
    return blob


def _next_piece(
    exchange: Exchange,
    peer: PublicKey,
    name: str,
    data: bytearray,
    size: int | None,
    *,
    timeout_s: float,
    bound: int,
) -> int:
    """Fetch what follows ``data`` and add it; the blob's size."""
    if timeout_s <= 0:
        raise UnavailableError(
            f"The blob {name} did not arrive in time.", remedy="Try again; what has arrived is kept."
        )
    request = canonical_bytes({"name": name, "offset": len(data)})
    answer = exchange.request(peer, BLOB, request, timeout_s=timeout_s, max_bytes=_SIZE_BYTES + PIECE_BYTES)
    announced, piece = int.from_bytes(answer[:_SIZE_BYTES], "big"), answer[_SIZE_BYTES:]
    if len(answer) < _SIZE_BYTES or announced > bound or (size is not None and announced != size):
        raise _refused(f"{peer.did} announces {announced} bytes for {name}; at most {bound} are allowed")
    expected = min(PIECE_BYTES, announced - len(data))
    if expected < 0 or len(piece) != expected:
        raise _refused(f"{peer.did} sent {len(piece)} bytes of {name} where {expected} were due")
    data += piece
    return announced


def _keep(key: tuple[PublicKey, str], data: bytearray) -> None:
    with _partial_lock:
        if data and sum(len(each) for each in _partial.values()) + len(data) <= PARTIAL_BYTES_MAX:
            _partial[key] = data


def _checked(name: object) -> str:
    if not isinstance(name, str) or len(name) != _NAME_DIGITS or not set(name) <= set("0123456789abcdef"):
        raise _refused(f"{str(name)[:80]!r} is not a blob's name")
    return name


def _refused(why: str) -> PeerError:
    return PeerError(f"A blob is refused: {why}.", remedy="Fetch it from another party, and tell this one's operator.")
