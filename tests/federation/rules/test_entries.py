"""Log entries: an id that says what an entry says, and a form that nobody can bend."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.entries import (
    ENTRY_TYPE,
    CommitmentsClosed,
    Entry,
    Payment,
    RoundClosed,
    RoundReopened,
    StudyPublished,
    StudySettled,
    StudyStarted,
    UpdateRefused,
    entry_id,
    make_entry,
    open_entry,
)
from federation.rules.envelope import sign
from federation.rules.keys import PrivateKey

KEY = PrivateKey(bytes([1]) * 32)
PARTY = PrivateKey(bytes([2]) * 32).public
NOW = datetime(2026, 11, 22, 0, 10, tzinfo=UTC)
BODIES = [
    StudyPublished(plan="a" * 64, plan_hash="b" * 64, minted=10**15),
    StudyStarted(weights={PARTY.did: 3}, base_model="c" * 64),
    RoundReopened(deadline="2026-11-22T00:20:00Z"),
    CommitmentsClosed(),
    UpdateRefused(code="norm", message="too long"),
    RoundClosed(outcome="no-quorum", updates={}, model="d" * 64, value_table="e" * 64),
    StudySettled(
        tables=("f" * 64,), payments=(Payment(party=PARTY.did, site="ash", value="-3/7", reward=5),), burned=0
    ),
]
bodies = st.sampled_from(BODIES)
rounds = st.none() | st.integers(1, 1000)
parties = st.none() | st.just(PARTY)


def entry(body: Any = BODIES[0], **changes: Any) -> Entry:
    return make_entry(body, **{"study": "small-0", "now": NOW, **changes})


@given(bodies, rounds, parties, st.integers(0, 10**6))
def test_an_entry_survives_signing_and_reading(body: Any, number: int | None, party: Any, seconds: int) -> None:
    made = entry(body, round_number=number, party=party, now=NOW + timedelta(seconds=seconds))
    assert open_entry(made.sign(KEY).to_bytes(), signer=KEY.public) == made
    assert made.at == NOW + timedelta(seconds=seconds)
    assert b"null" not in made.to_payload()


@given(bodies, rounds, parties, bodies, rounds, parties)
def test_the_id_tells_what_is_said_and_not_when(
    body: Any, number: int | None, party: Any, other_body: Any, other_number: int | None, other_party: Any
) -> None:
    one = entry(body, round_number=number, party=party)
    assert entry(body, round_number=number, party=party, now=NOW + timedelta(days=1)).id == one.id
    other = entry(other_body, round_number=other_number, party=other_party)
    assert (other.id == one.id) == ((body, number, party) == (other_body, other_number, other_party))


def test_the_id_depends_on_study_and_term() -> None:
    body = BODIES[0]
    ids = {
        entry_id(body, study=study, term=term, round_number=None, party=None)
        for study in ("small-0", "small-1")
        for term in (0, 1)
    }
    assert len(ids) == 4


def test_an_entry_by_another_key_is_refused() -> None:
    with pytest.raises(PeerError, match="signed by"):
        open_entry(entry().sign(PrivateKey(bytes(32))).to_bytes(), signer=KEY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"term": -1},
        {"round": 0},
        {"round": 1001},
        {"party": "did:web:example.com"},
        {"party": PARTY.did + "\n"},
        {"study": ""},
        {"body": {"kind": "study-cancelled"}},
        {"body": {"plan": "a" * 64}},
        {"body": {"kind": "commitments-closed", "more": 1}},
        {"body": {"kind": "round-closed", "outcome": "won", "updates": {}, "model": "d" * 64, "value_table": "e" * 64}},
        {"body": {"kind": "update-refused", "code": "Bad Code", "message": "x"}},
        {"body": {"kind": "study-settled", "tables": [], "payments": [], "burned": -1}},
        {"more": 1},
        {"round": None},
    ],
    ids=str,
)
def test_an_entry_in_a_wrong_form_is_refused(change: dict[str, Any]) -> None:
    payload = canonical_bytes({**parse(entry().to_payload()), **change})
    with pytest.raises(PeerError, match="A Entry is refused"):
        open_entry(sign(payload, ENTRY_TYPE, KEY).to_bytes(), signer=KEY.public)


@pytest.mark.parametrize("value", ["1/0", "1/07", "0.5", "1e3", "+1", "1/-2", "", "--1", "1" * 61])
def test_a_payment_s_value_is_an_exact_fraction(value: str) -> None:
    with pytest.raises(ValueError, match="value"):
        Payment(party=PARTY.did, site="ash", value=value, reward=0)


def test_an_entry_s_time_must_be_an_instant() -> None:
    payload = canonical_bytes({**parse(entry().to_payload()), "time": "yesterday"})
    opened = open_entry(sign(payload, ENTRY_TYPE, KEY).to_bytes(), signer=KEY.public)
    with pytest.raises(PeerError, match="is not an instant"):
        _ = opened.at
