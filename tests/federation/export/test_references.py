"""Studies under the trust-anchored rule: verified to the last reference, and what a sealed root set allows."""

from pathlib import Path
from typing import Any

import pytest

from federation.coordinator.challenging import challenge_of
from federation.errors import PeerError
from federation.export.layout import ROOT_ROWS
from federation.export.verification import verify_export
from federation.rules.fixedpoint import Integers

MEAN = 'rule = "weighted-mean"'
PUBLIC, SEALED = 'root_disclosure = "public"', 'root_disclosure = "sealed"'


@pytest.fixture
def anchored(play: Any) -> dict[str, str]:
    return {MEAN: play.anchored}


def turned(own: Integers) -> Integers:
    return -own


def test_a_trust_anchored_study_verifies_to_the_last_reference_and_utility(
    play: Any, anchored: dict[str, str], tmp_path: Path
) -> None:
    study = play(edits=anchored).played()
    folder = study.export(tmp_path / "study")
    report = verify_export(folder, study.key.public)
    assert report.utilities_recomputed == 2**3 + 2**2
    assert report.to_json()["aggregation"] == {"rule": "trust-anchored", "linear": False, "references_recomputed": 2}
    assert "references   all 2 recomputed from the disclosed root set" in report.to_text()
    for coalition in ("ash", "ash,cedar", "-"):
        found = challenge_of(folder, coalition=coalition, round_number=2, study=None)
        assert found.finding.verdict == "holds"


def test_a_false_reference_is_caught_where_the_root_set_is_disclosed(
    play: Any, anchored: dict[str, str], tmp_path: Path
) -> None:
    study = play(edits=anchored, changes={"reference": turned}).played()
    with pytest.raises(PeerError, match="the root set does not give this reference update of round 1"):
        verify_export(study.export(tmp_path / "study"), study.key.public)


def test_with_a_sealed_root_set_a_false_reference_passes_and_the_report_says_whose_word_it_is(
    play: Any, anchored: dict[str, str], tmp_path: Path
) -> None:
    study = play(edits={MEAN: anchored[MEAN].replace(PUBLIC, SEALED)}, changes={"reference": turned}).played()
    folder = study.export(tmp_path / "study")
    report = verify_export(folder, study.key.public)
    assert report.references_recomputed is None
    assert "the sponsor's word" in report.to_text()
    assert not (folder / ROOT_ROWS).exists()


def test_an_exchanged_root_set_is_refused(play: Any, anchored: dict[str, str], tmp_path: Path) -> None:
    study = play(edits=anchored).played()
    study.root_rows = study.root_rows.replace(b"yes", b"no", 1)
    with pytest.raises(PeerError, match="these are not the rows that the plan committed to"):
        verify_export(study.export(tmp_path / "study"), study.key.public)


def test_a_reference_beyond_the_norm_bound_is_refused_by_whoever_recomputes_the_round(
    play: Any, anchored: dict[str, str]
) -> None:
    study = play(edits=anchored, changes={"reference": lambda own: own * 0 + 2**40})
    study.start()
    with pytest.raises(PeerError, match="above the plan's norm bound"):
        study.play_round(1)


@pytest.mark.parametrize("change", [{"reference": None}, {"reference": "a" * 64}])
def test_a_round_opens_with_a_reference_exactly_where_the_plan_asks(
    change: dict[str, Any], play: Any, anchored: dict[str, str]
) -> None:
    edits = anchored if change["reference"] is None else {}
    study = play(edits=edits, changes={"round-opened": lambda body: body.model_copy(update=change)})
    study.start()
    with pytest.raises(PeerError, match="do not go together"):
        study.play_round(1)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (PUBLIC, "", "root_disclosure is needed with trust-anchored"),
        (PUBLIC, f'{PUBLIC}\ntolerated = "0.2"', "tolerated has no meaning with trust-anchored"),
        ('rule = "trust-anchored"', 'rule = "geometric-median"', "root has no meaning with geometric-median"),
    ],
)
def test_a_plan_names_a_root_set_exactly_with_the_rule(
    before: str, after: str, why: str, play: Any, anchored: dict[str, str]
) -> None:
    with pytest.raises(Exception, match=why):
        play(edits={MEAN: anchored[MEAN].replace(before, after)})


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('family = "logistic"', 'family = "mlp"\nhidden = [2]', "of logistic models only"),
        ("[reward]", '[reward]\npay = "lower-bound"\nz = 1', "reward.pay must be value"),
    ],
)
def test_a_trust_anchored_plan_is_of_a_logistic_model_and_pays_by_values(
    before: str, after: str, why: str, play: Any, anchored: dict[str, str]
) -> None:
    with pytest.raises(Exception, match=why):
        play(edits={**anchored, before: after})
