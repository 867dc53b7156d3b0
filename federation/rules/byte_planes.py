"""The shortest byte form of a lattice vector: as many bytes for each integer as its largest one needs.

An update bounded by the plan's norm is far from using the 64 bits of the form ``AFP1`` (``fixedpoint``): with a largest
element below 0.5 three bytes hold every integer, one byte less than a float32. ``AFP2`` leaves the others out: the
name, the count as uint64, the width w as one byte, then w planes of one byte for each integer, the lowest byte first,
in two's complement, all little endian.

One vector has one byte form: the width is the least that holds it, and another one is refused. Size and memory are
known before anything is allocated (the plan's count, w at most 8), so that nothing can swell while it is read. What
remains is nearly incompressible: the lowest bytes of an update are its noise.
"""

import struct
from decimal import Decimal
from typing import Final

import numpy as np

from federation.errors import OperatorError, PeerError
from federation.rules.fixedpoint import INTEGER_LIMIT, SCALE, Integers, in_range

_MAGIC: Final = b"AFP2"
_HEADER: Final = struct.Struct("<4sQB")
WIDTH_MAX: Final = 8
_BYTE: Final = np.dtype("u1")
_WORD: Final = np.dtype("<i8")


def width_of(smallest: int, largest: int) -> int:
    """The least number of bytes that hold both integers in two's complement."""
    return max(1, (max(largest, ~smallest).bit_length() + 8) // 8)


def width_within(bound: Decimal) -> int:
    """The width that no vector of L2 norm ``bound`` (in the model's units) exceeds."""
    largest = int(bound * SCALE)
    return min(width_of(-largest, largest), WIDTH_MAX)


def planes_size(length: int, width: int) -> int:
    """How many bytes a vector of ``length`` integers of ``width`` bytes has."""
    return _HEADER.size + length * width


def pack_planes(values: Integers) -> bytes:
    """The one ``AFP2`` form of a vector.

    Raises:
        OperatorError: the vector is not one-dimensional int64, or a value is out of range.
    """
    if values.ndim != 1 or values.dtype != np.int64 or not in_range(values):
        raise OperatorError(
            "Only a vector of int64 lattice integers can be packed.", remedy="Convert it with `to_fixed` first."
        )
    width = width_of(int(values.min(initial=0)), int(values.max(initial=0)))
    return _HEADER.pack(_MAGIC, values.size, width) + split_planes(values, width)


def split_planes(values: Integers, width: int) -> bytes:
    """The ``width`` lowest bytes of each of P integers, plane by plane: ``width * P`` bytes."""
    split = np.ascontiguousarray(values, dtype=_WORD).view(_BYTE).reshape(values.size, _WORD.itemsize)
    return np.ascontiguousarray(split[:, :width].T).tobytes()


def join_planes(data: bytes, length: int, width: int) -> Integers:
    """The integers that ``width * length`` bytes in planes stand for: int64 ``[length]``, writable."""
    planes = np.frombuffer(data, dtype=_BYTE).reshape(width, length)
    words = np.zeros((length, _WORD.itemsize), dtype=_BYTE)
    for at, plane in enumerate(planes, start=WIDTH_MAX - width):
        words[:, at] = plane
    shifted = words.reshape(-1).view(_WORD)
    shifted >>= 8 * (WIDTH_MAX - width)  # the highest byte carries the sign down
    return shifted.astype(np.int64, copy=False)


def unpack_planes(data: bytes, *, length: int) -> Integers:
    """Read an ``AFP2`` vector from an untrusted source.

    Args:
        data: the bytes as received.
        length: how many integers the plan's model has.

    Returns:
        int64 [length], writable, in the machine's byte order.

    Raises:
        PeerError: another length, another version, a width that is not the least, or an integer out of range.
    """
    if len(data) < _HEADER.size:
        raise _refused(f"it has {len(data)} bytes")
    magic, count, width = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise _refused("it does not begin with the format's name AFP2")
    if count != length:
        raise _refused(f"it announces {count} integers where the plan's model has {length}")
    if not 1 <= width <= WIDTH_MAX or len(data) != planes_size(length, width):
        raise _refused(f"it has {len(data)} bytes, which {length} integers of {width} bytes have not")
    values = join_planes(data[_HEADER.size :], length, width)
    smallest, largest = int(values.min(initial=0)), int(values.max(initial=0))
    if width != width_of(smallest, largest):
        raise _refused(f"{width} bytes for each integer are more than it needs")
    if not -INTEGER_LIMIT < smallest <= largest < INTEGER_LIMIT:
        raise _refused("an integer is beyond 2^62")
    return values


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The parameter vector is refused: {why}.",
        remedy="Both sides need the same study plan and the same version of Accord; ask the sender to send it again.",
    )
