"""A study's ledger in the forms that book-keepers read: a beancount journal and a CSV table.

Both are views of the transfers, line by line in the log's order, with the entry that each follows from; amounts are
integers of micro-credits. The beancount journal ends with a balance assertion for every account, so that whatever reads
it checks the sums again. Sources: beancount's language syntax (v3); RFC 4180.
"""

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from federation.errors import PeerError
from federation.rules.ledger import (
    BURNED,
    ESCROW,
    INSTITUTION,
    MINT,
    PLEDGE,
    SPONSOR,
    STAKE,
    SUBJECT,
    Ledger,
    Transfer,
    account_kind,
)

COMMODITY: Final = "MICROCREDIT"
CSV_COLUMNS: Final = ("entry", "time", "id", "step", "of", "debit", "credit", "amount_microcredits")

_ROOTS: Final[Mapping[str, str]] = {
    MINT: "Equity:Mint",
    PLEDGE: "Equity:Pledge",
    SPONSOR: "Assets:Sponsor",
    ESCROW: "Assets:Escrow",
    INSTITUTION: "Assets:Institution",
    STAKE: "Assets:Stake",
    SUBJECT: "Assets:Subject",
    BURNED: "Expenses:Burned",
}


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One transfer and the log's entry that it follows from.

    Attributes:
        entry: the entry's index.
        at: when the entry was written, in UTC.
        transfer: what was moved or held.
    """

    entry: int
    at: datetime
    transfer: Transfer

    def to_json(self) -> dict[str, Any]:
        """The line as :data:`CSV_COLUMNS` name it."""
        transfer = self.transfer
        values = (
            self.entry,
            f"{self.at:%Y-%m-%dT%H:%M:%SZ}",
            transfer.id,
            transfer.step,
            transfer.of,
            transfer.debit,
            transfer.credit,
            transfer.amount,
        )
        return dict(zip(CSV_COLUMNS, values, strict=True))


def journal(ledger: Ledger, entries: Mapping[str, tuple[int, datetime]]) -> list[JournalLine]:
    """The ledger's transfers with their entries.

    Args:
        ledger: the fold.
        entries: entry id -> (index, time); a transfer's id is its entry's, or that with a name behind a colon.

    Raises:
        PeerError: a transfer follows from no entry.
    """
    lines = []
    for transfer in ledger.transfers:
        entry = entries.get(transfer.id.partition(":")[0])
        if entry is None:
            raise PeerError(
                f"The transfer {transfer.id} follows from no entry of the log.", remedy="Keep the log as evidence."
            )
        lines.append(JournalLine(entry=entry[0], at=entry[1], transfer=transfer))
    return lines


def to_csv(lines: Sequence[JournalLine]) -> str:
    """A header and one row for each transfer, in order; lines end as RFC 4180 says (CR LF)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS)
    writer.writeheader()
    writer.writerows(line.to_json() for line in lines)
    return text.getvalue()


def to_beancount(title: str, lines: Sequence[JournalLine], ledger: Ledger) -> str:
    """A beancount journal: accounts, transfers, and a balance assertion for each account on the day after the last.

    Transfers that move nothing (pending, voided) are notes. The network's own account names are metadata.

    Args:
        title: of the journal.
        lines: in the order of the log, so that their times never go back.
        ledger: the fold of the lines' transfers.
    """
    names = account_names(ledger, lines)
    text = [f'option "title" {_quoted(title)}', f'option "operating_currency" "{COMMODITY}"', ""]
    if not lines:
        return "\n".join(text)
    first = lines[0].at.date()
    text += [f"{first} commodity {COMMODITY}", '  name: "A millionth of a credit"', ""]
    for account, name in names.items():
        text += [f"{first} open {name} {COMMODITY}", f"  account: {_quoted(account)}"]
    for line in lines:
        text += ["", *_directive(line, names)]
    after = lines[-1].at.date() + timedelta(days=1)
    text += ["", *(f"{after} balance {name}  {ledger.balance(account)} {COMMODITY}" for account, name in names.items())]
    return "\n".join(text) + "\n"


def account_names(ledger: Ledger, lines: Sequence[JournalLine]) -> dict[str, str]:
    """Network account -> beancount account, sorted; two that would be called alike get a part of their hash behind.

    A component begins with a capital letter or a digit and holds letters, digits and hyphens.
    """
    touched = {side for line in lines for side in (line.transfer.debit, line.transfer.credit)}
    plain = {account: _name(account) for account in sorted({*ledger.accounts, *touched})}
    shared = {name for name in plain.values() if sum(name == other for other in plain.values()) > 1}
    return {
        account: f"{name}-{hashlib.sha256(account.encode()).hexdigest()[:8]}" if name in shared else name
        for account, name in plain.items()
    }


def _name(account: str) -> str:
    own = account.partition(":")[2]
    component = re.sub(r"[^A-Za-z0-9-]", "-", own)
    return f"{_ROOTS[account_kind(account)]}:{component[0].upper()}{component[1:]}"


def _directive(line: JournalLine, names: Mapping[str, str]) -> list[str]:
    transfer, day = line.transfer, line.at.date()
    debit, credit = names[transfer.debit], names[transfer.credit]
    if not transfer.moves:
        told = f"{transfer.step}: {transfer.amount} {COMMODITY} for {transfer.credit} ({transfer.id})"
        return [f"{day} note {debit} {_quoted(told)}"]
    shown = line.to_json()
    reference = [f"  of: {_quoted(transfer.of)}"] if transfer.of else []
    return [
        f"{day} * {_quoted(_narration(transfer))}",
        f"  id: {_quoted(transfer.id)}",
        f"  entry: {line.entry}",
        f"  time: {_quoted(shown['time'])}",
        *reference,
        f"  {debit}  {-transfer.amount} {COMMODITY}",
        f"  {credit}  {transfer.amount} {COMMODITY}",
    ]


def _narration(transfer: Transfer) -> str:
    source, target = account_kind(transfer.debit), account_kind(transfer.credit)
    if transfer.step == "correction":
        return f"Correction of {transfer.of}"
    told = {
        (MINT, ESCROW): "Pool of the study",
        (ESCROW, INSTITUTION): "Reward",
        (ESCROW, BURNED): "What nobody earned",
        (INSTITUTION, STAKE): "Stake",
        (STAKE, INSTITUTION): "Stake returned",
        (PLEDGE, STAKE): "Stake pledged",
        (STAKE, PLEDGE): "Stake released",
        (STAKE, BURNED): "Stake forfeited",
        (INSTITUTION, SUBJECT): "Share passed on",
    }
    return told.get((source, target), f"From {source} to {target}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
