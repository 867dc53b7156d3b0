"""``accord rewards statement``, as an institution's officer types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from plain_text_accounts import read_journal

from federation.cli.main import main

Output = pytest.CaptureFixture[str]


def test_a_statement_in_words(exported: tuple[Any, Path], capsys: Output) -> None:
    study, folder = exported
    assert main(["rewards", "statement", "birch", "--dir", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "birch took part in 1 of 2 rounds" in text
    assert "round 2    nothing (budget: nothing is left)" in text
    assert "cosigned by 3 of 3 institutions" in text
    assert study.key.public.did in text
    assert "accord log verify" in text


def test_a_statement_as_json(exported: tuple[Any, Path], capsys: Output) -> None:
    study, folder = exported
    sites = {}
    for site in ("ash", "birch", "cedar"):
        assert main(["rewards", "statement", site, "--dir", str(folder), "--json"]) == 0
        sites[site] = json.loads(capsys.readouterr().out)
    burned = sites["ash"]["burned_microcredits"]
    assert sum(data["reward_microcredits"] for data in sites.values()) + burned == 1_000_000
    assert {data["log"]["root"] for data in sites.values()} == {study.log.root().hex()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["elm"], "ash, birch, cedar"),
        (["ash", "--study", "heart-000000000000"], "is the study small-"),
    ],
    ids=["site", "study"],
)
def test_an_unknown_name_is_answered_with_those_that_there_are(
    exported: tuple[Any, Path], capsys: Output, arguments: list[str], said: str
) -> None:
    assert main(["rewards", "statement", *arguments, "--dir", str(exported[1])]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: Output) -> None:
    assert main(["rewards", "statement", "ash", "--dir", str(tmp_path)]) == 2
    assert "neither a party's folder nor an exported study" in capsys.readouterr().err


def test_before_the_settlement_there_is_no_statement(registry: Path, capsys: Output) -> None:
    assert main(["rewards", "statement", "ash", "--dir", str(registry), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "not settled: 0 of 5 rounds" in error["message"]


def test_balances_in_words_and_as_json(exported: tuple[Any, Path], capsys: Output) -> None:
    study, folder = exported
    assert main(["rewards", "balance", "--dir", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f"Accounts of {study.plan.study_id}" in text
    assert "institution:birch" in text, "also who got nothing"
    assert main(["rewards", "balance", "ash", "--dir", str(folder), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["account"] == "institution:ash"
    assert data["balance_microcredits"] == study.state.ledger.balance("institution:ash")
    assert main(["rewards", "balance", "elm", "--dir", str(folder)]) == 2
    assert "institution:ash" in capsys.readouterr().err


def test_the_books_as_files(exported: tuple[Any, Path], tmp_path: Path, capsys: Output) -> None:
    study, folder = exported
    assert main(["rewards", "export", "--dir", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert read_journal(shown).asserted == len(study.state.ledger.accounts)
    out = tmp_path / "books.beancount"
    assert main(["rewards", "export", "--dir", str(folder), "--out", str(out)]) == 0
    assert out.read_text() == shown
    assert capsys.readouterr().out == f"Wrote {out}.\n"
    assert main(["rewards", "export", "--dir", str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("entry,time,id,step,of,debit,credit,amount_microcredits\r\n")
    assert main(["rewards", "export", "--dir", str(folder), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in data["transfers"]] == [each.id for each in study.state.ledger.transfers]


def test_books_that_cannot_be_written_are_said(exported: tuple[Any, Path], tmp_path: Path, capsys: Output) -> None:
    assert main(["rewards", "export", "--dir", str(exported[1]), "--out", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
