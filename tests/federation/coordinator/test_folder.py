"""A coordinator's folder: what it keeps, and what it refuses to open."""

from pathlib import Path

import pytest
from sqlmodel import select
from study_in_memory import small_plan, table

from clients.folder import create_node
from federation.coordinator.folder import (
    CoordinatorFolder,
    commit_validation,
    create_coordinator,
    open_coordinator,
    publish,
)
from federation.coordinator.tables import ValidationSet
from federation.errors import OperatorError
from federation.rules.entries import StudyPublished
from federation.rules.study import StudyPlan, open_plan
from federation.rules.validation import validation_commitment
from federation.settings import PartySettings
from federation.storage.database import read, write

SETTINGS = PartySettings(role="coordinator", name="coordinator")
ROWS = table("validation", 10)


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    return create_coordinator(tmp_path / "c", SETTINGS)


def plan_for(folder: CoordinatorFolder, rows: bytes = ROWS, **changes: object) -> StudyPlan:
    commitment = commit_validation(folder, rows)
    return small_plan(b"", sites=2, **{"validation": {"commitment": commitment}, **changes})


def test_a_coordinator_opens_as_it_was_made(folder: CoordinatorFolder, tmp_path: Path) -> None:
    opened = open_coordinator(tmp_path / "c")
    assert opened.key == folder.key
    assert opened.settings == SETTINGS
    assert opened.studies() == []
    with pytest.raises(OperatorError, match="holds a party already"):
        create_coordinator(tmp_path / "c", SETTINGS)
    assert open_coordinator(tmp_path / "c").key == folder.key


def test_a_node_s_folder_is_no_coordinator(tmp_path: Path) -> None:
    create_node(tmp_path / "n", PartySettings(role="node", name="n"))
    with pytest.raises(OperatorError, match="is the folder of a node"):
        open_coordinator(tmp_path / "n")


def test_an_open_key_or_a_damaged_database_is_not_used(folder: CoordinatorFolder, tmp_path: Path) -> None:
    folder.engine.dispose()
    folder.files.key.chmod(0o644)
    with pytest.raises(OperatorError, match="is open to other users") as refused:
        open_coordinator(tmp_path / "c")
    assert "chmod 600" in refused.value.remedy
    folder.files.key.chmod(0o600)
    folder.files.database.write_bytes(b"this is not a database at all, however long one reads" * 40)
    with pytest.raises(OperatorError, match=r"accord\.db is damaged or is not a database"):
        open_coordinator(tmp_path / "c")


def test_validation_rows_are_committed_under_a_salt_that_stays(folder: CoordinatorFolder) -> None:
    commitment = commit_validation(folder, ROWS)
    assert commit_validation(folder, ROWS) == commitment
    salt, rows = folder.validation(commitment)
    assert (len(salt), rows) == (32, ROWS)
    assert validation_commitment(salt, rows) == commitment
    assert commit_validation(folder, ROWS + b"p99,50,100,no\n") != commitment


def test_the_same_rows_have_another_commitment_elsewhere(folder: CoordinatorFolder, tmp_path: Path) -> None:
    other = create_coordinator(tmp_path / "d", SETTINGS)
    assert commit_validation(other, ROWS) != commit_validation(folder, ROWS)


def test_validation_rows_that_changed_are_not_used(folder: CoordinatorFolder) -> None:
    commitment = commit_validation(folder, ROWS)
    with write(folder.engine) as session:
        row = session.exec(select(ValidationSet)).one()
        row.data = ROWS.replace(b"yes", b"no", 1)
        session.add(row)
    with pytest.raises(OperatorError, match=f"The validation set {commitment[:12]} is not in this folder"):
        folder.validation(commitment)


def test_a_plan_is_published_once_and_for_good(folder: CoordinatorFolder, tmp_path: Path) -> None:
    plan = plan_for(folder)
    envelope = publish(folder, plan)
    assert publish(open_coordinator(tmp_path / "c"), plan) == envelope
    assert folder.studies() == [plan.study_id]
    assert folder.plan(None) == folder.plan(plan.study_id) == (plan, envelope)
    assert open_plan(envelope, signer=folder.key.public)[0] == plan
    assert folder.blobs.has(folder.history(None).state.plan_blob)


def test_the_newest_study_is_meant_where_none_is_named(folder: CoordinatorFolder) -> None:
    first, second = plan_for(folder), plan_for(folder, title="The second")
    publish(folder, first)
    publish(folder, second)
    assert folder.studies() == [first.study_id, second.study_id]
    assert folder.plan(None)[0] == second
    assert folder.plan(first.study_id)[0] == first


def test_an_unknown_study_is_answered_with_those_that_there_are(folder: CoordinatorFolder) -> None:
    with pytest.raises(OperatorError, match=r"There is no study .*\(studies: none yet\)"):
        folder.plan(None)
    plan = plan_for(folder)
    publish(folder, plan)
    with pytest.raises(OperatorError, match=plan.study_id) as refused:
        folder.plan("other-0")
    assert "accord study publish" in refused.value.remedy


def test_a_plan_without_its_validation_rows_is_not_published(folder: CoordinatorFolder) -> None:
    with pytest.raises(OperatorError, match="is not in this folder"):
        publish(folder, small_plan(b"elsewhere", sites=2))
    assert folder.studies() == []


def test_each_study_has_its_own_log(folder: CoordinatorFolder) -> None:
    first, second = plan_for(folder), plan_for(folder, title="The second")
    publish(folder, first)
    publish(folder, second)
    history = folder.history(first.study_id)
    history.append(
        StudyPublished(plan=history.state.plan_blob, plan_hash=first.plan_hash, minted=first.reward.pool_microcredits)
    )
    assert folder.history(first.study_id).state.published
    assert not folder.history(second.study_id).state.published
    with read(folder.engine) as session:
        assert session.exec(select(ValidationSet)).one().data == ROWS
