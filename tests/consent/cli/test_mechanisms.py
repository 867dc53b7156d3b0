"""Every kind of record from the command line, taken in by a real registry and decided by it."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from consent.registry import TABLES, Registry, open_registry
from consent.rules.decision import Status, Use
from consent.rules.record import Mechanism, open_record
from federation.cli.main import main
from federation.identity import create_key, load_key
from federation.settings import PartyFolder, PartySettings, create_settings
from federation.storage.database import open_database

TERMS = ["--purpose", "DUO:0000042", "--epsilon-max", "3"]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland", consent_batch_size=16))
    create_key(PartyFolder(folder).key)
    return folder


@pytest.fixture
def wallet(tmp_path: Path) -> Path:
    path = tmp_path / "keys.wallet"
    assert main(["consent", "wallet", "--out", str(path), "--subject", "ann", "--subject", "mum", "--licence"]) == 0
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["consent", *(str(argument) for argument in arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def registry_of(node: Path) -> Registry:
    folder = PartyFolder(node)
    return open_registry(open_database(folder.database, *TABLES), load_key(folder.key))


def decided(node: Path, kind: Mechanism, ref: str = "ann") -> Status:
    registry = registry_of(node)
    use = Use(registry.institution.did, kind, "DUO:0000042", None, Decimal(1), Decimal("0.00001"))
    return registry.decide_all(use, registry.now(), [ref])[ref].status


@pytest.mark.parametrize("kind", [Mechanism.DPA, Mechanism.LICENCE])
def test_an_owner_speaks_for_a_whole_source(
    kind: Mechanism, node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grant = ["grant", "--dir", node, "--wallet", wallet, "--kind", kind, *TERMS]
    code, said = run(capsys, *grant, "--subject", "ann")
    assert (code, "whole source" in said["error"]["message"]) == (2, True)
    assert run(capsys, *grant)[0] == 0
    assert decided(node, kind, "station-7") is Status.PERMITTED
    assert run(capsys, "withdraw", "--dir", node, "--licence", "--wallet", wallet)[0] == 0
    assert decided(node, kind, "station-7") is Status.WITHDRAWN


@pytest.mark.parametrize(
    ("kind", "ref", "field"),
    [(Mechanism.HIPAA_AUTHORIZATION, "ann", "information"), (Mechanism.EHDS_PERMIT, "station-7", "number")],
)
def test_elements_come_from_the_template_and_withdrawal_keeps_the_kind(
    kind: Mechanism,
    ref: str,
    field: str,
    node: Path,
    wallet: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = ["--subject", ref] if kind is Mechanism.HIPAA_AUTHORIZATION else []
    grant = ["grant", "--dir", node, "--wallet", wallet, "--kind", kind, *people, *TERMS]
    code, said = run(capsys, *grant)
    assert (code, f"accord consent elements {kind}" in said["error"]["remedy"]) == (2, True)
    template = run(capsys, "elements", kind)[1]["template"]
    file = tmp_path / "elements.toml"
    file.write_text("\n".join(line for line in template.splitlines() if not line.startswith(field)), "utf-8")
    code, said = run(capsys, *grant, "--elements", file)
    assert (code, field in said["error"]["message"]) == (2, True)
    file.write_text(template, "utf-8")
    assert run(capsys, *grant, "--elements", file)[0] == 0
    assert decided(node, kind, ref) is Status.PERMITTED
    assert decided(node, Mechanism.CONSENT, ref) is not Status.PERMITTED
    withdraw = ["withdraw", "--dir", node, "--wallet", wallet, *(people or ["--licence"])]
    assert run(capsys, *withdraw)[0] == 0
    assert decided(node, kind, ref) is Status.WITHDRAWN


def test_an_opt_out_stops_the_use_under_a_permit_and_can_be_taken_back(
    node: Path, wallet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "permit.toml"
    file.write_text(run(capsys, "elements", "ehds-permit")[1]["template"], "utf-8")
    permit = ["grant", "--dir", node, "--wallet", wallet, "--kind", "ehds-permit", "--elements", file, *TERMS]
    assert run(capsys, *permit)[0] == 0
    opt_out = ["grant", "--dir", node, "--wallet", wallet, "--kind", "ehds-optout", "--subject", "ann"]
    code, said = run(capsys, *opt_out, *TERMS)
    assert (code, "--refuse" in said["error"]["remedy"]) == (2, True)
    assert decided(node, Mechanism.EHDS_PERMIT) is Status.PERMITTED
    assert run(capsys, *opt_out, "--refuse")[0] == 0
    assert decided(node, Mechanism.EHDS_PERMIT) is Status.REFUSED
    assert decided(node, Mechanism.EHDS_PERMIT, "ben") is Status.PERMITTED
    assert run(capsys, "withdraw", "--dir", node, "--subject", "ann", "--wallet", wallet)[0] == 0
    assert decided(node, Mechanism.EHDS_PERMIT) is Status.PERMITTED


def test_a_guardian_signs_for_a_minor_until_the_day_of_majority(
    node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grant = ["grant", "--dir", node, "--wallet", wallet, "--subject", "ann", "--guardian", "mum", *TERMS]
    assert run(capsys, *grant)[0] == 2
    code, said = run(capsys, *grant, "--majority", "2027-01-01", "--valid-until", "2028-01-01")
    assert (code, "majority" in said["error"]["message"]) == (6, True)
    assert run(capsys, *grant, "--majority", "2040-01-01")[0] == 0
    record = open_record(registry_of(node).history("ann")[0])
    assert record.guardian is not None
    assert record.issuer == record.guardian.did != record.subject
    assert decided(node, Mechanism.CONSENT) is Status.PERMITTED


def test_erasure_asks_first_and_leaves_no_record(node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "grant", "--dir", node, "--wallet", wallet, "--subject", "ann", "--subject", "mum", *TERMS)
    erase = ["erase", "--dir", node, "--subject", "ann"]
    assert run(capsys, *erase)[0] == 2
    assert len(registry_of(node).history("ann")) == 1
    assert run(capsys, *erase, "--yes") == (0, {"erased": 1})
    assert (registry_of(node).history("ann"), len(registry_of(node).history("mum"))) == ((), 1)
    code, said = run(capsys, *erase, "--yes")
    assert (code, "Nothing is known of ann" in said["error"]["message"]) == (2, True)
    assert not [path for path in node.glob("accord.db*") if b"ann" in path.read_bytes().replace(b"channel", b"")]


@pytest.mark.parametrize("name", ["contract", "CONSENT", ""])
def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(
    name: str, node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, "grant", "--dir", node, "--wallet", wallet, "--kind", name, "--subject", "ann", *TERMS)
    assert (code, all(kind in said["error"]["remedy"] for kind in Mechanism)) == (2, True)


def test_the_two_that_have_elements_are_named_for_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "elements", "dpa")
    assert (code, said["error"]["remedy"]) == (2, "Name one of: hipaa-authorization, ehds-permit.")
