"""An app's project: which files count, and what their hash says."""

import os
from pathlib import Path

import pytest

from clients.apps import project as project_module
from clients.apps.project import parse_settings, read_project
from federation.errors import OperatorError

PYPROJECT = """
[tool.flwr.app.components]
serverapp = "wind.server:app"
clientapp = "wind.client:app"
[tool.flwr.app.config]
rounds = 3
[tool.flwr.app.config.train]
rate = 0.5
verbose = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    (made / "wind").mkdir(parents=True)
    (made / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (made / "wind" / "client.py").write_text("app = 1\n", encoding="utf-8")
    (made / "wind" / "server.py").write_text("app = 2\n", encoding="utf-8")
    return made


def test_a_project_says_where_its_apps_are_and_how_they_are_set(folder: Path) -> None:
    project = read_project(folder)
    assert (project.client_app, project.server_app) == ("wind.client:app", "wind.server:app")
    assert project.config == {"rounds": 3, "train.rate": 0.5, "train.verbose": False}
    assert sorted(project.files) == ["pyproject.toml", "wind/client.py", "wind/server.py"]


def test_every_byte_and_every_name_counts(folder: Path) -> None:
    hashes = {read_project(folder).code_hash}
    (folder / "wind" / "client.py").write_text("app = 3\n", encoding="utf-8")
    hashes.add(read_project(folder).code_hash)
    (folder / "wind" / "client.py").rename(folder / "wind" / "other.py")
    hashes.add(read_project(folder).code_hash)
    (folder / "data.bin").write_bytes(b"\0")
    hashes.add(read_project(folder).code_hash)
    assert len(hashes) == 4


def test_what_does_not_belong_to_the_app_is_neither_hashed_nor_copied(folder: Path, tmp_path: Path) -> None:
    before = read_project(folder).code_hash
    for name in (".git/config", "wind/__pycache__/client.pyc", ".venv/pyvenv.cfg", "env/pyvenv.cfg", "env/lib/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    project = read_project(folder)
    assert project.code_hash == before
    project.write_to(tmp_path / "copy")
    copied = sorted(path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*"))
    assert copied == sorted(project.files)
    assert (tmp_path / "copy" / "wind" / "client.py").read_text(encoding="utf-8") == "app = 1\n"


def test_a_link_or_a_pipe_is_refused(folder: Path) -> None:
    (folder / "secret.py").symlink_to("/etc/passwd")
    with pytest.raises(OperatorError, match="link"):
        read_project(folder)
    (folder / "secret.py").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(OperatorError, match="no plain file"):
        read_project(folder)


def test_a_project_has_a_size_and_a_number_of_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_module, "FILES_MAX", 2)
    with pytest.raises(OperatorError, match="more than 2 files"):
        read_project(folder)
    monkeypatch.setattr(project_module, "FILES_MAX", 3)
    monkeypatch.setattr(project_module, "PROJECT_BYTES_MAX", 10)
    with pytest.raises(OperatorError, match="or 10 bytes"):
        read_project(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[tool.flwr]\n",
        "not TOML",
        "[tool.flwr.app]\ncomponents = 3\n",
        "[tool.flwr.app.components]\n",
        '[tool.flwr.app.components]\nclientapp = "os:system(1)"\n',
        '[tool.flwr.app.components]\nclientapp = "../x:app"\n',
        "[tool.flwr.app.components]\nclientapp = 3\n",
        '[tool.flwr.app.components]\nclientapp = "a:b"\n[tool.flwr.app.config]\nx = [1]\n',
    ],
)
def test_a_folder_that_describes_no_flower_app_is_refused(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OperatorError):
        read_project(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read"):
        read_project(tmp_path / "nothing")


def test_settings_are_numbers_where_they_look_like_numbers() -> None:
    assert parse_settings(["id=3", "rate=0.5", "on=true", "path=/data/x.csv", 'name="7"', "list=[1]"]) == {
        "id": 3,
        "rate": 0.5,
        "on": True,
        "path": "/data/x.csv",
        "name": "7",
        "list": "[1]",
    }
    with pytest.raises(OperatorError, match="name=value"):
        parse_settings(["lonely"])
