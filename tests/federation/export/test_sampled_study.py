"""A study of more institutions than a table of all coalitions can hold, from its log to statement and challenge."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.coordinator.challenging import challenge_of
from federation.coordinator.statement import statement_of
from federation.errors import OperatorError, PeerError
from federation.export.verification import verify_export
from federation.learning.evaluation import committed_utility
from federation.rules import audit
from federation.rules.canonical import canonical_bytes
from federation.rules.challenge import verify_challenge
from federation.rules.value_sample import redraw

SITES = tuple(f"site{number:02}" for number in range(16))
EDITS = {
    "participants = 3": "participants = 16",
    'utility = "negative-log-loss"\n': 'utility = "negative-log-loss"\n[valuation.sampling]\nprecision = "0.05"\n',
    "pool_microcredits = 1000000": 'pool_microcredits = 1000000\npay = "lower-bound"\nz = 1',
}


def sampled(play: Any, **changes: Callable[[Any], Any]) -> Any:
    study = play(sites=SITES, edits=EDITS, changes={name.replace("_", "-"): change for name, change in changes.items()})
    study.start()
    study.play_round(1, cosigners=16)
    study.play_round(2, declining=SITES[3], cosigners=16)
    study.settle(cosigners=16)
    return study


@pytest.fixture(scope="module")
def shown(play: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    study = sampled(play)
    return study, study.export(tmp_path_factory.mktemp("sampled") / "small")


def test_everything_in_its_export_is_recomputed(shown: tuple[Any, Path]) -> None:
    study, folder = shown
    report = verify_export(folder, study.key.public)
    assert report.sampled == 2
    assert report.quorum == 11
    assert report.utilities_recomputed == sum(len(table.utilities) for table in study.tables)
    assert report.utilities_recomputed < 2 * 2**15
    gained = study.tables[-1].utilities[-1] - study.tables[0].utilities[0]
    assert sum(report.values.values()) * audit.UTILITY_UNIT == gained
    assert "estimates in 2 rounds" in report.to_text()
    assert len(set(report.errors.values())) == 16


def test_a_statement_says_how_far_its_estimates_may_be_off(shown: tuple[Any, Path]) -> None:
    _, folder = shown
    data = statement_of(folder, site=SITES[3], study=None).data
    assert [row["round"] for row in data["sampled"]["rounds"]] == [1]
    assert 0 < data["sampled"]["half_width"] <= 0.05
    assert data["sampled"]["sentence"] in data["sentence"]


def test_any_coalition_that_was_drawn_can_be_challenged_by_its_place_or_its_names(shown: tuple[Any, Path]) -> None:
    study, folder = shown
    found = challenge_of(folder, coalition="drawn:5", round_number=2, study=None)
    assert (found.finding.verdict, found.finding.logged) == ("holds", study.tables[1].utilities[5])
    again = challenge_of(folder, coalition=",".join(found.to_json()["sites"]), round_number=2, study=None)
    assert again.data == found.data
    whole = challenge_of(folder, coalition=",".join(SITES), round_number=1, study=None)
    assert whole.finding.logged == study.tables[0].utilities[-1]
    for name in ("site01,site05,site06,site07,site12", "drawn:99999", "drawn:x"):
        with pytest.raises(OperatorError, match="none of the"):
            challenge_of(folder, coalition=name, round_number=1, study=None)
    other = json.loads(whole.data)
    other["updates"] = {did: other["updates"][did] for did in sorted(other["updates"])[::2]}
    forged = canonical_bytes(other) + b"\n"
    with pytest.raises(PeerError, match="was not drawn"):
        verify_challenge(forged, coordinator=study.key.public, utility=committed_utility)


def test_a_coordinator_cannot_choose_the_sample_or_state_a_false_utility(play: Any, tmp_path: Path) -> None:
    own = play(sites=SITES, edits=EDITS, changes={"commitments": lambda found: dict(list(found.items())[:-1])})
    own.start()
    own.play_round(1)
    with pytest.raises(PeerError, match="another sample than the log asks for"):
        audit.open_table(own.state.closed[0], own.state, own.blobs.get(own.state.closed[0].value_table))

    lie = sampled(play, **{"utilities-1": lambda found: [value + (2**20 if len(found) > 2 else 0) for value in found]})
    folder = lie.export(tmp_path / "lie")
    with pytest.raises(PeerError, match="the utility of coalition 1 in round 1") as caught:
        verify_export(folder, lie.key.public)
    assert "accord value challenge drawn:1 --dir" in caught.value.remedy
    assert challenge_of(folder, coalition="drawn:1", round_number=1, study=None).finding.verdict == "false-entry"


def test_standard_errors_hold_the_uncertainty_of_the_sample(shown: tuple[Any, Path]) -> None:
    study, _ = shown
    table = study.tables[0]
    drawn = redraw(table, study.plan.valuation).values
    errors = audit.standard_errors(study.state.payments)
    for did, variance in zip(table.players, drawn.variances, strict=True):
        assert errors[did] ** 2 >= float(variance) * 0.999
