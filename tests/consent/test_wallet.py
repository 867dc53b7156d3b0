import json
import stat
import threading
from pathlib import Path

import pytest

from consent.wallet import Wallet
from federation.errors import OperatorError


def test_keys_are_made_once_and_kept(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "people.wallet")
    assert wallet.create(["anna", "ben", "anna"]) == ["anna", "ben"]
    anna = wallet.key("anna").public
    assert wallet.create(["anna", "cleo"]) == ["cleo"]
    again = Wallet(tmp_path / "people.wallet")
    assert again.refs() == ("anna", "ben", "cleo")
    assert again.key("anna").public == anna
    assert len({again.key(ref).public for ref in again.refs()}) == 3


def test_the_file_is_its_owners_alone_and_nothing_else_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "people.wallet"
    Wallet(path).create(["anna"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in tmp_path.iterdir()] == ["people.wallet"]


def test_an_open_wallet_is_refused_with_the_line_that_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "people.wallet"
    Wallet(path).create(["anna"])
    path.chmod(0o644)
    with pytest.raises(OperatorError, match="open to other users") as caught:
        Wallet(path).key("anna")
    assert f"chmod 600 {path}" in caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version":2,"keys":{}}',
        b'{"version":1,"keys":[]}',
        b'{"version":1,"keys":{"anna":7}}',
        b'{"version":1,"keys":{"anna":"00"}}',
        b'{"version":1,"keys":{"anna":"' + b"Z" * 64 + b'"}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_wallet_is_refused_and_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "people.wallet"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(OperatorError, match="wallet"):
        Wallet(path).create(["anna"])
    assert path.read_bytes() == content


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "people.wallet")
    with pytest.raises(OperatorError, match="cannot be read"):
        wallet.refs()
    wallet.create([])
    assert wallet.refs() == ()
    with pytest.raises(OperatorError, match="no key for 'anna'"):
        wallet.key("anna")
    with pytest.raises(OperatorError, match="name"):
        wallet.create([""])
    with pytest.raises(OperatorError, match="cannot be written"):
        Wallet(tmp_path / "absent" / "people.wallet").create(["anna"])
    with pytest.raises(OperatorError, match="regular"):
        Wallet(tmp_path).refs()


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    first, second = Wallet(tmp_path / "w"), Wallet(tmp_path / "w")
    first.create(["anna"])
    assert second.refs() == ("anna",)
    first.create(["ben"])
    assert second.refs() == ("anna", "ben")


def test_makers_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "w"
    threads = [threading.Thread(target=lambda name=f"p{number}": Wallet(path).create([name])) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(path.read_text())["keys"]) == [f"p{number}" for number in range(8)]
