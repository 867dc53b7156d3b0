"""Balances and journals from every folder that holds a study: the same figures, verified, or a clear no."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from plain_text_accounts import read_journal
from study_folder import in_folder

from federation.coordinator.books import books_of
from federation.errors import OperatorError, PeerError


def test_the_books_are_the_log_s(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    books = books_of(folder, study=None)
    assert books.ledger == study.state.ledger
    data, text = books.balance(None)
    assert data["balances"] == {f"institution:{each.site}": each.reward for each in study.state.payments if each.reward}
    assert data["minted"] == 1_000_000
    assert data["log"] == {"size": study.log.size, "root": study.log.root().hex()}
    assert "= minted 1 credit." in text
    read = read_journal(books.export("beancount"))
    assert {meta["account"]: read.balances[name] for name, meta in read.opened.items()} == dict(books.ledger.accounts)
    assert read.transactions[0]["entry"] == "0"
    assert {each["entry"] for each in read.transactions[1:]} == {str(study.log.size - 1)}


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_every_folder_tells_the_same(exported: tuple[Any, Path], tmp_path: Path, role: str) -> None:
    study, export = exported
    folder = in_folder(study, tmp_path / role, role)
    ours, theirs = books_of(folder, study=study.plan.study_id), books_of(export, study=None)
    assert ours.balance(None) == theirs.balance(None)
    for form in ("beancount", "csv"):
        assert ours.export(form) == theirs.export(form)
    assert ours.export_json() == theirs.export_json()


def test_before_the_settlement_the_pool_is_in_escrow(exported: tuple[Any, Path], tmp_path: Path) -> None:
    study, _ = exported
    folder = in_folder(study, tmp_path / "coordinator", "coordinator", entries=study.log.size - 1, tables=False)
    books = books_of(folder, study=None)
    data, text = books.balance(None)
    assert (data["escrow"], data["balances"], data["settled"]) == (1_000_000, {}, False)
    assert "(2 of 2 rounds closed)" in text
    assert books.balance("ash")[0]["balance_microcredits"] == 0
    assert len(read_journal(books.export("beancount")).transactions) == 1


def test_one_account_by_its_name_or_its_site_s(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    books = books_of(folder, study=None)
    for payment in study.state.payments:
        short, long = books.balance(payment.site), books.balance(f"institution:{payment.site}")
        assert short == long
        assert short[0]["balance_microcredits"] == short[0]["available_microcredits"] == payment.reward
    with pytest.raises(OperatorError, match="has no account institution:elm") as refused:
        books.balance("elm")
    assert "institution:ash" in refused.value.remedy


def test_books_of_a_false_settlement_are_refused(play: Any, tmp_path: Path) -> None:
    def shifted(body: Any) -> Any:
        rewards = [payment.reward for payment in body.payments]
        giver, taker = rewards.index(max(rewards)), rewards.index(min(rewards))
        rewards[giver], rewards[taker] = rewards[giver] - 1, rewards[taker] + 1
        payments = (
            each.model_copy(update={"reward": reward}) for each, reward in zip(body.payments, rewards, strict=True)
        )
        return body.model_copy(update={"payments": tuple(payments)})

    study = play(changes={"study-settled": shifted}).played()
    with pytest.raises(PeerError, match="do not follow from the value tables"):
        books_of(study.export(tmp_path / "study"), study=None)


def test_an_exchanged_entry_is_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(exported[1], folder)
    (folder / "log" / "000003.json").write_bytes((folder / "log" / "000002.json").read_bytes())
    with pytest.raises(PeerError, match=r"log/000003\.json"):
        books_of(folder, study=None)
