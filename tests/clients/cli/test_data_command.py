"""``accord data add`` and ``accord data check``, as an officer types them."""

import json
from pathlib import Path

import pytest

from clients.storage import StudyMembership, open_node
from federation.cli.main import main
from federation.rules.keys import PrivateKey
from federation.rules.study import StudyPlan
from federation.settings import PartySettings, create_settings
from federation.storage.database import write

PLAN = """
name = "small"
title = "A small study"
sponsor = "sponsor"
origin = "accord.test/small"
model.family = "logistic"
rounds = {count = 15, participants = 2, quorum = 1, deadline_s = 10}
cohort.minimum = 5
aggregation = {rule = "weighted-mean", norm_bound = 10}
valuation = {method = "shapley", utility = "negative-log-loss"}
reward.pool_microcredits = 1000
training.learning_rate = 0.5
code_approved = ["0000000000000000000000000000000000000000000000000000000000000000"]
[purpose]
duo = "DUO:0000042"
statement = "Testing."
[privacy]
unit = "subject"
epsilon = 3
delta = 0.00001
clip = 1
[validation]
rule = "none"
commitment = "0000000000000000000000000000000000000000000000000000000000000000"
[schema]
subject = "person"
label = {name = "ill", negative = "no", positive = "yes"}
[[schema.columns]]
type = "number"
name = "age"
low = 0
high = 100
missing = true
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    create_settings(folder, PartySettings(role="node", name="cleveland"))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heart.csv"
    path.write_text("person,age,ill\np1,40,yes\np2,,no\n", encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_add_then_check_against_a_plan_file(
    capsys: pytest.CaptureFixture[str], node: Path, file: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "add", str(file), "--dir", str(node), "--subject", "person", "--json")
    assert (code, json.loads(out)["name"]) == (0, "heart")
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    code, out, _ = run(capsys, "check", "--dir", str(node), "--plan", str(plan), "--json")
    found = json.loads(out)
    assert (code, found["rows"], found["subjects"], found["gaps"]) == (0, 2, 2, {"age": 1})
    code, out, _ = run(capsys, "check", "--dir", str(node), "--plan", str(plan))
    assert "keeps the contract of small-" in out
    assert "age 1" in out


def test_check_finds_the_study_that_was_joined(
    capsys: pytest.CaptureFixture[str], node: Path, file: Path, plan: StudyPlan
) -> None:
    file.write_text("person,age,chol,sex,ill\np1,40,,m,yes\n", encoding="utf-8")
    run(capsys, "add", str(file), "--dir", str(node), "--subject", "person")
    code, _, err = run(capsys, "check", "--dir", str(node))
    assert (code, "no study to check against" in err) == (2, True)
    envelope = plan.sign(PrivateKey(bytes(32))).to_bytes()
    membership = StudyMembership(study=plan.study_id, plan=envelope, coordinator="", address="", site="cleveland")
    with write(open_node(node)) as session:
        session.add(membership)
    for arguments in ((), ("--plan", plan.study_id)):
        code, out, _ = run(capsys, "check", "--dir", str(node), *arguments)
        assert (code, plan.study_id in out) == (0, True)


def test_mistakes_end_with_code_2_and_a_remedy(
    capsys: pytest.CaptureFixture[str], node: Path, file: Path, tmp_path: Path
) -> None:
    code, _, err = run(capsys, "add", str(file), "--dir", str(node), "--subject", "patient")
    assert (code, "no column 'patient'" in err, "what to do:" in err) == (2, True, True)
    run(capsys, "add", str(file), "--dir", str(node), "--subject", "person")
    for plan in (tmp_path / "no-such.toml", file):
        code, _, err = run(capsys, "check", "--dir", str(node), "--plan", str(plan))
        assert (code, "what to do:" in err) == (2, True)
    code, out, _ = run(capsys, "check", "--dir", str(tmp_path / "nowhere"), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "OperatorError")


def test_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("add", "check"):
        code, out, _ = run(capsys, command, "--help")
        assert (code, f"accord data {command}" in out) == (0, True)
