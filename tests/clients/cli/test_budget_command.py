"""``accord budget show | history | simulate``."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from clients.privacy.budget import BudgetLedger
from clients.storage import open_node
from federation.cli.main import main
from federation.errors import PrivacyError
from federation.rules.accounting import epsilon, round_event
from federation.rules.keys import PrivateKey
from federation.rules.study import StudyPlan
from federation.settings import PartySettings, create_settings


@pytest.fixture
def node(tmp_path: Path) -> Path:
    create_settings(tmp_path, PartySettings(role="node", name="cleveland"))
    return tmp_path


@pytest.fixture
def ledger(node: Path) -> BudgetLedger:
    return BudgetLedger.create(
        open_node(node), epsilon=Decimal(3), delta=Decimal("1e-5"), clock=lambda: datetime(2026, 11, 22, tzinfo=UTC)
    )


def test_a_fresh_budget_is_all_there(capsys: pytest.CaptureFixture[str], node: Path, ledger: BudgetLedger) -> None:
    assert ledger.spent() == 0
    assert main(["budget", "show", "--dir", str(node)]) == 0
    out = capsys.readouterr().out
    assert "0% spent" in out
    assert "No study has used" in out


def test_spent_remaining_and_studies_are_shown(
    capsys: pytest.CaptureFixture[str], node: Path, ledger: BudgetLedger, plan: StudyPlan
) -> None:
    event = round_event(plan)
    for number in (1, 2):
        ledger.reserve(plan.study_id, number, event)
        ledger.start(plan.study_id, number)
    ledger.commit(plan.study_id, 1)
    assert main(["budget", "show", "--dir", str(node), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["epsilon_spent"] == pytest.approx(epsilon([event, event], delta=Decimal("1e-5"), order=8), abs=1e-12)
    assert shown["epsilon_spent"] + shown["epsilon_remaining"] == pytest.approx(3)
    assert 0 < shown["epsilon_spent_pld_non_adaptive"] < shown["epsilon_spent"]
    (study,) = shown["studies"]
    assert (study["study"], study["rounds"]) == (plan.study_id, {"1": "committed", "2": "started"})
    recomputed = epsilon(study["events"], delta=Decimal(shown["delta"]), order=shown["order"])
    assert recomputed == pytest.approx(study["epsilon"], abs=1e-12)
    assert main(["budget", "show", "--dir", str(node)]) == 0
    out = capsys.readouterr().out
    assert f"{plan.study_id}: epsilon {study['epsilon']:.4f}" in out
    assert "1 committed, 1 started" in out
    assert "[####" in out


def test_without_party_or_budget_the_remedy_is_named(capsys: pytest.CaptureFixture[str], node: Path) -> None:
    assert main(["budget", "show", "--dir", str(node)]) == 2
    assert "accord node init" in capsys.readouterr().err
    assert main(["budget", "show", "--dir", str(node / "nowhere")]) == 2
    other = node / "coordinator"
    create_settings(other, PartySettings(role="coordinator", name="sponsor"))
    capsys.readouterr()
    assert main(["budget", "show", "--dir", str(other)]) == 2
    assert "A coordinator lives in" in capsys.readouterr().err
    assert main(["budget", "show", "--help"]) == 0
    assert "accord budget show --dir" in capsys.readouterr().out


def plan_file(folder: Path, plan: StudyPlan) -> Path:
    path = folder / "plan.json"
    path.write_bytes(plan.sign(PrivateKey(bytes(32))).to_bytes())
    return path


def test_a_study_is_foreseen_exactly_as_it_is_charged(
    capsys: pytest.CaptureFixture[str], node: Path, ledger: BudgetLedger, plan: StudyPlan
) -> None:
    path = plan_file(node, plan)
    assert main(["budget", "simulate", str(path), "--dir", str(node), "--json"]) == 0
    foreseen = json.loads(capsys.readouterr().out)
    assert ledger.spent() == 0, "nothing is charged"
    event = round_event(plan)
    for number, after in enumerate(foreseen["epsilon_after_each_round"], start=1):
        ledger.reserve(plan.study_id, number, event)
        assert after == pytest.approx(ledger.spent(), abs=1e-12)
    assert foreseen["study_alone_pld_non_adaptive"] == pytest.approx(ledger.spent_pld(), abs=1e-9)


def test_the_round_that_does_not_fit_is_the_one_that_the_ledger_refuses(
    capsys: pytest.CaptureFixture[str], node: Path, ledger: BudgetLedger, plan: StudyPlan
) -> None:
    event = round_event(plan)
    for number in range(1, plan.rounds.count + 1):
        ledger.reserve("an-earlier-study", number, event)
    path, page = plan_file(node, plan), node / "forecast.html"
    assert main(["budget", "simulate", str(path), "--dir", str(node), "--out", str(page)]) == 5
    out = capsys.readouterr().out
    assert main(["budget", "simulate", str(path), "--dir", str(node), "--json"]) == 5
    foreseen = json.loads(capsys.readouterr().out)
    refused = foreseen["first_refused_round"]
    for number in range(1, refused):
        ledger.reserve(plan.study_id, number, event)
    with pytest.raises(PrivacyError, match="does not fit"):
        ledger.reserve(plan.study_id, refused, event)
    assert f"Round {refused} would be refused" in out
    assert "does not fit" in out
    assert f"Round {refused} would be refused" in page.read_text("utf-8")
    assert "<svg" in page.read_text("utf-8")


def test_without_a_folder_a_fresh_lifetime_is_held_against_the_plan(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, plan: StudyPlan
) -> None:
    assert main(["budget", "simulate", str(plan_file(tmp_path, plan)), "--json"]) == 0
    foreseen = json.loads(capsys.readouterr().out)
    assert (foreseen["epsilon_lifetime"], foreseen["epsilon_spent_before"], foreseen["fits"]) == ("3", 0, True)
    assert main(["budget", "simulate", str(tmp_path / "nothing.toml")]) == 2


def test_the_history_tells_what_everything_cost_after_each_row(
    capsys: pytest.CaptureFixture[str], node: Path, ledger: BudgetLedger, plan: StudyPlan
) -> None:
    event = round_event(plan)
    ledger.reserve(plan.study_id, 1, event)
    ledger.start(plan.study_id, 1)
    ledger.commit(plan.study_id, 1)
    ledger.reserve(plan.study_id, 2, event)
    both = ledger.spent()
    ledger.abort(plan.study_id, 2)
    page = node / "history.html"
    assert main(["budget", "history", "--dir", str(node), "--json", "--out", str(page)]) == 0
    shown = json.loads(capsys.readouterr().out)
    states = [row["state"] for row in shown["rows"]]
    assert states == ["created", "reserved", "started", "committed", "reserved", "aborted"]
    one = ledger.spent()
    assert [row["epsilon_after"] for row in shown["rows"]] == pytest.approx([0, one, one, one, both, one], abs=1e-12)
    assert shown["page"] == str(page)
    assert "<svg" in page.read_text("utf-8")
    assert main(["budget", "history", "--dir", str(node)]) == 0
    assert f"{plan.study_id} round 2" in capsys.readouterr().out
