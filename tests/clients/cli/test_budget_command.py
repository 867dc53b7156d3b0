"""``accord budget show``."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from clients.privacy.budget import BudgetLedger
from clients.storage import open_node
from federation.cli.main import main
from federation.rules.accounting import epsilon, round_event
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
