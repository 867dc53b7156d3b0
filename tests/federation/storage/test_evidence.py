"""Evidence is kept once for each case, whole, durable, and only for its owner's eyes."""

from pathlib import Path

import pytest

from federation.errors import OperatorError
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.equivocation import Evidence, two_roots, verify_evidence
from federation.rules.keys import PrivateKey
from federation.storage import evidence as module
from federation.storage.evidence import EvidenceStore, FolderEvidence, MemoryEvidence

KEY = PrivateKey(bytes([9]) * 32)


def case(size: int) -> Evidence:
    one, other = (sign_checkpoint(Checkpoint("log", size, bytes([fill]) * 32), KEY) for fill in (1, 2))
    found = two_roots(one, other)
    assert found is not None
    return found


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> EvidenceStore:
    return FolderEvidence(tmp_path / "evidence") if request.param == "folder" else MemoryEvidence()


def test_a_case_is_kept_once_and_can_be_shown(store: EvidenceStore) -> None:
    assert store.cases() == []
    places = [store.keep(case(1)), store.keep(case(1)), store.keep(case(2))]
    assert len(set(places)) == 2
    assert [verify_evidence(data).origin for data in store.cases()] == ["log", "log"]


def test_whoever_misbehaves_does_not_fill_the_disk(store: EvidenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CASES_MAX", 2)
    for size in (1, 2, 3):
        store.keep(case(size))
    assert sorted(store.cases()) == sorted(case(size).to_bytes() for size in (1, 2))


def test_files_are_named_by_their_hash_in_a_closed_folder(tmp_path: Path) -> None:
    store = FolderEvidence(tmp_path / "evidence")
    place = Path(store.keep(case(1)))
    assert place.stem == sha256_hex(place.read_bytes())
    assert (tmp_path / "evidence").stat().st_mode & 0o077 == 0
    assert FolderEvidence(tmp_path / "evidence").cases() == [case(1).to_bytes()]


def test_a_folder_that_cannot_be_written_is_the_operator_s_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OperatorError, match="cannot be kept"):
        FolderEvidence(tmp_path / "file" / "evidence").keep(case(1))
