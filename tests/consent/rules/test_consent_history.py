"""Files judged offline, and that whatever they hold, the error is ours. The cases are in tests/vectors/consent."""

import json
from datetime import timedelta
from typing import Any

import pytest
from consent_people import NOW, chain
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.history import FILE_BYTES_MAX, open_file
from consent.rules.record import Action, open_record
from consent.rules.refusal import RefusedRecordError

HISTORY = [json.loads(data) for data in chain(Action.GRANT, Action.WITHDRAW, attested=True)]
LATER = NOW + timedelta(days=1)


def test_a_history_is_opened_in_order() -> None:
    found = open_file(json.dumps(HISTORY).encode(), LATER)
    assert [record.action for record in found.records] == [Action.GRANT, Action.WITHDRAW]
    assert (found.receipt, found.as_of) == (None, LATER)


def test_a_single_record_need_not_begin_a_chain_and_a_history_must() -> None:
    assert open_file(json.dumps(HISTORY[1]).encode(), LATER).records[0].seq == 2
    with pytest.raises(RefusedRecordError) as caught:
        open_file(json.dumps([HISTORY[1]]).encode(), LATER)
    assert caught.value.reason == "gap"


def test_the_head_decides_whether_a_history_was_rolled_back() -> None:
    newest = open_record(json.dumps(HISTORY[1]).encode())
    head = {"seq": 2, "digest": newest.digest}
    assert open_file(json.dumps({"records": HISTORY, "head": head}).encode(), LATER).records
    with pytest.raises(RefusedRecordError) as caught:
        open_file(json.dumps({"records": HISTORY[:1], "head": head}).encode(), LATER)
    assert caught.value.reason == "rolled-back"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "malformed"),
        ([1], "malformed"),
        ({"records": HISTORY, "more": 1}, "unknown-field"),
        ({"records": HISTORY, "head": {"seq": 2}}, "malformed"),
        ({"records": HISTORY, "asOf": "now"}, "malformed"),
        ({"records": HISTORY * 251}, "malformed"),
        ("a text", "malformed"),
        (7, "malformed"),
    ],
)
def test_a_file_of_another_form_is_refused(document: Any, reason: str) -> None:
    with pytest.raises(RefusedRecordError) as caught:
        open_file(json.dumps(document).encode(), LATER)
    assert caught.value.reason in {reason, "oversize"}


def test_a_file_is_bounded() -> None:
    with pytest.raises(RefusedRecordError) as caught:
        open_file(b" " * (FILE_BYTES_MAX + 1), LATER)
    assert caught.value.reason == "oversize"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["records", "head", "log", "asOf", "type", "proof", "@context"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_file_holds_the_error_is_ours(data: bytes) -> None:
    with pytest.raises(RefusedRecordError) as caught:
        open_file(data, LATER)
    assert caught.value.reason
