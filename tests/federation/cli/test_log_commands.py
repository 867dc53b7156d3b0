import json
from pathlib import Path
from typing import Any

import pytest

from federation.cli.log import _TEXTS
from federation.cli.main import main
from federation.rules import replay
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.equivocation import two_roots
from federation.rules.keys import PrivateKey


def test_every_kind_of_entry_has_words() -> None:
    assert set(_TEXTS) == set(replay._RULES)


@pytest.mark.parametrize("form", ["did", "peer_id"])
def test_verify_with_the_coordinators_key(
    exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    study, folder = exported
    assert main(["log", "verify", str(folder), "--key", getattr(study.key.public, form)]) == 0
    output = capsys.readouterr().out
    assert "Verified" in output
    assert "cedar" in output
    assert "unproven" not in output


def test_verify_as_json(exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str]) -> None:
    study, folder = exported
    assert main(["log", "verify", str(folder), "--key", study.key.public.did, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verified"] is True
    assert report["signer"] == {"key": study.key.public.did, "proven": True}
    assert report["log"]["root"] == study.log.root().hex()
    ledger = report["ledger"]
    assert sum(ledger["balances"].values()) + ledger["escrow"] + ledger["burned"] == ledger["minted"]


def test_without_a_key_the_exit_code_is_3(exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "verify", str(exported[1])]) == 3
    captured = capsys.readouterr()
    assert "Verified" in captured.out
    assert "--key" in captured.err
    assert main(["log", "verify", str(exported[1]), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["verified"] is True
    assert document["error"]["code"] == "UnprovenSignerError"


def test_another_key_is_exit_code_4_and_a_mistyped_one_2(
    exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = "did:key:z6Mko9hTggMwjSTEaJaPUfE6tqcy2xvU6BnNq3e3o8qVBiyH"
    assert main(["log", "verify", str(exported[1]), "--key", stranger]) == 4
    assert "plan.json" in capsys.readouterr().err
    assert main(["log", "verify", str(exported[1]), "--key", "my key"]) == 2
    assert "--key" in capsys.readouterr().err
    assert main(["log", "verify", "/nowhere/at/all"]) == 2


def test_show_tells_the_story(exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str]) -> None:
    study, folder = exported
    assert main(["log", "show", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == study.log.size + 1
    assert any("birch" in line and "takes no part: nothing is left (budget)" in line for line in lines)
    assert "study settled" in lines[-1]


def test_show_as_json(exported: tuple[Any, Path], capsys: pytest.CaptureFixture[str]) -> None:
    study, folder = exported
    assert main(["log", "show", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["size"] == study.log.size
    assert [entry["index"] for entry in document["entries"]] == list(range(study.log.size))
    assert document["entries"][1]["site"] == "ash"


def test_show_needs_to_know_which_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show"]) == 2
    assert "--dir" in capsys.readouterr().err


def test_a_coordinators_folder_is_shown_and_exported(
    tmp_path: Path, play: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from federation.coordinator.folder import commit_validation, create_coordinator, publish
    from federation.rules.entries import StudyPublished
    from federation.settings import PartySettings

    study = play()
    folder = create_coordinator(tmp_path / "c", PartySettings(role="coordinator", name="c"))
    validation = study.plan.validation.model_copy(update={"commitment": commit_validation(folder, study.rows)})
    plan = study.plan.model_copy(update={"validation": validation})
    publish(folder, plan)
    history = folder.history(None)
    history.append(
        StudyPublished(
            plan=history.state.plan_blob,
            plan_hash=plan.plan_hash,
            minted=plan.reward.pool_microcredits,
        )
    )
    assert main(["log", "show", "--dir", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == 1
    assert main(["log", "show", "--dir", str(tmp_path / "c"), "--study", "unknown"]) == 2
    out = tmp_path / "export"
    assert main(["study", "export", str(out), "--dir", str(tmp_path / "c")]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    history.checkpoint()
    assert main(["study", "export", str(out), "--dir", str(tmp_path / "c"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["files"] == len([path for path in out.rglob("*") if path.is_file()])
    assert main(["log", "verify", str(out), "--key", written["key"]]) == 0


# Evidence


@pytest.fixture
def forked(tmp_path: Path) -> tuple[PrivateKey, Path]:
    key = PrivateKey(bytes([9]) * 32)
    one, other = (sign_checkpoint(Checkpoint("accord.test/small", 7, bytes([fill]) * 32), key) for fill in (1, 2))
    found = two_roots(one, other)
    assert found is not None
    path = tmp_path / "evidence.json"
    path.write_bytes(found.to_bytes())
    return key, path


def test_evidence_is_proven_against_the_accused_key(
    forked: tuple[PrivateKey, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    key, path = forked
    assert main(["log", "evidence", str(path), "--key", key.public.did]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Proven: ")
    assert "two different trees of 7 entries of the log accord.test/small" in output
    assert main(["log", "evidence", str(path), "--key", key.public.peer_id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["proven"], found["kind"], found["sizes"]) == (True, "two-roots", [7, 7])
    assert found["signer"] == {"key": key.public.did, "proven": True}


def test_evidence_without_a_key_is_exit_code_3(
    forked: tuple[PrivateKey, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "evidence", str(forked[1])]) == 3
    captured = capsys.readouterr()
    assert captured.out.startswith("Sound: ")
    assert "--key" in captured.err
    assert main(["log", "evidence", str(forked[1]), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["signer"]["proven"] is False
    assert document["error"]["code"] == "UnprovenSignerError"


def test_what_proves_nothing_is_exit_code_4_and_what_is_not_there_2(
    forked: tuple[PrivateKey, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, path = forked
    other = PrivateKey(bytes([8]) * 32).public.did
    assert main(["log", "evidence", str(path), "--key", other]) == 4
    assert "not about" in capsys.readouterr().err
    for data in (path.read_bytes().replace(b"two-roots", b"two-leaves"), b"", b"{}\n", b"x" * 10**6):
        altered = tmp_path / "altered"
        altered.write_bytes(data)
        assert main(["log", "evidence", str(altered), "--key", key.public.did]) == 4
    assert main(["log", "evidence", str(tmp_path / "nowhere"), "--key", key.public.did]) == 2
    assert main(["log", "evidence", str(path), "--key", "my key"]) == 2
