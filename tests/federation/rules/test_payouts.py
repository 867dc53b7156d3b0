"""Fees for taking part: they follow from the log's rounds, are paid out of escrow, and nothing is lost or made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.coordinator.books import books_of
from federation.coordinator.statement import statement_of
from federation.errors import OperatorError, PeerError
from federation.export.verification import verify_export
from federation.rules.explain import explain
from federation.rules.keys import PrivateKey
from federation.rules.payouts import fees_due

SITES = {name: PrivateKey(bytes([101 + at]) * 32).public.did for at, name in enumerate(("ash", "birch", "cedar"))}
FEES = {"ash": 300_001, "birch": 200_001, "cedar": 7}
POOL = "pool_microcredits = 1000000"
Play = Callable[..., Any]


def inline(fees: dict[str, int]) -> str:
    return "fees = {" + ", ".join(f'"{did}" = {fee}' for did, fee in fees.items()) + "}"


EDITS = {POOL: f"{POOL}\n{inline({SITES[name]: fee for name, fee in FEES.items()})}"}


@dataclass
class Done:
    outcome: str
    admitted: dict[str, object]


rounds = st.lists(
    st.builds(
        Done,
        outcome=st.sampled_from(["aggregated", "no-quorum"]),
        admitted=st.dictionaries(st.sampled_from(["a", "b"]), st.none()),
    ),
    max_size=6,
)


@given(rounds, st.integers(0, 10**15))
def test_a_fee_is_paid_by_the_rounds_that_count(done: list[Done], fee: int) -> None:
    counted = [each for each in done if each.outcome == "aggregated"]
    paid = fees_due({"a": fee}, done)["a"]
    present = sum("a" in each.admitted for each in counted)
    if not counted:
        assert paid == 0
        return
    assert paid * len(counted) <= fee * present < (paid + 1) * len(counted), "rounded down"
    assert (paid == fee) >= (present == len(counted)), "all of it for all rounds"


def test_a_plan_without_fees_owes_none() -> None:
    assert fees_due(None, [Done("aggregated", {"a": None})]) == {}


def test_a_study_pays_fees_beside_the_pool_and_conserves(play: Play) -> None:
    """Birch declines the second of two rounds: half of its fee, rounded down, and the other half is burned."""
    study = play(edits=EDITS).played()
    fees = {payment.site: payment.fee for payment in study.state.payments}
    assert fees == {"ash": 300_001, "birch": 100_000, "cedar": 7}
    ledger = study.state.ledger
    assert ledger.minted == 1_000_000 + sum(FEES.values())
    assert sum(ledger.balances.values()) + ledger.burned == ledger.minted
    assert ledger.escrow == 0
    assert study.state.burned == 100_001 + 1_000_000 - sum(payment.reward for payment in study.state.payments)
    for payment in study.state.payments:
        assert ledger.balance(f"institution:{payment.site}") == payment.reward + payment.fee == payment.total


def test_fees_stand_beside_a_pool_that_is_paid_by_lower_bounds(play: Play, tmp_path: Path) -> None:
    study = play(edits={POOL: f'{EDITS[POOL]}\npay = "lower-bound"\nz = "1.65"'}).played()
    assert all(payment.standard_error is not None for payment in study.state.payments)
    assert {payment.site: payment.fee for payment in study.state.payments} == {
        "ash": 300_001,
        "birch": 100_000,
        "cedar": 7,
    }
    assert study.state.ledger.minted == 1_000_000 + sum(FEES.values())
    assert verify_export(study.export(tmp_path / "export"), study.key.public).settled


def test_a_plan_without_fees_settles_without_a_word_of_them(play: Play) -> None:
    study = play().played()
    assert all(payment.fee is None for payment in study.state.payments)
    assert b"fee" not in study.log.entries()[-1]


def test_a_settlement_with_another_fee_is_refused(play: Play) -> None:
    for fee in (None, 99_999, 200_001):
        study = play(edits=EDITS, changes={"study-settled": lambda body, fee=fee: with_fee(body, SITES["birch"], fee)})
        study.start()
        study.play_round(1)
        study.play_round(2, declining="birch")
        with pytest.raises(PeerError, match="a fee does not follow from the rounds"):
            study.settle()
    study = play(changes={"study-settled": lambda body: with_fee(body, SITES["ash"], 0)})
    study.start()
    study.play_round(1)
    study.play_round(2)
    with pytest.raises(PeerError, match="a fee does not follow from the rounds"):
        study.settle()


def with_fee(body: Any, party: str, fee: int | None) -> Any:
    payments = [each.model_copy(update={"fee": fee}) if each.party == party else each for each in body.payments]
    burned = body.burned + sum(each.total for each in body.payments) - sum(each.total for each in payments)
    return body.model_copy(update={"payments": tuple(payments), "burned": burned})


def test_the_publication_mints_pool_and_fees(play: Play) -> None:
    lie = {"study-published": lambda body: body.model_copy(update={"minted": 1_000_000})}
    with pytest.raises(PeerError, match="does not mint the plan's pool and fees"):
        play(edits=EDITS, changes=lie).start()


def test_only_those_whom_the_plan_names_can_take_part(play: Play) -> None:
    stranger = PrivateKey(bytes([55]) * 32).public.did
    others = {SITES["ash"]: 1, SITES["birch"]: 1, stranger: 1}
    with pytest.raises(PeerError, match="the plan names other institutions"):
        play(edits={POOL: f"{POOL}\n{inline(others)}"}).start()


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        (inline({SITES["ash"]: 1}), "names 1 institutions, rounds.participants is 3"),
        (inline({SITES["ash"]: 1, SITES["birch"]: -1, SITES["cedar"]: 1}), "greater than or equal to 0"),
        (inline({SITES["ash"]: 10**15, SITES["birch"]: 1, SITES["cedar"]: 1}), "above 1000000000000000"),
        (inline({"ash": 1, "birch": 1, "cedar": 1}), "did:key"),
        (f'outcome = "{"ab" * 32}"', "no meaning without reward.fees"),
    ],
)
def test_fees_that_cannot_be_are_refused_in_a_plan(play: Play, reward: str, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        play(edits={POOL: f"{POOL}\n{reward}"})


def test_fees_are_recomputed_from_an_export_and_told(play: Play, tmp_path: Path) -> None:
    study = play(edits=EDITS).played()
    folder = study.export(tmp_path / "export")
    report = verify_export(folder, study.key.public)
    assert report.rewards == {payment.site: payment.total for payment in study.state.payments}
    told = statement_of(folder, site="birch", study=None)
    assert told.data["fee_microcredits"] == 100_000
    assert "0.1 credits of its fee of 0.200001 credits" in told.data["sentence"]
    assert "fee        0.100000 credits" in told.text
    birch = next(payment for payment in study.state.payments if payment.site == "birch")
    data, _ = books_of(folder, study=None).balance("birch")
    assert data["balance_microcredits"] == birch.total
    text = explain(study.plan)
    assert f"0.200001 credits to {SITES['birch']}" in text
    assert "Nobody else can take part" in text


def test_a_plan_names_the_outcome_that_its_fees_come_from(play: Play) -> None:
    text = f'{EDITS[POOL]}\noutcome = "{"ab" * 32}"'
    plan = play(edits={POOL: text}).plan
    assert plan.reward.outcome == "ab" * 32
    assert "market outcome abababababab" in explain(plan)
