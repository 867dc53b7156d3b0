from dataclasses import replace
from typing import Any

import pytest
from bookkeeping import Bookkeeping
from hypothesis import settings

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes
from federation.rules.ledger import FLOWS, SOURCES, Ledger, Step, Transfer

ESCROW, CLEVELAND = "escrow:heart-1", "institution:cleveland"


def funded(amount: int = 100) -> Ledger:
    return Ledger().mint("mint-1", ESCROW, amount)


def pay(identifier: str, amount: int, debit: str = ESCROW, credit: str = "institution:cleveland") -> Transfer:
    return Transfer(id=identifier, debit=debit, credit=credit, amount=amount)


def test_a_study_from_mint_to_settlement() -> None:
    ledger = funded().post(
        [
            pay("settle-cleveland", 60),
            pay("settle-hungary", 25, credit="institution:hungary"),
            pay("burn", 15, credit="burned:heart-1"),
        ]
    )
    assert ledger.to_json() == {
        "minted": 100,
        "escrow": 0,
        "burned": 15,
        "balances": {"institution:cleveland": 60, "institution:hungary": 25},
    }
    assert canonical_bytes(ledger.to_json())
    assert ledger.balance("institution:cleveland") == 60
    assert ledger.balance("institution:nobody") == 0
    assert Ledger.fold(ledger.transfers) == ledger


def test_what_an_institution_earned_it_can_pass_on() -> None:
    ledger = funded().post([pay("settle", 60), pay("share", 10, "institution:cleveland", "subject:z6Mk1")])
    assert ledger.balances == {"institution:cleveland": 50, "subject:z6Mk1": 10}


@pytest.mark.parametrize(
    ("transfer", "why"),
    [
        (pay("mint-1", 1), "made before"),
        (pay("x", 101), "holds 100"),
        (pay("x", 1, "institution:hungary", "stake:hungary"), "holds 0"),
        (pay("x", 1, "institution:cleveland", ESCROW), "no transfer leads"),
        (pay("x", 1, ESCROW, "sponsor:uci"), "no transfer leads"),
        (pay("x", 1, ESCROW, "lottery:a"), "not an account"),
        (pay("x", -1), "malformed"),
        (pay("x", 10**15 + 1), "malformed"),
        (pay("", 1), "malformed"),
        (pay("x", True), "malformed"),
        (pay("x", 1, ESCROW, ESCROW), "no transfer leads"),
        (pay("x", 1, ESCROW, "mint:network"), "no transfer leads"),
        (pay("x", 0, "burned:heart-1", ESCROW), "no transfer leads"),
        (pay("x", 1, ESCROW, "cleveland"), "not an account"),
        (pay("x", 1, ESCROW, "Institution:cleveland"), "not an account"),
        (pay("x", 1, ESCROW, "institution:"), "not an account"),
        (pay("x", 1, ESCROW, "institution:a b"), "not an account"),
    ],
)
def test_a_wrong_transfer_is_refused_and_changes_nothing(transfer: Transfer, why: str) -> None:
    ledger = funded()
    with pytest.raises(PeerError, match=why):
        ledger.post([transfer])
    assert ledger == funded()


def test_of_several_transfers_all_or_none_are_made() -> None:
    ledger = funded()
    with pytest.raises(PeerError):
        ledger.post([pay("one", 60), pay("two", 60)])
    with pytest.raises(PeerError, match="made before"):
        ledger.post([pay("one", 1), pay("one", 1)])
    assert ledger.balance(ESCROW) == 100
    assert len(ledger.transfers) == 1


def test_more_than_canonical_json_can_carry_is_never_minted() -> None:
    ledger = Ledger()
    for number in range(9):
        ledger = ledger.mint(f"mint-{number}", ESCROW, 10**15)
    with pytest.raises(PeerError, match="add up"):
        ledger.mint("mint-9", ESCROW, 10**15)


def test_accounts_cannot_be_written_from_outside() -> None:
    with pytest.raises(TypeError):
        funded().accounts["institution:cleveland"] = 5  # type: ignore[index] # the point of the test


# Pending, resolved, voided, corrected


ELSEWHERE = "institution:hungary"


def waiting() -> Ledger:
    return funded().post([Transfer("hold", ESCROW, "institution:cleveland", 60, step="pending")])


def later(step: Step, amount: int, *, of: str = "hold", debit: str = ESCROW, credit: str = CLEVELAND) -> Transfer:
    return Transfer(f"{step}-1", debit, credit, amount, step=step, of=of)


def test_what_is_pending_is_held_and_moves_nothing() -> None:
    ledger = waiting()
    assert (ledger.balance(ESCROW), ledger.available(ESCROW), ledger.balance(CLEVELAND)) == (100, 40, 0)
    assert ledger.held == {ESCROW: 60}
    with pytest.raises(PeerError, match="holds 40"):
        ledger.post([pay("more", 41)])
    assert ledger.post([pay("rest", 40)]).available(ESCROW) == 0


@pytest.mark.parametrize("amount", [0, 25, 60])
def test_a_pending_transfer_resolves_once_up_to_its_amount(amount: int) -> None:
    ledger = waiting().post([later("resolved", amount)])
    assert (ledger.balance(CLEVELAND), ledger.available(ESCROW)) == (amount, 100 - amount)
    assert ledger.held == {}
    assert ledger.statuses["hold"] == "resolved"
    for step, again in (("resolved", 1), ("voided", 0)):
        with pytest.raises(PeerError, match="is not a pending transfer"):
            ledger.post([Transfer("again", ESCROW, CLEVELAND, again, step=step, of="hold")])


def test_a_voided_transfer_lets_go_of_all_and_is_over() -> None:
    ledger = waiting().post([later("voided", 0)])
    assert (ledger.balance(CLEVELAND), ledger.available(ESCROW)) == (0, 100)
    assert ledger.statuses == {"mint-1": "posted", "hold": "voided", "voided-1": "voided"}
    with pytest.raises(PeerError, match="is not a pending transfer"):
        ledger.post([later("resolved", 1)])


@pytest.mark.parametrize(
    ("transfer", "why"),
    [
        (later("resolved", 61), "something else"),
        (later("resolved", 1, credit=ELSEWHERE), "something else"),
        (later("resolved", 1, of="mint-1"), "is not a pending"),
        (later("resolved", 1, of="nobody"), "is not a pending"),
        (later("resolved", 1, of=""), "nothing is not a pending"),
        (later("voided", 1), "moves something"),
        (later("correction", 1), "is not a posted"),
        (later("posted", 1), "refers to hold"),
        (later("pending", 41, of=""), "holds 40"),
        (Transfer("x", "mint:network", ESCROW, 1, step="pending"), "do not exist yet"),
        (Transfer("x", ESCROW, CLEVELAND, 1, step="undone"), "unknown step"),  # type: ignore[arg-type] # read from outside
    ],
)
def test_a_wrong_later_transfer_is_refused_and_changes_nothing(transfer: Transfer, why: str) -> None:
    ledger = waiting()
    with pytest.raises(PeerError, match=why):
        ledger.post([transfer])
    assert ledger == waiting()


def test_a_mistake_is_undone_by_a_transfer_of_its_own_and_by_no_more_than_was_moved() -> None:
    ledger = funded().post([pay("wrong", 60)])
    back = Transfer("back-1", CLEVELAND, ESCROW, 45, step="correction", of="wrong")
    ledger = ledger.post([back])
    assert (ledger.balance(CLEVELAND), ledger.balance(ESCROW)) == (15, 85)
    assert ledger.transfers[1] == pay("wrong", 60), "the wrong one is still there"
    with pytest.raises(PeerError, match="turns back more"):
        ledger.post([replace(back, id="back-2", amount=16)])
    ledger = ledger.post([replace(back, id="back-2", amount=15)])
    assert ledger.undone == {"wrong": 60}
    with pytest.raises(PeerError, match="does not turn back"):
        ledger.post([Transfer("forth", ESCROW, CLEVELAND, 1, step="correction", of="back-1")])


def test_what_was_passed_on_cannot_be_turned_back() -> None:
    ledger = funded().post([pay("wrong", 60), pay("share", 50, CLEVELAND, "subject:z6Mk1")])
    with pytest.raises(PeerError, match="holds 10"):
        ledger.post([Transfer("back", CLEVELAND, ESCROW, 60, step="correction", of="wrong")])


def test_funding_minting_and_burning_are_final() -> None:
    ledger = Ledger().mint("mint-1", "sponsor:uci", 100).post([pay("fund", 100, "sponsor:uci", ESCROW)])
    ledger = ledger.post([pay("burn", 10, credit="burned:heart-1")])
    for wrong in ledger.transfers:
        with pytest.raises(PeerError, match="no correction leads"):
            ledger.post([Transfer("back", wrong.credit, wrong.debit, 1, step="correction", of=wrong.id)])


def test_stake_comes_back_or_is_burned() -> None:
    ledger = funded().post([pay("settle", 60), pay("stake", 50, CLEVELAND, "stake:cleveland")])
    ledger = ledger.post(
        [pay("slash", 20, "stake:cleveland", "burned:evidence"), pay("free", 30, "stake:cleveland", CLEVELAND)]
    )
    assert ledger.to_json()["balances"] == {CLEVELAND: 40, "stake:cleveland": 0}
    assert ledger.burned == 20


def test_who_may_pay_whom_is_a_closed_table() -> None:
    kinds = list(FLOWS)
    for source in kinds:
        for target in kinds:
            negative = source in SOURCES
            accounts = {f"{source}:a": -10 if negative else 10, "subject:x" if negative else "mint:network": 10}
            accounts["subject:x" if negative else "mint:network"] *= 1 if negative else -1
            owed = {"pledge:b": -5, "subject:y": 5} if target == "pledge" else {}
            ledger = Ledger(accounts={**accounts, **owed})
            transfer = pay("one", 5, f"{source}:a", f"{target}:b")
            if target in FLOWS[source]:
                assert ledger.post([transfer]).balance(f"{target}:b") == 5 + owed.get("pledge:b", -0)
            else:
                with pytest.raises(PeerError, match="no transfer leads"):
                    ledger.post([transfer])


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"accounts": {"mint:network": -100, ESCROW: 99}}, "add up"),
        ({"accounts": {"mint:network": -100, ESCROW: 110, CLEVELAND: -10}}, "institution:cleveland holds 0 of -10"),
        ({"held": {ESCROW: 101}}, "holds 101 of 100"),
        ({"held": {ESCROW: 1}}, "what is held is not what"),
        ({"statuses": {}}, "there twice"),
        ({"undone": {"mint-1": 101}}, "more of the transfer mint-1"),
    ],
)
def test_every_invariant_is_checked_in_production(broken: dict[str, Any], why: str) -> None:
    with pytest.raises(PeerError, match=why):
        replace(funded(), **broken).check()


class TestBookkeeping(Bookkeeping.TestCase):  # type: ignore[name-defined,misc] # made by Hypothesis
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
