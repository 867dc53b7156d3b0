import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes
from federation.rules.ledger import Ledger, Transfer

ESCROW = "escrow:heart-1"
PARTIES = [
    "institution:cleveland",
    "institution:va_long_beach",
    "sponsor:uci",
    ESCROW,
    "escrow:other",
    "burned:heart-1",
]


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
        (pay("x", 1, "institution:hungary", ESCROW), "holds 0"),
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


class Bookkeeping(RuleBasedStateMachine):
    """Random mints and transfers, right and wrong, beside a plain dictionary of balances."""

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.model: dict[str, int] = {}
        self.minted = 0
        self.count = 0

    @rule(account=st.sampled_from(PARTIES[:-1]), amount=st.integers(0, 10**6))
    def mint(self, account: str, amount: int) -> None:
        self.count += 1
        self.ledger = self.ledger.mint(f"t{self.count}", account, amount)
        self.model[account] = self.model.get(account, 0) + amount
        self.minted += amount

    @rule(debit=st.sampled_from(PARTIES), credit=st.sampled_from(PARTIES), amount=st.integers(-5, 10**6))
    def transfer(self, debit: str, credit: str, amount: int) -> None:
        self.count += 1
        legal = debit != credit and debit != PARTIES[-1] and 0 <= amount <= self.model.get(debit, 0)
        before = self.ledger
        if not legal:
            with pytest.raises(PeerError):
                self.ledger.post([pay(f"t{self.count}", amount, debit, credit)])
            assert self.ledger is before
            return
        self.ledger = self.ledger.post([pay(f"t{self.count}", amount, debit, credit)])
        self.model[debit] = self.model.get(debit, 0) - amount
        self.model[credit] = self.model.get(credit, 0) + amount

    @rule(data=st.data())
    def repeat_an_old_transfer(self, data: st.DataObject) -> None:
        if self.ledger.transfers:
            with pytest.raises(PeerError, match="made before"):
                self.ledger.post([data.draw(st.sampled_from(self.ledger.transfers))])

    @invariant()
    def nothing_appears_or_vanishes(self) -> None:
        ledger = self.ledger
        assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted == self.minted
        assert all(ledger.balance(account) == amount >= 0 for account, amount in self.model.items())

    @invariant()
    def replaying_gives_the_same_ledger(self) -> None:
        assert Ledger.fold(self.ledger.transfers) == self.ledger


TestBookkeeping = Bookkeeping.TestCase
