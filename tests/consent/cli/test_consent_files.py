"""``accord consent verify`` of files, ``accord consent receipt``, and what a grant states."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from consent_people import chain

from consent.registry import TABLES, open_registry
from consent.rules.record import Action, open_record
from federation.cli.main import main
from federation.identity import create_key, load_key
from federation.settings import PartyFolder, PartySettings, create_settings
from federation.storage.database import open_database


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland", consent_batch_size=16))
    create_key(PartyFolder(folder).key)
    assert main(["consent", "wallet", "--out", str(tmp_path / "w"), "--subject", "anna", "--licence"]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["consent", *(str(argument) for argument in arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def grant(node: Path, *more: object) -> list[object]:
    return ["grant", "--dir", node, "--wallet", node.parent / "w", "--epsilon-max", "3", *more]


def test_a_grant_states_what_was_told(node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notice = tmp_path / "notice.html"
    notice.write_bytes(b"<p>What we ask you.</p>")
    options = ["--subject", "anna", "--purpose", "DUO:0000006", "--purpose", "DUO:0000022"]
    options += ["--condition", "DUO:0000022=FR", "--condition", "DUO:0000022=PT", "--code-hash", "ab" * 32]
    options += ["--max-rounds", "9", "--controller", "Hôpital", "--contact", "tel:1", "--jurisdiction", "FR"]
    options += ["--notice", str(notice), "--notice-version", "2", "--notice-language", "fr"]
    assert run(capsys, *grant(node, *options))[0] == 0
    code, result = run(capsys, "verify", "--dir", node, "--subject", "anna")
    shown = result["records"][0]
    assert (code, shown["conditions"]) == (0, {"DUO:0000022": ["FR", "PT"]})
    assert (shown["code_hash"], shown["rounds_max"]) == ("ab" * 32, 9)
    statement = shown["statement"]
    assert (statement["controller"]["name"], statement["controller"]["contact"]) == ("Hôpital", "tel:1")
    assert (statement["jurisdiction"], statement["type"]) == ("loc:FR", "dpv:ConsentRecord")
    digest = hashlib.sha256(notice.read_bytes()).hexdigest()
    assert statement["notice"] == {"hash": digest, "version": "2", "language": "fr"}
    assert run(capsys, *grant(node, "--licence", "--purpose", "DUO:0000042"))[0] == 0
    shown = run(capsys, "verify", "--dir", node, "--licence")[1]["records"][0]
    assert (shown["code_hash"], shown["statement"]["type"]) == ("any-approved", "dpv:DataProcessingRecord")


def test_bad_options_are_named(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = grant(node, "--subject", "anna", "--purpose", "DUO:0000006")
    assert run(capsys, *plain, "--condition", "DUO:0000022")[0] == 2
    assert run(capsys, *plain, "--notice", node / "absent.html")[0] == 2
    assert run(capsys, *plain, "--code-hash", "nonsense")[0] == 6
    assert run(capsys, *plain, "--jurisdiction", "the moon")[0] == 6


def test_a_receipt_is_written_and_checked_offline(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *grant(node, "--subject", "anna", "--purpose", "DUO:0000006"))[0] == 0
    out = tmp_path / "receipt.json"
    code, said = run(capsys, "receipt", "--dir", node, "--subject", "anna", "--out", out)
    assert (code, said["file"], said["logged"], said["receipt"]["subject_ref"]) == (0, str(out), None, "anna")
    folder = PartyFolder(node)
    registry = open_registry(open_database(folder.database, *TABLES), load_key(folder.key), batch_size=16)
    registry.append_batch(registry.now())
    assert main(["consent", "receipt", "--dir", str(node), "--subject", "anna", "--out", str(out)]) == 0
    assert "entry 0 of the institution's log" in capsys.readouterr().out
    code, said = run(capsys, "receipt", out)
    assert (code, said["valid"], said["logged"]) == (0, True, {"index": 0, "log_size": 1})
    code, said = run(capsys, "verify", out)
    assert (code, said["receipt"]["record"]) == (0, said["records"][0]["digest"])
    assert main(["consent", "receipt", "--dir", str(node), "--subject", "anna"]) == 0
    open_record(json.dumps(json.loads(capsys.readouterr().out)["credentialSubject"]["recordDocument"]).encode())
    out.write_bytes(out.read_bytes().replace(b'"seq":1,"subjectRef"', b'"seq":2,"subjectRef"'))
    assert run(capsys, "receipt", out)[0] == 1
    assert run(capsys, "receipt", out)[1]["reasons"] == ["wrong-signature"]


def test_a_receipt_command_says_what_it_cannot_do(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(chain(Action.GRANT)[0])
    assert run(capsys, "receipt", file)[0] == 2
    assert run(capsys, "receipt", "--dir", node)[0] == 2
    assert run(capsys, "receipt", "--dir", node, "--subject", "nobody")[0] == 6
    assert run(capsys, *grant(node, "--subject", "anna", "--purpose", "DUO:0000006"))[0] == 0
    absent = tmp_path / "absent" / "receipt.json"
    assert run(capsys, "receipt", "--dir", node, "--subject", "anna", "--out", absent)[0] == 2


def test_a_history_in_a_file_is_verified_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "history.json"
    records = [json.loads(data) for data in chain(Action.GRANT, Action.WITHDRAW, attested=True)]
    file.write_text(json.dumps(records), encoding="utf-8")
    assert main(["consent", "verify", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Valid.")
    assert "at the person's request, withdrew" in said
    file.write_text(json.dumps([*records, records[0]]), encoding="utf-8")
    assert main(["consent", "verify", str(file)]) == 1
    assert "Refused (replayed)" in capsys.readouterr().out
    assert main(["consent", "verify", str(tmp_path)]) == 2
