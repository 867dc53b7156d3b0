from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.rules.encoding import Rows, by_subject, feature_names, parse_rows, row_bytes
from federation.rules.schema import SchemaContract


def contract(records: int = 2) -> SchemaContract:
    return SchemaContract.model_validate(
        {
            "subject": "patient_id",
            "records_per_subject_max": records,
            "columns": [
                {"type": "number", "name": "age", "unit": "a", "low": 20, "high": 100},
                {"type": "number", "name": "chol", "unit": "mg/dl", "low": "80.5", "high": "600.5", "missing": True},
                {"type": "category", "name": "cp", "categories": ["typical", "atypical", "none"]},
                {"type": "category", "name": "thal", "categories": ["normal", "fixed"], "missing": True},
            ],
            "label": {"name": "disease", "negative": "no", "positive": "yes"},
        }
    )


def row(**changes: Any) -> dict[str, Any]:
    cells = {"patient_id": "p1", "age": "60", "chol": "340.5", "cp": "none", "thal": "fixed", "disease": "yes"}
    return {**cells, **changes}


def parse(*rows: Mapping[str, Any], records: int = 2) -> Rows:
    return parse_rows(contract(records), rows, source="site.csv")


def test_features_are_named_in_the_order_of_the_contract() -> None:
    assert feature_names(contract()) == (
        "age",
        "chol",
        "chol:missing",
        "cp=typical",
        "cp=atypical",
        "cp=none",
        "thal=normal",
        "thal=fixed",
        "thal:missing",
    )


def test_numbers_are_scaled_by_public_bounds_and_words_become_one_hot() -> None:
    rows = parse(row(), row(patient_id="p2", age="20", chol="600.5", cp="typical", thal="normal", disease="no"))
    assert rows.subjects == ("p1", "p2")
    assert rows.features.tolist() == [[0, 0, 0, 0, 0, 1, 0, 1, 0], [-1, 1, 0, 1, 0, 0, 1, 0, 0]]
    assert rows.labels.tolist() == [1, 0]
    assert rows.features.dtype == rows.labels.dtype == np.float64


def test_a_gap_is_zero_with_a_public_indicator() -> None:
    assert parse(row(chol="", thal=" ")).features.tolist() == [[0, 0, 1, 0, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("age", ["20", "100", "1e2", " 60 ", "+60", "60.", "2E+1", "0020.0"])
def test_ordinary_ways_to_write_a_number_are_read(age: str) -> None:
    assert parse(row(age=age)).features[0, 0] == (float(age) - 20) / 80 * 2 - 1


@pytest.mark.parametrize("age", ["19.999999999999999999", "100.0000000000000000001", "-60", "1e999", "1e-999"])
def test_bounds_are_exact(age: str) -> None:
    with pytest.raises(OperatorError, match="column age") as caught:
        parse(row(age=age))
    assert "a number from 20 to 100 a; this column has no gaps" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "place", "allowed"),
    [
        ({"age": "sixty"}, "line 3, column age: 'sixty'", "a number"),
        ({"age": ""}, "column age: an empty cell", "no gaps"),
        ({"age": "nan"}, "'nan'", "a number"),
        ({"age": "inf"}, "'inf'", "a number"),
        ({"age": "1_0"}, "'1_0'", "a number"),
        ({"age": "٦٠"}, "column age", "a number"),
        ({"age": "60 a"}, "'60 a'", "a number"),
        ({"age": "6" * 500}, "column age", "a number"),
        ({"chol": "601"}, "column chol: '601'", "80.5 to 600.5 mg/dl, or an empty cell"),
        ({"cp": "Typical"}, "column cp: 'Typical'", "'typical', 'atypical', 'none'; this column has no gaps"),
        ({"cp": ""}, "column cp: an empty cell", "no gaps"),
        ({"thal": "reversible"}, "column thal: 'reversible'", "or an empty cell"),
        ({"disease": "1"}, "column disease: '1'", "exactly 'no' or 'yes'"),
        ({"disease": ""}, "column disease: an empty cell", "exactly"),
        ({"patient_id": "  "}, "column patient_id", "subject's name"),
        ({"patient_id": "p" * 300}, "column patient_id", "subject's name"),
        ({"weight": "80"}, "unknown: weight", "exactly these columns: patient_id, age"),
        ({None: ["80"]}, "more or fewer cells", "comma"),
        ({"thal": None}, "more or fewer cells", "comma"),
    ],
)
def test_what_breaks_the_contract_is_named_with_what_is_allowed(
    changes: dict[Any, Any], place: str, allowed: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        parse(row(patient_id="p0"), {**row(), **changes})
    assert caught.value.message.startswith("site.csv, line 3")
    assert place in caught.value.message
    assert allowed in caught.value.remedy


def test_a_missing_column_is_named() -> None:
    cells = row()
    del cells["chol"], cells["disease"]
    with pytest.raises(OperatorError, match="missing: chol, disease"):
        parse(cells)


def test_a_subject_with_too_many_records_is_refused() -> None:
    parse(row(), row())
    with pytest.raises(OperatorError, match="line 4: subject 'p1' has more than the 2 records"):
        parse(row(), row(), row())


def test_a_file_without_rows_is_refused() -> None:
    with pytest.raises(OperatorError, match="has no rows"):
        parse()


def test_records_are_grouped_by_subject_and_padded() -> None:
    rows = parse(row(patient_id="b", age="20"), row(patient_id="a", age="100", disease="no"), row(patient_id="b"))
    batch = by_subject(contract(), rows)
    assert batch.subjects == ("a", "b")
    assert batch.x.shape == (2, 2, 9)
    assert batch.mask.tolist() == [[1, 0], [1, 1]]
    assert batch.y.tolist() == [[0, 0], [1, 1]]
    assert batch.x[:, :, 0].tolist() == [[1, 0], [-1, 0]]
    assert not batch.x[0, 1].any()


def test_rows_that_were_parsed_under_looser_terms_are_not_cut_silently() -> None:
    rows = parse(row(), row(), row(), records=3)
    with pytest.raises(OperatorError, match="more than the 2"):
        by_subject(contract(2), rows)


subjects = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20)


@given(subjects, st.sets(st.sampled_from("abcdefxyz")))
def test_selecting_keeps_exactly_the_wanted_subjects(names: list[str], wanted: set[str]) -> None:
    rows = parse(*(row(patient_id=name, age=str(20 + at)) for at, name in enumerate(names)), records=20)
    batch = by_subject(contract(20), rows)
    chosen = batch.select(wanted)
    assert chosen.subjects == tuple(sorted(wanted & set(names)))
    for at, name in enumerate(chosen.subjects):
        own = [20 + line for line, owner in enumerate(names) if owner == name]
        ages = (chosen.x[at, chosen.mask[at] == 1, 0] + 1) / 2 * 80 + 20
        assert np.allclose(ages, own)
    assert chosen.x.shape == (len(chosen.subjects), 20, 9)


@given(subjects, st.randoms(use_true_random=False))
def test_the_order_of_different_subjects_in_a_file_does_not_matter(names: list[str], shuffle: Random) -> None:
    different = sorted(set(names))
    cells = [row(patient_id=name, age=str(30 + at)) for at, name in enumerate(different)]
    first = by_subject(contract(), parse(*cells))
    shuffle.shuffle(cells)
    second = by_subject(contract(), parse(*cells))
    assert first.subjects == second.subjects
    assert first.x.tobytes() == second.x.tobytes()


@given(
    st.decimals(min_value=20, max_value=100, places=6),
    st.one_of(st.just(""), st.decimals(min_value="80.5", max_value="600.5", places=4).map(str)),
    st.sampled_from(["", "normal", "fixed"]),
)
def test_every_feature_stays_between_minus_one_and_one(age: Any, chol: str, thal: str) -> None:
    features = parse(row(age=str(age), chol=chol, thal=thal)).features
    assert np.all(np.abs(features) <= 1)


def test_a_row_has_one_byte_form_whatever_the_order_of_its_columns() -> None:
    cells = row()
    assert row_bytes("p1", cells) == row_bytes("p1", dict(reversed(cells.items())))
    assert row_bytes("p1", {"age": "60"}) == b'{"row":{"age":"60"},"subject":"p1"}'
    assert row_bytes("p1", {"age": "60"}) != row_bytes("p1", {"age": "60.0"})
