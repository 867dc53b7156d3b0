"""The scripts behind the demo's files, on made-up sources: what they change, and that they change nothing else."""

import csv
import importlib.util
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.demo.studies import WEATHER

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


heart: Any = script("make_heart_data")
weather: Any = script("make_weather_data")


def reading(hour: int, **changed: str) -> dict[str, str]:
    plain = {
        "origin": "EWR",
        "year": "2013",
        "month": "1",
        "day": "1",
        "hour": str(hour),
        "temp": "40",
        "dewp": "30",
        "humid": "60",
        "wind_dir": "90",
        "wind_speed": "10",
        "precip": "0",
        "pressure": "1010",
        "visib": "10",
    }
    return plain | changed


@given(hours=st.sets(st.integers(0, 23)))
def test_a_row_needs_its_three_hours_on_one_day(hours: set[int]) -> None:
    rows = list(weather.station_rows({"2013-01-01": {hour: reading(hour) for hour in hours}}, "ewr"))
    expected = [hour for hour in (2, 5, 8, 11, 14, 17) if {hour - 2, hour, hour + 6} <= hours]
    assert len(rows) == len(expected)


def test_nothing_is_taken_from_another_day() -> None:
    days = {"2013-01-01": {20: reading(20), 22: reading(22)}, "2013-01-02": {4: reading(4, visib="1")}}
    assert list(weather.station_rows(days, "ewr")) == []


def test_label_and_changes_are_what_the_readings_say() -> None:
    day = {0: reading(0, temp="35", pressure="NA"), 2: reading(2, precip="0.01"), 8: reading(8, visib="9")}
    (row,) = weather.station_rows({"2013-01-01": day}, "ewr")
    cells = dict(zip(weather.HEADER, row, strict=True))
    assert cells["visibility_6h"] == "reduced"
    assert cells["temp_change"] == "5"
    assert cells["pressure_change"] == ""
    assert cells["raining"] == "true"
    assert (cells["wind_north"], cells["wind_east"]) == ("0", "10")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"wind_dir": "NA"}, (0.0, 0.0)),
        ({"wind_speed": "NA"}, None),
        ({"wind_speed": "1048.36"}, None),
        ({"wind_dir": "180", "wind_speed": "5"}, (-5.0, 0.0)),
    ],
)
def test_wind(changed: dict[str, str], expected: tuple[float, float] | None) -> None:
    found = weather.wind(reading(3, **changed))
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_repeated_hour_of_autumn_keeps_its_first_reading() -> None:
    days = weather.days_of([reading(1, temp="50"), reading(1, temp="60")], "EWR")
    assert days["2013-01-01"][1]["temp"] == "50"


def test_shipped_weather_has_the_script_s_columns() -> None:
    for site in WEATHER.sites:
        assert next(csv.reader(io.StringIO(WEATHER.csv_text(site)))) == list(weather.HEADER)


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("chol", "0", ""),
        ("chol", "233", "233"),
        ("trestbps", "0", ""),
        ("ca", "0", "0"),
        ("oldpeak", "0", "0"),
        ("thal", "reversable defect", "reversible_defect"),
        ("restecg", "st-t abnormality", "st_t_abnormality"),
        ("fbs", "TRUE", "true"),
        ("slope", "", ""),
    ],
)
def test_heart_cells(column: str, text: str, expected: str) -> None:
    assert heart.clean_cell(column, text) == expected


def test_hospitals_follow_from_the_row_s_place() -> None:
    row = dict.fromkeys([heart.RENAMED.get(column, column) for column in heart.COLUMNS], "1")
    rows = [row | {"dataset": "Cleveland", "num": "2"} for _ in range(920)]
    made = dict(heart.hospital_rows(rows))
    assert {name: len(found) for name, found in made.items()} == heart.HOSPITAL_ROWS
    assert made["hungary"][0][0] == "hungary-001"
    assert made["hungary"][0][-1] == "present"
