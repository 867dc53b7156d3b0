"""Real vectors as integers on the lattice 2^-24, so that sums are exact and independent of order and machine.

Floating-point addition is not associative: two honest peers that add the same updates in another order would publish
different models. Integer addition is, so every parameter and every update travels as an ``int64`` count of 2^-24 steps.
What is here: conversion and the byte form of one vector. What to do with such vectors is in ``aggregation``.
"""

import struct
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from federation.errors import OperatorError, PeerError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

FRACTION_BITS: Final = 24
SCALE: Final = 1 << FRACTION_BITS
MAGNITUDE_BITS: Final = 38
INTEGER_LIMIT: Final = 1 << (MAGNITUDE_BITS + FRACTION_BITS)
"""Every lattice integer lies strictly between -2^62 and 2^62: two of them add up without overflow."""

_MAGIC: Final = b"AFP1"
_HEADER: Final = struct.Struct("<4sQ")
_ITEM: Final = np.dtype("<i8")


def to_fixed(values: Floats) -> Integers:
    """Round a vector to the lattice, ties to even.

    Args:
        values: float64, any shape.

    Returns:
        int64 of the same shape: ``values * 2**24``, rounded.

    Raises:
        OperatorError: a value is not finite, or its magnitude is 2^38 or more.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)) or np.any(np.abs(values) >= 2.0**MAGNITUDE_BITS):
        raise OperatorError(
            "A model or an update holds a number that is not finite or is beyond 2^38: training has diverged.",
            remedy="Lower training.learning_rate or raise training.l2 in the study plan.",
        )
    # Multiplying by a power of two is exact, and rint rounds half to even: the only rounding is the intended one.
    return np.rint(values * SCALE).astype(np.int64)


def from_fixed(values: Integers) -> Floats:
    """The real numbers that lattice integers stand for: float64, same shape (exact up to 2^53 steps)."""
    return np.asarray(values, dtype=np.int64).astype(np.float64) / SCALE


def in_range(values: Integers) -> bool:
    """Whether every integer is strictly between -2^62 and 2^62."""
    return bool(values.min(initial=0) > -INTEGER_LIMIT and values.max(initial=0) < INTEGER_LIMIT)


def pack(values: Integers) -> bytes:
    """The one byte form of a vector: ``AFP1``, the count as uint64, then each integer as int64, all little endian.

    Raises:
        OperatorError: the vector is not one-dimensional int64, or a value is out of range.
    """
    if values.ndim != 1 or values.dtype != np.int64 or not in_range(values):
        raise OperatorError(
            "Only a vector of int64 lattice integers can be packed.",
            remedy="Convert it with `to_fixed` first.",
        )
    return _HEADER.pack(_MAGIC, values.size) + values.astype(_ITEM).tobytes()


def packed_size(length: int) -> int:
    """How many bytes a packed vector of ``length`` integers has: the bound to set before it is received."""
    return _HEADER.size + _ITEM.itemsize * length


def unpack(data: bytes, *, length: int) -> Integers:
    """Read a packed vector from an untrusted source.

    Args:
        data: the bytes as received.
        length: how many integers the plan's model has.

    Returns:
        int64 [length], writable, in the machine's byte order.

    Raises:
        PeerError: another length, another version, or an integer out of range.
    """
    if len(data) != packed_size(length):
        raise _refused(f"it has {len(data)} bytes where {packed_size(length)} are expected for {length} parameters")
    magic, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise _refused("it does not begin with the format's name AFP1")
    if count != length:
        raise _refused(f"it announces {count} integers where the plan's model has {length}")
    values = np.frombuffer(data, dtype=_ITEM, offset=_HEADER.size).astype(np.int64)
    if not in_range(values):
        raise _refused("an integer is beyond 2^62")
    return values


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The parameter vector is refused: {why}.",
        remedy="Both sides need the same study plan and the same version of Accord; ask the sender to send it again.",
    )
