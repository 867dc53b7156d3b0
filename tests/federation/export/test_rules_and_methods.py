"""Whole studies under other rules of aggregation and other methods of valuation: played, exported, verified."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federation.errors import PeerError
from federation.export.verification import verify_export
from federation.rules import audit
from federation.rules.aggregation import Rule, aggregate, rule_of
from federation.rules.valuation import METHODS

MEAN, SHAPLEY = 'rule = "weighted-mean"', 'method = "shapley"'
RULES = {
    "trimmed-mean": 'rule = "trimmed-mean"\ntolerated = "0.34"',
    "multi-krum": 'rule = "multi-krum"\ntolerated = "0.34"',
    "geometric-median": 'rule = "geometric-median"',
    "nnm-trimmed-mean": 'rule = "nnm-trimmed-mean"\ntolerated = "0.34"',
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_study_under_a_robust_rule_verifies_to_the_last_utility(rule: str, play: Any, tmp_path: Path) -> None:
    study = play(edits={MEAN: RULES[rule]}).played()
    report = verify_export(study.export(tmp_path / "study"), study.key.public)
    assert report.utilities_recomputed == 2**3 + 2**2
    assert report.to_json()["aggregation"] == {"rule": rule, "linear": False}
    assert f"{rule}, which is not linear: run anew for every coalition" in report.to_text()
    tables = study.tables
    assert sum(audit.values(study.state, tables[:1]).values()) == Fraction(
        tables[0].utilities[-1] - tables[0].utilities[0], audit.UTILITY_UNIT
    )


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_mean_in_place_of_the_plan_s_rule_is_a_false_aggregate(rule: str, play: Any, tmp_path: Path) -> None:
    study = play(edits={MEAN: RULES[rule]})
    study.start()

    def mean_instead(model: Any) -> Any:
        current = study.state.round
        done = audit.ClosedRound(
            1, current.base_model, "", "", "", current.participants, current.admitted, {}, entry_index=0
        )
        base, updates = audit.round_vectors(done, study.state, study.blobs.get)
        assert np.array_equal(model, aggregate(base, updates, study.state.weights, rule_of(study.plan)))
        return aggregate(base, updates, study.state.weights, Rule())

    study.changes["aggregate"] = mean_instead
    study.play_round(1)
    with pytest.raises(PeerError, match="is not its updates' aggregate"):
        verify_export(study.export(tmp_path / "study"), study.key.public)


def test_a_utility_of_the_weighted_mean_is_false_under_a_robust_rule(play: Any, tmp_path: Path) -> None:
    linear = play().played().tables[0].utilities
    for mask in (3, 7):
        study = play(edits={MEAN: RULES["trimmed-mean"]})
        study.changes["utilities-1"] = lambda own, mask=mask: [*own[:mask], linear[mask], *own[mask + 1 :]]
        study.played()
        with pytest.raises(PeerError, match=f"the utility of coalition {mask} in round 1"):
            verify_export(study.export(tmp_path / str(mask)), study.key.public)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_study_by_another_method_pays_by_it_and_verifies(method: str, play: Any, tmp_path: Path) -> None:
    study = play(edits={SHAPLEY: f'method = "{method}"'}).played()
    report = verify_export(study.export(tmp_path / "study"), study.key.public)
    assert report.to_json()["method"] == method
    expected = dict.fromkeys(sorted(study.state.weights), Fraction(0))
    for table in study.tables:
        utilities = list(table.utilities)
        if table.round > 1:
            utilities[0] = study.tables[0].utilities[-1]
        for did, value in zip(table.players, METHODS[method](utilities), strict=True):
            expected[did] += value / audit.UTILITY_UNIT
    assert report.values == {study.state.site(did): value for did, value in expected.items()}
    told = "Shapley values" if method == "shapley" else f"values ({method})"
    assert f"{told} and payments recomputed" in report.to_text()
