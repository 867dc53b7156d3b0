"""The file of addresses: both forms, and every way of writing it wrong."""

import json
from pathlib import Path

import pytest

from federation.errors import OperatorError
from federation.settlement.accounts import read_accounts

ASH = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
BIRCH = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
BOTH = {"institution:ash": ASH, "institution:birch": BIRCH}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"ash": ASH, "institution:birch": BIRCH})),
        ("a.csv", f"account,address\nash,{ASH}\ninstitution:birch,{BIRCH}\n"),
        ("a.CSV", f"\ufeffaccount,address\r\nash, {ASH}\r\n\r\nbirch,{BIRCH}"),
    ],
)
def test_json_and_csv_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert read_accounts(path) == BOTH


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[]", "not one object"),
        ("a.json", '{"ash": 5}', "not one object"),
        ("a.json", "{", "JSON document is refused"),
        ("a.json", f'{{"ash": "{ASH}", "ash": "{BIRCH}"}}', "appears twice"),
        ("a.json", f'{{"ash": "{ASH}", "institution:ash": "{BIRCH}"}}', "institution:ash is there twice"),
        ("a.json", f'{{"ash": "{ASH}", "birch": "{ASH}"}}', "for two accounts"),
        ("a.json", f'{{"ash": "{ASH.lower()}"}}', "institution:ash: The address .* carries no checksum"),
        ("a.json", f'{{"burned:study": "{ASH}"}}', "not an institution's account"),
        ("a.json", f'{{"bank:x": "{ASH}"}}', "not an account"),
        ("a.json", f'{{"": "{ASH}"}}', "not an account"),
        ("a.csv", "", "first line"),
        ("a.csv", f"ash,{ASH}\n", "first line"),
        ("a.csv", f"account,address\nash,{ASH},1\n", "line 2 does not have 2 columns"),
        ("a.csv", f'account,address\n"ash,{ASH}\n', "refused"),
        ("a.csv", "account,address\nash,\udcff\n", "refused"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_s_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OperatorError, match=said) as refused:
        read_accounts(path)
    assert refused.value.message.startswith(str(path))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read"):
        read_accounts(tmp_path / "missing.json")
