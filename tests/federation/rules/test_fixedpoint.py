import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import OperatorError, PeerError
from federation.rules.fixedpoint import SCALE, from_fixed, pack, packed_size, to_fixed, unpack

lattice = hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(-(2**62) + 1, 2**62 - 1))
reals = hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(-(2.0**37), 2.0**37))


@given(lattice)
def test_a_packed_vector_comes_back(values: np.ndarray) -> None:
    data = pack(values)
    assert len(data) == packed_size(values.size)
    again = unpack(data, length=values.size)
    assert again.dtype == np.int64
    assert np.array_equal(again, values)
    assert pack(again) == data


@given(reals)
def test_rounding_moves_a_number_by_at_most_half_a_step(values: np.ndarray) -> None:
    assert np.all(np.abs(from_fixed(to_fixed(values)) - values) <= 0.5 / SCALE)


@given(hnp.arrays(np.int64, 5, elements=st.integers(-(2**53), 2**53)))
def test_lattice_points_survive_the_way_through_floats(values: np.ndarray) -> None:
    assert np.array_equal(to_fixed(from_fixed(values)), values)


def test_ties_go_to_even() -> None:
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5]) / SCALE
    assert to_fixed(halves).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 2.0**38, -(2.0**38)])
def test_diverged_numbers_are_refused(bad: float) -> None:
    with pytest.raises(OperatorError, match="diverged") as caught:
        to_fixed(np.array([0.0, bad]))
    assert "learning_rate" in caught.value.remedy


def test_the_byte_form_is_fixed() -> None:
    expected = b"AFP1" + struct.pack("<Qqqq", 3, 1, -1, 2**40)
    assert pack(np.array([1, -1, 2**40], dtype=np.int64)) == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "bytes"),
        (b"AFP1" + struct.pack("<Qq", 2, 1), "bytes"),
        (b"AFP2" + struct.pack("<Qqq", 2, 1, 1), "AFP1"),
        (b"AFP1" + struct.pack("<Qqq", 3, 1, 1), "announces 3"),
        (b"AFP1" + struct.pack("<Qqq", 2, 1, -(2**63)), "beyond"),
        (b"AFP1" + struct.pack("<Qqq", 2, 2**62, 0), "beyond"),
    ],
)
def test_malformed_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        unpack(data, length=2)


@given(st.binary(max_size=64), st.integers(0, 6))
def test_arbitrary_bytes_raise_nothing_else(data: bytes, length: int) -> None:
    with contextlib.suppress(PeerError):
        unpack(data, length=length)


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.int64), np.zeros(2), np.array([2**62])])
def test_only_lattice_vectors_are_packed(bad: np.ndarray) -> None:
    with pytest.raises(OperatorError):
        pack(bad)
