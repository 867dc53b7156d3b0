"""Sketches: what they estimate, what one person moves, what hides a copy from them and what does not."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_in_memory import small_plan, table

from clients.privacy.noise import SecureNoise
from federation.errors import PeerError
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.overlap import (
    PLACE_MAX,
    beyond_chance,
    chance_error,
    measured_size,
    pack_sketch,
    person_hashes,
    product,
    sketch_hash,
    sketch_of,
    unpack_sketch,
)

SEED = bytes(32)
PEOPLE = st.lists(st.binary(min_size=1, max_size=4), max_size=30)


def batch(text: str) -> SubjectBatch:
    header, *lines = text.split()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    contract = small_plan(b"", sites=2).schema_contract
    return by_subject(contract, parse_rows(contract, rows, source="test"))


@given(PEOPLE, PEOPLE)
def test_a_product_is_symmetric_and_does_not_depend_on_order(first: list[bytes], second: list[bytes]) -> None:
    left, right = sketch_of(first, 16, SEED), sketch_of(second, 16, SEED)
    assert product(left, right) == product(right, left)
    assert np.array_equal(left, sketch_of(reversed(first), 16, SEED))
    assert product(left, left) >= 0


@given(PEOPLE, st.binary(min_size=1, max_size=4), st.binary(min_size=32, max_size=32))
def test_one_person_moves_one_place_by_one(people: list[bytes], person: bytes, seed: bytes) -> None:
    moved = sketch_of([*people, person], 64, seed) - sketch_of(people, 64, seed)
    assert np.abs(moved).sum() == 1


@settings(max_examples=20)
@given(st.sets(st.integers(0, 40), max_size=12), st.sets(st.integers(0, 40), max_size=12))
def test_over_hash_functions_the_product_is_on_average_what_is_common(first: set[int], second: set[int]) -> None:
    draws, buckets = 300, 16
    found = [
        product(*(sketch_of([b"%d" % each for each in people], buckets, b"%d" % draw) for people in (first, second)))
        for draw in range(draws)
    ]
    spread = math.sqrt(2 * (len(first) + 1) * (len(second) + 1) / buckets / draws)
    assert abs(np.mean(found) - len(first & second)) < 6 * spread


def test_with_noise_products_and_sizes_stay_unbiased_and_spread_as_is_said() -> None:
    buckets, noise, multiplier, draws = 64, SecureNoise(), Decimal(2), 400
    first, second = [b"a%d" % each for each in range(100)], [b"b%d" % each for each in range(80)]
    second[:30] = first[:30]
    dots, apart, sizes = [], [], []
    for draw in range(draws):
        shown = [
            sketch_of(people, buckets, b"%d" % draw) + noise.discrete_gaussian(buckets, Fraction(multiplier))
            for people in (first, second, [b"c%d" % each for each in range(80)])
        ]
        dots.append(product(shown[0], shown[1]))
        apart.append(product(shown[0], shown[2]))
        sizes.append(float(measured_size(product(shown[0], shown[0]), buckets, multiplier)))
    error = chance_error((100, 80), buckets, multiplier)
    assert abs(np.mean(dots) - 30) < 6 * error / math.sqrt(draws)
    assert abs(np.mean(apart)) < 6 * error / math.sqrt(draws)
    assert abs(np.mean(sizes) - 100) < 6 * np.std(sizes) / math.sqrt(draws)
    assert abs(np.std(apart) / error - 1) < 0.25


def test_chance_is_judged_by_the_sketches_own_lengths() -> None:
    assert beyond_chance(30, (100, 64), 64, Decimal(3))  # 30^2 * 64 = 9 * 6400
    assert not beyond_chance(29, (100, 64), 64, Decimal(3))
    assert not beyond_chance(-30, (100, 64), 64, Decimal(3))
    assert not beyond_chance(0, (0, 64), 64, Decimal(3))


def test_other_names_another_order_and_other_spellings_do_not_hide_a_copy() -> None:
    own = batch("person,age,pressure,ill\na,30,120,no\nb,40,,yes\nc,50,90.5,no")
    copy = batch("person,age,pressure,ill\nzed,50.0,90.50,no\ny,30,120,no\nx,40,,yes")
    assert sorted(person_hashes(own)) == sorted(person_hashes(copy))
    changed = batch("person,age,pressure,ill\na,30,121,no\nb,40,,no\nc,50.1,90.5,no")
    assert not set(person_hashes(own)) & set(person_hashes(changed))  # and this does: it is said in the threat model


def test_all_records_of_a_person_are_one_hash() -> None:
    plan = small_plan(b"", sites=2, schema={"records_per_subject_max": 2})
    rows = [
        {"person": person, "age": age, "pressure": "", "ill": "no"}
        for person, age in (("a", "30"), ("a", "31"), ("b", "31"), ("b", "30"), ("c", "30"))
    ]
    contract = plan.schema_contract
    hashes = person_hashes(by_subject(contract, parse_rows(contract, rows, source="test")))
    assert len(hashes) == 3
    assert hashes[0] == hashes[1] != hashes[2]


@given(st.lists(st.integers(-PLACE_MAX, PLACE_MAX), min_size=16, max_size=16))
def test_a_packed_sketch_comes_back(places: list[int]) -> None:
    sketch = np.array(places, dtype=np.int64)
    assert np.array_equal(unpack_sketch(pack_sketch(sketch), 16), sketch)


def test_sketches_of_another_form_are_refused() -> None:
    with pytest.raises(PeerError, match="60 bytes"):
        unpack_sketch(bytes(60), 16)
    for places in ([PLACE_MAX + 1], [-PLACE_MAX - 1], [-(2**31)]):
        with pytest.raises(PeerError, match="out of range"):
            unpack_sketch(np.array(places * 16, dtype="<i4").tobytes(), 16)
    with pytest.raises(ValueError, match="range"):
        pack_sketch(np.array([PLACE_MAX + 1]))


def test_nobody_can_repeat_anothers_commitment() -> None:
    packed = pack_sketch(sketch_of([b"a"], 16, SEED))
    own = sketch_hash(packed, study="one", did="did:key:a")
    assert own not in {
        sketch_hash(packed, study="one", did="did:key:b"),
        sketch_hash(packed, study="two", did="did:key:a"),
    }


def test_made_up_strangers_have_next_to_nobody_in_common() -> None:
    first, second = (set(person_hashes(batch(table(name, 40).decode()))) for name in ("ash", "birch"))
    assert len(first) > 35
    assert len(first & second) <= 2
