from typing import Any

import pytest

from federation.errors import OperatorError
from federation.rules.canonical import tagged_hash
from federation.rules.validation import read_validation, validation_commitment


def test_the_commitment_binds_salt_and_every_byte() -> None:
    made = validation_commitment(b"salt", b"rows")
    assert made == tagged_hash("validation", b"salt", b"rows").hex()
    assert len({made, validation_commitment(b"salT", b"rows"), validation_commitment(b"salt", b"rows\n")}) == 3
    assert validation_commitment(b"ab", b"c") != validation_commitment(b"a", b"bc")


def test_rows_become_a_batch_of_subjects(play: Any) -> None:
    study = play()
    batch = read_validation(study.plan, study.rows)
    assert len(batch.subjects) == 10
    assert batch.y.sum() == 6


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b'patient,age,pressure,ill\n"p1,30,100,no\n', "CSV"),
        (b"patient,age,pressure,ill\np1,300,100,no\n", "age"),
        (b"patient,age\np1,30\n", "pressure"),
        (b"", "no rows"),
    ],
)
def test_what_cannot_be_read_is_named(play: Any, data: bytes, what: str) -> None:
    with pytest.raises(OperatorError, match=what):
        read_validation(play().plan, data)
