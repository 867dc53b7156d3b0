"""Studies that pay by the lower bound: played, exported, verified; and what a lying coordinator tries."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from federation.errors import PeerError
from federation.export.verification import verify_export
from federation.rules import audit
from federation.rules.entries import StudySettled

BY_VALUE = "pool_microcredits = 1000000"
Z = "0.25"
BOUNDED = {BY_VALUE: f'{BY_VALUE}\npay = "lower-bound"\nz = "{Z}"'}

Body = Callable[[StudySettled], StudySettled]


def test_payments_follow_from_values_and_committed_errors_and_both_are_recomputed(play: Any, tmp_path: Path) -> None:
    study = play(edits=BOUNDED).played()
    report = verify_export(study.export(tmp_path / "study"), study.key.public)
    bounds = {site: value - Fraction(Z) * report.errors[site] for site, value in report.values.items()}
    sure = sum(max(bound, Fraction(0)) for bound in bounds.values())
    assert sure > 0
    assert all(report.errors[site] > 0 for site in report.values)
    for site, bound in bounds.items():
        assert abs(report.rewards[site] - max(bound, Fraction(0)) / sure * 1_000_000) < 1
    shown = report.to_json()["lower_bound"]
    assert (shown["z"], shown["recomputed"]) == (Z, True)
    assert "0.25 standard errors, which were recomputed from the disclosed validation rows" in report.to_text()


def test_the_same_export_gives_the_same_report(play: Any, tmp_path: Path) -> None:
    study = play(edits=BOUNDED).played()
    folder = study.export(tmp_path / "study")
    assert verify_export(folder, study.key.public) == verify_export(folder, study.key.public)


def with_first_error(change: Callable[[int], int]) -> Callable[[dict[str, int]], dict[str, int]]:
    def changed(errors: dict[str, int]) -> dict[str, int]:
        first = min(errors)
        return {**errors, first: change(errors[first])}

    return changed


@pytest.mark.parametrize("change", [lambda error: error + 2**13, lambda error: error - 2**13, lambda _: 0])
def test_a_false_standard_error_with_payments_that_follow_from_it_is_caught(
    change: Callable[[int], int], play: Any, tmp_path: Path
) -> None:
    study = play(edits=BOUNDED, changes={"errors": with_first_error(change)}).played()
    with pytest.raises(PeerError, match=r"^log/\d+\.json: the standard error of \w+'s value is \d+, the rows give"):
        verify_export(study.export(tmp_path / "study"), study.key.public)


def test_an_error_within_the_tolerance_passes(play: Any, tmp_path: Path) -> None:
    study = play(edits=BOUNDED, changes={"errors": with_first_error(lambda error: error + 2**11)}).played()
    assert verify_export(study.export(tmp_path / "study"), study.key.public).settled


def retold(error: int | None) -> Body:
    """Another standard error for who is paid most, and all else as it was."""

    def change(body: StudySettled) -> StudySettled:
        most = max(body.payments, key=lambda payment: payment.reward)
        false = most.model_copy(update={"standard_error": error})
        payments = tuple(false if payment is most else payment for payment in body.payments)
        return body.model_copy(update={"payments": payments})

    return change


@pytest.mark.parametrize(
    ("edits", "change", "why"),
    [
        (BOUNDED, retold(2**39), "do not follow from the value tables"),
        (BOUNDED, retold(None), "not those of the institutions that its plan pays by lower bounds"),
        ({}, retold(0), "not those of the institutions that its plan pays by lower bounds"),
    ],
)
def test_errors_that_do_not_belong_to_the_payments_are_refused_even_with_sealed_rows(
    edits: dict[str, str], change: Body, why: str, play: Any, tmp_path: Path
) -> None:
    study = play(edits=edits, disclosure="sealed", changes={"study-settled": change}).played()
    with pytest.raises(PeerError, match=rf"^log/\d+\.json: .*{why}"):
        verify_export(study.export(tmp_path / "study"), study.key.public)


def test_with_sealed_rows_errors_are_said_to_be_the_coordinators_word(play: Any, tmp_path: Path) -> None:
    study = play(edits=BOUNDED, disclosure="sealed").played()
    report = verify_export(study.export(tmp_path / "study"), study.key.public)
    assert report.to_json()["lower_bound"]["recomputed"] is False
    assert "not recomputed: with sealed rows they are the coordinator's word" in report.to_text()


def test_a_study_that_pays_values_commits_to_no_error(play: Any, tmp_path: Path) -> None:
    study = play().played()
    assert audit.standard_errors(study.state.payments) == {}
    assert verify_export(study.export(tmp_path / "study"), study.key.public).to_json()["lower_bound"] is None
