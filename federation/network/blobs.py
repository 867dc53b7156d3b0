"""Blobs by name: fetched from a peer in pieces, resumed after any break, believed only when the hash is right.

A blob's name is the SHA-256 of its bytes, so it does not matter from whom it comes. The protocol is one request per
piece, ``{"name", "offset", "length"}`` in canonical JSON; the answer is eight bytes with the blob's size, then at most
``length`` bytes from the offset on. What has arrived lies in the store, and the next attempt goes on behind it, also
after this process was killed: even the beginning of a piece that broke off.
"""

import threading
import time
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from federation.errors import PeerError, UnavailableError
from federation.network.exchange import Exchange
from federation.rules.canonical import canonical_bytes, parse_canonical
from federation.rules.keys import PublicKey
from federation.storage.blobs import BlobStore

BLOB: Final = "/accord/blob/2"
PIECE_BYTES: Final = 1 << 20
"""The first piece; those that follow a quick one are twice as long each, up to ``PIECE_BYTES_MAX``."""
PIECE_BYTES_MAX: Final = 4 << 20
_QUICK_S: Final = 0.25
"""A piece that takes no longer is followed by a longer one: every request costs four crossings of the line."""
_REQUEST_BYTES_MAX: Final = 256
_SIZE_BYTES: Final = 8
_NAME_DIGITS: Final = 64

_fetching: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
"""One at a time fetches a blob; a lock is there as long as somebody holds it."""


def serve_blobs(exchange: Exchange, store: BlobStore, *, protocol: str = BLOB, only: PublicKey | None = None) -> None:
    """Give ``store``'s blobs to every allowed peer (or to one ``only``) that knows their names."""

    def handle(peer: PublicKey, payload: bytes) -> bytes:
        if only is not None and peer != only:
            raise _refused("these blobs are for another party")
        document = parse_canonical(payload, max_bytes=_REQUEST_BYTES_MAX)
        if not isinstance(document, dict) or set(document) != {"name", "offset", "length"}:
            raise _refused("the request does not have exactly the fields name, offset and length")
        offset, length = _whole(document["offset"]), _whole(document["length"])
        size, piece = store.piece(_checked(document["name"]), offset, min(length, PIECE_BYTES_MAX))
        return size.to_bytes(_SIZE_BYTES, "big") + piece

    exchange.serve(protocol, handle, max_bytes=_REQUEST_BYTES_MAX)


def fetch_blob(
    exchange: Exchange,
    peer: PublicKey,
    name: str,
    store: BlobStore,
    *,
    timeout_s: float,
    max_bytes: int,
    protocol: str = BLOB,
) -> bytes:
    """The blob ``name``: from ``store`` if it is there, else from ``peer`` into ``store``.

    Args:
        exchange: this party's end of the network.
        peer: whom to ask.
        name: SHA-256 of the bytes, 64 hexadecimal digits.
        store: where the verified blob is put, and what has arrived of it until then.
        timeout_s: the time for the whole blob.
        max_bytes: the largest blob that is accepted.
        protocol: which of the peer's stores is asked.

    Raises:
        UnavailableError: the peer does not have it, or does not answer in time; what came is kept for the next attempt.
        PeerError: what came does not hash to ``name``, or breaks the protocol; nothing of it is kept.
    """
    bring_blob(exchange, peer, name, store, timeout_s=timeout_s, max_bytes=max_bytes, protocol=protocol)
    return store.get(name)


def bring_blob(
    exchange: Exchange,
    peer: PublicKey,
    name: str,
    store: BlobStore,
    *,
    timeout_s: float,
    max_bytes: int,
    protocol: str = BLOB,
) -> None:
    """As :func:`fetch_blob`, for a caller that does not want the bytes now: they are not read and hashed once more."""
    deadline = time.monotonic() + timeout_s
    alone = _fetching.setdefault(_checked(name), threading.Lock())
    if not alone.acquire(timeout=timeout_s):
        raise _late(name)
    try:
        # What an earlier attempt left may be another peer's lie: only what came in one go is held against this one.
        resumed = store.begun(name) > 0
        while not store.has(name):
            _complete(exchange, peer, name, store, deadline=deadline, max_bytes=max_bytes, protocol=protocol)
            if not store.finish(name) and not resumed:
                raise _refused(f"what {peer.did} sent as {name} has another hash")
            resumed = False
    except PeerError:
        store.forget(name)
        raise
    finally:
        alone.release()


def _complete(
    exchange: Exchange,
    peer: PublicKey,
    name: str,
    store: BlobStore,
    *,
    deadline: float,
    max_bytes: int,
    protocol: str,
) -> None:
    """Fetch what is missing of an unfinished blob, piece by piece."""
    size: int | None = None
    length = PIECE_BYTES

    def take(answer: bytes, *, whole: bool) -> None:
        """Check and keep what a request brought (the beginning of an answer: what there is of it)."""
        nonlocal size
        if not whole and len(answer) <= _SIZE_BYTES:
            return
        here, announced, piece = store.begun(name), int.from_bytes(answer[:_SIZE_BYTES], "big"), answer[_SIZE_BYTES:]
        if len(answer) < _SIZE_BYTES or announced > max_bytes or (size is not None and announced != size):
            raise _refused(f"{peer.did} announces {announced} bytes for {name}; at most {max_bytes} are allowed")
        expected = min(length, announced - here)
        if expected < len(piece) or (whole and not piece and expected):
            raise _refused(f"{peer.did} sent {len(piece)} bytes of {name} where {expected} were due")
        store.extend(name, here, piece)
        size = announced

    while size is None or store.begun(name) < size:
        patience_s = deadline - time.monotonic()
        if patience_s <= 0:
            raise _late(name)
        request = canonical_bytes({"name": name, "offset": store.begun(name), "length": length})
        began = time.monotonic()
        answer = exchange.request(
            peer,
            protocol,
            request,
            timeout_s=patience_s,
            max_bytes=_SIZE_BYTES + length,
            on_break=partial(take, whole=False),
        )
        take(answer, whole=True)
        if time.monotonic() - began < _QUICK_S:
            length = min(2 * length, PIECE_BYTES_MAX)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _refused("the offset or the length is not a whole number")
    return value


def _checked(name: object) -> str:
    if not isinstance(name, str) or len(name) != _NAME_DIGITS or not set(name) <= set("0123456789abcdef"):
        raise _refused(f"{str(name)[:80]!r} is not a blob's name")
    return name


def _late(name: str) -> UnavailableError:
    return UnavailableError(f"The blob {name} did not arrive in time.", remedy="Try again; what has arrived is kept.")


def _refused(why: str) -> PeerError:
    return PeerError(f"A blob is refused: {why}.", remedy="Fetch it from another party, and tell this one's operator.")
