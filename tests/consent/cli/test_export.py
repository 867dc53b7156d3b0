"""``accord consent export``: every form of one person's newest record."""

import json
from pathlib import Path
from typing import Any

import pytest

from consent.exports import terms_from_fhir, terms_from_odrl
from consent.rules.record import open_record
from federation.cli.main import main
from federation.identity import create_key
from federation.settings import PartyFolder, PartySettings, create_settings


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An institution with one person's grant, and another's withdrawal."""
    folder = tmp_path_factory.mktemp("export") / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland", consent_batch_size=16))
    create_key(PartyFolder(folder).key)
    wallet = ["--wallet", str(folder.parent / "people.wallet")]
    terms = ["--purpose", "DUO:0000007", "--disease", "MONDO:0005267", "--epsilon-max", "3"]
    assert main(["consent", "wallet", "--out", wallet[1], "--subject", "anna", "--subject", "ben"]) == 0
    assert main(["consent", "grant", "--dir", str(folder), *wallet, "--all", *terms]) == 0
    assert main(["consent", "withdraw", "--dir", str(folder), "--subject", "ben"]) == 0
    return folder


def export(node: Path, capsys: pytest.CaptureFixture[str], *arguments: str, subject: str = "anna") -> tuple[int, str]:
    capsys.readouterr()
    code = main(["consent", "export", "--dir", str(node), "--subject", subject, *arguments])
    return code, capsys.readouterr().out


def test_every_form_is_of_the_same_record(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def document(form: str) -> Any:
        code, out = export(node, capsys, "--format", form, "--language", "fr")
        assert code == 0
        return json.loads(out)

    signed = open_record(export(node, capsys, "--format", "vc")[1].encode("utf-8"))
    assert terms_from_fhir(document("fhir")) == terms_from_odrl(document("odrl")) == signed.terms
    assert document("duo")["diseases"][0]["label"] == "maladie du cœur"
    assert document("kantara")["piiPrincipalId"] == signed.subject
    code, page = export(node, capsys, "--format", "print", "--language", "pt")
    assert code == 0
    assert "Recebido" in page
    assert signed.digest in page.replace(" ", "")


def test_a_withdrawal_is_printed_with_its_receipt(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = node.parent / "receipt.html"
    code, said = export(node, capsys, "--format", "print", "--out", str(out), "--json", subject="ben")
    assert code == 0
    assert json.loads(said)["file"] == str(out)
    page = out.read_text("utf-8")
    assert "You withdrew your consent" in page
    assert json.loads(said)["record"] in page.replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--format", "print", "--subject", "nobody"], 6),
        (["--format", "print", "--subject", "anna", "--language", "de"], 2),
        (["--format", "papyrus", "--subject", "anna"], 2),
        (["--format", "print"], 2),
        (["--format", "vc", "--subject", "anna", "--out", "/nowhere/at/all"], 2),
        (["--format", "vc", "--licence"], 6),
    ],
)
def test_what_cannot_be_exported_says_why(node: Path, arguments: list[str], code: int) -> None:
    assert main(["consent", "export", "--dir", str(node), *arguments]) == code
