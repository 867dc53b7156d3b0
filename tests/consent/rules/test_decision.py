from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, OTHER_HOSPITAL, chain, record, use
from hypothesis import assume, given
from hypothesis import strategies as st

from consent.rules.decision import Head, Status, permits
from consent.rules.record import Action, Mechanism
from federation.rules.canonical import sha256_hex

GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW
actions = st.lists(st.sampled_from(Action), min_size=1, max_size=4)
moments = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=360)).map(lambda later: NOW + later)


def head_of(history: tuple[bytes, ...]) -> Head:
    return Head(len(history), sha256_hex(history[-1]))


def codes(history: tuple[bytes, ...], now: datetime = NOW, **changes: Any) -> tuple[Status, tuple[str, ...]]:
    decision = permits(history, use(**changes), now)
    assert decision.permitted is (decision.status is Status.PERMITTED)
    assert decision.permitted is (not decision.reasons)
    return decision.status, tuple(reason.code for reason in decision.reasons)


def test_a_valid_grant_permits() -> None:
    history = chain(GRANT)
    decision = permits(history, use(), NOW, head=head_of(history))
    assert decision.permitted
    assert decision.sentence == "Permitted until 2027-11-22T12:00:00Z."


def test_no_record_means_no() -> None:
    assert codes(()) == (Status.MISSING, ("missing",))


@pytest.mark.parametrize("attested", [False, True])
def test_a_withdrawn_subject_is_excluded_at_once_and_may_come_back(attested: bool) -> None:
    assert codes(chain(GRANT, WITHDRAW, attested=attested))[0] is Status.WITHDRAWN
    assert codes(chain(GRANT, WITHDRAW, GRANT, attested=attested))[0] is Status.PERMITTED
    assert codes(chain(WITHDRAW, attested=attested))[0] is Status.WITHDRAWN


def test_a_withdrawal_that_names_a_later_time_holds_at_once() -> None:
    first = record()
    later = record(WITHDRAW, after=first, valid_from=NOW + 300 * DAY)
    assert codes((first, later))[0] is Status.WITHDRAWN


def test_a_refusal_is_a_no() -> None:
    assert codes(chain(REFUSE)) == (Status.REFUSED, ("refused",))
    assert codes(chain(GRANT, REFUSE))[0] is Status.REFUSED


def test_the_end_is_exclusive_and_the_beginning_inclusive() -> None:
    history = (record(valid_from=NOW, valid_until=NOW + DAY),)
    assert codes(history, NOW - timedelta(seconds=1)) == (Status.INVALID, ("not_yet_valid",))
    assert codes(history, NOW)[0] is Status.PERMITTED
    assert codes(history, NOW + DAY - timedelta(seconds=1))[0] is Status.PERMITTED
    assert codes(history, NOW + DAY) == (Status.EXPIRED, ("expired",))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epsilon": Decimal("3.01")}, "epsilon"),
        ({"delta": Decimal("0.000011")}, "delta"),
        ({"duo": "DUO:0000042"}, "purpose"),
    ],
)
def test_a_use_beyond_the_terms_is_not_covered(changes: dict[str, Any], reason: str) -> None:
    assert codes(chain(GRANT), **changes) == (Status.NOT_COVERED, (reason,))


@pytest.mark.parametrize("changes", [{"duo": "DUO:0000043"}, {"disease": None}])
def test_a_use_that_only_a_person_can_judge_is_a_no(changes: dict[str, Any]) -> None:
    assert codes(chain(GRANT), **changes) == (Status.NEEDS_PERSON, ("needs_person",))


def test_every_reason_is_named() -> None:
    status, reasons = codes(chain(GRANT), epsilon=Decimal(9), delta=Decimal("0.1"), duo="DUO:0000042")
    assert (status, reasons) == (Status.NOT_COVERED, ("purpose", "epsilon", "delta"))


def test_records_for_another_institution_or_mechanism_are_invalid() -> None:
    assert codes(chain(GRANT), institution=OTHER_HOSPITAL.public.did) == (Status.INVALID, ("other_institution",))
    assert codes(chain(GRANT), kind=Mechanism.LICENCE) == (Status.INVALID, ("other_mechanism",))
    licence = (record(mechanism=Mechanism.LICENCE),)
    assert codes(licence, kind=Mechanism.LICENCE)[0] is Status.PERMITTED


def broken_chains() -> dict[str, tuple[tuple[bytes, ...], str]]:
    first, second, third = chain(GRANT, WITHDRAW, GRANT)
    bens = record(after=first, subject=BEN)
    elsewhere = record(after=first, institution=OTHER_HOSPITAL)
    licence = record(after=first, mechanism=Mechanism.LICENCE)
    return {
        "the withdrawal is left out": ((first, third), "gap"),
        "the first is left out": ((second, third), "gap"),
        "the order is changed": ((second, first), "gap"),
        "one stands twice": ((first, first), "replayed"),
        "another branch": ((first, record(WITHDRAW, seq=2, prev="0" * 64)), "wrong_prev"),
        "two people": ((first, bens), "two_subjects"),
        "two institutions": ((first, elsewhere), "other_institution"),
        "two mechanisms": ((first, licence), "two_mechanisms"),
        "a broken signature": ((first.replace(b'"epsilonMax":"3"', b'"epsilonMax":"8"'),), "unverified"),
        "no record at all": ((b"{}",), "unverified"),
    }


@pytest.mark.parametrize("name", broken_chains())
def test_a_broken_chain_is_a_no(name: str) -> None:
    history, reason = broken_chains()[name]
    assert codes(history) == (Status.INVALID, (reason,))


def test_a_rolled_back_history_is_a_no() -> None:
    history = chain(GRANT, WITHDRAW)
    for shorter in ((), history[:1]):
        decision = permits(shorter, use(), NOW, head=head_of(history))
        assert (decision.permitted, decision.reasons[0].code) == (False, "rolled_back")


def test_a_moment_without_a_time_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="time zone"):
        permits(chain(GRANT), use(), NOW.replace(tzinfo=None))


@given(actions, moments)
def test_only_the_newest_record_decides(sequence: list[Action], now: datetime) -> None:
    history = chain(*sequence)
    assert permits(history, use(), now, head=head_of(history)).permitted is (sequence[-1] is GRANT)


@given(actions, st.booleans(), moments, moments)
def test_after_a_withdrawal_no_later_moment_permits(
    before: list[Action], attested: bool, first: datetime, second: datetime
) -> None:
    history = chain(*before, WITHDRAW, attested=attested)
    assert not permits(history, use(), first).permitted
    assert not permits(history, use(), second).permitted


@given(actions, moments, st.data())
def test_leaving_out_or_exchanging_records_never_permits(
    sequence: list[Action], now: datetime, data: st.DataObject
) -> None:
    history = chain(*sequence)
    told = tuple(data.draw(st.lists(st.sampled_from(history), max_size=5)))
    assume(told != history)
    assert not permits(told, use(), now, head=head_of(history)).permitted


@given(st.lists(st.binary(max_size=60) | st.sampled_from(chain(GRANT)), min_size=1, max_size=3), moments)
def test_foreign_bytes_never_permit_and_never_raise(history: list[bytes], now: datetime) -> None:
    assume(tuple(history) != chain(GRANT))
    assert permits(history, use(), now).status is Status.INVALID


@given(
    st.decimals(min_value=Decimal("0.01"), max_value=8, places=2),
    st.decimals(min_value=Decimal("0.01"), max_value=8, places=2),
)
def test_asking_for_less_never_turns_a_yes_into_a_no(allowed: Decimal, asked: Decimal) -> None:
    history = (record(epsilon_max=allowed),)
    assert permits(history, use(epsilon=asked), NOW).permitted is (asked <= allowed)


def test_the_institution_cannot_grant_for_a_person_with_its_own_key() -> None:
    first = record(subject=HOSPITAL)  # a valid chain, but the hospital's own: it speaks for nobody else
    second = record(after=first, subject=ANNA)
    assert codes((first, second)) == (Status.INVALID, ("two_subjects",))
