"""A ledger under any sequence of right and wrong transfers, beside books that are kept another way.

``tests/federation/rules/test_ledger.py`` plays a short slice; ``make fuzz`` plays a million steps.
"""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from federation.errors import PeerError
from federation.rules.ledger import Ledger, Transfer

MINT, PLEDGE = "mint:network", "pledge:cleveland"
SOURCES = ("mint", "pledge")
PARTIES = (
    "sponsor:uci",
    "escrow:heart-1",
    "escrow:other",
    "institution:cleveland",
    "institution:va_long_beach",
    "stake:cleveland",
    "pledge:cleveland",
    "subject:z6Mk1",
    "burned:heart-1",
)
# Who may pay whom, and what may be turned back, written down a second time.
PAYS = {
    "mint": ("sponsor", "escrow"),
    "sponsor": ("escrow",),
    "escrow": ("institution", "burned"),
    "institution": ("stake", "subject"),
    "pledge": ("stake",),
    "stake": ("institution", "burned", "pledge"),
}
TURNS_BACK = {("escrow", "institution"), ("institution", "stake"), ("institution", "subject"), ("stake", "institution")}

accounts = st.sampled_from(PARTIES)
amounts = st.one_of(st.integers(-2, 60), st.just(10**15 + 1))


def kind(account: str) -> str:
    return account.partition(":")[0]


class Bookkeeping(RuleBasedStateMachine):
    """The books beside it: a balance for each account, and for each transfer what is left to resolve or turn back."""

    steps = 0

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.balances = dict.fromkeys((MINT, *PARTIES), 0)
        self.open: dict[str, Transfer] = {}
        self.left: dict[str, int] = {}
        self.made: dict[str, Transfer] = {}
        self.count = 0

    def free(self, account: str) -> int:
        return self.balances[account] - sum(each.amount for each in self.open.values() if each.debit == account)

    def legal(self, transfer: Transfer) -> bool:
        """The rules, transfer by transfer, in other words than the ledger's."""
        if not 0 <= transfer.amount <= 10**15 or transfer.id in self.made:
            return False
        source, target = kind(transfer.debit), kind(transfer.credit)
        funded = source in SOURCES or self.free(transfer.debit) >= transfer.amount
        if transfer.step in ("posted", "pending"):
            exists = transfer.step == "posted" or source not in SOURCES
            owed = target != "pledge" or transfer.step == "pending" or self.owes(transfer)
            return target in PAYS.get(source, ()) and funded and exists and owed and not transfer.of
        if transfer.step in ("resolved", "voided"):
            pending = self.open.get(transfer.of)
            if pending is None or (pending.debit, pending.credit) != (transfer.debit, transfer.credit):
                return False
            owed = target != "pledge" or self.owes(transfer)
            return owed and transfer.amount <= (pending.amount if transfer.step == "resolved" else 0)
        wrong = self.made.get(transfer.of)
        if wrong is None or (wrong.credit, wrong.debit) != (transfer.debit, transfer.credit):
            return False
        return (target, source) in TURNS_BACK and transfer.amount <= self.left.get(wrong.id, -1) and funded

    def owes(self, transfer: Transfer) -> bool:
        return -self.balances[transfer.credit] >= transfer.amount

    def keep(self, transfer: Transfer) -> None:
        self.made[transfer.id] = transfer
        if transfer.step == "pending":
            self.open[transfer.id] = transfer
        if transfer.step in ("resolved", "voided"):
            del self.open[transfer.of]
        if transfer.step == "correction":
            self.left[transfer.of] -= transfer.amount
        if transfer.step in ("posted", "resolved"):
            self.left[transfer.id] = transfer.amount
        if transfer.step in ("posted", "resolved", "correction"):
            self.balances[transfer.debit] -= transfer.amount
            self.balances[transfer.credit] += transfer.amount

    def attempt(self, *transfers: Transfer) -> None:
        """All or none: the books are kept only when every transfer of the batch is legal in its turn."""
        type(self).steps += len(transfers)
        before = (
            self.ledger,
            dict(self.balances),
            dict(self.open),
            dict(self.left),
            dict(self.made),
        )
        for transfer in transfers:
            if not self.legal(transfer):
                _, self.balances, self.open, self.left, self.made = before
                with pytest.raises(PeerError):
                    self.ledger.post(transfers)
                assert self.ledger is before[0]
                return
            self.keep(transfer)
        self.ledger = self.ledger.post(transfers)

    def new_id(self) -> str:
        self.count += 1
        return f"t{self.count}"

    @rule(account=st.sampled_from(PARTIES[:4]), amount=st.integers(0, 100))
    def mint(self, account: str, amount: int) -> None:
        self.attempt(Transfer(self.new_id(), MINT, account, amount))

    @rule(debit=accounts, credit=accounts, amount=amounts, step=st.sampled_from(["posted", "pending"]))
    def transfer(self, debit: str, credit: str, amount: int, step: str) -> None:
        self.attempt(Transfer(self.new_id(), debit, credit, amount, step))  # type: ignore[arg-type] # one of both

    @rule(
        pair=st.sampled_from(
            [
                ("escrow:heart-1", "institution:cleveland"),
                ("institution:cleveland", "stake:cleveland"),
                ("pledge:cleveland", "stake:cleveland"),
                ("stake:cleveland", "pledge:cleveland"),
                ("stake:cleveland", "burned:heart-1"),
            ]
        ),
        amount=st.integers(0, 40),
        step=st.sampled_from(["posted", "pending"]),
    )
    def likely(self, pair: tuple[str, str], amount: int, step: str) -> None:
        self.attempt(Transfer(self.new_id(), *pair, amount, step))  # type: ignore[arg-type] # one of both

    @precondition(lambda self: self.made)
    @rule(data=st.data(), step=st.sampled_from(["resolved", "voided", "correction"]), amount=st.integers(0, 60))
    def refer(self, data: st.DataObject, step: str, amount: int) -> None:
        old = self.made[data.draw(st.sampled_from(sorted(self.made)))]
        debit, credit = (old.credit, old.debit) if step == "correction" else (old.debit, old.credit)
        wanted = 0 if step == "voided" else amount
        self.attempt(Transfer(self.new_id(), debit, credit, wanted, step, of=old.id))  # type: ignore[arg-type] # of three

    @precondition(lambda self: self.open)
    @rule(data=st.data(), step=st.sampled_from(["resolved", "voided"]), part=st.integers(0, 100))
    def finish(self, data: st.DataObject, step: str, part: int) -> None:
        old = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        amount = old.amount * part // 100 if step == "resolved" else 0
        self.attempt(Transfer(self.new_id(), old.debit, old.credit, amount, step, of=old.id))  # type: ignore[arg-type] # of two

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.attempt(self.made[data.draw(st.sampled_from(sorted(self.made)))])

    @rule(first=st.integers(0, 60), second=st.integers(0, 60))
    def linked(self, first: int, second: int) -> None:
        """Two payments and a funding that stand or fall together."""
        self.attempt(
            Transfer(self.new_id(), "sponsor:uci", "escrow:other", first),
            Transfer(self.new_id(), "escrow:other", "institution:va_long_beach", second),
            Transfer(self.new_id(), "institution:va_long_beach", "subject:z6Mk1", second // 2),
        )

    @invariant()
    def nothing_appears_or_vanishes(self) -> None:
        ledger = self.ledger
        out = -self.balances[MINT] - self.balances[PLEDGE]
        assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted == out
        assert ledger.pledged == -self.balances[PLEDGE] >= 0
        assert ledger.stakes == self.balances["stake:cleveland"]
        for account in PARTIES:
            assert ledger.balance(account) == self.balances[account]
            assert ledger.available(account) == self.free(account)
            assert account == PLEDGE or ledger.available(account) >= 0 <= ledger.held.get(account, 0)

    @invariant()
    def replaying_gives_the_same_ledger(self) -> None:
        assert Ledger.fold(self.ledger.transfers) == self.ledger
        assert [transfer.id for transfer in self.ledger.transfers] == list(self.made)
