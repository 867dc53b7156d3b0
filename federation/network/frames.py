"""Framing on a byte stream: eight bytes of length, big endian, then the payload. Pure; no I/O.

Why our own: py-libp2p's ``read_exactly`` gives up after 100 reads, and a length from a stranger must be judged before
anything is allocated for it. Payloads are written in pieces of 65,507 bytes: with Yamux's 12-byte header and Noise's
tag, such a piece fills exactly one Noise message, where 65,536 bytes would split in two. A message that a cut leaves
incomplete is lost as a whole, so that a slow line gets shorter ones.
"""

from collections.abc import Callable, Iterator
from typing import Final

from federation.errors import PeerError, UnavailableError

HEADER_BYTES: Final = 8
PIECE_BYTES: Final = 65_507
SHORT_PIECE_BYTES: Final = 8_163
_READ_BYTES_MAX: Final = 1 << 20


def pieces(payload: bytes, bytes_max: Callable[[], int] = lambda: PIECE_BYTES) -> Iterator[bytes]:
    """The frame around ``payload``, in pieces; the first carries the header.

    Args:
        payload: what the frame holds.
        bytes_max: asked before each piece how long it may be, ``HEADER_BYTES`` to ``PIECE_BYTES``.
    """
    view = memoryview(payload)
    start = bytes_max() - HEADER_BYTES
    yield len(payload).to_bytes(HEADER_BYTES, "big") + bytes(view[:start])
    while start < len(view):
        end = start + bytes_max()
        yield bytes(view[start:end])
        start = end


class FrameReader:
    """Puts one frame together from whatever pieces arrive.

    Feed it at most :attr:`wanted` bytes at a time until :attr:`wanted` is 0; then :meth:`payload` returns the payload.
    Memory grows with what has arrived, never with what was announced.

    Args:
        max_bytes: the largest payload that is accepted.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes_max = max_bytes
        self._header = bytearray()
        self._body: list[bytes] = []
        self._taken = 0
        self._length: int | None = None

    @property
    def wanted(self) -> int:
        """How many bytes to read next, at most; 0 when the frame is complete."""
        if self._length is None:
            return HEADER_BYTES - len(self._header)
        return min(self._length - self._taken, _READ_BYTES_MAX)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            UnavailableError: no bytes: the stream ended inside the frame.
            PeerError: more bytes than were wanted, or a frame above the bound.
        """
        if not data:
            raise UnavailableError(
                f"A message broke off after {len(self._header) + self._taken} bytes.", remedy="Try again."
            )
        if len(data) > self.wanted:
            raise _refused("more bytes came than its length announced")
        if self._length is not None:
            self._body.append(data)
            self._taken += len(data)
            return
        self._header += data
        if len(self._header) == HEADER_BYTES:
            length = int.from_bytes(self._header, "big")
            if length > self.bytes_max:
                raise _refused(f"it announces {length} bytes, more than the {self.bytes_max} allowed")
            self._length = length

    @property
    def begun(self) -> bytes:
        """What has arrived of the payload."""
        return b"".join(self._body)

    def payload(self) -> bytes:
        """The payload of a complete frame.

        Raises:
            PeerError: the frame is not complete.
        """
        if self.wanted:
            raise _refused("it is not complete")
        return b"".join(self._body)


def _refused(why: str) -> PeerError:
    return PeerError(f"A message is refused: {why}.", remedy="Both sides need the same version of Accord.")
