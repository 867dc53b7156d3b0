"""The byte form that a plan gives its vectors: models and updates alike, one form for each plan.

``aggregation.encoding`` says which: nothing means ``AFP1`` (``fixedpoint``: 8 bytes for each integer), ``fewest-bytes``
means ``AFP2`` (``byte_planes``: as many as the largest integer of the vector needs). The other form is refused, so that
within a study one vector has one hash.
"""

from functools import partial
from typing import Final, Literal, TypeAlias

from federation.rules.aggregation import clip_to_norm, norm_within
from federation.rules.byte_planes import WIDTH_MAX, pack_planes, planes_size, unpack_planes, width_within
from federation.rules.compression import (
    kept,
    pack_quantised,
    pack_sparse,
    quantised,
    quantised_size,
    sparse,
    sparse_sizes,
    unpack_quantised,
    unpack_sparse,
)
from federation.rules.fixedpoint import Integers, from_fixed, pack, packed_size, to_fixed, unpack
from federation.rules.terms import Aggregation

Encoding: TypeAlias = Literal["fewest-bytes"] | None
_SHORTER: Final = 64


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


def pack_update(values: Integers, plan: Aggregation) -> bytes:
    """The byte form of an update that :func:`compressed` made under the same plan.

    Raises:
        OperatorError: it is not one-dimensional int64, or a value is out of range.
    """
    if plan.compression == "int8":
        return pack_quantised(values)
    if plan.keep is not None:
        return pack_sparse(values, kept(values.size, plan.keep))
    return pack_vector(values, plan.encoding)


def unpack_update(data: bytes, plan: Aggregation, *, length: int) -> Integers:
    """Read an update from an untrusted source: int64 ``[length]``, writable.

    Raises:
        PeerError: another form than the plan's, another length, or an integer out of range.
    """
    if plan.compression == "int8":
        return unpack_quantised(data, length=length)
    if plan.keep is not None:
        return unpack_sparse(data, length=length, count=kept(length, plan.keep))
    return unpack_vector(data, plan.encoding, length=length)


def update_sizes(length: int, plan: Aggregation) -> frozenset[int]:
    """Every number of bytes that an update within the plan's norm bound can have."""
    if plan.compression == "int8":
        return frozenset((quantised_size(length),))
    if plan.keep is not None:
        return sparse_sizes(kept(length, plan.keep), plan.norm_bound)
    if plan.encoding is None:
        return frozenset((packed_size(length),))
    return frozenset(planes_size(length, width) for width in range(1, width_within(plan.norm_bound) + 1))


def compressed(update: Integers, left_out: Integers, plan: Aggregation) -> tuple[Integers, Integers]:
    """What a site sends, and what it leaves out until the next time.

    Args:
        update: int64 ``[P]``, as it may leave: noised and within the norm bound.
        left_out: int64 ``[P]``, what the update before left out; zeros at first.
        plan: without ``compression`` everything is sent.

    Returns:
        two int64 ``[P]``: the vector to send, within the norm bound, and what it lacks of the two together.
    """
    if plan.compression is None:
        return update, left_out
    whole = update + left_out
    if not norm_within(whole, plan.norm_bound):
        whole = to_fixed(clip_to_norm(from_fixed(whole), plan.norm_bound))
    shorten = quantised if plan.keep is None else partial(sparse, count=kept(whole.size, plan.keep))
    sent = shorten(whole)
    while not norm_within(sent, plan.norm_bound):  # rounding away from 0 made it longer than the bound
        whole = whole - whole // _SHORTER
        sent = shorten(whole)
    return sent, update + left_out - sent
