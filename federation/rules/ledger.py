"""Double-entry book-keeping in micro-credits: balances are a fold over transfers, and nothing appears or vanishes.

An account is ``KIND:NAME``. Four kinds have a meaning of their own: ``mint`` is where credits come from (the only kind
that may be negative), ``escrow`` holds a study's pool, ``burned`` takes what nobody gets, and all others (``sponsor``,
``institution``, ...) are parties' balances. Every transfer moves one amount from one account to another, so that after
each one

    balances + escrow + burned = minted

A ledger is immutable: a transition returns a new one, a refused transition leaves the old one as it was.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from federation.errors import PeerError

MINT: Final = "mint"
ESCROW: Final = "escrow"
BURNED: Final = "burned"
MINT_ACCOUNT: Final = "mint:network"
AMOUNT_MAX: Final = 10**15
"""One transfer's largest amount; a thousand million credits."""
MINTED_MAX: Final = 2**53 - 1
"""All credits ever minted stay within what canonical JSON can carry."""

_ACCOUNT: Final = re.compile(r"(?P<kind>[a-z][a-z0-9-]{0,31}):(?P<name>[A-Za-z0-9][A-Za-z0-9:._/-]{0,199})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement of credits.

    Attributes:
        id: unique for ever; a second transfer with the same id is refused, so that nothing is paid twice.
        debit: the account that the amount leaves.
        credit: the account that the amount enters.
        amount: micro-credits, 0 to 10^15.
    """

    id: str
    debit: str
    credit: str
    amount: int


def account_kind(account: str) -> str:
    """The part before the first colon.

    Raises:
        PeerError: not of the form ``KIND:NAME``.
    """
    match = _ACCOUNT.fullmatch(account)
    if match is None:
        raise _refused(f"{account[:80]!r} is not an account (KIND:NAME)")
    return match["kind"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All accounts at one moment.

    Attributes:
        accounts: account -> micro-credits, those that were ever used; ``mint`` accounts are negative.
        transfers: every transfer that led here, in order.
    """

    accounts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    transfers: tuple[Transfer, ...] = ()

    @classmethod
    def fold(cls, transfers: Iterable[Transfer]) -> "Ledger":
        """The ledger after these transfers, from nothing.

        Raises:
            PeerError: as :meth:`post`.
        """
        return cls().post(transfers)

    @property
    def minted(self) -> int:
        """Micro-credits that were ever created."""
        return -self._sum(MINT)

    @property
    def escrow(self) -> int:
        """Micro-credits that wait in pools."""
        return self._sum(ESCROW)

    @property
    def burned(self) -> int:
        """Micro-credits that nobody can use any more."""
        return self._sum(BURNED)

    @property
    def balances(self) -> dict[str, int]:
        """Parties' accounts -> micro-credits, sorted by account."""
        special = {MINT, ESCROW, BURNED}
        return {name: self.accounts[name] for name in sorted(self.accounts) if account_kind(name) not in special}

    def balance(self, account: str) -> int:
        """One account's micro-credits, 0 where it was never used."""
        return self.accounts.get(account, 0)

    def mint(self, transfer_id: str, account: str, amount: int) -> "Ledger":
        """Create credits in an account, usually a study's escrow.

        Raises:
            PeerError: as :meth:`post`.
        """
        return self.post((Transfer(id=transfer_id, debit=MINT_ACCOUNT, credit=account, amount=amount),))

    def post(self, transfers: Iterable[Transfer]) -> "Ledger":
        """The ledger after these transfers: all of them or, when one is refused, none.

        Raises:
            PeerError: a malformed account or amount, a transfer id that was used before, an account without enough
                credits, credits that leave ``burned`` or enter ``mint``, or more minted than can be carried.
        """
        accounts, seen, added = dict(self.accounts), {transfer.id for transfer in self.transfers}, []
        for transfer in transfers:
            _check(transfer, seen, accounts)
            seen.add(transfer.id)
            accounts[transfer.debit] = accounts.get(transfer.debit, 0) - transfer.amount
            accounts[transfer.credit] = accounts.get(transfer.credit, 0) + transfer.amount
            added.append(transfer)
        result = Ledger(MappingProxyType(accounts), (*self.transfers, *added))
        result.check()
        return result

    def check(self) -> None:
        """Every transition ends with this.

        Raises:
            PeerError: balances + escrow + burned differ from minted, or too much was minted.
        """
        if sum(self.balances.values()) + self.escrow + self.burned != self.minted or self.minted > MINTED_MAX:
            raise _refused("balances, escrow and burned credits do not add up to the credits minted")

    def to_json(self) -> dict[str, Any]:
        """``minted``, ``escrow``, ``burned`` and ``balances`` {account: micro-credits}, all integers."""
        return {"minted": self.minted, "escrow": self.escrow, "burned": self.burned, "balances": self.balances}

    def _sum(self, kind: str) -> int:
        return sum(amount for account, amount in self.accounts.items() if account_kind(account) == kind)


def _check(transfer: Transfer, seen: set[str], accounts: Mapping[str, int]) -> None:
    """Everything about one transfer, before anything moves."""
    if transfer.id in seen:
        raise _refused(f"the transfer {transfer.id} was made before")
    if not transfer.id or isinstance(transfer.amount, bool) or not 0 <= transfer.amount <= AMOUNT_MAX:
        raise _refused(f"the transfer {transfer.id!r} of {transfer.amount!r} is malformed")
    source, target = account_kind(transfer.debit), account_kind(transfer.credit)
    if transfer.debit == transfer.credit or source == BURNED or target == MINT:
        raise _refused(f"no transfer leads from {transfer.debit} to {transfer.credit}")
    available = accounts.get(transfer.debit, 0)
    if source != MINT and available < transfer.amount:
        raise _refused(f"{transfer.debit} holds {available} micro-credits, not the {transfer.amount} of {transfer.id}")


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The ledger refuses a transition: {why}.",
        remedy="Nothing was moved. If this comes from a coordinator's log, keep the log: it proves a wrong payment.",
    )
