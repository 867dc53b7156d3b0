"""k of n witnesses: what their words amount to."""

from datetime import UTC, datetime, timedelta

import pytest
from consent_people import NOW, person
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.binding import Quorum, Witnesses, binds, is_stale, named, newest_quorum
from federation.errors import OperatorError, PeerError
from federation.rules.checkpoint import TIMESTAMP_MAX, Cosignature

KEYS = [person(f"witness {number}").public for number in range(5)]
STRANGER = person("a stranger").public
words = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4), st.integers(1, 10**9)), max_size=20)


def said(size: int, who: int, when: int) -> tuple[int, Cosignature]:
    return size, Cosignature(witness=KEYS[who], timestamp=when, signature=b"")


def test_enough_witnesses_must_cosign_one_checkpoint() -> None:
    witnesses = Witnesses(frozenset(KEYS[:3]), 2)
    assert newest_quorum([said(4, 0, 10), said(5, 1, 20)], witnesses) == Quorum()
    assert newest_quorum([said(4, 0, 10), said(4, 0, 30)], witnesses) == Quorum()  # nobody counts twice
    assert newest_quorum([said(4, 0, 10), (4, Cosignature(STRANGER, 10, b""))], witnesses) == Quorum()
    found = newest_quorum([said(4, 0, 10), said(4, 1, 20), said(5, 0, 30)], witnesses)
    assert found == Quorum(size=4, at=datetime.fromtimestamp(20, UTC))


def test_a_grant_binds_below_the_cosigned_size_only() -> None:
    witnesses, quorum = Witnesses(frozenset(KEYS), 3), Quorum(size=4, at=NOW)
    assert [binds(index, quorum, witnesses) for index in (None, 0, 3, 4)] == [False, True, True, False]
    assert binds(None, Quorum(), Witnesses())  # nobody has to cosign


def test_more_witnesses_than_are_named_cannot_be_needed() -> None:
    for needed in (-1, 3):
        with pytest.raises(OperatorError):
            named([KEYS[0].did, KEYS[1].did], needed)
    with pytest.raises(PeerError):
        named(["did:web:example.org"], 1)


def test_no_word_and_an_old_word_are_stale() -> None:
    day = timedelta(days=1)
    assert is_stale(Quorum(), NOW, age_max=day)
    assert not is_stale(Quorum(1, NOW - day), NOW, age_max=day)
    assert is_stale(Quorum(1, NOW - day), NOW + timedelta(seconds=1), age_max=day)


def test_the_latest_time_that_a_witness_can_say_is_still_a_time() -> None:
    found = newest_quorum([said(1, 0, TIMESTAMP_MAX)], Witnesses(frozenset(KEYS[:1]), 1))
    assert found.at == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert not is_stale(found, NOW, age_max=timedelta(days=1))


@given(before=words, more=words, needed=st.integers(1, 5))
def test_more_words_never_take_anything_back(
    before: list[tuple[int, int, int]], more: list[tuple[int, int, int]], needed: int
) -> None:
    witnesses = Witnesses(frozenset(KEYS), needed)
    first = newest_quorum([said(*word) for word in before], witnesses)
    second = newest_quorum([said(*word) for word in before + more], witnesses)
    assert second.size >= first.size
    assert first.at is None or (second.at is not None and second.at >= first.at)


@given(honest=words, lies=st.lists(st.integers(10**9 + 1, 10**12), min_size=1, max_size=2), needed=st.integers(3, 5))
def test_fewer_than_k_liars_cannot_move_the_time(
    honest: list[tuple[int, int, int]], lies: list[int], needed: int
) -> None:
    words_ = [said(*word) for word in honest] + [said(6, who, when) for who, when in enumerate(lies)]
    found = newest_quorum(words_, Witnesses(frozenset(KEYS), needed))
    assert found.at is None or found.at <= datetime.fromtimestamp(10**9, UTC)
