"""``accord consent witnesses``: named, shown, taken away; and what cannot be named."""

import json
from pathlib import Path
from typing import Any

import pytest

from federation.cli.main import main
from federation.identity import create_key, load_key
from federation.rules.keys import PrivateKey
from federation.settings import PartyFolder, PartySettings, create_settings

BIRCH, CEDAR = (PrivateKey(bytes([seed]) * 32).public.did for seed in (2, 3))
Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "node"
    create_settings(path, PartySettings(role="node", name="cleveland"))
    create_key(PartyFolder(path).key)
    return path


def answer(capsys: Output, folder: Path, *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["consent", "witnesses", "--dir", str(folder), *more, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_witnesses_are_named_shown_and_taken_away(folder: Path, capsys: Output) -> None:
    assert answer(capsys, folder) == {"witnesses": [], "quorum": 0}
    both = {"witnesses": sorted([BIRCH, CEDAR]), "quorum": 2}
    assert answer(capsys, folder, "--add", BIRCH, "--add", CEDAR, "--quorum", "2") == both
    assert answer(capsys, folder, "--add", BIRCH) == both
    assert answer(capsys, folder) == both
    assert main(["consent", "witnesses", "--dir", str(folder)]) == 0
    assert "2 of these 2 must cosign before a yes binds" in capsys.readouterr().out
    assert answer(capsys, folder, "--remove", CEDAR, "--quorum", "1") == {"witnesses": [BIRCH], "quorum": 1}
    assert answer(capsys, folder, "--remove", BIRCH, "--quorum", "0") == {"witnesses": [], "quorum": 0}
    assert main(["consent", "witnesses", "--dir", str(folder)]) == 0
    assert "A yes binds at once." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--add", "birch"], "not the did:key"),
        (["--add", BIRCH, "--quorum", "2"], "2 of 1 witnesses cannot cosign"),
        (["--quorum", "1"], "1 of 0 witnesses cannot cosign"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    folder: Path, capsys: Output, words: list[str], why: str
) -> None:
    assert main(["consent", "witnesses", "--dir", str(folder), *words]) == 2
    assert why in capsys.readouterr().err
    assert answer(capsys, folder) == {"witnesses": [], "quorum": 0}


def test_nobody_witnesses_for_themselves(folder: Path, capsys: Output) -> None:
    own = load_key(PartyFolder(folder).key).public.did
    assert main(["consent", "witnesses", "--dir", str(folder), "--add", own]) == 2
    assert "no witness of its own log" in capsys.readouterr().err
