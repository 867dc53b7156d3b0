import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError, UnavailableError
from federation.storage.blobs import BlobStore, FolderBlobStore, MemoryBlobStore


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FolderBlobStore(tmp_path / "blobs") if request.param == "folder" else MemoryBlobStore()


def test_a_blob_is_named_by_its_hash(store: BlobStore) -> None:
    name = store.put(b"model")
    assert name == hashlib.sha256(b"model").hexdigest()
    assert store.get(name) == b"model"
    assert store.has(name)
    assert store.names() == [name]


def test_putting_twice_is_putting_once(store: BlobStore) -> None:
    assert store.put(b"model") == store.put(b"model")
    assert len(store.names()) == 1


def test_an_empty_blob_is_a_blob(store: BlobStore) -> None:
    assert store.get(store.put(b"")) == b""


def test_a_missing_blob_is_unavailable(store: BlobStore) -> None:
    with pytest.raises(UnavailableError):
        store.get("0" * 64)
    assert not store.has("0" * 64)


@pytest.mark.parametrize("name", ["", "../accord.db", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "/etc/passwd"])
def test_a_name_that_is_not_a_hash_is_refused(store: BlobStore, name: str) -> None:
    with pytest.raises(PeerError):
        store.get(name)
    assert not store.has(name)


def test_threads_put_the_same_blob(store: BlobStore) -> None:
    threads = [threading.Thread(target=store.put, args=(b"same" * 1000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.names()) == 1


@given(st.lists(st.binary(max_size=100)))
def test_what_was_put_is_what_one_gets(blobs: list[bytes]) -> None:
    store = MemoryBlobStore()
    names = [store.put(blob) for blob in blobs]
    assert [store.get(name) for name in names] == blobs
    assert store.names() == sorted(set(names))


def test_an_altered_blob_is_refused_and_can_be_put_again(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    name = store.put(b"model")
    (tmp_path / name).write_bytes(b"Model")
    with pytest.raises(PeerError, match="altered"):
        store.get(name)
    store.put(b"model")
    assert store.get(name) == b"model"


def test_files_are_their_owners_only_and_leave_no_rest(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path / "blobs")
    name = store.put(b"model")
    assert [entry.name for entry in (tmp_path / "blobs").iterdir()] == [name]
    assert stat.S_IMODE((tmp_path / "blobs" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


def test_foreign_files_folders_and_links_are_no_blobs(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ("a" * 64)).mkdir()
    (tmp_path / ("b" * 64)).symlink_to(tmp_path / "notes.txt")
    assert store.names() == []
    with pytest.raises(UnavailableError):
        store.get("b" * 64)


@pytest.mark.parametrize("fault", ["fsync", "open", "rename"])
def test_a_disk_that_refuses_is_reported_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    store = FolderBlobStore(tmp_path)

    def refuse(*_arguments: object, **_options: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path if fault == "rename" else os, fault, refuse)
        with pytest.raises(OperatorError, match="No space"):
            store.put(b"model")
    assert list(tmp_path.iterdir()) == []
    assert store.get(store.put(b"model")) == b"model"


def test_a_blob_that_was_stored_but_reported_failed_is_stored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderBlobStore(tmp_path)
    sync = os.fsync
    calls = []

    def fail_on_the_folder(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(5, os.strerror(5))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_the_folder)
    with pytest.raises(OperatorError):
        store.put(b"model")
    assert store.get(store.put(b"model")) == b"model"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(OperatorError, match="blobs"):
        FolderBlobStore(tmp_path / "blobs" / "inner")


@given(st.lists(st.binary(max_size=50), max_size=8), st.booleans())
def test_an_unfinished_blob_becomes_one_only_under_its_own_name(pieces: list[bytes], wrong: bool) -> None:
    store, whole = MemoryBlobStore(), b"".join(pieces)
    name = hashlib.sha256(whole + b"!" * wrong).hexdigest()
    for piece in pieces:
        store.extend(name, store.begun(name), piece)
    assert (store.begun(name), store.names()) == (len(whole), [])
    assert store.finish(name) is (not wrong)
    assert (store.begun(name), store.has(name)) == (0, not wrong)


def test_pieces_of_a_blob_and_of_an_unfinished_one(store: BlobStore) -> None:
    name = store.put(b"0123456789")
    assert store.piece(name, 3, 4) == (10, b"3456")
    assert store.piece(name, 8, 4) == (10, b"89")
    assert store.piece(name, 99, 4) == (10, b"")
    other = hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(UnavailableError):
        store.piece(other, 0, 1)
    store.extend(other, 0, b"a")
    with pytest.raises(ValueError, match="1 bytes"):
        store.extend(other, 0, b"a")
    store.extend(other, 1, b"bc")
    assert store.finish(other)
    assert store.get(other) == b"abc"
    store.extend(name[::-1], 0, b"x")
    store.forget(name[::-1])
    store.forget(name[::-1])
    assert store.begun(name[::-1]) == 0
