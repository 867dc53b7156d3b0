"""``accord value`` on an exported study: why a site earned what it earned; challenges and their proofs."""

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import scored_by_panel

from clients.cli.value import why
from federation.cli.main import main
from federation.coordinator.challenging import challenge_of
from federation.rules.keys import PrivateKey
from federation.rules.statements import Certainty

Output = pytest.CaptureFixture[str]


def test_the_reasons_are_told_in_words_and_drawn(exported: tuple[Any, Path], tmp_path: Path, capsys: Output) -> None:
    page = tmp_path / "birch.html"
    assert main(["value", "explain", "birch", "--dir", str(exported[1]), "--out", str(page)]) == 0
    text = capsys.readouterr().out
    assert "Why birch earned" in text
    assert "1. It took part in 1 of 2 rounds. Not in round 2: budget: nothing is left." in text
    assert "its Shapley value: the mean change over all orders" in text
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert html.count("<svg") == 2, "one picture for wide screens, one for phones"
    assert "added to the ones before" in html
    assert not re.search(r"(src|href)=\"https?:", html), "the page fetches nothing"


def test_the_figures_are_those_of_the_statement(exported: tuple[Any, Path], capsys: Output) -> None:
    folder = str(exported[1])
    assert main(["value", "explain", "ash", "--dir", folder, "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert main(["rewards", "statement", "ash", "--dir", folder, "--json"]) == 0
    assert explained["rounds"] == json.loads(capsys.readouterr().out)["rounds"]
    assert main(["value", "explain", "elm", "--dir", folder]) == 2
    assert "ash, birch, cedar" in capsys.readouterr().err


def data(values: list[float | None], outcome: str, **fields: Any) -> dict[str, Any]:
    rounds = [
        {"round": number, "admitted": value is not None, "value": value or 0.0, "reason": "" if value else "late"}
        for number, value in enumerate(values, start=1)
    ]
    total = sum(value or 0.0 for value in values)
    money: dict[str, Any] = {"lower_bound": None, "pool_microcredits": 10_000_000, "reward_microcredits": 2_500_000}
    return {"rounds": rounds, "outcome": outcome, "value": total, "share": 0.25, "method": "shapley", **money, **fields}


def test_gains_and_losses_name_their_largest_round() -> None:
    steps = " ".join(why(data([0.02, 0.03, -0.01], "paid")))
    assert "helped in 2 rounds, most in round 2 (+0.030000 nats, 60% of all that it brought)" in steps
    assert "did harm in round 3 (-0.010000 nats)" in steps
    assert "All rounds together: +0.040000 nats. What rounds took away (0.010000) is offset" in steps
    assert "That is 25.00% of all improvements: of the pool of 10 credits it earned 2.5 credits." in steps


@pytest.mark.parametrize(
    ("values", "outcome", "said"),
    [
        ([0.001], "below-minimum", "below the plan's minimum: it earned nothing"),
        ([-0.001], "no-positive-value", "it earned nothing, and owes nothing"),
        ([None, None], "not-taken-part", "Without an admitted update there is no share"),
        ([0.0000001], "no-positive-value", "They changed next to nothing."),
        ([0.001], "not-sure", "not more than chance could have brought: of the pool of 10 credits it earned nothing"),
    ],
)
def test_every_outcome_has_its_sentence(values: list[float | None], outcome: str, said: str) -> None:
    steps = why(data(values, outcome, reward_microcredits=0))
    assert said in " ".join(steps)
    assert len(steps) == (2 if outcome == "not-taken-part" else 5)


def test_what_the_lower_bound_took_off_is_a_step_of_its_own_before_the_payment() -> None:
    certainty = Certainty(Decimal("1.65"), Fraction(1, 100), Fraction(235, 10_000)).to_json()
    steps = why(data([0.04], "paid", lower_bound=certainty))
    assert steps[-2].startswith("How sure can one be?")
    assert "about 0.010000 (its standard error)" in steps[-2]
    assert "1.65 standard errors off, 0.016500, and pays for what is left: +0.023500 nats" in steps[-2]
    assert "25.00% of what is sure of all together" in steps[-1]
    assert not any("How sure" in step for step in why(data([-0.04], "no-positive-value", lower_bound=certainty)))


def test_the_picture_has_a_bar_for_what_is_sure(play: Any, tmp_path: Path) -> None:
    pool, page = "pool_microcredits = 1000000", tmp_path / "ash.html"
    study = play(edits={pool: f'{pool}\npay = "lower-bound"\nz = "0.25"'}).played()
    folder = study.export(tmp_path / "study")
    assert main(["value", "explain", "ash", "--dir", str(folder), "--out", str(page)]) == 0
    html = page.read_text("utf-8")
    assert re.search(r"nats in the end, of which [+-]0\.\d{6} are sure", html)
    assert "once chance is taken off" in html


def test_a_panel_s_study_is_explained_by_who_scored_and_verified(play: Any, tmp_path: Path, capsys: Output) -> None:
    page, study = tmp_path / "ash.html", scored_by_panel.played(play)
    folder = str(study.export(tmp_path / "study"))
    assert main(["value", "explain", "ash", "--dir", folder, "--out", str(page)]) == 0
    text = capsys.readouterr().out
    assert "For this site, in nats: birch +4.000000, cedar +4.000000." in text
    assert "nobody is paid by here" in text
    assert "of what the panel found in all" in text
    assert "by the panel +4.000000" in page.read_text("utf-8")
    assert main(["rewards", "statement", "ash", "--dir", folder]) == 0
    text = capsys.readouterr().out
    assert "scored by  birch: +4.000000" in text
    assert "panel      +4.000000" in text
    assert main(["log", "verify", folder, "--key", study.key.public.did]) == 0
    assert "scored by    ash, birch, cedar: their word for their own people" in capsys.readouterr().out


def test_too_few_scores_are_explained(play: Any, tmp_path: Path, capsys: Output) -> None:
    study = scored_by_panel.played(play, {site: scored_by_panel.HONEST[site] for site in ("ash", "cedar")})
    assert main(["value", "explain", "ash", "--dir", str(study.export(tmp_path / "study")), "--json"]) == 0
    steps = " ".join(json.loads(capsys.readouterr().out)["why"])
    assert "Fewer than 3 institutions showed scores" in steps
    assert "Absent: birch." in steps


# Challenge


@pytest.fixture(scope="module")
def false(play: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The export of a coordinator that lied about the first round's model of everybody but one."""
    study = play(changes={"utilities-1": lambda utilities: [*utilities[:6], utilities[6] + 2**36, utilities[7]]})
    return study, study.played().export(tmp_path_factory.mktemp("false") / "export")


def test_an_entry_that_holds_is_told_and_leaves_no_file(
    exported: tuple[Any, Path], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = exported
    monkeypatch.chdir(tmp_path)
    command = ["value", "challenge", "cedar,ash", "--dir", str(folder), "--round", "2"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "round 2's model with only the updates of ash, cedar" in text
    assert f"entry {study.state.closed[1].entry_index} of the log" in text
    assert "The logged utility holds" in text
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["sites"]) == ("holds", ["ash", "cedar"])
    assert document["logged"] == document["recomputed"] == study.tables[1].utilities[3]
    assert list(tmp_path.iterdir()) == []
    assert main(["value", "challenge", "-", "--dir", str(folder), "--round", "2"]) == 0
    assert "model without any update" in capsys.readouterr().out
    assert main(["value", "challenge", "birch", "--dir", str(folder), "--round", "2"]) == 2


def test_verifying_a_false_export_leads_to_a_proof_that_convinces(
    false: tuple[Any, Path], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command is the one that the command before names."""
    study, folder = false
    monkeypatch.chdir(tmp_path)
    assert main(["log", "verify", str(folder)]) == 4
    command = re.search(r"accord (value challenge .*)", capsys.readouterr().err)
    assert command is not None
    assert main(command[1].split()) == 4
    output = capsys.readouterr()
    assert "The logged utility is false: they are 0.0625 nats apart" in output.out
    check = re.search(r"accord (value check-proof .*)", output.err)
    assert check is not None
    assert main(check[1].split()) == 0
    assert capsys.readouterr().out.startswith("Proven.")
    assert main(["value", "check-proof", "proof.json", "--key", study.key.public.peer_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "false-entry"


def test_a_proof_for_programs_names_its_file_and_its_error(
    false: tuple[Any, Path], tmp_path: Path, capsys: Output
) -> None:
    study, folder = false
    sites = ",".join(study.state.site(did) for did in study.tables[0].players[1:])
    command = ["value", "challenge", sites, "--dir", str(folder), "--round", "1"]
    assert main([*command, "--out", str(tmp_path / "proof.json"), "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["error"]["code"]) == ("false-entry", "PeerError")
    assert Path(document["proof"]) == tmp_path / "proof.json"
    assert document["logged"] - document["recomputed"] == 2**36
    assert main([*command, "--out", str(tmp_path / "nowhere" / "proof.json")]) == 2


def test_what_proves_nothing_ends_with_4(
    exported: tuple[Any, Path], false: tuple[Any, Path], tmp_path: Path, capsys: Output
) -> None:
    study, folder = false
    proof, true = tmp_path / "proof.json", tmp_path / "true.json"
    sites = ",".join(study.state.site(did) for did in study.tables[0].players[1:])
    assert main(["value", "challenge", sites, "--dir", str(folder), "--round", "1", "--out", str(proof)]) == 4
    true.write_bytes(challenge_of(exported[1], coalition="ash", round_number=1, study=None).data)
    key, stranger = study.key.public.did, PrivateKey(bytes([55]) * 32).public.did
    assert main(["value", "check-proof", str(true), "--key", key]) == 4
    assert "This proves nothing" in capsys.readouterr().err
    assert main(["value", "check-proof", str(true), "--key", key, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["verdict"] == "holds"
    assert main(["value", "check-proof", str(proof), "--key", stranger]) == 4
    assert main(["value", "check-proof", str(proof), "--key", "nobody"]) == 2
    assert main(["value", "check-proof", str(proof)]) == 2
    assert main(["value", "check-proof", str(tmp_path / "absent.json"), "--key", key]) == 2
    proof.write_bytes(proof.read_bytes()[:-2])
    assert main(["value", "check-proof", str(proof), "--key", key]) == 4


def test_a_proof_that_is_too_large_is_not_read(
    false: tuple[Any, Path], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof.json"
    proof.write_bytes(b"{" * 5000)
    monkeypatch.setattr("federation.rules.challenge.CHALLENGE_BYTES_MAX", 4000)
    assert main(["value", "check-proof", str(proof), "--key", false[0].key.public.did]) == 4
    assert "it is too large" in capsys.readouterr().err


@pytest.mark.parametrize(("copies", "because"), [(True, "seemed to be the same"), (False, "declare one owner")])
def test_who_counts_as_one_with_others_reads_with_whom_and_what_its_part_is(copies: bool, because: str) -> None:
    cluster = {"sites": ["ash", "birch", "cedar"], "copies": copies, "share": 1 / 3}
    steps = why(data([0.02], "paid", site="birch", cluster=cluster))
    told = next(step for step in steps if "counts as one institution" in step)
    assert "with ash, cedar: " in told
    assert because in told
    assert "its part is 33.3%" in told
