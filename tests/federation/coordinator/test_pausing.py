"""A paused study opens no round, says why, and goes on where it was."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy

from federation.coordinator.pausing import abort, pause, paused, resume
from federation.errors import OperatorError
from federation.rules.entries import RoundClosed, RoundOpened, open_entry

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PAUSE_S = 0.8


def test_no_round_is_opened_while_a_study_pauses_and_then_it_goes_on(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def go_on() -> None:
        seen.append(study.service.status())
        resume(tmp_path, study.plan.study_id)

    def between(closed: int) -> None:
        if closed == 1:
            pause(tmp_path, study.plan.study_id, "the board asked", now=datetime.now(UTC))
            threading.Timer(PAUSE_S, go_on).start()

    with InMemoryStudy(tmp_path, sites=2) as study:
        state = study.run(between=between)
        assert state.settled
        assert len(state.closed) == 3
        entries = [open_entry(data, signer=study.key.public) for data in study.log.entries()]
    (closed,) = [each.at for each in entries if isinstance(each.body, RoundClosed) and each.round == 1]
    (opened,) = [each.at for each in entries if isinstance(each.body, RoundOpened) and each.round == 2]
    assert opened - closed >= timedelta(seconds=PAUSE_S - 1)  # instants in the log are whole seconds
    assert seen[0]["phase"] == "paused"
    assert seen[0]["round"] == 1
    assert "accord study resume" in seen[0]["awaited"][0]["for"]
    assert "the board asked" in seen[0]["awaited"][0]["for"]


def test_a_pause_keeps_its_first_reason_and_is_one_study_s(tmp_path: Path) -> None:
    first = pause(tmp_path, "a", " why ", now=NOW)
    assert (first.reason, first.since) == ("why", "2026-11-25T12:00:00Z")
    assert pause(tmp_path, "a", "another", now=NOW + timedelta(days=1)) == first == paused(tmp_path, "a")
    assert paused(tmp_path, "b") is None
    pause(tmp_path, "b", "too", now=NOW)
    assert resume(tmp_path, "a") == first
    assert resume(tmp_path, "a") is None
    assert paused(tmp_path, "a") is None
    assert paused(tmp_path, "b") is not None


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_a_pause_without_a_reason_is_refused(tmp_path: Path, reason: str) -> None:
    with pytest.raises(OperatorError, match="need a reason"):
        pause(tmp_path, "a", reason, now=NOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"reason": 1, "since": "x"}}', "x" * (2 << 20)])
def test_a_damaged_note_lets_nothing_go_on(tmp_path: Path, text: str) -> None:
    (tmp_path / "paused.json").write_text(text, "utf-8")
    with pytest.raises(OperatorError, match="none goes on"):
        paused(tmp_path, "a")


@pytest.mark.parametrize("rounds", [0, 1])
def test_an_aborted_study_opens_no_round_and_pays_what_was_earned(tmp_path: Path, rounds: int) -> None:
    def between(closed: int) -> None:
        if closed == rounds:
            pause(tmp_path, study.plan.study_id, "the board asked", now=NOW)
            abort(tmp_path, study.plan.study_id, "the board withdrew its approval", now=NOW)

    with InMemoryStudy(tmp_path, sites=2) as study:
        state = study.run(between=between)
        assert state.settled
        assert state.aborted == "the board withdrew its approval"
        assert len(state.closed) == rounds
        assert study.kinds()[-2:] == ["study-aborted", "study-settled"]
        paid = sum(payment.reward for payment in state.payments)
        assert paid + state.burned == study.plan.reward.pool_microcredits
        assert (paid > 0) == (rounds > 0)
        nodes = [site.node.witness.state for site in study.institutions.values() if site.node]
        assert [node.aborted for node in nodes] == [state.aborted] * 2, "every witness has seen and cosigned it"
        with pytest.raises(OperatorError, match="Nothing takes that back"):
            resume(tmp_path, study.plan.study_id)
