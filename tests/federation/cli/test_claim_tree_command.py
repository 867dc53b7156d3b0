"""``accord rewards claim-tree``, as whoever settles on a chain types it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.cli.main import main
from federation.settlement.claim_tree import Claim, load, verify

Output = pytest.CaptureFixture[str]
ADDRESSES = {
    "ash": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "birch": "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "cedar": "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
}


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.json"
    path.write_text(json.dumps(ADDRESSES))
    return path


def claim_tree(*arguments: str | Path) -> int:
    return main(["rewards", "claim-tree", *map(str, arguments)])


def test_the_tree_holds_what_the_study_paid_with_a_proof_for_each(
    exported: tuple[Any, Path], accounts: Path, tmp_path: Path, capsys: Output
) -> None:
    study, folder = exported
    out = tmp_path / "tree.json"
    assert claim_tree("--dir", folder, "--accounts", accounts, "--out", out) == 0
    text = capsys.readouterr().out
    document = json.loads(out.read_text())
    tree = load(document)
    earned = {each.site: each.reward for each in study.state.payments if each.reward}
    assert {claim.address: claim.amount for claim in tree.claims} == {
        ADDRESSES[site]: reward for site, reward in earned.items()
    }
    assert tree.total == 1_000_000 - study.state.burned == int(document["total"])
    assert document["root"] == f"0x{tree.root.hex()}"
    assert f"root {document['root']}" in text
    assert text.endswith(f"Wrote {out}.\n")
    for claim in document["claims"]:
        proof = [bytes.fromhex(item[2:]) for item in claim["proof"]]
        verify(root=tree.root, claim=Claim(claim["address"], int(claim["amount"])), proof=proof)
        assert (claim["account"] in text, claim["address"] in text, claim["new"]) == (True, True, claim["amount"])


def test_the_same_books_make_the_same_file(
    exported: tuple[Any, Path], accounts: Path, tmp_path: Path, capsys: Output
) -> None:
    table = tmp_path / "accounts.csv"
    rows = [f"institution:{site},{address}" for site, address in reversed(ADDRESSES.items())]
    table.write_text("\n".join(["account,address", *rows]))
    files = [tmp_path / "one.json", tmp_path / "other.json"]
    for given, out in zip((accounts, table), files, strict=True):
        assert claim_tree("--dir", exported[1], "--accounts", given, "--out", out, "--json") == 0
        assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_against_the_tree_before_only_more_is_new(
    play: Callable[..., Any], accounts: Path, tmp_path: Path, capsys: Output
) -> None:
    exports, first, second = tmp_path / "exports", tmp_path / "1.json", tmp_path / "2.json"
    play().played().export(exports / "1")
    assert claim_tree("--dir", exports, "--accounts", accounts, "--out", first) == 0
    play(edits={'name = "small"': 'name = "second"'}, seed=8).played().export(exports / "2")
    assert claim_tree("--dir", exports, "--accounts", accounts, "--previous", first, "--out", second) == 0
    assert "Tree of claims over 2 settled studies" in capsys.readouterr().out
    before, after = json.loads(first.read_text()), json.loads(second.read_text())
    assert int(after["total"]) - int(before["total"]) == sum(int(claim["new"]) for claim in after["claims"]) > 0
    assert [each["study"].partition("-")[0] for each in after["studies"]] == ["small", "second"]
    assert claim_tree("--dir", exports / "1", "--accounts", accounts, "--previous", second) == 2
    said = capsys.readouterr().err
    assert "never go down" in said
    assert "all studies of before" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "There is no address for institution:"), ("[1]", "not one object"), ('{"ash": "0x1"}', "not an address")],
)
def test_wrong_addresses_are_answered_with_a_remedy(
    exported: tuple[Any, Path], tmp_path: Path, capsys: Output, text: str, said: str
) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    assert claim_tree("--dir", exported[1], "--accounts", path, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert said in error["message"]
    assert error["remedy"]


@pytest.mark.parametrize("text", ["{", "{}", "missing"])
def test_something_else_than_a_tree_is_no_tree_before(
    exported: tuple[Any, Path], accounts: Path, tmp_path: Path, capsys: Output, text: str
) -> None:
    previous = tmp_path / "tree.json"
    if text != "missing":
        previous.write_text(text)
    assert claim_tree("--dir", exported[1], "--accounts", accounts, "--previous", previous) == 2
    assert f"error: {previous}" in capsys.readouterr().err


def test_without_the_extra_the_rest_works_and_the_remedy_names_it(
    exported: tuple[Any, Path], accounts: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "Crypto":
            monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
        elif name.startswith("federation.settlement"):
            monkeypatch.delitem(sys.modules, name)
    assert main(["rewards", "balance", "--dir", str(exported[1])]) == 0
    assert main(["rewards", "export", "--dir", str(exported[1])]) == 0
    assert claim_tree("--dir", exported[1], "--accounts", accounts) == 2
    assert "pip install 'accord-network[chain]'" in capsys.readouterr().err
