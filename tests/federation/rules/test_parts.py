"""Parts of the people: a public rule that puts everybody in exactly one sixteenth."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.rules.parts import BITS_MAX, EVERYBODY, holds, overlap, part_of, rest_of

bits = st.text("01", max_size=BITS_MAX)
SIXTEENTHS = [f"{number:04b}" for number in range(16)]


@given(subject=st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(0, BITS_MAX))
def test_everybody_is_in_exactly_one_part_of_each_size(subject: str, size: int) -> None:
    parts = {sixteenth[:size] for sixteenth in SIXTEENTHS}
    assert [part for part in parts if holds(part, subject)] == [part_of(subject)[:size]]


@given(left=bits, right=bits)
def test_parts_overlap_exactly_if_somebody_can_be_in_both(left: str, right: str) -> None:
    common = [each for each in SIXTEENTHS if each.startswith(left) and each.startswith(right)]
    assert overlap(left, right) == bool(common)
    assert overlap(left, EVERYBODY)
    assert overlap(left, rest_of(right)) == any(e.startswith(left) and not e.startswith(right) for e in SIXTEENTHS)
    neither = any(not e.startswith(left) and not e.startswith(right) for e in SIXTEENTHS)
    assert overlap(rest_of(left), rest_of(right)) == neither


@given(subject=st.text(st.characters(exclude_categories=["Cs"])), part=bits)
def test_whoever_is_not_in_a_part_is_in_its_rest(subject: str, part: str) -> None:
    assert holds(rest_of(part), subject) != holds(part, subject)


@pytest.mark.parametrize(("subject", "part"), [("p00", "0010"), ("p01", "1110"), ("anna", "1000")])
def test_the_rule_is_fixed_for_ever(subject: str, part: str) -> None:
    """A person who changed parts would have two budgets."""
    assert part_of(subject) == part


def test_parts_are_of_about_the_same_size() -> None:
    sizes = Counter(part_of(f"p{number:05}") for number in range(16_000))
    assert sorted(sizes) == SIXTEENTHS
    assert all(850 < size < 1150 for size in sizes.values())  # 5 standard deviations of a fair draw: 153
