"""Which record may follow which."""

from typing import Any

import pytest
from consent_people import ANNA, BEN, HOSPITAL, NOW, OTHER_HOSPITAL, chain, person, record, terms
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.chain import broken, continues, may_take_over
from consent.rules.record import Action, ConsentRecord, Mechanism, build, next_key_hash, open_record, sign_record
from federation.errors import ConsentError
from federation.rules.keys import PrivateKey

GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW
CLEO = person("cleo")


def signed(
    action: Action, previous: ConsentRecord | None = None, *, by: PrivateKey = ANNA, **changes: Any
) -> ConsentRecord:
    parts: dict[str, Any] = {
        "subject": by.public,
        "institution": HOSPITAL.public,
        "action": action,
        "seq": 1 if previous is None else previous.seq + 1,
        "prev": None if previous is None else previous.digest,
        "valid_from": NOW,
        "terms": terms() if action is GRANT else None,
        "issuer": by.public,
    }
    return open_record(sign_record(build(**{**parts, **changes}), by, created=NOW))


def code(previous: ConsentRecord | None, record: ConsentRecord) -> str | None:
    fault = continues(previous, record)
    return None if fault is None else fault.code


@given(st.lists(st.sampled_from(Action), min_size=1, max_size=5), st.booleans())
def test_a_chain_of_one_key_is_whole(actions: list[Action], attested: bool) -> None:
    records = [open_record(data) for data in chain(*actions, attested=attested)]
    assert broken(records) is None
    assert broken(()) is None


def test_the_first_record_begins_a_chain_and_no_other_does() -> None:
    first = signed(GRANT)
    assert code(None, first) is None
    assert code(None, signed(WITHDRAW, first)) == "gap"
    assert code(first, signed(GRANT)) == "gap"


def test_the_next_key_must_be_the_one_that_was_committed_to() -> None:
    first = signed(GRANT, next_key_hash=next_key_hash(BEN.public.did))
    second = signed(GRANT, first, by=BEN, next_key_hash=next_key_hash(CLEO.public.did))
    third = signed(WITHDRAW, second, by=CLEO)
    assert broken([first, second, third]) is None
    assert code(first, signed(GRANT, first, by=CLEO)) == "two_subjects"
    assert code(second, signed(GRANT, second, by=ANNA)) == "two_subjects", "the old key is spent"
    assert code(first, signed(GRANT, first)) is None, "the key need not be changed"


def test_a_commitment_holds_for_the_record_directly_after_it() -> None:
    first = signed(GRANT, next_key_hash=next_key_hash(BEN.public.did))
    second = signed(REFUSE, first)
    assert code(second, signed(GRANT, second, by=BEN)) == "two_subjects"


def test_after_a_withdrawal_a_new_key_begins_again() -> None:
    first = signed(GRANT)
    attested = signed(WITHDRAW, first, by=HOSPITAL, subject=ANNA.public)
    again = signed(GRANT, attested, by=BEN)
    assert broken([first, attested, again]) is None
    assert may_take_over(attested, CLEO.public.did)
    assert not may_take_over(first, CLEO.public.did)
    assert code(again, signed(WITHDRAW, again, by=ANNA)) == "two_subjects", "the lost key is out"


def test_the_institution_brings_no_key_into_a_chain() -> None:
    first = signed(GRANT)
    withdrawn = signed(WITHDRAW, first)
    moved = signed(WITHDRAW, withdrawn, by=HOSPITAL, subject=BEN.public)
    assert moved.attested
    assert code(withdrawn, moved) == "two_subjects"
    with pytest.raises(ConsentError) as caught:
        signed(WITHDRAW, first, by=HOSPITAL, subject=ANNA.public, next_key_hash=next_key_hash(HOSPITAL.public.did))
    assert getattr(caught.value, "reason", "") == "attested-next-key"


def test_one_institution_and_one_mechanism() -> None:
    first = signed(GRANT)
    assert code(first, signed(GRANT, first, institution=OTHER_HOSPITAL.public)) == "two_institutions"
    assert code(first, signed(REFUSE, first, mechanism=Mechanism.EHDS_OPTOUT)) == "two_mechanisms"
    assert code(first, signed(GRANT, first, prev="0" * 64)) == "wrong_prev"


def test_a_record_that_stands_twice_was_replayed() -> None:
    first, withdrawn = (open_record(data) for data in chain(GRANT, WITHDRAW))
    fault = broken([first, withdrawn, first])
    assert fault is not None
    assert fault.code == "replayed"


@given(st.permutations(range(4)))
def test_only_the_right_order_is_whole(order: list[int]) -> None:
    records = [open_record(data) for data in chain(GRANT, REFUSE, GRANT, WITHDRAW)]
    assert (broken([records[place] for place in order]) is None) is (order == sorted(order))


def test_a_fault_says_what_is_wrong() -> None:
    fault = continues(open_record(record()), open_record(record(seq=5, prev="0" * 64)))
    assert fault is not None
    assert (fault.text, fault.values) == (
        "record 2 of the chain is missing (found number 5)",
        {"expected": "2", "found": "5"},
    )
