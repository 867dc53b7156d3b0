"""The documents of fetching a blob in pieces from several peers. Pure.

A blob's name proves the whole, not its parts: a piece from a stranger could only be judged when all are there. So the
coordinator names the SHA-256 of each piece, and every piece is checked when it comes. If the coordinator's list is
false, the whole does not hash to its name, and nothing of it is believed.

Which pieces a party holds is a whole number, bit ``i`` for piece ``i``, written in hexadecimal.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from federation.errors import PeerError
from federation.network.blobs import PIECE_BYTES
from federation.rules.wire import Sha256Hex, Wire

SOURCES: Final = "/accord/blob-sources/1"
"""Asked of the coordinator: how is this blob cut, and who has what of it?"""
PIECE: Final = "/accord/blob-piece/1"
"""Asked of a peer: one piece."""
PIECES_MAX: Final = 4096
"""Of 1 MiB: four GiB."""
ADDRESSES_MAX: Final = 4
LEADS_MAX: Final = 8
SOURCES_BYTES_MAX: Final = 8 * 1024
SOURCES_REPLY_BYTES_MAX: Final = 384 * 1024
PIECE_REQUEST_BYTES_MAX: Final = 1024
_HELD_BYTES: Final = 2
PIECE_REPLY_BYTES_MAX: Final = _HELD_BYTES + PIECES_MAX // 8 + PIECE_BYTES

Study = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Held = Annotated[str, StringConstraints(pattern=rf"^(0|[1-9a-f][0-9a-f]{{0,{PIECES_MAX // 4 - 1}}})$")]
Address = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9./:-]{1,400}$")]
Number = Annotated[int, Field(ge=0, lt=PIECES_MAX)]


class SourcesRequest(Wire):
    """A node seeks ``name``, of which it has ``held``.

    Others find it at ``addresses`` (none: it passes nothing on). ``cut`` asks for the list of pieces as well.
    """

    version: Literal[1] = 1
    study: Study
    name: Sha256Hex
    held: Held
    addresses: Annotated[tuple[Address, ...], Field(max_length=ADDRESSES_MAX)] = ()
    cut: bool = False


class Lead(Wire):
    """Who has pieces that the asking node lacks, as far as the coordinator knows."""

    address: Address
    held: Held


class SourcesReply(Wire):
    """The blob's ``size`` and, where asked for, the SHA-256 of each piece.

    ``take`` says which pieces to take from the coordinator itself now, ``leads`` whom to ask for others.
    """

    version: Literal[1] = 1
    size: Annotated[int, Field(ge=0, le=PIECES_MAX * PIECE_BYTES)]
    pieces: Annotated[tuple[Sha256Hex, ...], Field(max_length=PIECES_MAX)] | None = None
    take: Annotated[tuple[Number, ...], Field(max_length=PIECES_MAX)] = ()
    leads: Annotated[tuple[Lead, ...], Field(max_length=LEADS_MAX)] = ()


class PieceRequest(Wire):
    """One piece, by its number."""

    version: Literal[1] = 1
    study: Study
    name: Sha256Hex
    number: Number


def piece_count(size: int) -> int:
    """How many pieces a blob of ``size`` bytes has."""
    return -(-size // PIECE_BYTES)


def piece_length(size: int, number: int) -> int:
    """How long piece ``number`` of a blob of ``size`` bytes is."""
    return max(0, min(PIECE_BYTES, size - number * PIECE_BYTES))


def all_of(count: int) -> int:
    """Holding every one of ``count`` pieces."""
    return (1 << count) - 1


def numbers(held: int) -> list[int]:
    """The numbers of the pieces that are held, ascending."""
    return [number for number in range(held.bit_length()) if held >> number & 1]


def piece_answer(held: int, piece: bytes) -> bytes:
    """What a peer answers: two bytes of length, what it holds, and the piece (nothing: it does not have it yet)."""
    bits = held.to_bytes(-(-held.bit_length() // 8), "big")
    return len(bits).to_bytes(_HELD_BYTES, "big") + bits + piece


def open_piece(answer: bytes, *, count: int) -> tuple[int, bytes]:
    """(what the peer holds of a blob of ``count`` pieces, the piece or nothing).

    Raises:
        PeerError: the answer is not of this form, or claims pieces that there are not.
    """
    length = int.from_bytes(answer[:_HELD_BYTES], "big")
    bits = answer[_HELD_BYTES : _HELD_BYTES + length]
    held = int.from_bytes(bits, "big")
    if len(answer) < _HELD_BYTES or len(bits) != length or length > PIECES_MAX // 8 or held.bit_length() > count:
        raise PeerError("A piece is refused: its answer is malformed.", remedy="Both sides need the same version.")
    return held, answer[_HELD_BYTES + length :]
