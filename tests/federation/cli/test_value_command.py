"""``accord value explain`` on an exported study, and the sentence for every way a study can end for a site."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from clients.cli.value import why
from federation.cli.main import main

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
    money = {"pool_microcredits": 10_000_000, "reward_microcredits": 2_500_000}
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
    ],
)
def test_every_outcome_has_its_sentence(values: list[float | None], outcome: str, said: str) -> None:
    steps = why(data(values, outcome, reward_microcredits=0))
    assert said in " ".join(steps)
    assert len(steps) == (2 if outcome == "not-taken-part" else 5)
