"""The shortest byte form: one for each vector, exact, bounded."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federation.errors import OperatorError, PeerError
from federation.rules.byte_planes import pack_planes, planes_size, unpack_planes, width_of, width_within
from federation.rules.fixedpoint import INTEGER_LIMIT, SCALE, Integers, pack

LENGTHS = st.integers(0, 40)
INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-INTEGER_LIMIT + 1, INTEGER_LIMIT - 1))


@given(arrays(np.int64, LENGTHS, elements=INTEGERS))
def test_what_is_packed_comes_back_in_the_fewest_whole_bytes(values: Integers) -> None:
    data = pack_planes(values)
    assert np.array_equal(unpack_planes(data, length=values.size), values)
    width = width_of(int(values.min(initial=0)), int(values.max(initial=0)))
    assert len(data) == planes_size(values.size, width) <= len(pack(values)) + 1
    assert width == 1 or any(not -(1 << 8 * width - 9) <= int(value) < 1 << 8 * width - 9 for value in values)


@given(arrays(np.int64, st.integers(1, 20), elements=st.integers(-(2**30), 2**30)), st.integers(1, 8))
def test_a_vector_has_no_longer_byte_form(values: Integers, more: int) -> None:
    data = pack_planes(values)
    width = min(data[12] + more, 8)
    planes = values.astype("<i8").view("u1").reshape(values.size, 8)[:, :width].T
    assert width > data[12]
    with pytest.raises(PeerError, match="more than it needs"):
        unpack_planes(data[:12] + bytes([width]) + planes.tobytes(), length=values.size)


@given(st.binary(max_size=64), st.integers(0, 8))
def test_foreign_bytes_are_refused_or_are_the_form_of_what_they_say(data: bytes, length: int) -> None:
    try:
        values = unpack_planes(data, length=length)
    except PeerError:
        return
    assert pack_planes(values) == data


@pytest.mark.parametrize(("smallest", "largest", "width"), [(0, 0, 1), (-128, 127, 1), (0, 128, 2), (-129, 0, 2)])
def test_the_width_is_that_of_two_s_complement(smallest: int, largest: int, width: int) -> None:
    assert width_of(smallest, largest) == width


@pytest.mark.parametrize(("bound", "width"), [("0.4", 3), ("0.5", 4), ("10", 4), ("1000000", 6), ("1e-9", 1)])
def test_no_vector_within_the_norm_is_wider_than_its_bound(bound: str, width: int) -> None:
    assert width_within(Decimal(bound)) == width
    assert width_of(0, int(Decimal(bound) * SCALE)) == width


@pytest.mark.parametrize("values", [np.zeros((2, 2), dtype=np.int64), np.zeros(2), np.array([INTEGER_LIMIT])])
def test_only_lattice_vectors_are_packed(values: Integers) -> None:
    with pytest.raises(OperatorError):
        pack_planes(values)
