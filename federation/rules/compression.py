"""Shorter updates at the price of some of their detail: a plan's choice, after the noise and before the signature.

Two ways. ``int8``: every number as a multiple of one power of two, in one byte. ``top-k``: the largest numbers alone.
Both work on what may leave already, so that no privacy is spent. What is left out is not lost: the site adds it to its
next update (error feedback; Seide et al. 2014, section 3; Karimireddy et al. 2019, algorithm 1).

What arrives is an ordinary lattice vector: bounds, aggregation and values know nothing of the way it travelled. Byte
forms (little endian; P the model's parameters):

- ``AFQ1``, the count P as uint64, a shift s as one byte, then P bytes q, each for the integer ``q * 2**s``; s is the
  least that holds the vector;
- ``AFS1``, P as uint64, k as uint64, a width w as one byte, k positions as uint32, rising, then w planes of one byte
  for each of the k integers there (as in ``byte_planes``); w is the least that holds them.
"""

import struct
from decimal import ROUND_CEILING, Decimal
from typing import Final

import numpy as np

from federation.errors import PeerError
from federation.rules.byte_planes import WIDTH_MAX, join_planes, split_planes, width_of, width_within
from federation.rules.fixedpoint import Integers, in_range

_QUANTISED: Final = struct.Struct("<4sQB")
_SPARSE: Final = struct.Struct("<4sQQB")
_QUANTISED_NAME: Final = b"AFQ1"
_SPARSE_NAME: Final = b"AFS1"
_POSITION: Final = np.dtype("<u4")
_BYTE_LOW, _BYTE_HIGH = -128, 127
_SHIFT_MAX: Final = 55
"""62 bits less the seven of a byte: no lattice integer needs more."""


def kept(length: int, keep: Decimal) -> int:
    """How many of ``length`` numbers ``top-k`` sends, with ``keep`` the plan's share of them: at least one."""
    return max(1, int((keep * length).to_integral_value(ROUND_CEILING)))


def quantised(values: Integers) -> Integers:
    """The nearest vector of which :func:`pack_quantised` loses nothing: int64 ``[P]``, ties to even.

    No number moves by more than ``2**(s - 1)``, with s the least shift with which the vector fits.
    """
    smallest, largest = int(values.min(initial=0)), int(values.max(initial=0))
    shift = 0
    while not _fits(smallest, shift) or not _fits(largest, shift):
        shift += 1
    return _rounded(values, shift) << shift


def sparse(values: Integers, count: int) -> Integers:
    """The vector with all but its ``count`` largest magnitudes set to 0 (of equals the first): int64 ``[P]``."""
    order = np.argsort(-np.abs(values), kind="stable")
    result = np.zeros_like(values)
    result[order[:count]] = values[order[:count]]
    return result


def pack_quantised(values: Integers) -> bytes:
    """The ``AFQ1`` form of what :func:`quantised` made.

    Raises:
        ValueError: the vector loses something (a mistake of the caller).
    """
    shift = _shift_of(values)
    if shift is None:
        raise ValueError("the vector was not quantised")
    return _QUANTISED.pack(_QUANTISED_NAME, values.size, shift) + (values >> shift).astype(np.int8).tobytes()


def quantised_size(length: int) -> int:
    """How many bytes an ``AFQ1`` vector has."""
    return _QUANTISED.size + length


def unpack_quantised(data: bytes, *, length: int) -> Integers:
    """Read an ``AFQ1`` vector from an untrusted source: int64 ``[length]``, writable.

    Raises:
        PeerError: another length, another form, or a shift that is not the least.
    """
    if len(data) != quantised_size(length):
        raise _refused(f"it has {len(data)} bytes where {quantised_size(length)} are expected")
    name, count, shift = _QUANTISED.unpack_from(data)
    if name != _QUANTISED_NAME or count != length or shift > _SHIFT_MAX:
        raise _refused("its header is not that of this plan's updates")
    bytes_ = np.frombuffer(data, dtype=np.int8, offset=_QUANTISED.size)
    values: Integers = bytes_.astype(np.int64) << shift
    if _shift_of(values) != shift:
        raise _refused(f"a shift of {shift} is more than it needs")
    return values


def pack_sparse(values: Integers, count: int) -> bytes:
    """The ``AFS1`` form of what :func:`sparse` made with the same ``count``.

    Where fewer numbers than ``count`` are not 0, the first zeros are sent as well: every update has as many.

    Raises:
        ValueError: more numbers are not 0 (a mistake of the caller).
    """
    used = np.flatnonzero(values)
    if used.size > count:
        raise ValueError(f"{used.size} numbers are not 0, and {count} may be sent")
    places = np.sort(np.concatenate([used, np.flatnonzero(values == 0)[: count - used.size]]))
    sent = values[places]
    width = width_of(int(sent.min(initial=0)), int(sent.max(initial=0)))
    header = _SPARSE.pack(_SPARSE_NAME, values.size, count, width)
    return header + places.astype(_POSITION).tobytes() + split_planes(sent, width)


def sparse_sizes(count: int, norm_bound: Decimal) -> frozenset[int]:
    """Every number of bytes that an ``AFS1`` update within ``norm_bound`` (L2, in the model's units) can have."""
    widths = range(1, width_within(norm_bound) + 1)
    return frozenset(_SPARSE.size + count * (_POSITION.itemsize + width) for width in widths)


def unpack_sparse(data: bytes, *, length: int, count: int) -> Integers:
    """Read an ``AFS1`` vector of ``count`` numbers from an untrusted source: int64 ``[length]``, writable.

    Raises:
        PeerError: another length or form, positions that do not rise or are outside, a width that is not the least, or
            an integer out of range.
    """
    if len(data) < _SPARSE.size:
        raise _refused(f"it has {len(data)} bytes")
    name, whole, several, width = _SPARSE.unpack_from(data)
    if name != _SPARSE_NAME or whole != length or several != count or not 1 <= width <= WIDTH_MAX:
        raise _refused("its header is not that of this plan's updates")
    if len(data) != _SPARSE.size + count * (_POSITION.itemsize + width):
        raise _refused(f"it has {len(data)} bytes, which {count} integers of {width} bytes have not")
    places = np.frombuffer(data, dtype=_POSITION, offset=_SPARSE.size, count=count).astype(np.int64)
    if places[-1] >= length or np.any(np.diff(places) <= 0):
        raise _refused("its positions do not rise within the model")
    sent = join_planes(data[_SPARSE.size + count * _POSITION.itemsize :], count, width)
    if width != width_of(int(sent.min(initial=0)), int(sent.max(initial=0))) or not in_range(sent):
        raise _refused("its width is not the least, or an integer is beyond 2^62")
    values = np.zeros(length, dtype=np.int64)
    values[places] = sent
    return values


def _rounded(values: Integers, shift: int) -> Integers:
    """``values / 2**shift``, rounded to nearest, ties to even."""
    if shift == 0:
        return values
    half, low = 1 << (shift - 1), values >> shift
    rest = values - (low << shift)
    up = (rest > half) | ((rest == half) & ((low & 1) == 1))
    result: Integers = low + up.astype(np.int64)
    return result


def _fits(value: int, shift: int) -> bool:
    return _BYTE_LOW <= int(_rounded(np.array([value], dtype=np.int64), shift)[0]) <= _BYTE_HIGH


def _shift_of(values: Integers) -> int | None:
    """The least shift with which every number is a byte; None: there is none without a loss."""
    smallest, largest = int(values.min(initial=0)), int(values.max(initial=0))
    for shift in range(_SHIFT_MAX + 1):
        if smallest >> shift >= _BYTE_LOW and largest >> shift <= _BYTE_HIGH:
            lossless = bool(np.all((values & ((1 << shift) - 1)) == 0))
            return shift if lossless else None
    return None


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The update is refused: {why}.",
        remedy="Both sides need the same study plan and the same version of Accord; ask the sender to send it again.",
    )
