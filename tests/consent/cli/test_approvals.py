"""A person's finding, recorded, listed and taken back with the real commands, and decided by the real registry."""

import json
import re
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from consent_people import person

from consent.registry import TABLES, Registry, open_registry
from consent.rules.decision import Status, Use
from consent.rules.duo import Declared
from consent.rules.record import Mechanism
from federation.cli.main import main
from federation.identity import create_key, load_key
from federation.rules.study import StudyPlan, plan_from_toml
from federation.settings import PartyFolder, PartySettings, create_settings
from federation.storage.database import open_database

IRB = "DUO:0000021"
FINDING = ["--by", "Dr. Ada Okoro", "--grounds", "Ethics committee, 2026/117"]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland", consent_batch_size=16))
    create_key(PartyFolder(folder).key)
    wallet = tmp_path / "keys.wallet"
    assert main(["consent", "wallet", "--out", str(wallet), "--subject", "ann"]) == 0
    grant = ["consent", "grant", "--dir", str(folder), "--wallet", str(wallet), "--subject", "ann"]
    assert main([*grant, "--purpose", "DUO:0000042", "--purpose", IRB, "--epsilon-max", "3"]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["consent", *(str(argument) for argument in arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def registry_of(node: Path) -> Registry:
    folder = PartyFolder(node)
    return open_registry(open_database(folder.database, *TABLES), load_key(folder.key))


def decided(node: Path, plan_hash: str) -> Status:
    registry = registry_of(node)
    declared = Declared(study=("heart", plan_hash))
    wanted = Use(
        registry.institution.did,
        Mechanism.CONSENT,
        "DUO:0000042",
        None,
        Decimal(1),
        Decimal("0.00001"),
        declared=declared,
    )
    return registry.decide_all(wanted, registry.now(), ["ann"])["ann"].status


def joined(node: Path) -> StudyPlan:
    """A study that the node knows."""
    template = (resources.files("federation.cli") / "plan_template.toml").read_text(encoding="utf-8")
    filled = re.sub(r"^commitment = .*$", f'commitment = "{64 * "0"}"', template, flags=re.MULTILINE)
    filled = re.sub(r"^code_approved = .*$", f'code_approved = ["{64 * "0"}"]', filled, flags=re.MULTILINE)
    plan = plan_from_toml(filled, source="test")
    signed = plan.sign(person("coordinator")).to_bytes()
    registry_of(node).note_study(plan.study_id, title=plan.title, plan_bytes=signed, epsilon="1", delta="0.00001")
    return plan


def test_a_finding_makes_the_yes_for_the_named_study_until_it_is_taken_back(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = joined(node)
    assert decided(node, plan.plan_hash) is Status.NEEDS_PERSON
    approve = ["approve", "--dir", node, "--restriction", IRB, *FINDING, "--valid-until", "2090-01-01"]
    code, said = run(capsys, *approve, "--study", plan.study_id)
    assert (code, said["plan_hash"], said["valid_until"]) == (0, plan.plan_hash, "2090-01-01T00:00:00Z")
    assert (decided(node, plan.plan_hash), decided(node, "b" * 64)) == (Status.PERMITTED, Status.NEEDS_PERSON)
    assert run(capsys, "approvals", "--dir", node) == (0, {"approvals": [said]})
    code, ended = run(capsys, "disapprove", said["identifier"][:12], "--dir", node)
    assert (code, ended["revoked_at"] is not None) == (0, True)
    assert decided(node, plan.plan_hash) is Status.NEEDS_PERSON
    assert run(capsys, "approvals", "--dir", node) == (0, {"approvals": [ended]})


def test_what_is_listed_for_people_names_who_what_and_why(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consent", "approvals", "--dir", str(node)]) == 0
    assert "Nobody has approved anything." in capsys.readouterr().out
    assert run(capsys, "approve", "--dir", node, "--restriction", IRB, *FINDING, "--plan-hash", "a" * 64)[0] == 0
    assert main(["consent", "approvals", "--dir", str(node)]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in (IRB, "only with an ethics approval", "Dr. Ada Okoro", "2026/117", "a" * 12))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--restriction", "DUO:0000042", "--plan-hash", "a" * 64], "DUO:0000021"),
        (["--restriction", IRB], "--plan-hash"),
        (["--restriction", IRB, "--study", "heart", "--plan-hash", "a" * 64], "either"),
        (["--restriction", IRB, "--study", "unknown"], "--plan-hash"),
        (["--restriction", IRB, "--plan-hash", "A" * 64], "64"),
        (["--restriction", IRB, "--plan-hash", "a" * 64, "--valid-until", "2020-01-01"], "later"),
        (["--restriction", IRB, "--plan-hash", "a" * 64, "--valid-until", "soon"], "2027-11-22"),
        (["--restriction", IRB, "--plan-hash", "a" * 64, "--grounds", ""], "--grounds"),
    ],
)
def test_a_mistake_records_nothing_and_says_what_to_do(
    arguments: list[str], remedy: str, node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, "approve", "--dir", node, *FINDING, *arguments)
    assert (code, remedy in said["error"]["remedy"]) == (2, True)
    assert registry_of(node).approvals() == []


def test_nothing_that_begins_so_cannot_be_taken_back(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "disapprove", "3f9c", "--dir", node)
    assert (code, "accord consent approvals" in said["error"]["remedy"]) == (2, True)
