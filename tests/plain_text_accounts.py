"""A small reader of beancount journals, independent of the program that writes them: what the tests check sums with.

It knows the directives that a study's journal uses (option, commodity, open, note, transactions, balance), refuses
everything else, and checks what beancount checks: accounts are opened once and before use, transactions add up to zero
in every commodity, dates do not go back, and every balance assertion holds at the beginning of its day.
"""

import re
from dataclasses import dataclass, field
from datetime import date

ACCOUNT = r"(?:Assets|Liabilities|Equity|Income|Expenses)(?::[A-Z0-9][A-Za-z0-9-]*)+"
TEXT = r'"((?:[^"\\]|\\.)*)"'
DAY = r"(\d{4}-\d{2}-\d{2})"
COMMODITY = r"([A-Z][A-Z0-9'._-]{0,22}[A-Z0-9])"


@dataclass
class Journal:
    """What was read."""

    options: dict[str, str] = field(default_factory=dict)
    opened: dict[str, dict[str, str]] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    transactions: list[dict[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    asserted: int = 0


def read_journal(text: str) -> Journal:
    """Read and check a journal.

    Raises:
        ValueError: a line that is not beancount's, or a check that fails; the line is named.
    """
    result, last = Journal(), date.min
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line:
            continue
        if found := re.fullmatch(rf"option {TEXT} {TEXT}", line):
            result.options[found[1]] = found[2]
            continue
        found = re.fullmatch(rf"{DAY} (commodity|open|note|balance|\*) ?(.*)", line)
        if found is None:
            raise ValueError(f"line {at}: {line!r} is not a directive")
        day = date.fromisoformat(found[1])
        if day < last:
            raise ValueError(f"line {at}: {day} is before {last}")
        last = day
        block = []
        while at < len(lines) and lines[at].startswith("  "):
            block.append(lines[at])
            at += 1
        directive(result, found[2], found[3], block, at)
    return result


def directive(result: Journal, kind: str, rest: str, block: list[str], at: int) -> None:
    metadata, postings = {}, []
    for line in block:
        if found := re.fullmatch(rf"  ([a-z][A-Za-z0-9_-]*): (?:{TEXT}|(\d+))", line):
            metadata[found[1]] = found[2] if found[3] is None else found[3]
        elif found := re.fullmatch(rf"  ({ACCOUNT})  (-?\d+) {COMMODITY}", line):
            postings.append((found[1], int(found[2])))
        else:
            raise ValueError(f"before line {at}: {line!r} is neither metadata nor a posting")
    if kind == "*":
        transaction(result, rest, metadata, postings, at)
    elif postings or not KINDS[kind](result, rest, metadata):
        raise ValueError(f"before line {at}: {kind} {rest} is wrong")


def transaction(result: Journal, rest: str, metadata: dict[str, str], postings: list[tuple[str, int]], at: int) -> None:
    narration = re.fullmatch(TEXT, rest)
    if narration is None or len(postings) < 2 or sum(amount for _, amount in postings) != 0:
        raise ValueError(f"before line {at}: the transaction {rest} does not add up to zero")
    for account, amount in postings:
        if account not in result.opened:
            raise ValueError(f"before line {at}: {account} is not open")
        result.balances[account] = result.balances.get(account, 0) + amount
    result.transactions.append({**metadata, "narration": narration[1]})


def opened(result: Journal, rest: str, metadata: dict[str, str]) -> bool:
    found = re.fullmatch(rf"({ACCOUNT}) {COMMODITY}", rest)
    if found is None or found[1] in result.opened:
        return False
    result.opened[found[1]] = metadata
    return True


def holds(result: Journal, rest: str, _: dict[str, str]) -> bool:
    found = re.fullmatch(rf"({ACCOUNT})  (-?\d+) {COMMODITY}", rest)
    result.asserted += 1
    return found is not None and found[1] in result.opened and result.balances.get(found[1], 0) == int(found[2])


def noted(result: Journal, rest: str, _: dict[str, str]) -> bool:
    found = re.fullmatch(rf"({ACCOUNT}) {TEXT}", rest)
    if found is None or found[1] not in result.opened:
        return False
    result.notes.append((found[1], found[2]))
    return True


KINDS = {
    "open": opened,
    "balance": holds,
    "note": noted,
    "commodity": lambda _result, rest, _metadata: re.fullmatch(COMMODITY, rest) is not None,
}
