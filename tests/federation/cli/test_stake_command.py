"""``accord stake``: pledges, a case from a file, what stands where, and releases in their time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hand_made import make_node, put_into_study
from study_folder import in_folder

from clients.folder import open_node_folder
from federation.cli.main import main
from federation.coordinator.challenging import challenge_of
from federation.coordinator.folder import open_coordinator
from federation.rules.audit import UTILITY_UNIT
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.documents import open_signed
from federation.rules.equivocation import two_roots
from federation.rules.pledges import Accusation, Pledge
from federation.storage.blobs import FolderBlobStore
from federation.storage.database import open_database
from federation.storage.outbox import Outbox, OutgoingDocument

Output = pytest.CaptureFixture[str]
Staked = Callable[..., Any]
MASK = 5
SECTION = """[stake]
coordinator_microcredits = 2_000_000
institution_microcredits = 500_000
challenge_s = 1_209_600
appeal_s = 604_800
unbonding_s = 1_814_400

[validation]"""


def answer(capsys: Output, *arguments: str | Path) -> Any:
    capsys.readouterr()
    assert main(["stake", *(str(argument) for argument in arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Output, code: int, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["stake", *(str(argument) for argument in arguments)]) == code
    out, err = capsys.readouterr()
    assert (out, "what to do: " in err) == ("", True)
    return err


def lying(utilities: list[int]) -> list[int]:
    return [value + UTILITY_UNIT // 16 * (at == MASK) for at, value in enumerate(utilities)]


def played(staked: Staked, ago_s: float, **fields: Any) -> Any:
    """A settled study that ended about ``ago_s`` seconds ago."""
    study = staked(**fields)
    study.now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago_s)
    return study.played()


def outbox(folder: Path, study: Any) -> Outbox:
    return Outbox(open_database(folder / "accord.db", OutgoingDocument), study.plan.study_id)


def test_both_sides_pledge_what_the_plan_asks_for(registry: Path, tmp_path: Path, capsys: Output) -> None:
    plan = registry.parent / "plan.toml"
    text = plan.read_text("utf-8").replace("[validation]", SECTION)
    plan.write_text(text, encoding="utf-8")
    assert "2 credits" not in refused(capsys, 2, "deposit", "--dir", registry), "the first plan asks for none"
    assert main(["study", "publish", str(plan), "--dir", str(registry)]) == 0
    node = make_node(tmp_path, "ash")
    study = put_into_study(node, registry)
    assert "Sign it first" in refused(capsys, 2, "deposit", "--dir", node)
    assert main(["agreement", "review", "--dir", str(node)]) == 0
    told = capsys.readouterr().out
    assert "you pledge 0.5 credits, the coordinator 2 credits" in told
    assert "14 days after the settlement" in told
    assert main(["agreement", "sign", "--nominal-cohort", "40", "--yes", "--dir", str(node)]) == 0
    for folder, amount in ((node, 500_000), (registry, 2_000_000)):
        assert answer(capsys, "deposit", "--dir", folder)["amount_microcredits"] == amount
        assert "signed already" in refused(capsys, 2, "deposit", "--dir", folder)
    opened, coordinator = open_node_folder(node), open_coordinator(registry)
    for key, documents in (
        (opened.key, Outbox(opened.engine, study).waiting()),
        (coordinator.key, coordinator.outbox(study).waiting()),
    ):
        pledge, _ = open_signed(Pledge, documents[0].document, signer=key.public)
        assert pledge.study == study


def test_a_proof_becomes_a_case_that_waits_for_the_running_node(staked: Staked, tmp_path: Path, capsys: Output) -> None:
    study = played(staked, 200, changes={"utilities-1": lying})
    names = ",".join(study.state.site(did) for at, did in enumerate(study.tables[0].players) if MASK >> at & 1)
    export = study.export(tmp_path / "export")
    proof = tmp_path / "proof.json"
    assert main(["value", "challenge", names, "--dir", str(export), "--round", "1", "--out", str(proof)]) == 4
    ash = study.institutions["ash"]
    node = in_folder(study, tmp_path / "node", "node", key=ash)
    made = answer(capsys, "slash", proof, "--dir", node)
    assert (made["kind"], made["stake_microcredits"], made["accused"]) == ("false-utility", 500, study.key.public.did)
    row = outbox(node, study).waiting()[0]
    accusation, _ = open_signed(Accusation, row.document, signer=ash.public)
    assert accusation.case.kind == "false-utility"
    assert FolderBlobStore(node / "blobs").get(accusation.case.proof) == proof.read_bytes()
    shown = answer(capsys, "status", "--dir", node)
    assert {each["party"]: each["status"] for each in shown["parties"]} == dict.fromkeys(
        ("ash", "birch", "cedar", "coordinator"), "held"
    )
    assert shown["waiting"] == [{"kind": "accusation", "problem": ""}]
    assert answer(capsys, "status", "--dir", export)["waiting"] == []
    holds = challenge_of(export, coalition="ash", round_number=1, study=None)
    proof.write_bytes(holds.data)
    assert "the logged utility holds" in refused(capsys, 4, "slash", proof, "--dir", node)
    assert "nobody could sign" in refused(capsys, 2, "slash", proof, "--dir", export)


def test_evidence_of_a_split_view_becomes_a_case(staked: Staked, tmp_path: Path, capsys: Output) -> None:
    study = played(staked, 200)
    trees = (Checkpoint(study.plan.origin, 9, bytes([number]) * 32) for number in (1, 2))
    evidence = two_roots(*(sign_checkpoint(tree, study.key) for tree in trees))
    assert evidence is not None
    file = tmp_path / "evidence.json"
    file.write_bytes(evidence.to_bytes())
    node = in_folder(study, tmp_path / "node", "node", key=study.institutions["ash"])
    assert answer(capsys, "slash", file, "--dir", node)["kind"] == "split-view"
    file.write_bytes(b'{"kind":"two-roots"}\n')
    refused(capsys, 4, "slash", file, "--dir", node)


def test_stakes_are_released_when_their_time_has_come_and_not_before(
    staked: Staked, tmp_path: Path, capsys: Output
) -> None:
    early = in_folder(played(staked, 200), tmp_path / "early", "coordinator")
    assert "Nothing is released before 20" in refused(capsys, 2, "release", "--dir", early)
    late = in_folder(played(staked, 4000), tmp_path / "late", "coordinator")
    made = answer(capsys, "release", "--dir", late)
    assert made["released"] == ["ash", "birch", "cedar", "coordinator"]
    assert {each["status"] for each in answer(capsys, "status", "--dir", late)["parties"]} == {"released"}
    assert main(["rewards", "balance", "pledge:ash", "--dir", str(late), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["balance_microcredits"] == 0
    assert "Nothing is released" in refused(capsys, 2, "release", "--dir", late)
