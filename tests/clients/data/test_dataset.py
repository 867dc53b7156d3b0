"""Registered files: known by hash, refused when they changed, every mistake named with its place."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from clients.data.dataset import add_dataset, datasets, find_dataset, load_dataset, read_file
from clients.storage import Dataset, memory_node
from federation.errors import OperatorError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TEXT = "person,age\np1,40\np2,50\n"


@pytest.fixture
def engine() -> Engine:
    return memory_node()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heart.csv"
    path.write_text(TEXT, encoding="utf-8")
    return path


def add(
    engine: Engine, file: Path, *, name: str | None = None, subject: str = "person", replace: bool = False
) -> Dataset:
    return add_dataset(engine, file, subject_column=subject, name=name, replace=replace, now=NOW)


def test_a_file_is_registered_by_its_hash_and_read_again(engine: Engine, file: Path) -> None:
    entry = add(engine, file)
    assert (entry.name, entry.sha256) == ("heart", hashlib.sha256(TEXT.encode()).hexdigest())
    assert (entry.size_bytes, entry.added_at) == (len(TEXT), "2026-11-22T00:00:00Z")
    loaded = load_dataset(find_dataset(engine))
    assert loaded.columns == ("person", "age")
    assert loaded.rows == ({"person": "p1", "age": "40"}, {"person": "p2", "age": "50"})


def test_the_same_registration_again_changes_nothing(engine: Engine, file: Path) -> None:
    first = add(engine, file)
    assert add(engine, file).model_dump() == first.model_dump()
    assert len(datasets(engine)) == 1


def test_a_changed_file_is_not_used(engine: Engine, file: Path) -> None:
    entry = add(engine, file)
    file.write_text(TEXT.replace("40", "41"), encoding="utf-8")
    with pytest.raises(OperatorError, match="has changed since") as error:
        load_dataset(entry)
    assert "--replace" in error.value.remedy


def test_a_name_stands_for_one_file_until_it_is_replaced(engine: Engine, file: Path, tmp_path: Path) -> None:
    add(engine, file)
    other = tmp_path / "other.csv"
    other.write_text(TEXT + "p3,60\n", encoding="utf-8")
    with pytest.raises(OperatorError, match="stands for"):
        add(engine, other, name="heart")
    assert find_dataset(engine).path == str(file)
    add(engine, other, name="heart", replace=True)
    assert find_dataset(engine).path == str(other)


def test_the_subject_column_must_be_there(engine: Engine, file: Path) -> None:
    with pytest.raises(OperatorError, match="no column 'patient'") as error:
        add(engine, file, subject="patient")
    assert "person, age" in error.value.remedy
    assert datasets(engine) == ()


def test_finding_needs_a_name_when_there_are_several(engine: Engine, file: Path) -> None:
    with pytest.raises(OperatorError, match="No data set"):
        find_dataset(engine)
    add(engine, file, name="a")
    add(engine, file, name="b")
    with pytest.raises(OperatorError, match="several data sets: a, b"):
        find_dataset(engine)
    assert find_dataset(engine, "b").name == "b"
    with pytest.raises(OperatorError, match="called 'c'"):
        find_dataset(engine, "c")


def test_a_byte_order_mark_and_line_endings_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "windows.csv"
    path.write_bytes(b"\xef\xbb\xbfperson, age \r\np1,40\r\n\r\n")
    assert read_file(path).rows == ({"person": "p1", "age": "40"},)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"person,age\n", "has no rows"),
        (b"person,,age\np1,1,2\n", "column 2 has no name"),
        (b"person,age,age\np1,1,2\n", "'age' appears twice"),
        (b"person,age\np1,40\np2\n", "line 3: 1 cells where the header has 2"),
        (b"person,age\np1,40,7\n", "line 2: 3 cells where the header has 2"),
        (b'person,age\np1,"40\n', "this is not CSV"),
        (b"person,age\np1,\xff\n", "line 2: the file is not UTF-8"),
    ],
)
def test_files_that_are_not_usable_are_refused_with_the_place(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=why) as error:
        read_file(path)
    assert "bad.csv" in error.value.message


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(OperatorError, match="cannot be read"):
            read_file(path)
