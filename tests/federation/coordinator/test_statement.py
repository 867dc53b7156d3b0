"""A statement from every folder that holds a study: the same figures, proved, or a clear no."""

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from study_folder import in_folder

from federation.coordinator.statement import StudyStatement, statement_of
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules.merkle import verify_inclusion

SITES = ("ash", "birch", "cedar")


def test_the_statement_s_figures_are_the_settlement_s(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    for payment in study.state.payments:
        data = statement_of(folder, site=payment.site, study=None).data
        assert data["reward_microcredits"] == payment.reward
        assert Fraction(data["value_exact"]) == Fraction(payment.value)
        assert sum(Fraction(row["value_exact"]) for row in data["rounds"]) == Fraction(payment.value)
        assert data["burned_microcredits"] == study.state.burned


def test_a_statement_under_a_rule_that_is_not_linear_says_so(
    play: Any, exported: tuple[Any, Path], tmp_path: Path
) -> None:
    robust = 'rule = "trimmed-mean"\ntolerated = "0.34"'
    study = play(edits={'rule = "weighted-mean"': robust, '"shapley"': '"banzhaf"'}).played()
    told = statement_of(study.export(tmp_path / "study"), site="ash", study=None)
    assert told.data["aggregation"] == {"rule": "trimmed-mean", "linear": False}
    assert "trimmed-mean, which is not linear: it was run anew" in told.text
    assert "of all positive values" in told.text
    linear = statement_of(exported[1], site="ash", study=None)
    assert linear.data["aggregation"] == {"rule": "weighted-mean", "linear": True}
    assert "not linear" not in linear.text


def test_a_statement_of_a_study_that_pays_the_lower_bound_tells_what_was_taken_off_and_why(
    play: Any, tmp_path: Path
) -> None:
    pool = "pool_microcredits = 1000000"
    study = play(edits={pool: f'{pool}\npay = "lower-bound"\nz = "0.25"'}).played()
    folder = study.export(tmp_path / "study")
    for payment in study.state.payments:
        told = statement_of(folder, site=payment.site, study=None)
        bound = told.data["lower_bound"]
        error = Fraction(payment.standard_error, 2**40)
        assert Fraction(bound["standard_error_exact"]) == error
        assert Fraction(bound["bound_exact"]) == Fraction(payment.value) - error / 4
        assert told.data["reward_microcredits"] == payment.reward
        assert f"sure       {bound['bound']:+.6f}" in told.text
        assert "of what is sure of all together" in told.text
        assert ("The plan takes 0.25 standard errors off" in told.text) == (Fraction(payment.value) > 0)


def test_the_proof_leads_from_the_settlement_to_the_signed_root(exported: tuple[Any, Path]) -> None:
    study, folder = exported
    log = statement_of(folder, site="ash", study=None).data["log"]
    assert log["key"] == study.key.public.did
    assert log["checkpoint"].encode() == study.log.latest_checkpoint()[1]
    verify_inclusion(
        leaf=bytes.fromhex(log["leaf_hash"]),
        index=log["entry_index"],
        size=log["size"],
        proof=[bytes.fromhex(item) for item in log["inclusion_proof"]],
        root=study.log.root(log["size"]),
    )


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_every_folder_tells_the_same(exported: tuple[Any, Path], tmp_path: Path, role: str) -> None:
    study, export = exported
    folder = in_folder(study, tmp_path / role, role)
    for site in SITES:
        told: list[StudyStatement] = [
            statement_of(folder, site=site, study=study.plan.study_id),
            statement_of(folder, site=site, study=None),
            statement_of(export, site=site, study=None),
        ]
        assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_an_unsettled_study_has_no_statement(exported: tuple[Any, Path], tmp_path: Path, role: str) -> None:
    study, _ = exported
    folder = in_folder(study, tmp_path / role, role, entries=study.log.size - 1)
    with pytest.raises(OperatorError, match="is not settled: 2 of 2 rounds are closed"):
        statement_of(folder, site="ash", study=None)


def test_a_node_that_has_seen_no_log_says_what_to_do(exported: tuple[Any, Path], tmp_path: Path) -> None:
    folder = in_folder(exported[0], tmp_path / "node", "node", entries=0)
    with pytest.raises(OperatorError, match="has not seen the log of any study yet") as refused:
        statement_of(folder, site="ash", study=None)
    assert "accord node run" in refused.value.remedy


def test_a_table_that_has_not_arrived_is_not_there_now(exported: tuple[Any, Path], tmp_path: Path) -> None:
    folder = in_folder(exported[0], tmp_path / "node", "node", tables=False)
    with pytest.raises(UnavailableError):
        statement_of(folder, site="ash", study=None)


def test_a_settlement_under_no_checkpoint_is_not_proved(play: Any, tmp_path: Path) -> None:
    study = play(changes={})
    study.played()
    study.log._notes.pop(study.log.size)
    folder = in_folder(study, tmp_path / "node", "node")
    with pytest.raises(UnavailableError, match="No signed checkpoint"):
        statement_of(folder, site="ash", study=None)


def test_a_checkpoint_of_another_tree_is_refused(exported: tuple[Any, Path], play: Any, tmp_path: Path) -> None:
    """The same coordinator signed a second history: its newest note does not fit these entries."""
    other = play(seed=8).played()
    study, export = exported
    folder = tmp_path / "forked"
    shutil.copytree(export, folder)
    note = f"checkpoints/{study.log.size:06d}.note"
    assert other.log.size == study.log.size
    (folder / note).write_bytes(other.log.latest_checkpoint()[1])
    with pytest.raises(PeerError):
        statement_of(folder, site="ash", study=None)


def test_an_exchanged_entry_is_refused(exported: tuple[Any, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(exported[1], folder)
    (folder / "log" / "000003.json").write_bytes((folder / "log" / "000002.json").read_bytes())
    with pytest.raises(PeerError, match=r"log/000003\.json"):
        statement_of(folder, site="ash", study=None)
