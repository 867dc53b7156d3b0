"""A file against a study's contract."""

import hashlib
from pathlib import Path

import pytest

from clients.data.check import check_data
from clients.data.dataset import read_file
from federation.errors import OperatorError
from federation.rules.encoding import row_bytes
from federation.rules.study import StudyPlan

HEADER = "person,age,chol,sex,ill\n"
ROWS = "p2,40,,f,yes\np1,50,200,m,no\np2,41,210,f,no\n"


def file_of(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "site.csv"
    path.write_text(header + rows, encoding="utf-8")
    return path


def test_a_file_that_keeps_the_contract_is_encoded_by_subject(tmp_path: Path, plan: StudyPlan) -> None:
    loaded = read_file(file_of(tmp_path, ROWS))
    data = check_data(loaded, plan.schema_contract, subject_column="person")
    assert data.row_subjects == ("p2", "p1", "p2")
    assert data.batch.subjects == ("p1", "p2")
    assert data.batch.mask.tolist() == [[1, 0, 0], [1, 1, 0]]
    assert data.gaps == {"chol": 1}
    assert data.row_digests[1] == hashlib.sha256(row_bytes("p1", loaded.rows[1])).digest()
    assert data.summary(plan.schema_contract) == {
        "source": str(tmp_path / "site.csv"),
        "sha256": loaded.sha256,
        "rows": 3,
        "subjects": 2,
        "features": 5,
        "positive_rows": 1,
        "gaps": {"chol": 1},
    }


def test_another_subject_column_is_another_unit_of_privacy(tmp_path: Path, plan: StudyPlan) -> None:
    loaded = read_file(file_of(tmp_path, ROWS))
    with pytest.raises(OperatorError, match="registered with 'age'") as error:
        check_data(loaded, plan.schema_contract, subject_column="age")
    assert "--subject person" in error.value.remedy


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ("p1,140,200,m,no\n", "line 2, column age"),
        ("p1,40,200,m,no\np2,old,200,m,no\n", "line 3, column age"),
        ("p1,40,200,x,no\n", "line 2, column sex"),
        ("p1,,200,m,no\n", "line 2, column age"),
        ("p1,40,200,m,maybe\n", "line 2, column ill"),
        (",40,200,m,no\n", "line 2, column person"),
        ("p1,40,200,m,no\n" * 4, "line 5"),
    ],
)
def test_the_first_wrong_cell_is_named(tmp_path: Path, plan: StudyPlan, rows: str, place: str) -> None:
    with pytest.raises(OperatorError, match=place):
        check_data(read_file(file_of(tmp_path, rows)), plan.schema_contract, subject_column="person")
