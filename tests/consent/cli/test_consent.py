import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from consent_people import record
from hypothesis import given
from hypothesis import strategies as st

from consent.cli.instructions import read_decisions
from consent.registry import TABLES, open_registry
from consent.rules.decision import Status, Use
from consent.rules.receipt import RECEIPT_TYPE
from consent.rules.record import Mechanism
from federation.cli.main import main
from federation.errors import OperatorError
from federation.identity import create_key, load_key
from federation.rules.canonical import canonical_bytes
from federation.rules.envelope import open_envelope
from federation.rules.study import plan_from_toml
from federation.rules.wire import Number
from federation.settings import PartyFolder, PartySettings, create_settings
from federation.storage.database import open_database

HEART = ["--purpose", "DUO:0000007", "--disease", "MONDO:0005267", "--epsilon-max", "3"]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland", consent_batch_size=16))
    create_key(PartyFolder(folder).key)
    return folder


@pytest.fixture
def wallet(tmp_path: Path) -> Path:
    rows = tmp_path / "patients.csv"
    rows.write_text("patient_id,age\n" + "".join(f"p{number},50\n" for number in range(12)), encoding="utf-8")
    path = tmp_path / "patients.wallet"
    assert main(["consent", "wallet", "--out", str(path), "--from-csv", str(rows)]) == 0
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["consent", *(str(argument) for argument in arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def statuses(node: Path) -> dict[str, Status]:
    folder = PartyFolder(node)
    registry = open_registry(open_database(folder.database, *TABLES), load_key(folder.key))
    use = Use(
        institution=registry.institution.did,
        kind=Mechanism.CONSENT,
        duo="DUO:0000007",
        disease="MONDO:0005267",
        epsilon=_number("3"),
        delta=_number("0.00001"),
    )
    refs = [f"p{number}" for number in range(12)]
    return {ref: decision.status for ref, decision in registry.decide_all(use, registry.now(), refs).items()}


def _number(text: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Number).validate_python(text)


def test_everybody_grants_in_one_call(node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(capsys, "grant", "--dir", node, "--wallet", wallet, "--all", *HEART)
    assert (code, result["granted"], result["refused"], len(result["receipts"])) == (0, 12, 0, 12)
    assert set(statuses(node).values()) == {Status.PERMITTED}


def test_decisions_from_a_file(node: Path, wallet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "decisions.csv"
    lines = [
        "subject,action,valid_until",
        "p0,grant,",
        "p1,refuse,",
        "p2,grant,2020-01-01",
        "p3,grant,",
        "p3,withdraw,",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    code, result = run(capsys, "grant", "--dir", node, "--wallet", wallet, "--decisions", file, *HEART)
    assert (code, result["granted"], result["refused"], result["withdrawn"]) == (0, 3, 1, 1)
    found = statuses(node)
    assert [found[f"p{number}"] for number in range(5)] == [
        Status.PERMITTED,
        Status.REFUSED,
        Status.EXPIRED,
        Status.WITHDRAWN,
        Status.MISSING,
    ]


def test_a_withdrawal_needs_no_wallet(node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "grant", "--dir", node, "--wallet", wallet, "--all", *HEART)
    code, result = run(capsys, "withdraw", "--dir", node, "--subject", "p3", "--subject", "p4")
    assert (code, result["withdrawn"]) == (0, 2)
    key = load_key(PartyFolder(node).key).public
    envelope = open_envelope(canonical_bytes(result["receipts"][0]["signed"]), payload_type=RECEIPT_TYPE, signer=key)
    assert json.loads(envelope.payload)["subject_ref"] == "p3"
    assert run(capsys, "withdraw", "--dir", node, "--subject", "p5", "--wallet", wallet)[0] == 0
    assert {ref for ref, status in statuses(node).items() if status is Status.WITHDRAWN} == {"p3", "p4", "p5"}


def test_an_owner_licences_a_whole_source(node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wallet = tmp_path / "owner.wallet"
    assert run(capsys, "wallet", "--out", wallet, "--licence")[0] == 0
    terms = ["--purpose", "DUO:0000042", "--epsilon-max", "3"]
    assert run(capsys, "grant", "--dir", node, "--wallet", wallet, "--licence", *terms)[0] == 0
    code, result = run(capsys, "verify", "--dir", node, "--licence")
    assert (code, result["records"][0]["mechanism"]) == (0, "licence")
    assert run(capsys, "withdraw", "--dir", node, "--licence")[0] == 0


def test_a_record_in_a_file_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(record())
    code, result = run(capsys, "verify", file)
    assert (code, result["valid"], result["records"][0]["purposes"]) == (0, True, ["DUO:0000006"])
    file.write_bytes(record().replace(b'"epsilonMax":"3"', b'"epsilonMax":"9"'))
    code, result = run(capsys, "verify", file)
    assert (code, result["valid"], result["reasons"]) == (1, False, ["wrong-signature"])
    assert "signature" in result["message"]
    assert result["remedy"]
    file.unlink()
    code, result = run(capsys, "verify", file)
    assert (code, result["error"]["code"]) == (2, "OperatorError")


def test_a_chain_is_shown_and_a_damaged_one_refused(
    node: Path, wallet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "grant", "--dir", node, "--wallet", wallet, "--subject", "p1", *HEART)
    run(capsys, "withdraw", "--dir", node, "--subject", "p1")
    code, result = run(capsys, "verify", "--dir", node, "--subject", "p1")
    assert (code, [item["action"] for item in result["records"]]) == (0, ["grant", "withdraw"])
    assert result["records"][1]["attested"]
    assert run(capsys, "verify", "--dir", node, "--subject", "nobody")[0] == 6
    from sqlalchemy import text

    from federation.storage.database import write

    with write(open_database(PartyFolder(node).database, *TABLES)) as session:
        session.connection().execute(text("DELETE FROM consent_record WHERE seq = 1"))
    assert run(capsys, "verify", "--dir", node, "--subject", "p1")[0] == 6


def test_bad_input_is_named_and_nothing_is_stored(
    node: Path, wallet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grant = ["grant", "--dir", node, "--wallet", wallet]
    bad = tmp_path / "bad.csv"
    bad.write_text("subject,action\np1,grant\np99,grant\n", encoding="utf-8")
    cases = [
        ([*grant, *HEART], "Nobody"),
        ([*grant, "--all"], "terms"),
        ([*grant, "--all", "--purpose", "DUO:0000006"], "terms"),
        ([*grant, "--subject", "p99", *HEART], "p99"),
        ([*grant, "--all", *HEART[:-1], "much"], "much"),
        ([*grant, "--all", *HEART, "--valid-until", "soon"], "soon"),
        ([*grant, "--decisions", bad, *HEART], "p99"),
        ([*grant, "--decisions", tmp_path / "absent.csv", *HEART], "absent.csv"),
        (["grant", "--dir", tmp_path, "--wallet", wallet, "--all", *HEART], "accord.toml"),
        (["wallet", "--out", tmp_path / "w", "--from-csv", bad], "patient_id"),
        (["wallet", "--out", tmp_path / "w"], "Nobody"),
        (["withdraw", "--dir", node], "Nobody"),
        (["verify", "--dir", node], "clear"),
    ]
    for arguments, named in cases:
        code, result = run(capsys, *arguments)
        assert (code, named in result["error"]["message"]) == (2, True), (arguments, result)
        assert result["error"]["remedy"]
    code, result = run(capsys, *grant, "--subject", "p1", "--purpose", "nonsense", "--epsilon-max", "3")
    assert (code, result["error"]["code"]) == (6, "ConsentError")
    for by in ([], ["--wallet", wallet]):
        assert run(capsys, "withdraw", "--dir", node, "--subject", "p1", *by)[0] == 6
    assert set(statuses(node).values()) == {Status.MISSING}


def test_a_coordinators_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "coordinator"
    create_settings(folder, PartySettings(role="coordinator", name="coordinator"))
    code, result = run(capsys, "withdraw", "--dir", folder, "--subject", "p1")
    assert (code, "coordinator" in result["error"]["message"]) == (2, True)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "empty"),
        ("subject\np1\n", "columns"),
        ("subject,action,more\np1,grant,x\n", "columns"),
        ("subject,action\np1,perhaps\n", "line 2, column action"),
        ("subject,action\np1\n", "line 2"),
        ("subject,action\np1,grant,more\n", "line 2"),
        ("subject,action,valid_until\np1,grant,\np2,grant,soon\n", "line 3, column valid_until"),
        ('subject,action\n"p1,grant\n', "CSV"),
    ],
)
def test_a_bad_decisions_file_is_refused_with_the_place(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "decisions.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(OperatorError, match=named):
        read_decisions(file)


@given(content=st.binary(max_size=80))
def test_whatever_a_decisions_file_holds_the_error_is_ours(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(content)
    try:
        read_decisions(file)
    except OperatorError as error:
        assert error.remedy  # noqa: PT017 -- most inputs are refused, the few valid ones are fine too


@pytest.mark.processes
def test_the_commands_stay_light() -> None:
    heavy = "{'torch', 'opacus', 'flwr', 'libp2p', 'trio', 'numpy'}"
    code = f"import sys, consent.cli.consent; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["wallet", "grant", "withdraw", "verify", "receipt"])
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consent", command, "--help"]) == 0
    assert "Example: accord consent " + command in capsys.readouterr().out


@pytest.fixture
def plan(repository: Path) -> Path:
    return repository / "clients" / "demo" / "plans" / "heart.toml"


def test_a_persons_records_are_judged_against_a_study(
    node: Path, wallet: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = plan_from_toml(plan.read_text(encoding="utf-8"), source=str(plan))
    disease = ["--disease", study.purpose.disease] if study.purpose.disease else []
    grant = ["grant", "--dir", node, "--wallet", wallet, "--purpose", study.purpose.duo, *disease]
    run(capsys, *grant, "--subject", "p1", "--epsilon-max", study.privacy.epsilon)
    run(capsys, *grant, "--subject", "p2", "--epsilon-max", "0.001")
    code, result = run(capsys, "verify", "--dir", node, "--subject", "p1", "--plan", plan)
    assert (code, result["decision"]) == (0, {"permitted": True, "status": "permitted", "reasons": []})
    signed = tmp_path / "plan.json"
    signed.write_bytes(study.sign(load_key(PartyFolder(node).key)).to_bytes())
    code, result = run(capsys, "verify", "--dir", node, "--subject", "p2", "--plan", signed)
    assert (code, result["decision"]["status"], result["decision"]["reasons"][0]["code"]) == (
        6,
        "not_covered",
        "epsilon",
    )
