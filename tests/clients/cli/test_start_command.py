"""``accord node start``: each step is taken once, and the same line given again goes on where it stopped."""

from pathlib import Path

import pytest
from hand_made import rows as rows_of

from clients.data.dataset import datasets
from clients.folder import open_node_folder
from federation.cli.main import main

Output = pytest.CaptureFixture[str]
TERMS = ("--purpose", "DUO:0000006", "--epsilon-max", "3")


def refused(capsys: Output, line: tuple[str | Path, ...]) -> str:
    """What is said to a person when the line ends with exit code 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in line]) == 2
    _, err = capsys.readouterr()
    assert "what to do: " in err
    return err


@pytest.fixture
def heart_file(tmp_path: Path) -> Path:
    """Rows that fit the plan."""
    path = tmp_path / "heart.csv"
    path.write_text(rows_of("cleveland"), encoding="utf-8")
    return path


@pytest.fixture
def line(open_registry: Path, heart_file: Path, tmp_path: Path, capsys: Output) -> tuple[str | Path, ...]:
    """The whole line, without decisions; a pytest run is no terminal, so that it ends before the signature."""
    capsys.readouterr()
    assert main(["study", "invite", "beginner", "--dir", str(open_registry)]) == 0
    invitation = capsys.readouterr().out.strip()
    where = ("--dir", tmp_path / "node", "--data", heart_file, "--subject", "patient_id")
    return ("node", "start", invitation, *where, "--nominal-cohort", "240")


def test_the_same_line_goes_on_where_it_stopped(
    line: tuple[str | Path, ...], heart_file: Path, tmp_path: Path, capsys: Output
) -> None:
    whole = heart_file.read_text(encoding="utf-8")
    heart_file.write_text(whole.replace("typical_angina", "sore", 1), encoding="utf-8")
    assert "sore" in refused(capsys, line)
    key = open_node_folder(tmp_path / "node").key.public
    heart_file.write_text(whole, encoding="utf-8")
    assert "No consent is here yet" in refused(capsys, line)
    decided = tmp_path / "decisions.csv"
    names = [row.split(",")[0] for row in whole.splitlines()[1:4]]
    actions = ("grant", "refuse", "grant")
    rows = [f"{name},{action}" for name, action in zip(names, actions, strict=True)]
    decided.write_text("\n".join(["subject,action", *rows]), encoding="utf-8")
    assert "nothing is ticked beforehand" in refused(capsys, (*line, "--decisions", decided))
    assert not open_node_folder(tmp_path / "node").registry.heads()
    said = refused(capsys, (*line, "--decisions", decided, *TERMS))
    assert "3 recorded, 0 of people" in said
    assert "Nobody is here to answer" in said
    assert "0 recorded, 3 of people" in refused(capsys, (*line, "--decisions", decided, *TERMS))
    opened = open_node_folder(tmp_path / "node")
    assert opened.key.public == key
    assert [entry.path for entry in datasets(opened.engine)] == [str(heart_file)]
    assert opened.membership().agreement == b""
