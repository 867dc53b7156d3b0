"""Double-entry book-keeping in micro-credits: balances are a fold over transfers, and nothing appears or vanishes.

An account is ``KIND:NAME``. Credits come from ``mint`` or, on a party's signed word, from its ``pledge`` (the only
kinds that may be negative), wait in the ``escrow`` of a study, belong to a ``sponsor``, an ``institution``, a ``stake``
or a ``subject``, and end in ``burned``. :data:`FLOWS` says which kind may pay which: a sponsor funds a pool and never
gets it back, a stake comes back to where it came from or is burned, what is burned stays burned. A pledge that was
burned stays in the books as what its party owes.

A transfer is never changed. It moves its amount at once (``posted``), or it holds it (``pending``) until one later
transfer moves it, or a part of it (``resolved``), or lets it go (``voided``). A mistake is undone by a transfer of its
own in the other direction (``correction``), never by more than was moved. A batch is linked: all of its transfers are
made, or none. After each batch every invariant is checked (:meth:`Ledger.check`), above all

    balances (stakes among them) + escrow + burned = minted (pledges among it)

A ledger is immutable: a transition returns a new one, a refused transition leaves the old one as it was.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from federation.errors import PeerError

MINT: Final = "mint"
ESCROW: Final = "escrow"
BURNED: Final = "burned"
SPONSOR: Final = "sponsor"
INSTITUTION: Final = "institution"
STAKE: Final = "stake"
SUBJECT: Final = "subject"
PLEDGE: Final = "pledge"
SOURCES: Final = frozenset({MINT, PLEDGE})
"""Kinds that credits come from: below zero by what is out."""
MINT_ACCOUNT: Final = "mint:network"
AMOUNT_MAX: Final = 10**15
"""One transfer's largest amount; a thousand million credits."""
MINTED_MAX: Final = 2**53 - 1
"""All credits ever minted stay within what canonical JSON can carry."""

FLOWS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        MINT: frozenset({SPONSOR, ESCROW}),
        SPONSOR: frozenset({ESCROW}),
        ESCROW: frozenset({INSTITUTION, BURNED}),
        INSTITUTION: frozenset({STAKE, SUBJECT}),
        PLEDGE: frozenset({STAKE}),
        STAKE: frozenset({PLEDGE, INSTITUTION, BURNED}),
        SUBJECT: frozenset(),
        BURNED: frozenset(),
    }
)
"""Kind -> the kinds that it may pay."""

CORRECTABLE: Final = frozenset(
    {(ESCROW, INSTITUTION), (INSTITUTION, STAKE), (INSTITUTION, SUBJECT), (STAKE, INSTITUTION)}
)
"""Flows that a correction may turn back. Minting, funding and burning are final: no pool returns to its sponsor."""

Step = Literal["posted", "pending", "resolved", "voided", "correction"]
Status = Literal["posted", "pending", "resolved", "voided"]

_REFERS: Final[Mapping[str, Status]] = MappingProxyType(
    {"resolved": "pending", "voided": "pending", "correction": "posted"}
)
"""A step that refers to an earlier transfer -> the status which that one must have."""

_ACCOUNT: Final = re.compile(r"(?P<kind>[a-z][a-z0-9-]{0,31}):(?P<name>[A-Za-z0-9][A-Za-z0-9:._/-]{0,199})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One line of the ledger.

    Attributes:
        id: unique for ever; a second transfer with the same id is refused, so that nothing is paid twice.
        debit: the account that the amount leaves.
        credit: the account that the amount enters.
        amount: micro-credits, 0 to 10^15.
        step: what it does, see the module.
        of: the earlier transfer's id that it resolves, voids or corrects; empty for ``posted`` and ``pending``.
    """

    id: str
    debit: str
    credit: str
    amount: int
    step: Step = "posted"
    of: str = ""

    @property
    def moves(self) -> bool:
        """Whether the amount changes its account (a pending one waits, a voided one never does)."""
        return self.step in ("posted", "resolved", "correction")


def account_kind(account: str) -> str:
    """The part before the first colon.

    Raises:
        PeerError: not of the form ``KIND:NAME``, or of an unknown kind.
    """
    match = _ACCOUNT.fullmatch(account)
    if match is None or match["kind"] not in FLOWS:
        raise _refused(f"{account[:80]!r} is not an account (KIND:NAME, with one of {', '.join(FLOWS)})")
    return match["kind"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All accounts at one moment.

    Attributes:
        accounts: account -> micro-credits, those that were ever used; ``mint`` and ``pledge`` accounts are negative.
        transfers: every transfer that led here, in order.
        held: account -> micro-credits that open pending transfers keep from being spent; accounts without are absent.
        statuses: transfer id -> what became of it (a transfer that resolved or corrected another is ``posted``).
        undone: transfer id -> micro-credits of it that corrections have turned back; others are absent.
    """

    accounts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    transfers: tuple[Transfer, ...] = ()
    held: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    statuses: Mapping[str, Status] = field(default_factory=lambda: MappingProxyType({}))
    undone: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def fold(cls, transfers: Iterable[Transfer]) -> "Ledger":
        """The ledger after these transfers, from nothing.

        Raises:
            PeerError: as :meth:`post`.
        """
        return cls().post(transfers)

    @property
    def minted(self) -> int:
        """Micro-credits that are out: created for pools, or on pledges that were not given back."""
        return -self._sum(MINT) - self._sum(PLEDGE)

    @property
    def pledged(self) -> int:
        """Micro-credits that are out on pledges alone: held as stakes, or burned and owed."""
        return -self._sum(PLEDGE)

    @property
    def stakes(self) -> int:
        """Micro-credits that parties stand in with."""
        return self._sum(STAKE)

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
        special = {*SOURCES, ESCROW, BURNED}
        return {name: self.accounts[name] for name in sorted(self.accounts) if account_kind(name) not in special}

    def balance(self, account: str) -> int:
        """One account's micro-credits, held ones included; 0 where it was never used."""
        return self.accounts.get(account, 0)

    def available(self, account: str) -> int:
        """What the account can still spend: its balance without what is held."""
        return self.balance(account) - self.held.get(account, 0)

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
                credits that are not held, a payment against :data:`FLOWS`, a reference to a transfer that does not
                wait for it, a correction of more than was moved, or more minted than can be carried.
        """
        draft = _Draft(self)
        for transfer in transfers:
            draft.add(transfer)
        result = draft.ledger()
        result.check()
        return result

    def check(self) -> None:
        """Every transition ends with this; the message says which invariant is broken.

        Raises:
            PeerError: balances + escrow + burned differ from minted; too much was minted; an account is overdrawn or
                holds more than it has; a pledge got back more than it gave; what is held is not what waits; more was
                turned back than moved.
        """
        if sum(self.balances.values()) + self.escrow + self.burned != self.minted or self.minted > MINTED_MAX:
            raise _refused("balances, escrow and burned credits do not add up to the credits minted")
        for account, amount in self.accounts.items():
            kind = account_kind(account)
            if kind == PLEDGE and amount > 0:
                raise _refused(f"more came back to {account} than it gave")
            if kind not in SOURCES and not 0 <= self.held.get(account, 0) <= amount:
                raise _refused(f"{account} holds {self.held.get(account, 0)} of {amount} micro-credits")
        if len(self.statuses) != len(self.transfers):
            raise _refused("a transfer is there twice")
        waiting: dict[str, int] = {}
        for transfer in self.transfers:
            if self.statuses.get(transfer.id) == "pending":
                waiting[transfer.debit] = waiting.get(transfer.debit, 0) + transfer.amount
            if not 0 <= self.undone.get(transfer.id, 0) <= transfer.amount:
                raise _refused(f"more of the transfer {transfer.id} was turned back than it moved")
        if {account: amount for account, amount in waiting.items() if amount} != dict(self.held):
            raise _refused("what is held is not what pending transfers wait for")

    def to_json(self) -> dict[str, Any]:
        """``minted``, ``escrow``, ``burned`` and ``balances`` {account: micro-credits}, all integers."""
        return {"minted": self.minted, "escrow": self.escrow, "burned": self.burned, "balances": self.balances}

    def _sum(self, kind: str) -> int:
        return sum(amount for account, amount in self.accounts.items() if account_kind(account) == kind)


class _Draft:
    """The next ledger while a batch is being made; thrown away when a transfer is refused."""

    def __init__(self, before: Ledger) -> None:
        self._accounts = dict(before.accounts)
        self._held = dict(before.held)
        self._statuses = dict(before.statuses)
        self._undone = dict(before.undone)
        self._by_id = {transfer.id: transfer for transfer in before.transfers}
        self._transfers = list(before.transfers)

    def ledger(self) -> Ledger:
        return Ledger(
            accounts=MappingProxyType(self._accounts),
            transfers=tuple(self._transfers),
            held=MappingProxyType({account: amount for account, amount in self._held.items() if amount}),
            statuses=MappingProxyType(self._statuses),
            undone=MappingProxyType(self._undone),
        )

    def add(self, transfer: Transfer) -> None:
        """Everything about one transfer is checked before anything moves."""
        if transfer.id in self._statuses:
            raise _refused(f"the transfer {transfer.id} was made before")
        if not transfer.id or isinstance(transfer.amount, bool) or not 0 <= transfer.amount <= AMOUNT_MAX:
            raise _refused(f"the transfer {transfer.id!r} of {transfer.amount!r} is malformed")
        step = _STEPS.get(transfer.step)
        if step is None:
            raise _refused(f"the transfer {transfer.id} takes an unknown step, {transfer.step!r}")
        step(self, transfer, self._referred(transfer))
        self._by_id[transfer.id] = transfer
        self._transfers.append(transfer)

    def _referred(self, transfer: Transfer) -> Transfer:
        """The earlier transfer that this one is about; itself where it is about none."""
        wanted = _REFERS.get(transfer.step)
        if wanted is None:
            if transfer.of:
                raise _refused(f"the transfer {transfer.id} is {transfer.step} and refers to {transfer.of}")
            return transfer
        if self._statuses.get(transfer.of) != wanted:
            raise _refused(f"{transfer.of or 'nothing'} is not a {wanted} transfer that {transfer.id} could refer to")
        return self._by_id[transfer.of]

    def posted(self, transfer: Transfer, _: Transfer) -> None:
        self._check_flow(transfer)
        self._check_funds(transfer)
        self._move(transfer)
        self._statuses[transfer.id] = "posted"

    def pending(self, transfer: Transfer, _: Transfer) -> None:
        self._check_flow(transfer)
        if account_kind(transfer.debit) in SOURCES:
            raise _refused(f"{transfer.id} would hold credits that do not exist yet")
        self._check_funds(transfer)
        self._hold(transfer.debit, transfer.amount)
        self._statuses[transfer.id] = "pending"

    def resolved(self, transfer: Transfer, pending: Transfer) -> None:
        if (transfer.debit, transfer.credit) != (pending.debit, pending.credit) or transfer.amount > pending.amount:
            raise _refused(f"{transfer.id} moves something else than {pending.id} holds")
        self._hold(pending.debit, -pending.amount)
        self._move(transfer)
        self._statuses |= {pending.id: "resolved", transfer.id: "posted"}

    def voided(self, transfer: Transfer, pending: Transfer) -> None:
        if (transfer.debit, transfer.credit) != (pending.debit, pending.credit) or transfer.amount:
            raise _refused(f"{transfer.id} lets go of something else than {pending.id} holds, or moves something")
        self._hold(pending.debit, -pending.amount)
        self._statuses |= {pending.id: "voided", transfer.id: "voided"}

    def correction(self, transfer: Transfer, wrong: Transfer) -> None:
        if (transfer.debit, transfer.credit) != (wrong.credit, wrong.debit) or wrong.step == "correction":
            raise _refused(f"{transfer.id} does not turn back {wrong.id}")
        if (account_kind(wrong.debit), account_kind(wrong.credit)) not in CORRECTABLE:
            raise _refused(f"no correction leads from {transfer.debit} to {transfer.credit}")
        undone = self._undone.get(wrong.id, 0) + transfer.amount
        if undone > wrong.amount:
            raise _refused(f"{transfer.id} turns back more than {wrong.id} moved")
        self._check_funds(transfer)
        self._move(transfer)
        self._undone[wrong.id] = undone
        self._statuses[transfer.id] = "posted"

    def _check_flow(self, transfer: Transfer) -> None:
        source, target = account_kind(transfer.debit), account_kind(transfer.credit)
        if target not in FLOWS[source]:
            raise _refused(f"no transfer leads from {transfer.debit} to {transfer.credit}")

    def _check_funds(self, transfer: Transfer) -> None:
        account = transfer.debit
        available = self._accounts.get(account, 0) - self._held.get(account, 0)
        if account_kind(account) not in SOURCES and available < transfer.amount:
            raise _refused(f"{account} holds {available} micro-credits, not the {transfer.amount} of {transfer.id}")

    def _hold(self, account: str, amount: int) -> None:
        self._held[account] = self._held.get(account, 0) + amount

    def _move(self, transfer: Transfer) -> None:
        self._accounts[transfer.debit] = self._accounts.get(transfer.debit, 0) - transfer.amount
        self._accounts[transfer.credit] = self._accounts.get(transfer.credit, 0) + transfer.amount


_STEPS: Final[Mapping[str, Callable[[_Draft, Transfer, Transfer], None]]] = MappingProxyType(
    {
        "posted": _Draft.posted,
        "pending": _Draft.pending,
        "resolved": _Draft.resolved,
        "voided": _Draft.voided,
        "correction": _Draft.correction,
    }
)


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The ledger refuses a transition: {why}.",
        remedy="Nothing was moved. If this comes from a coordinator's log, keep the log: it proves a wrong payment.",
    )
