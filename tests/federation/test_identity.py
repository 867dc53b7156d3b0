"""A key file is made once, private, and refused when it is not."""

import os
import stat
from pathlib import Path

import pytest

from federation.errors import OperatorError
from federation.identity import create_key, load_key


def test_a_created_key_is_read_back(tmp_path: Path) -> None:
    key = create_key(tmp_path / "identity.key")
    assert load_key(tmp_path / "identity.key") == key


def test_two_keys_differ(tmp_path: Path) -> None:
    assert create_key(tmp_path / "a").public != create_key(tmp_path / "b").public


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_only_the_owner_may_read_a_new_key_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_key(tmp_path / "identity.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "identity.key").stat().st_mode) == 0o600


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    key = create_key(tmp_path / "identity.key")
    with pytest.raises(OperatorError, match="never overwritten"):
        create_key(tmp_path / "identity.key")
    assert load_key(tmp_path / "identity.key") == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666])
def test_a_key_open_to_others_is_refused_with_the_line_that_closes_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(OperatorError, match="open to other users") as caught:
        load_key(path)
    assert f"chmod 600 {path}" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33, "00" * 31, "é" * 32, "00" * 5000])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identity.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(OperatorError, match="not a key file"):
        load_key(path)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no key") as caught:
        load_key(tmp_path / "identity.key")
    assert "init" in caught.value.remedy


def test_a_folder_or_a_pipe_in_the_place_of_the_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(OperatorError):
            load_key(tmp_path / name)


def test_a_key_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be written"):
        create_key(tmp_path / "nowhere" / "identity.key")
