import os
from pathlib import Path
from typing import Any

import pytest

from federation.errors import OperatorError, PeerError, UnavailableError
from federation.export.verification import verify_export
from federation.export.writing import write_export
from federation.storage.blobs import MemoryBlobStore


def write(study: Any, folder: Path, *, with_rows: bool = True) -> None:
    validation = (study.salt, study.rows) if with_rows else None
    write_export(folder, plan=study.plan_bytes, log=study.log, blobs=study.blobs, key=study.key, validation=validation)


def test_what_is_written_verifies_and_holds_only_what_is_named(tmp_path: Path, play: Any) -> None:
    study = play().played()
    write(study, tmp_path / "out" / "export")
    verify_export(tmp_path / "out" / "export", study.key.public)
    assert sorted(path.name for path in (tmp_path / "out" / "export").iterdir()) == [
        "agreements",
        "blobs",
        "checkpoints",
        "log",
        "manifest.json",
        "plan.json",
        "validation",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["export"]


def test_an_existing_folder_is_never_touched(tmp_path: Path, play: Any) -> None:
    study = play().played()
    (tmp_path / "export").mkdir()
    with pytest.raises(OperatorError, match="exists already"):
        write(study, tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_without_a_checkpoint_there_is_nothing_to_export(tmp_path: Path, play: Any) -> None:
    with pytest.raises(OperatorError, match="no checkpoint"):
        write(play(), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_entries_after_the_newest_checkpoint_are_left_out(tmp_path: Path, play: Any) -> None:
    study = play()
    study.start()
    covered = study.log.size
    study.play_round(1)
    del study.log._notes[study.log.size]
    write(study, tmp_path / "export")
    assert len(list((tmp_path / "export/log").iterdir())) == covered


def test_a_missing_blob_leaves_nothing_behind(tmp_path: Path, play: Any) -> None:
    study = play().played()
    study.blobs = MemoryBlobStore()
    with pytest.raises(UnavailableError):
        write(study, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_does_not_verify_is_not_exported(tmp_path: Path, play: Any) -> None:
    study = play(changes={"aggregate": lambda model: model + 1}).played()
    with pytest.raises(PeerError):
        write(study, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_disclosed_rows_must_be_there(tmp_path: Path, play: Any) -> None:
    with pytest.raises(OperatorError, match="not here"):
        write(play().played(), tmp_path / "export", with_rows=False)
    write(play(disclosure="sealed").played(), tmp_path / "export", with_rows=False)


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Any
) -> None:
    study = play().played()

    def refuse(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OperatorError, match="No space"):
        write(study, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
