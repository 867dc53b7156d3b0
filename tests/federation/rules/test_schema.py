"""The contract's further columns and labels: rows of like numbers, and times until an event."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.errors import OperatorError
from federation.rules.encoding import Rows, by_subject, feature_names, parse_rows
from federation.rules.schema import SchemaContract, SurvivalLabel

ENDS = ("10", "20.5", "40")


def contract(**changes: Any) -> SchemaContract:
    document: dict[str, Any] = {
        "subject": "id",
        "columns": [{"type": "numbers", "name": "pixel", "count": 3, "low": "0", "high": "10"}],
        "label": {
            "type": "survival",
            "name": "days",
            "event": "died",
            "censored": "no",
            "happened": "yes",
            "intervals": list(ENDS),
        },
    }
    return SchemaContract.model_validate({**document, **changes})


def row(days: str, died: str, **changes: str) -> dict[str, str]:
    return {"id": "p1", "pixel_1": "0", "pixel_2": "5", "pixel_3": "10", "days": days, "died": died, **changes}


def parse(*rows: dict[str, str]) -> Rows:
    return parse_rows(contract(), rows, source="site.csv")


def test_a_row_of_like_numbers_stands_for_as_many_columns() -> None:
    assert feature_names(contract()) == ("pixel_1", "pixel_2", "pixel_3", "days<=10", "days<=20.5", "days<=40")
    assert contract().inputs == 6
    assert parse(row("50", "no")).features[0, :3].tolist() == [-1, 0, 1]
    with pytest.raises(OperatorError, match="column pixel_2: '11' is not allowed"):
        parse(row("50", "no", pixel_2="11"))


@pytest.mark.parametrize(
    ("days", "died", "labels"),
    [
        ("0", "yes", [1]),
        ("10", "yes", [1]),
        ("10.1", "yes", [0, 1]),
        ("40", "yes", [0, 0, 1]),
        ("40.1", "yes", [0, 0, 0]),
        ("99", "no", [0, 0, 0]),
        ("40", "no", [0, 0, 0]),
        ("30.25", "no", [0, 0, 0]),
        ("30.2", "no", [0, 0]),
        ("4", "no", []),
        ("5", "no", [0]),
    ],
)
def test_a_time_becomes_the_intervals_that_were_lived_through(days: str, died: str, labels: list[int]) -> None:
    rows = parse(row(days, died), row("99", "no", id="p2"))
    mine = [place for place, name in enumerate(rows.subjects) if name == "p1"]
    assert rows.labels[mine].tolist() == labels
    assert rows.features[mine, 3:].tolist() == np.eye(3)[: len(labels)].tolist()
    batch = by_subject(contract(), rows)
    assert batch.mask.sum(axis=1).tolist() == [len(labels), 3] if labels else [3]
    assert batch.select(["p2"]).intervals == 3


@given(days=st.decimals(0, 60, places=3), died=st.booleans())
def test_who_dies_has_one_event_in_the_last_interval_and_who_does_not_has_none(days: Decimal, died: bool) -> None:
    labels = parse(row(str(days), "yes" if died else "no"), row("99", "no", id="p2")).labels[:-3]
    happened = died and days <= 40
    assert labels.sum() == happened
    if happened:
        assert labels[-1] == 1


@pytest.mark.parametrize(("days", "died"), [("-1", "no"), ("", "no"), ("x", "no"), ("1", ""), ("1", "maybe")])
def test_a_time_or_a_word_that_is_not_allowed_is_named(days: str, died: str) -> None:
    with pytest.raises(OperatorError, match=r"site.csv, line 2, column (days|died)"):
        parse(row(days, died))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"intervals": ["20", "10"]}, "must rise"),
        ({"intervals": ["10", "10"]}, "must rise"),
        ({"intervals": ["0", "10"]}, "greater than 0"),
        ({"happened": "no"}, "two words"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(changes: dict[str, Any], reason: str) -> None:
    label = contract().model_dump(mode="json")["label"] | changes
    with pytest.raises(ValidationError, match=reason):
        contract(label=label)


def test_names_are_one_space_also_where_a_column_stands_for_several() -> None:
    columns = [
        {"type": "numbers", "name": "a", "count": 2, "low": "0", "high": "1"},
        {"type": "number", "name": "a_2", "low": "0", "high": "1"},
    ]
    with pytest.raises(ValidationError, match="appears twice"):
        contract(columns=columns)
    with pytest.raises(ValidationError, match="one row"):
        contract(records_per_subject_max=2)
    many = [{"type": "numbers", "name": f"c{number}", "count": 16_384, "low": "0", "high": "1"} for number in range(2)]
    with pytest.raises(ValidationError, match="more than 16384 numbers"):
        contract(columns=many)


def test_a_label_without_a_type_is_two_words_and_is_spelled_as_before() -> None:
    words = contract(label={"name": "ill", "negative": "no", "positive": "yes"})
    assert "type" not in words.model_dump(mode="json")["label"]
    assert words.label.outcome == ("ill", "yes")
    assert isinstance(contract().label, SurvivalLabel)
    assert contract().label.outcome == ("died", "yes")
