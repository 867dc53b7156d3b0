"""The journal, read by another program: sums, names, dates, and what a wrong journal looks like to it."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_text_accounts import read_journal

from federation.errors import PeerError
from federation.rules.journal import CSV_COLUMNS, JournalLine, account_names, journal, to_beancount, to_csv
from federation.rules.ledger import Ledger, Transfer

START = datetime(2026, 11, 25, 23, 59, 50, tzinfo=UTC)
STUDY, SITE = "escrow:heart-1", "institution:va_long_beach"
TRANSFERS = (
    Transfer("a", "mint:network", STUDY, 1000),
    Transfer("b:one", STUDY, SITE, 300),
    Transfer("b:two", STUDY, "institution:va-long-beach", 200),
    Transfer("c", STUDY, SITE, 100, step="pending"),
    Transfer("d", STUDY, SITE, 70, step="resolved", of="c"),
    Transfer("e", SITE, STUDY, 20, step="correction", of="b:one"),
    Transfer("f", SITE, "stake:va_long_beach", 50),
    Transfer("g", STUDY, "burned:study", 400),
    Transfer("h", STUDY, SITE, 1, step="pending"),
    Transfer("i", STUDY, SITE, 0, step="voided", of="h"),
)


def lines(transfers: tuple[Transfer, ...] = TRANSFERS) -> list[JournalLine]:
    ids = dict.fromkeys(each.id.partition(":")[0] for each in transfers)
    entries = {name: (3 * at, START + timedelta(seconds=4 * at)) for at, name in enumerate(ids)}
    return journal(Ledger.fold(transfers), entries)


def test_another_reader_finds_the_same_balances_and_every_assertion_holds() -> None:
    ledger = Ledger.fold(TRANSFERS)
    read = read_journal(to_beancount('A "study"', lines(), ledger))
    by_account = {metadata["account"]: read.balances.get(name, 0) for name, metadata in read.opened.items()}
    assert by_account == dict(ledger.accounts)
    assert read.asserted == len(ledger.accounts)
    assert sum(read.balances.values()) == 0
    assert [each["id"] for each in read.transactions] == ["a", "b:one", "b:two", "d", "e", "f", "g"]
    assert [each["narration"] for each in read.transactions][:2] == ["Pool of the study", "Reward"]
    assert read.transactions[4]["of"] == "b:one"
    assert [text.partition(":")[0] for _, text in read.notes] == ["pending", "pending", "voided"]
    assert read.options["title"] == 'A \\"study\\"'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  300 MICROCREDIT", "  301 MICROCREDIT"),
        ("balance Expenses:Burned:Study  400", "balance Expenses:Burned:Study  401"),
        ("open Expenses:Burned:Study", "open Expenses:Burned:study"),
        ("2026-11-25 *", "2026-11-27 *"),
        ('option "title"', "option title"),
    ],
)
def test_the_other_reader_refuses_a_journal_that_is_wrong(before: str, after: str) -> None:
    text = to_beancount("A study", lines(), Ledger.fold(TRANSFERS))
    assert before in text
    with pytest.raises(ValueError, match="line"):
        read_journal(text.replace(before, after, 1))


def test_accounts_that_would_be_called_alike_are_told_apart() -> None:
    names = account_names(Ledger.fold(TRANSFERS), lines())
    assert len(set(names.values())) == len(names)
    assert names["stake:va_long_beach"] == "Assets:Stake:Va-long-beach"
    assert names[SITE].startswith("Assets:Institution:Va-long-beach-")


@given(st.lists(st.tuples(st.sampled_from("ab_.-/Z9"), st.text("ab_.-/Z9", max_size=3)), max_size=6))
def test_any_account_has_a_name_of_its_own_that_beancount_reads(parts: list[tuple[str, str]]) -> None:
    accounts = sorted({f"institution:{'x' if first in '_.-/' else first}{rest}" for first, rest in parts})
    transfers = [Transfer("m", "mint:network", STUDY, 100)]
    transfers += [Transfer(f"t{at}", STUDY, account, at) for at, account in enumerate(accounts)]
    ledger = Ledger.fold(transfers)
    read = read_journal(to_beancount("x", lines(tuple(transfers)), ledger))
    assert {metadata["account"] for metadata in read.opened.values()} == set(ledger.accounts)


def test_the_table_has_a_row_for_each_transfer_in_order() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(lines()), newline="")))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert [row["id"] for row in rows] == [each.id for each in TRANSFERS]
    assert sum(int(row["amount_microcredits"]) for row in rows) == sum(each.amount for each in TRANSFERS)
    assert rows[4] == {
        "entry": "9",
        "time": "2026-11-26T00:00:02Z",
        "id": "d",
        "step": "resolved",
        "of": "c",
        "debit": STUDY,
        "credit": SITE,
        "amount_microcredits": "70",
    }


def test_without_a_transfer_there_is_an_empty_journal() -> None:
    assert read_journal(to_beancount("Nothing yet", [], Ledger())).opened == {}
    assert to_csv([]).count("\n") == 1


def test_a_transfer_of_no_entry_is_refused() -> None:
    with pytest.raises(PeerError, match="follows from no entry"):
        journal(Ledger.fold(TRANSFERS), {})
