"""Shorter updates: what is sent is read back exactly, one form each, and what is left out is never lost."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from federation.errors import PeerError
from federation.rules.aggregation import norm_within
from federation.rules.compression import (
    kept,
    pack_quantised,
    pack_sparse,
    quantised,
    sparse,
    unpack_quantised,
    unpack_sparse,
)
from federation.rules.fixedpoint import INTEGER_LIMIT, SCALE, Integers
from federation.rules.terms import Aggregation
from federation.rules.vectors import compressed, pack_update, unpack_update, update_sizes

VECTORS = arrays(np.int64, st.integers(1, 30), elements=st.integers(-(2**40), 2**40))
WIDE = arrays(np.int64, st.integers(1, 30), elements=st.integers(-INTEGER_LIMIT // 2, INTEGER_LIMIT // 2))
FORMS: tuple[dict[str, Any], ...] = (
    {"compression": "int8"},
    {"compression": "top-k", "keep": "0.25"},
    {"encoding": "fewest-bytes"},
    {},
)


def aggregation(norm_bound: str = "100000", **form: Any) -> Aggregation:
    return Aggregation.model_validate({"rule": "weighted-mean", "norm_bound": norm_bound, **form})


@given(WIDE)
def test_quantising_moves_a_number_by_half_a_step_at_most_and_is_read_back(values: Integers) -> None:
    short = quantised(values)
    data = pack_quantised(short)
    assert np.array_equal(unpack_quantised(data, length=values.size), short)
    assert np.array_equal(quantised(short), short)
    largest = int(np.abs(values).max())
    step = max(1, largest // 64)  # a shift that holds a number leaves it more than 63 steps
    assert int(np.abs(short - values).max()) <= (step + 1) // 2 if largest > 127 else np.array_equal(short, values)


@given(VECTORS, st.integers(1, 30))
def test_the_largest_numbers_are_sent_and_read_back(values: Integers, count: int) -> None:
    count = min(count, values.size)
    short = sparse(values, count)
    assert np.array_equal(unpack_sparse(pack_sparse(short, count), length=values.size, count=count), short)
    left = np.abs(values[short == 0])
    assert left.max(initial=0) <= np.abs(short[short != 0]).min(initial=2**62)
    assert np.count_nonzero(short) <= count


@given(VECTORS, VECTORS, st.sampled_from(FORMS))
def test_what_is_sent_and_what_is_left_out_are_all_that_there_was(
    update: Integers, left_out: Integers, form: dict[str, Any]
) -> None:
    left_out = np.resize(left_out, update.shape)
    plan = aggregation(**form)
    update = update if norm_within(update, plan.norm_bound) else update // 2**20
    sent, rest = compressed(update, left_out, plan)
    assert np.array_equal(sent + rest, update + left_out)
    assert norm_within(sent, plan.norm_bound)
    data = pack_update(sent, plan)
    assert len(data) in update_sizes(sent.size, plan)
    assert np.array_equal(unpack_update(data, plan, length=sent.size), sent)


def test_rounding_never_carries_an_update_over_its_bound() -> None:
    plan = aggregation("1", compression="int8")
    update = np.zeros(400, dtype=np.int64)
    update[0], update[1:] = SCALE // 2, int(SCALE * 0.0433)  # just inside, and every small one is rounded up
    assert norm_within(update, plan.norm_bound)
    sent, _ = compressed(update, np.zeros_like(update), plan)
    assert norm_within(sent, plan.norm_bound)


@given(st.binary(max_size=80), st.integers(1, 6))
def test_foreign_bytes_are_refused_or_are_the_form_of_what_they_say(data: bytes, length: int) -> None:
    for name, read, write in (
        (b"AFQ1", lambda whole: unpack_quantised(whole, length=length), pack_quantised),
        (
            b"AFS1",
            lambda whole: unpack_sparse(whole, length=length, count=length),
            lambda values: pack_sparse(values, length),
        ),
    ):
        for whole in (data, name + length.to_bytes(8, "little") + data):
            try:
                values = read(whole)
            except PeerError:
                continue
            assert write(values) == whole


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: b"AFQ2" + d[4:], lambda d: d[:12] + b"\x38" + d[13:]])
def test_another_form_of_a_quantised_update_is_refused(spoil: Any) -> None:
    data = pack_quantised(quantised(np.array([5, -70_000, 3_000], dtype=np.int64)))
    with pytest.raises(PeerError, match="refused"):
        unpack_quantised(spoil(data), length=3)


def test_a_step_larger_than_needed_is_refused() -> None:
    data = bytearray(pack_quantised(np.array([64, -128], dtype=np.int64)))
    data[12], data[13], data[14] = 1, 32, 256 - 64
    with pytest.raises(PeerError, match="more than it needs"):
        unpack_quantised(bytes(data), length=2)


def test_positions_must_rise_within_the_model() -> None:
    data = pack_sparse(np.array([0, 9, 0, -9], dtype=np.int64), 2)
    first = data.index((1).to_bytes(4, "little"), 21)
    for positions in ((3, 1), (1, 1), (1, 4)):
        forged = data[:first] + b"".join(place.to_bytes(4, "little") for place in positions) + data[first + 8 :]
        with pytest.raises(PeerError, match="positions"):
            unpack_sparse(forged, length=4, count=2)


@pytest.mark.parametrize("form", [{"compression": "top-k"}, {"keep": "0.1"}, {"compression": "int8", "keep": "0.1"}])
def test_a_plan_says_both_or_neither(form: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="keep"):
        aggregation(**form)


def test_at_least_one_number_is_kept() -> None:
    assert [kept(length, Decimal("0.1")) for length in (1, 10, 11)] == [1, 1, 2]
