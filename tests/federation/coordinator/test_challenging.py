"""Challenging from a folder: a coordinator that logs a false table is caught, and what cannot be challenged says so."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from study_folder import in_folder

from federation.coordinator import valuing
from federation.coordinator.challenging import StudyChallenge, challenge_of
from federation.coordinator.folder import open_coordinator
from federation.coordinator.tables import ValidationSet
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.export import writing
from federation.export.verification import verify_export
from federation.learning.evaluation import coalition_utilities, committed_utility
from federation.rules.challenge import verify_challenge
from federation.storage.database import write
from tests.study_in_memory import SALT, InMemoryStudy

LIE = 2**37


def challenged(folder: Path, coalition: str = "ash", number: int = 1, study: str | None = None) -> StudyChallenge:
    return challenge_of(folder, coalition=coalition, round_number=number, study=study)


def test_a_coordinator_that_prices_a_friend_too_high_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real coordinator with a dishonest scorer; its nodes notice nothing, as they have no validation rows."""
    with InMemoryStudy(tmp_path, rounds={"count": 1}, validation={"disclosure": "public"}) as study:
        friend = study["birch"].did

        def dishonest(*arguments: Any) -> tuple[int, ...]:
            honest, players = coalition_utilities(*arguments), arguments[3]
            alone = 1 << players.index(friend)
            return tuple(utility + LIE * (mask == alone) for mask, utility in enumerate(honest))

        monkeypatch.setattr(valuing, "coalition_utilities", dishonest)
        assert study.run().settled
        export = tmp_path / "export"
        export.mkdir()
        validation = (SALT, study.validation)
        writing._write_files(
            export, plan=study.envelope, log=study.log, blobs=study.blobs, key=study.key, validation=validation
        )
    with pytest.raises(PeerError, match="the utility of coalition") as caught:
        verify_export(export, study.key.public)
    assert f"accord value challenge birch --dir {export} --round 1" in caught.value.remedy
    found = challenged(export, "birch", 1)
    assert found.to_json()["sites"] == ["birch"]
    assert verify_challenge(found.data, coordinator=study.key.public, utility=committed_utility) == found.finding
    assert found.finding.verdict == "false-entry"
    assert found.finding.logged - found.finding.recomputed == LIE
    for coalition in ("ash", "birch,cedar", "cedar,birch,ash", "-"):
        assert challenged(export, coalition).finding.verdict == "holds"


def test_what_cannot_be_recomputed_is_not_challenged(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    assert challenged(folder, "cedar,ash,cedar", 2).finding.verdict == "holds"
    for coalition, number in (("birch", 2), ("elm", 1), ("", 1), ("ash,,birch", 1), ("ash", 0), ("ash", 3)):
        with pytest.raises(OperatorError):
            challenged(folder, coalition, number)
    with pytest.raises(OperatorError) as caught:
        challenged(folder, "birch", 2)
    assert "ash, cedar" in caught.value.remedy
    with pytest.raises(OperatorError):
        challenged(folder, study="another")
    assert challenged(folder, study=study.plan.study_id).finding.study == study.plan.study_id


def test_sealed_rows_are_never_put_into_a_file(play: Any, tmp_path: Path) -> None:
    study = play(disclosure="sealed").played()
    with pytest.raises(OperatorError, match="sealed"):
        challenged(study.export(tmp_path / "export"))
    with pytest.raises(OperatorError, match="sealed"):
        challenged(in_folder(study, tmp_path / "coordinator", "coordinator"))


def test_tables_are_closed_before_the_settlement(play: Any, tmp_path: Path) -> None:
    study = play()
    study.start()
    study.play_round(1)
    with pytest.raises(OperatorError, match="not settled"):
        challenged(study.export(tmp_path / "export"))


def test_a_coordinators_own_folder_does_and_a_nodes_lacks_the_rows(play: Any, tmp_path: Path) -> None:
    study = play().played()
    coordinator = in_folder(study, tmp_path / "coordinator", "coordinator")
    with write(open_coordinator(coordinator).engine) as session:
        session.add(ValidationSet(commitment=study.plan.validation.commitment, salt=study.salt, data=study.rows))
    assert challenged(coordinator).data == challenged(study.export(tmp_path / "export")).data
    with pytest.raises(UnavailableError, match="rows"):
        challenged(in_folder(study, tmp_path / "node", "node"))


def test_exchanged_files_are_refused(play: Any, tmp_path: Path) -> None:
    study = play().played()
    folder = study.export(tmp_path / "export")
    done = study.state.closed[0]
    blobs = [done.value_table, done.base_model, *next(iter(done.admitted.values())).chunks]
    for path in [*(f"blobs/{name}" for name in blobs), "validation/validation.csv", "validation/salt"]:
        original = (folder / path).read_bytes()
        for changed in (original[:-1], original + b"\n", b"\xff" + original[1:], b""):
            (folder / path).write_bytes(changed)
            with pytest.raises(PeerError):
                challenged(folder, "ash,birch,cedar")
        (folder / path).write_bytes(original)
    assert challenged(folder, "ash,birch,cedar").finding.verdict == "holds"


def test_without_a_checkpoint_over_the_round_there_is_no_proof(play: Any, tmp_path: Path) -> None:
    study = play().played()
    folder = study.export(tmp_path / "export")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UnavailableError, match="No signed checkpoint"):
        challenged(folder)
