"""Published tables as studies of many sites: columns with public bounds, encoded by the shipped encoder.

The data lies beside the repository (``ACCORD_SHARED`` or ``../shared``; each folder's SOURCE.txt names origin and
licence) and nothing of it is copied. Bounds are common knowledge, never read off the rows; a value beyond is cut to the
bound, as a node's own preparation would.
"""

import csv
import gzip
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from flamby_heart import centres
from numpy.typing import NDArray
from scipy.fft import dctn

from clients.data.embedding import embed
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.schema import SchemaContract

Row = dict[str, str]
Columns = Mapping[str, tuple[float, float] | str]
"""Column -> public bounds of a number, or the words of a category: an indicator for each word but the first."""

DATA_FOLDERS = (
    "fed_heart_disease",
    "gusto1",
    "impact_tbi",
    "fed_tcga_brca",
    "pneumonia_mnist",
    "beijing_air",
    "druglib_reviews",
)


@dataclass(frozen=True, slots=True)
class Table:
    """A study's data.

    Attributes:
        title: its heading.
        schema: the contract that encodes it.
        sites: site -> its subjects.
        held_out: site -> bool [S], where a published split exists; else None and splits are drawn.
        blocks: site -> int64 [S]; subjects of one block, at whatever site, are held out together; None: each alone.
    """

    title: str
    schema: SchemaContract
    sites: Mapping[str, SubjectBatch]
    held_out: Mapping[str, NDArray[np.bool_]] | None = None
    blocks: Mapping[str, NDArray[np.int64]] | None = None


def shared_data() -> Path | None:
    """The folder of published data, or None where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("ACCORD_SHARED") or beside) / "data"
    return folder if all((folder / name).is_dir() for name in DATA_FOLDERS) else None


def table_of(title: str, columns: Columns, rows_by_site: Mapping[str, Sequence[Row]], *, records_max: int = 1) -> Table:
    """Encode rows; a row has the columns, ``subject`` and ``label`` (0 or 1); sites in the order given."""
    schema = SchemaContract.model_validate(
        {
            "subject": "subject",
            "records_per_subject_max": records_max,
            "columns": [column for name, allowed in columns.items() for column in _columns(name, allowed)],
            "label": {"name": "label", "negative": "0", "positive": "1"},
        }
    )
    sites = {
        site: by_subject(schema, parse_rows(schema, [_cut(row, columns) for row in rows], source=site))
        for site, rows in rows_by_site.items()
    }
    return Table(title, schema, sites)


def heart(folder: Path) -> Table:
    """Fed-Heart-Disease as FLamby selects and splits it, with public bounds in place of standardising."""
    columns: Columns = {
        "age": (30, 80),
        "sex": "0 1",
        "cp": "4 1 2 3",
        "trestbps": (80, 180),
        "chol": (120, 370),
        "fbs": "0 1",
        "restecg": "0 1 2",
        "thalach": (80, 200),
        "exang": "0 1",
        "oldpeak": (-2, 4),
    }
    rows: dict[str, list[Row]] = {}
    test: dict[str, NDArray[np.bool_]] = {}
    for site, centre in centres(folder / "fed_heart_disease").items():
        cells = [dict(zip(columns, (_plain(cell) for cell in row), strict=True)) for row in centre.rows]
        labels = [str(int(label)) for label in centre.labels]
        rows[site] = _numbered(cells, labels)
        test[site] = np.isin(np.arange(len(labels)), centre.held_out)
    table = table_of("Fed-Heart-Disease", columns, rows)
    return Table(table.title, table.schema, table.sites, held_out=test)


_GUSTO: Columns = {
    "age": (42, 80),
    "sysbp": (85, 175),
    "pulse": (45, 105),
    "height": (155, 187),
    "weight": (55, 105),
    "ste": (-1, 9),
    "Killip": "I II III IV",
    "miloc": "Inferior Anterior Other",
    "smk": "never current quit",
    "tx": "SK tPA SK+tPA",
    "sex": "male female",
    "pmi": "no yes",
    "dia": "0 1",
    "hyp": "0 1",
    "ttr": "0 1",
    "htn": "1 2",
    "pan": "1 2",
    "fam": "1 2",
    "prevcvd": "1 2",
    "prevcabg": "1 2",
}


def gusto(folder: Path, key: str, title: str) -> Table:
    """GUSTO-I: death within 30 days of a myocardial infarction; ``key`` is ``regl`` (regions) or ``grps`` (centres)."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _csv(folder / "gusto1" / "gusto.csv.gz"):
        rows[row[key]].append({**row, "label": row["day30"]})
    return table_of(title, _GUSTO, {site: _numbered(rows[site]) for site in sorted(rows, key=int)})


def impact(folder: Path) -> Table:
    """IMPACT: death within six months of a traumatic brain injury, 15 studies."""
    columns: Columns = {
        "age": (15, 75),
        "motor_score": "5/6 4 3 1/2",
        "pupil": "Both One None",
        "ct": "I/II III IV/V",
        "hypox": "0 1",
        "hypots": "0 1",
        "tsah": "0 1",
        "edh": "0 1",
    }
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _csv(folder / "impact_tbi" / "impact.csv"):
        rows[row["name"]].append({**row, "label": row["mort"]})
    return table_of("IMPACT, 15 studies", columns, {site: _numbered(rows[site]) for site in rows})


_AIR: Columns = {
    "PM2.5": (0, 250),
    "PM10": (0, 300),
    "SO2": (0, 80),
    "NO2": (0, 120),
    "CO": (0, 4000),
    "O3": (0, 160),
    "TEMP": (-10, 32),
    "PRES": (990, 1040),
    "DEWP": (-28, 26),
    "RAIN": (0, 2),
    "WSPM": (0, 5),
    "evening": (0, 250),
    "winter": (-1, 1),
    "spring": (-1, 1),
}
PM25_LIMIT = 75
"""China's daily limit, grade II, in micrograms per cubic metre (GB 3095-2012)."""
_HOURS_MIN = 18


def beijing(folder: Path) -> Table:
    """Beijing's 12 stations: is tomorrow's mean PM2.5 above the daily limit? The subject is a station's day.

    Whole weeks are held out, the same at every station: neighbouring stations see the same air.
    """
    rows: dict[str, list[Row]] = {}
    for path in sorted((folder / "beijing_air").glob("PRSA_Data_*.csv.gz")):
        rows[path.name.split("_")[2]] = list(_station_days(path))
    table = table_of("Beijing air, 12 stations", _AIR, rows)
    blocks = {
        site: np.array([date.fromisoformat(day).toordinal() // 7 for day in batch.subjects], dtype=np.int64)
        for site, batch in table.sites.items()
    }
    return Table(table.title, table.schema, table.sites, blocks=blocks)


def _station_days(path: Path) -> Iterator[Row]:
    hours: defaultdict[date, list[Row]] = defaultdict(list)
    for row in _csv(path):
        hours[date(int(row["year"]), int(row["month"]), int(row["day"]))].append(row)
    pm25 = {day: _mean(rows, "PM2.5") for day, rows in hours.items()}
    for day, rows in hours.items():
        tomorrow = pm25.get(day + timedelta(days=1))
        means = {name: _mean(rows, name) for name in _AIR if name in rows[0]}
        evening = _mean(rows[18:], "PM2.5", 3)
        if tomorrow is None or evening is None or None in means.values():
            continue
        angle = 2 * math.pi * day.timetuple().tm_yday / 365.25
        season = {"winter": math.cos(angle), "spring": math.sin(angle)}
        numbers = {**means, "evening": evening, **season}
        cells = {name: f"{value:.6f}" for name, value in numbers.items()}
        yield {"subject": day.isoformat(), **cells, "label": str(int(tomorrow > PM25_LIMIT))}


def _mean(rows: Sequence[Row], name: str, least: int = _HOURS_MIN) -> float | None:
    values = [float(row[name]) for row in rows if row[name].strip() not in {"", "NA"}]
    return sum(values) / len(values) if len(values) >= least else None


TCGA_YEARS = (0.0, 2.0, 5.0)
"""Beginnings of the intervals of discrete time, in years; the last has no end."""
_TCGA_STAGES = {"i": 1.0, "ia": 1.0, "iia": 2.0, "iib": 2.5, "iiia": 3.0, "iiic": 3.5}
_TCGA_NODES = {"N1": 1.0, "N1a": 1.0, "N2": 2.0, "N2a": 2.0}


def tcga(folder: Path) -> tuple[Table, Mapping[str, tuple[float, bool]]]:
    """Fed-TCGA-BRCA's 1,088 patients of six regions as discrete-time survival (Singer and Willett 1993).

    A patient has one record for each interval that they entered, with the interval as indicators; the label is death in
    it. So the shipped logistic family learns hazards, and a person's records are averaged and clipped as one. With 151
    deaths the 39 published inputs are too many (ten events an input is the rule of thumb): age, stage and affected
    nodes are left, stages and nodes as ordered numbers.

    Returns:
        The table, and subject -> (days, whether death was seen).
    """
    path = folder / "fed_tcga_brca"
    region = {row["pid"]: row["fold2"].split("_")[1] for row in _csv(path / "train_test_split.csv")}
    patients = [row for row in _csv(path / "brca.csv") if row["pid"] in region]
    clocks = [f"interval{place}" for place in range(1, len(TCGA_YEARS))]
    columns: Columns = {"age": (35, 85), "stage": (0, 4), "other": (-1, 1), "nodes": (-1, 2)}
    columns = {**columns, **dict.fromkeys(clocks, (-1, 1))}
    rows: dict[str, list[Row]] = {f"region {site}": [] for site in sorted(set(region.values()))}
    for row in patients:
        years = float(row["T"]) / 365.25
        last = max(place for place, begin in enumerate(TCGA_YEARS) if place == 0 or years > begin)
        stages = [value for name, value in _TCGA_STAGES.items() if float(row[f"tumor_stage_stage {name}"])]
        nodes = sum(value for name, value in _TCGA_NODES.items() if float(row[f"ajcc_pathologic_n_{name}"]))
        own = {"subject": row["pid"], "age": row["age_at_index"], "stage": str(max(stages, default=2.0))}
        own |= {"other": str(int(not stages)), "nodes": str(nodes)}
        for now in range(last + 1):
            clock = {name: str(int(place == now)) for place, name in enumerate(clocks, start=1)}
            died = now == last and row["E"] == "1.0"
            rows[f"region {region[row['pid']]}"].append({**own, **clock, "label": str(int(died))})
    times = {row["pid"]: (float(row["T"]), row["E"] == "1.0") for row in patients}
    return table_of("Fed-TCGA-BRCA, six regions", columns, rows, records_max=len(TCGA_YEARS)), times


REVIEW_SITES = 8
_GOOD_RATING = 7
PNEUMONIA_SITES = 8
_WAVES = 8


def pneumonia(folder: Path) -> Table:
    """PneumoniaMNIST's 5,232 training and validation images, dealt at random to eight artificial sites.

    The inputs are an image's 63 slowest cosine waves (two-dimensional, type II, orthonormal), after its own mean and
    contrast are removed, weighted by frequency as images fall off with it: public arithmetic on one image at a time,
    which private training needs more than depth (Tramer and Boneh 2021).
    """
    with np.load(folder / "pneumonia_mnist" / "pneumoniamnist_28_rebuilt.npz") as file:
        images = np.concatenate([file["train_images"], file["val_images"]]).astype(np.float64)
        labels = np.concatenate([file["train_labels"], file["val_labels"]]).ravel()
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= images.std(axis=(1, 2), keepdims=True) + 1.0
    waves = dctn(images, axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES]
    frequency = np.add.outer(np.arange(_WAVES), np.arange(_WAVES))
    inputs = (waves * frequency / images.shape[1]).reshape(len(images), -1)[:, 1:]
    columns: Columns = {f"w{place}": (-0.7, 0.7) for place in range(inputs.shape[1])}
    rows: dict[str, list[Row]] = {f"site {site + 1}": [] for site in range(PNEUMONIA_SITES)}
    dealt = np.random.default_rng(0).permutation(len(images)) % PNEUMONIA_SITES
    for number, (image, label) in enumerate(zip(inputs, labels, strict=True)):
        cells = {f"w{place}": f"{value:.6f}" for place, value in enumerate(image)}
        rows[f"site {dealt[number] + 1}"].append({"subject": f"{number:06d}", **cells, "label": str(label)})
    return table_of("PneumoniaMNIST, eight artificial sites", columns, rows)


def reviews(folder: Path) -> Table:
    """Druglib's 4,143 patients' reviews: whether a rating is 7 or more, from the three texts, by `accord data embed`'s
    numbers. Eight artificial sites: each condition is at one site, the most frequent conditions dealt first.
    """
    text = gzip.decompress((folder / "druglib_reviews" / "drugLib_raw.tsv.gz").read_bytes()).decode("utf-8")
    rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter="\t"))
    told = [" ".join(row[f"{part}Review"] or "" for part in ("benefits", "sideEffects", "comments")) for row in rows]
    numbers = embed(told)
    counts = Counter(row["condition"] for row in rows)
    dealt = {condition: place % REVIEW_SITES for place, (condition, _) in enumerate(counts.most_common())}
    at_site: dict[str, list[int]] = {f"site {site + 1}": [] for site in range(REVIEW_SITES)}
    for place, row in enumerate(rows):
        at_site[f"site {dealt[row['condition']] + 1}"].append(place)
    columns = [{"type": "numbers", "name": "text", "count": numbers.shape[1], "low": "-1", "high": "1"}]
    label = {"name": "label", "negative": "0", "positive": "1"}
    schema = SchemaContract.model_validate({"subject": "subject", "columns": columns, "label": label})
    good = np.array([float(row["rating"]) >= _GOOD_RATING for row in rows], dtype=np.float64)
    sites = {
        site: SubjectBatch(
            tuple(f"{place:06d}" for place in places),
            numbers[places][:, None, :],
            good[places][:, None],
            np.ones((len(places), 1)),
        )
        for site, places in at_site.items()
    }
    return Table("Druglib reviews, eight artificial sites", schema, sites)


def _csv(path: Path) -> Iterator[Row]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from csv.DictReader(text.decode().splitlines())


def _columns(name: str, allowed: tuple[float, float] | str) -> Iterator[dict[str, Any]]:
    """An indicator is a number from 0 to 1, so that "no" is encoded as -1 and a rare "yes" is learnt in fewer steps."""
    if isinstance(allowed, str):
        for word in allowed.split(" ")[1:]:
            yield {"type": "number", "name": _slug(f"{name}_{word}"), "low": "0", "high": "1"}
    else:
        yield {"type": "number", "name": _slug(name), "low": str(allowed[0]), "high": str(allowed[1])}


def _cut(row: Row, columns: Columns) -> Row:
    """The contract's columns of one row; numbers cut to their bounds, a word outside the list refused."""
    result = {"subject": row["subject"], "label": row["label"]}
    for name, allowed in columns.items():
        if isinstance(allowed, str):
            words = allowed.split(" ")
            place = words.index(row[name])
            result |= {_slug(f"{name}_{word}"): str(int(at == place)) for at, word in enumerate(words) if at}
        else:
            result[_slug(name)] = str(min(max(float(row[name]), allowed[0]), allowed[1]))
    return result


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def _plain(cell: str) -> str:
    return str(int(float(cell))) if float(cell).is_integer() else cell


def _numbered(rows: Iterable[Row], labels: Sequence[str] | None = None) -> list[Row]:
    """Rows with a name for each subject; names sort in the rows' order."""
    return [
        {**row, "subject": f"{number:06d}", **({"label": labels[number]} if labels else {})}
        for number, row in enumerate(rows)
    ]
