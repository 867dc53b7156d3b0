"""``accord privacy audit``: what it prints, what it writes, how it ends."""

import json
import os
from pathlib import Path

import pytest

from federation.cli.main import main


def test_the_audit_prints_figures_writes_a_page_and_ends_as_it_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Real noise accuses an honest node in one of a hundred audits: the exit code is what the figures say."""
    page = tmp_path / "audit.html"
    code = main(["privacy", "audit", "--quick", "--json", "--out", str(page)])
    figures = json.loads(capsys.readouterr().out)
    assert code == (0 if figures["passed"] else 5)
    assert len(figures["checks"]) == 11
    assert figures["canaries"]["epsilon_lower_bound_gaussian"] > 1.4
    assert figures["page"] == str(page)
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_machine_whose_generator_repeats_itself_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What virtual machines have done that were copied: the operating system gives out the same bytes again."""
    secure = os.urandom(1 << 20)
    monkeypatch.setattr(os, "urandom", lambda count: (secure * (1 + count // len(secure)))[:count])
    assert main(["privacy", "audit", "--quick"]) == 5
    out = capsys.readouterr().out
    assert "failed      noise-fresh" in out
    assert "must not train" in out


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "audit", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Ends with 0" in out
    assert "accord privacy audit --quick" in out
