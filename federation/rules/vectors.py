"""The byte form that a plan gives its vectors: models and updates alike, one form for each plan.

``aggregation.encoding`` says which: nothing means ``AFP1`` (``fixedpoint``: 8 bytes for each integer), ``fewest-bytes``
means ``AFP2`` (``byte_planes``: as many as the largest integer of the vector needs). The other form is refused, so that
within a study one vector has one hash.
"""

from decimal import Decimal
from typing import Literal, TypeAlias

from federation.rules.byte_planes import WIDTH_MAX, pack_planes, planes_size, unpack_planes, width_within
from federation.rules.fixedpoint import Integers, pack, packed_size, unpack

Encoding: TypeAlias = Literal["fewest-bytes"] | None


def pack_vector(values: Integers, encoding: Encoding = None) -> bytes:
    """The byte form of a vector (int64 ``[P]``).

    Raises:
        OperatorError: it is not one-dimensional int64, or a value is out of range.
    """
    return pack(values) if encoding is None else pack_planes(values)


def unpack_vector(data: bytes, encoding: Encoding = None, *, length: int) -> Integers:
    """Read a vector of ``length`` integers from an untrusted source: int64 ``[length]``, writable.

    Raises:
        PeerError: another form, another length, or an integer out of range.
    """
    return unpack(data, length=length) if encoding is None else unpack_planes(data, length=length)


def vector_bytes_max(length: int, encoding: Encoding = None) -> int:
    """How many bytes a vector of ``length`` integers has at most: the bound to set before it is received."""
    return packed_size(length) if encoding is None else planes_size(length, WIDTH_MAX)


def update_sizes(length: int, norm_bound: Decimal, encoding: Encoding = None) -> frozenset[int]:
    """Every number of bytes that an update within ``norm_bound`` (L2, in the model's units) can have."""
    if encoding is None:
        return frozenset((packed_size(length),))
    return frozenset(planes_size(length, width) for width in range(1, width_within(norm_bound) + 1))
