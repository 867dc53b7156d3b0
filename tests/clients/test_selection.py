"""Who is used: exactly those with a yes, and a commitment to exactly their rows."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.data.check import CheckedData, check_data
from clients.data.dataset import read_file
from clients.selection import RowsUsed, select
from consent.rules.decision import Decision, Status
from federation.rules.canonical import tagged_hash
from federation.rules.study import StudyPlan

SUBJECTS = tuple(f"p{index}" for index in range(6))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, plan: StudyPlan) -> CheckedData:
    """Six people, p0 with three rows, p1 with two, the others with one."""
    rows = [f"{name},{40 + index},{200 + index},m,no" for index, name in enumerate(("p0", *SUBJECTS, "p0", "p1"))]
    path = tmp_path_factory.mktemp("selection") / "site.csv"
    path.write_text("person,age,chol,sex,ill\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return check_data(read_file(path), plan.schema_contract, subject_column="person")


def decision(status: Status, *, permitted: bool | None = None) -> Decision:
    permitted = status is Status.PERMITTED if permitted is None else permitted
    return Decision(permitted=permitted, status=status, reasons=(), sentence="")


decisions = st.dictionaries(st.sampled_from(SUBJECTS), st.sampled_from(list(Status)).map(decision))


@given(given_=decisions)
def test_exactly_the_permitted_are_used(data: CheckedData, given_: Mapping[str, Decision]) -> None:
    selection = select(data, given_)
    wanted = sorted(name for name, found in given_.items() if found.status is Status.PERMITTED)
    assert list(selection.subjects) == wanted == list(selection.batch.subjects)
    assert selection.batch.mask.sum() == sum(name in wanted for name in data.row_subjects)
    assert sum(selection.counts.values()) == len(SUBJECTS)
    assert sum(selection.row_counts.values()) == len(data.row_subjects)
    assert selection.counts["permitted"] == len(wanted)
    assert selection.counts["missing"] >= len(SUBJECTS) - len(given_)
    assert selection.rows.opens_to(data, wanted)


def test_a_decision_that_contradicts_itself_is_no(data: CheckedData) -> None:
    contradictory = {
        "p0": decision(Status.WITHDRAWN, permitted=True),
        "p1": decision(Status.PERMITTED, permitted=False),
        "p2": decision(Status.PERMITTED),
    }
    selection = select(data, contradictory)
    assert selection.subjects == ("p2",)
    assert selection.counts["invalid"] == 2


def test_decisions_about_people_without_data_do_nothing(data: CheckedData) -> None:
    assert select(data, {"somebody": decision(Status.PERMITTED)}).subjects == ()


@given(used=st.sets(st.sampled_from(SUBJECTS)), claimed=st.sets(st.sampled_from(SUBJECTS)))
def test_a_commitment_opens_to_its_rows_and_to_no_others(data: CheckedData, used: set[str], claimed: set[str]) -> None:
    assert RowsUsed.of(data, used).opens_to(data, claimed) == (used == claimed)


def test_the_commitment_has_the_documented_form_and_a_fresh_salt(data: CheckedData) -> None:
    salt = bytes(range(32))
    digests = sorted(data.row_digests[index] for index, name in enumerate(data.row_subjects) if name == "p1")
    assert len(digests) == 2
    assert RowsUsed.of(data, ["p1"], salt=salt).commitment == tagged_hash("rows-used", salt, *digests)
    first, second = RowsUsed.of(data, ["p1"]), RowsUsed.of(data, ["p1"])
    assert first.salt != second.salt
    assert first.commitment != second.commitment
    with pytest.raises(ValueError, match="32 bytes"):
        RowsUsed.of(data, ["p1"], salt=b"short")


def test_selected_records_are_those_of_the_file(data: CheckedData) -> None:
    selection = select(data, {"p3": decision(Status.PERMITTED)})
    index = data.batch.subjects.index("p3")
    np.testing.assert_array_equal(selection.batch.x[0], data.batch.x[index])
