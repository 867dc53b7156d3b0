"""What counts as earned: final settlements only, once each, and nothing that was staked, held or passed on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_folder import in_folder

from federation.coordinator.books import books_of
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules.keys import PrivateKey
from federation.rules.ledger import Transfer
from federation.settlement.claim_tree import Claim, grow
from federation.settlement.drop import make_drop
from federation.settlement.earnings import Earnings, StudyEarnings, earnings_in, study_earnings

ADDRESSES = (
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
)
Play = Callable[..., Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, play: Play) -> tuple[Any, Any, Path]:
    """Two settled studies and one under way, exported into one folder."""
    folder = tmp_path_factory.mktemp("exports")
    first, second = play().played(), play(edits={'name = "small"': 'name = "second"'}, seed=8).played()
    under_way = play(edits={'name = "small"': 'name = "third"'})
    under_way.start()
    for number, study in enumerate((first, second, under_way)):
        study.export(folder / str(number))
    (folder / "notes").mkdir()
    return first, second, folder


def rewards(*studies: Any) -> dict[str, int]:
    sums: dict[str, int] = {}
    for study in studies:
        for payment in study.state.payments:
            if payment.reward:
                account = f"institution:{payment.site}"
                sums[account] = sums.get(account, 0) + payment.reward
    return sums


def test_rewards_of_all_settled_studies_are_added_up(two: tuple[Any, Any, Path]) -> None:
    first, second, folder = two
    earnings = earnings_in(folder)
    assert earnings.amounts == rewards(first, second)
    assert earnings.total == 2_000_000 - first.state.burned - second.state.burned > 0
    assert [study.root for study in earnings.studies] == [first.log.root().hex(), second.log.root().hex()]
    assert [name.partition("-")[0] for name in earnings.unsettled] == ["third"]


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_every_folder_tells_the_same(exported: tuple[Any, Path], tmp_path: Path, role: str) -> None:
    study, export = exported
    assert earnings_in(in_folder(study, tmp_path / role, role)) == earnings_in(export)


def test_a_settlement_that_is_not_final_is_not_paid(play: Play, tmp_path: Path) -> None:
    study = play()
    study.start()
    study.play_round(1)
    study.play_round(2)
    study.settle(cosigners=1)
    with pytest.raises(UnavailableError, match="1 of 3 institutions cosigned it, 2 are needed"):
        earnings_in(study.export(tmp_path / "study"))
    study.checkpoint(cosigners=2)
    assert earnings_in(study.export(tmp_path / "later")).amounts == rewards(study)


def test_a_checkpoint_of_another_log_makes_nothing_final(play: Play, tmp_path: Path) -> None:
    def other_root(checkpoint: Any) -> Any:
        return replace(checkpoint, root=bytes(32))

    study = play()
    study.start()
    study.play_round(1)
    study.play_round(2)
    study.changes["checkpoint"] = other_root
    study.settle()
    with pytest.raises(PeerError, match="is of another log"):
        earnings_in(study.export(tmp_path / "study"))


def test_a_study_that_is_there_twice_is_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    for name in ("one", "other"):
        shutil.copytree(exported[1], tmp_path / name)
    with pytest.raises(OperatorError, match="twice"):
        earnings_in(tmp_path)


def test_one_name_for_two_institutions_is_refused(two: tuple[Any, Any, Path], play: Play, tmp_path: Path) -> None:
    shutil.copytree(two[2] / "0", tmp_path / "0")
    study = play(edits={'name = "small"': 'name = "other"'})
    study.institutions = {
        site: PrivateKey(bytes([201 + number]) * 32) for number, site in enumerate(study.institutions)
    }
    study.played().export(tmp_path / "1")
    with pytest.raises(OperatorError, match="perhaps two institutions"):
        earnings_in(tmp_path)


def test_without_a_settled_study_there_is_nothing_to_pay(two: tuple[Any, Any, Path], tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"is settled: third-"):
        earnings_in(two[2] / "2")
    for nothing in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OperatorError, match="no study"):
            earnings_in(nothing)


def test_an_exchanged_entry_is_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(exported[1], tmp_path / "changed")
    (tmp_path / "changed" / "log" / "000003.json").write_bytes((exported[1] / "log" / "000002.json").read_bytes())
    with pytest.raises(PeerError, match=r"log/000003\.json"):
        earnings_in(tmp_path)


def test_what_was_staked_passed_on_or_is_held_does_not_count(exported: tuple[Any, Path]) -> None:
    books = books_of(exported[1], study=None)
    before = study_earnings(books)
    account, amount = max(before.amounts.items(), key=lambda item: item[1])
    site = account.partition(":")[2]
    moved = books.ledger.post(
        [
            Transfer(id="stake", debit=account, credit=f"stake:{site}", amount=1000),
            Transfer(id="share", debit=account, credit="subject:x", amount=200),
            Transfer(id="hold", debit=account, credit=f"stake:{site}", amount=30, step="pending"),
        ]
    )
    state = replace(books.folded.state, ledger=moved)
    after = study_earnings(replace(books, folded=replace(books.folded, state=state)))
    assert after.amounts == {**before.amounts, account: amount - 1230}
    assert after.total == before.total - 1230 == sum(after.amounts.values())


def one(total: int, **amounts: int) -> Earnings:
    by_account = {f"institution:{name}": amount for name, amount in amounts.items()}
    study = StudyEarnings(study="s-000000000000", size=1, root="", amounts=by_account, parties={}, total=total)
    return Earnings(studies=(study,), unsettled=())


def test_a_tree_that_differs_from_the_books_is_not_made() -> None:
    addresses = {"institution:ash": ADDRESSES[0]}
    assert make_drop(one(5, ash=5), addresses, None).tree.total == 5
    with pytest.raises(PeerError, match="5 micro-credits, and the books 6"):
        make_drop(one(6, ash=5), addresses, None)


def test_who_earned_nothing_needs_no_address_and_others_do() -> None:
    addresses = {"institution:ash": ADDRESSES[0], "institution:elm": ADDRESSES[1]}
    assert make_drop(one(5, ash=5), addresses, None).accounts == ("institution:ash",)
    with pytest.raises(OperatorError, match="no address for institution:birch, institution:cedar"):
        make_drop(one(6, ash=1, birch=2, cedar=3), addresses, None)
    with pytest.raises(OperatorError, match="earned anything"):
        make_drop(one(0), addresses, None)


def test_amounts_never_go_down() -> None:
    addresses = {"institution:ash": ADDRESSES[0], "institution:birch": ADDRESSES[1]}
    previous = grow([Claim(ADDRESSES[0], 5), Claim(ADDRESSES[1], 2)])
    drop = make_drop(one(9, ash=5, birch=4), addresses, previous)
    assert drop.new == {"institution:ash": 0, "institution:birch": 2}
    with pytest.raises(OperatorError, match=r"0\.000005 credits in the tree before and would have 0\.000004"):
        make_drop(one(8, ash=4, birch=4), addresses, previous)
    with pytest.raises(OperatorError, match=ADDRESSES[1]):  # an address that is gone has less as well
        make_drop(one(9, ash=5, birch=4), {**addresses, "institution:birch": ADDRESSES[2]}, previous)
