"""``accord study``: a plan from its first draft to its export, and every way in which a draft is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hand_made import STUDY_NAME, rows

from federation.cli.main import main
from federation.coordinator.folder import open_coordinator
from federation.rules.invitation import parse_invitation
from federation.rules.study import plan_from_toml
from federation.storage.code import code_hash

Output = pytest.CaptureFixture[str]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: Output, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: Output, *arguments: str | Path) -> str:
    """What is said to a person; the exit code is 2, and there is a remedy."""
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "what to do: " in err
    return err


def changed(plan: Path, old: str, new: str) -> Path:
    """A copy of the plan with one change."""
    text = plan.read_text("utf-8")
    assert old in text
    other = plan.with_name("changed.toml")
    other.write_text(text.replace(old, new), encoding="utf-8")
    return other


def test_a_study_is_paused_with_a_reason_and_resumed(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--dir", str(registry)]
    assert main(["study", "pause", *folder, "--reason", "the board asked", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "the board asked"
    assert main(["study", "resume", *folder]) == 0
    assert "goes on; it was paused since" in capsys.readouterr().out
    assert main(["study", "resume", *folder]) == 0
    assert "was not paused" in capsys.readouterr().out
    assert main(["study", "pause", *folder, "--reason", " "]) == 2
    assert "--reason" in capsys.readouterr().err


def test_a_study_that_has_not_started_cannot_be_aborted(registry: Path, capsys: Output) -> None:
    assert "has not started" in refused(capsys, "study", "abort", "--dir", registry, "--reason", "the board said no")


def test_new_commits_the_validation_rows_and_approves_this_code(registry: Path, capsys: Output) -> None:
    folder = registry.parent
    validation = folder / "validation.csv"
    made = answer(capsys, "study", "new", folder / "other.toml", "--dir", registry, "--validation", validation)
    assert made["code"] == code_hash()
    assert made["validation_commitment"] in (folder / "plan.toml").read_text()  # the same rows, the same hash
    assert (folder / "other.toml").read_text() == (folder / "plan.toml").read_text()


def test_a_root_set_makes_the_new_plan_trust_anchored(registry: Path, capsys: Output) -> None:
    folder = registry.parent
    rows = ["--validation", folder / "validation.csv", "--root", folder / "root.csv"]
    lines = (folder / "validation.csv").read_text().splitlines(keepends=True)
    (folder / "root.csv").write_text("".join(lines[: len(lines) // 2]))
    answer(capsys, "study", "new", folder / "anchored.toml", "--dir", registry, *rows)
    plan = plan_from_toml((folder / "anchored.toml").read_text(), source="plan").aggregation
    assert (plan.rule, plan.root_disclosure, plan.tolerated) == ("trust-anchored", "sealed", None)
    _, stored = open_coordinator(registry).validation(plan.root or "")
    assert stored == (folder / "root.csv").read_bytes()
    answer(capsys, "study", "new", folder / "again.toml", "--dir", registry, *rows, "--from", folder / "anchored.toml")
    assert (folder / "again.toml").read_text() == (folder / "anchored.toml").read_text()
    published = answer(capsys, "study", "publish", folder / "anchored.toml", "--dir", registry)
    assert published["study"] in open_coordinator(registry).studies()


def test_new_overwrites_nothing(registry: Path, capsys: Output) -> None:
    plan, validation = registry.parent / "plan.toml", registry.parent / "validation.csv"
    before = plan.read_bytes()
    assert "exists" in refused(capsys, "study", "new", plan, "--dir", registry, "--validation", validation)
    assert plan.read_bytes() == before


def test_new_needs_readable_rows_and_a_place_to_write(registry: Path, capsys: Output) -> None:
    folder = registry.parent
    err = refused(capsys, "study", "new", folder / "p.toml", "--dir", registry, "--validation", folder / "none.csv")
    assert "none.csv cannot be read" in err
    assert not (folder / "p.toml").exists()
    validation = folder / "validation.csv"
    out = folder / "no" / "such" / "p.toml"
    assert "cannot be written" in refused(capsys, "study", "new", out, "--dir", registry, "--validation", validation)


def test_new_fills_in_a_template_of_one_s_own(registry: Path, capsys: Output) -> None:
    folder = registry.parent
    common = ("--dir", registry, "--validation", folder / "validation.csv")
    template = changed(folder / "plan.toml", "count = 5", "count = 7")
    assert run("study", "new", folder / "mine.toml", *common, "--from", template) == 0
    assert "count = 7" in (folder / "mine.toml").read_text()
    without = changed(folder / "plan.toml", "commitment = ", "# commitment = ")
    err = refused(capsys, "study", "new", folder / "bad.toml", *common, "--from", without)
    assert "`commitment =`" in err


def test_validate_tells_the_plan_in_plain_words(registry: Path, capsys: Output) -> None:
    plan = registry.parent / "plan.toml"
    data = answer(capsys, "study", "validate", plan, "--dir", registry)
    assert data["valid"] is True
    assert data["validation_subjects"] == 40
    assert data["study"].startswith(f"{STUDY_NAME}-")
    assert run("study", "validate", plan) == 0
    text = capsys.readouterr().out
    assert "Privacy." in text
    assert f"Its id will be {data['study']}" in text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = = 1", "not valid TOML"),
        ("epsilon = 3", 'epsilon = "three"', "privacy.epsilon"),
        ("epsilon = 3", "epsilonn = 3", "privacy.epsilonn"),
        ("count = 5", "count = 0", "rounds.count"),
        ('duo = "DUO:0000007"', 'duo = "research"', "purpose.duo"),
        ('negative = "absent"', 'negative = "present"', "label"),
        ("quorum = 2", "quorum = 3", "quorum"),
        ("low = 20\n", "low = 99\n", "age"),
    ],
    ids=["toml", "mistyped", "unknown", "out-of-range", "not-a-code", "one-label", "quorum", "bounds"],
)
def test_a_mistaken_plan_is_refused_with_its_place(
    registry: Path, capsys: Output, old: str, new: str, said: str
) -> None:
    plan = changed(registry.parent / "plan.toml", old, new)
    for command in (("validate", plan), ("publish", plan, "--dir", registry)):
        assert said in refused(capsys, "study", *command)
    assert len(open_coordinator(registry).studies()) == 1


def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path, capsys: Output) -> None:
    assert "cannot be read" in refused(capsys, "study", "validate", tmp_path / "none.toml")
    assert "cannot be read" in refused(capsys, "study", "validate", tmp_path)
    latin, huge = tmp_path / "latin.toml", tmp_path / "huge.toml"
    latin.write_bytes('title = "Über"'.encode("latin-1"))
    assert "not UTF-8" in refused(capsys, "study", "validate", latin)
    huge.write_bytes(b"#" * (16 << 20))
    assert "larger than" in refused(capsys, "study", "validate", huge)


def test_a_plan_whose_validation_set_is_elsewhere_is_not_published(
    registry: Path, tmp_path: Path, capsys: Output
) -> None:
    other = tmp_path / "other"
    assert run("coordinator", "init", "--dir", other) == 0
    plan = registry.parent / "plan.toml"
    for command in ("validate", "publish"):
        assert "is not in this folder" in refused(capsys, "study", command, plan, "--dir", other)
    assert open_coordinator(other).studies() == []


def test_validation_rows_must_keep_the_plan_s_own_contract(registry: Path, capsys: Output) -> None:
    folder = registry.parent
    wrong = folder / "wrong.csv"
    wrong.write_text(rows("wrong").replace("asymptomatic", "none"), encoding="utf-8")
    assert run("study", "new", folder / "wrong.toml", "--dir", registry, "--validation", wrong) == 0
    err = refused(capsys, "study", "publish", folder / "wrong.toml", "--dir", registry)
    assert "cp" in err
    assert "'none'" in err


def test_publishing_the_same_plan_again_is_the_same_study(registry: Path, capsys: Output) -> None:
    again = answer(capsys, "study", "publish", registry.parent / "plan.toml", "--dir", registry)
    assert open_coordinator(registry).studies() == [again["study"]]
    other = changed(registry.parent / "plan.toml", "count = 5", "count = 6")
    assert answer(capsys, "study", "publish", other, "--dir", registry)["study"] != again["study"]
    assert len(open_coordinator(registry).studies()) == 2


def test_an_invitation_is_one_string_and_a_new_one_replaces_it(registry: Path, capsys: Output) -> None:
    capsys.readouterr()
    assert run("study", "invite", "cleveland", "--dir", registry) == 0
    text = capsys.readouterr().out.strip()
    first = parse_invitation(text)
    assert (first.site, first.coordinator) == ("cleveland", open_coordinator(registry).key.public)
    second = answer(capsys, "study", "invite", "cleveland", "--dir", registry)
    assert parse_invitation(second["invitation"]).token != first.token


def test_a_site_behind_a_web_only_firewall_is_invited_to_a_websocket(registry: Path, capsys: Output) -> None:
    assert "no WebSocket address" in refused(capsys, "study", "invite", "cleveland", "--dir", registry, "--web")
    settings = registry / "accord.toml"
    outer = '"/dns4/study.example.org/tcp/4001", "/dns4/study.example.org/tcp/443/wss"'
    settings.write_text(settings.read_text().replace("announce = []", f"announce = [{outer}]"))
    for more, way in (([], "/tcp/4001/p2p/"), (["--web"], "/tcp/443/wss/p2p/")):
        assert way in answer(capsys, "study", "invite", "cleveland", "--dir", registry, *more)["address"]


@pytest.mark.parametrize("site", ["Cleveland", "va long beach", "../x", "x" * 64])
def test_a_site_has_a_plain_short_name(registry: Path, capsys: Output, site: str) -> None:
    assert "is not a site name" in refused(capsys, "study", "invite", site, "--dir", registry)


def test_status_is_that_of_the_coordinator(registry: Path, capsys: Output) -> None:
    data = answer(capsys, "study", "status", "--dir", registry)
    assert (data["phase"], data["rounds"], data["running"], data["settled"]) == (
        "gathering agreements",
        5,
        False,
        False,
    )


def test_export_overwrites_nothing_and_needs_a_log(registry: Path, tmp_path: Path, capsys: Output) -> None:
    assert "exists already" in refused(capsys, "study", "export", tmp_path, "--dir", registry)
    err = refused(capsys, "study", "export", tmp_path / "export", "--dir", registry)
    assert "no checkpoint yet" in err
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("command", [("status",), ("invite", "cleveland"), ("export", "out")])
def test_an_unknown_study_is_answered_with_those_that_there_are(
    registry: Path, capsys: Output, command: tuple[str, ...]
) -> None:
    err = refused(capsys, "study", *command, "--dir", registry, "--study", "heart-000000000000")
    assert open_coordinator(registry).studies()[0] in err


def test_the_help_tells_what_an_argument_is_once_and_lists_commands_in_whole_sentences(capsys: Output) -> None:
    assert run("study", "new", "--help") == 0
    text = capsys.readouterr().out
    assert text.count("Where to write the plan.") == 1
    assert "  Example: accord study new plan.toml --dir coordinator --validation validation.csv" in text
    assert run("study", "--help") == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
