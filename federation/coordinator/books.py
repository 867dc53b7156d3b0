"""A study's accounts, from any folder that holds the study: balances, and the journal for book-keepers.

Computed anew from the log, whose signatures and rules are verified; where the study is settled, values and payments
are recomputed from the opened value tables. Nothing is stored, nothing is sent.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from federation.errors import OperatorError
from federation.export.folding import FoldedLog, fold
from federation.learning.evaluation import committed_utility
from federation.rules import audit
from federation.rules.evidence import check_evidence
from federation.rules.journal import JournalLine, journal, to_beancount, to_csv
from federation.rules.ledger import Ledger
from federation.rules.merkle import root
from federation.rules.statements import in_credits
from federation.rules.study import open_plan

from .source import open_source

Form = Literal["beancount", "csv"]


@dataclass(frozen=True, slots=True)
class Books:
    """The verified ledger of one study.

    Attributes:
        folded: the log.
        lines: the ledger's transfers with the entries that they follow from.
        newest: size and note of the newest checkpoint in the folder, not verified; None where there is none.
    """

    folded: FoldedLog
    lines: tuple[JournalLine, ...]
    newest: tuple[int, bytes] | None

    @property
    def ledger(self) -> Ledger:
        """All accounts."""
        return self.folded.state.ledger

    def balance(self, account: str | None) -> tuple[dict[str, Any], str]:
        """What one account holds, or all: as data and as text.

        Args:
            account: an account (``institution:ash``), or an institution's short name; None for all.

        Raises:
            OperatorError: no such account in this study.
        """
        if account is not None:
            return self._one(account)
        ledger, known = self.ledger, self._known()
        width = max(map(len, known), default=0)
        held = sorted(ledger.held.items())
        lines = [
            self._heading(),
            *(f"  {name:<{width}}  {in_credits(ledger.balance(name))}" for name in known),
            *(f"  of {name:<{width - 3}}  {in_credits(amount)} held" for name, amount in held),
            _sum_of(ledger),
        ]
        return {**self._data(), **ledger.to_json(), "held": dict(held)}, "\n".join(lines)

    def export(self, form: Form) -> str:
        """The journal as a file's text."""
        if form == "csv":
            return to_csv(self.lines)
        state = self.folded.state
        return to_beancount(f"{state.plan.title} ({state.study})", self.lines, self.ledger)

    def export_json(self) -> dict[str, Any]:
        """The journal as one document."""
        return {**self._data(), "transfers": [line.to_json() for line in self.lines], **self.ledger.to_json()}

    def _one(self, account: str) -> tuple[dict[str, Any], str]:
        name = account if ":" in account else f"institution:{account}"
        known = self._known()
        if name not in known:
            raise OperatorError(
                f"{self.folded.state.study} has no account {name}.",
                remedy=f"Its accounts are: {', '.join(known) or 'none yet'}.",
            )
        balance, available = self.ledger.balance(name), self.ledger.available(name)
        data = {
            **self._data(),
            "account": name,
            "balance_microcredits": balance,
            "available_microcredits": available,
        }
        held = "" if balance == available else f", of which {in_credits(balance - available)} are held"
        return data, f"{self._heading()}\n  {name}  {in_credits(balance)}{held}"

    def _known(self) -> list[str]:
        """Every account that was used, and every institution's."""
        parties = {agreement.reward_account for agreement in self.folded.state.agreements.values()}
        return sorted({*self.ledger.accounts, *parties})

    def _data(self) -> dict[str, Any]:
        state = self.folded.state
        log = {"size": state.size, "root": root(self.folded.leaves).hex()}
        return {"study": state.study, "settled": state.settled, "log": log}

    def _heading(self) -> str:
        state = self.folded.state
        told = "settled" if state.settled else f"{len(state.closed)} of {state.rounds.count} rounds closed"
        return f"Accounts of {state.study} after {state.size} entries of its log ({told}):"


def _sum_of(ledger: Ledger) -> str:
    parties, pools = in_credits(sum(ledger.balances.values())), in_credits(ledger.escrow)
    return (
        f"Parties {parties} + pools {pools} + burned {in_credits(ledger.burned)} = minted {in_credits(ledger.minted)}."
    )


def books_of(folder: Path, *, study: str | None) -> Books:
    """Read and verify a study's ledger.

    Args:
        folder: a coordinator's folder, a node's folder, or an exported study.
        study: which study; None takes the only or the newest one.

    Raises:
        OperatorError: no such folder or study.
        PeerError: the log, a table or the payments do not verify.
        UnavailableError: a table has not arrived in this folder yet.
    """
    source = open_source(folder, study)
    plan, envelope = open_plan(source.plan)
    folded = fold(plan, source.plan, envelope.signer, source.entries)
    if folded.settlement is not None:
        audit.check_settlement(folded.settlement.before, folded.settlement.body, source.blobs)
    for entry in folded.entries:
        check_evidence(folded.state, entry, source.blobs, committed_utility)
    folded.state.ledger.check()
    entries = {entry.id: (index, entry.at) for index, entry in enumerate(folded.entries)}
    return Books(folded=folded, lines=tuple(journal(folded.state.ledger, entries)), newest=source.newest)
