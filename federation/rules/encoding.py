"""Rows of a file -> numbers that a model can learn from, by the schema contract's public facts alone.

Nothing here looks at a distribution: scaling uses the contract's bounds, gaps become zero plus a public indicator,
words become one-hot features. The same row therefore has the same encoding at every site, and encoding spends no
privacy.

With a survival label a row becomes one record for each interval that its subject lived to see, with the interval as a
further one-hot feature and, as its label, whether the event fell into it.

Order of features: for each column in the contract's order its features (``NAME``, or ``NAME=CATEGORY`` for each
category in order), then ``NAME:missing`` where the column may have gaps. A batch element is a **subject**: its records,
padded.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

import numpy as np

from federation.errors import OperatorError
from federation.rules.canonical import canonical_bytes
from federation.rules.fixedpoint import Floats
from federation.rules.schema import CategoryColumn, NumberColumn, SchemaContract, SurvivalLabel
from federation.rules.wire import plain_decimal

CELL_CHARACTERS_MAX: Final = 200
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_FIRST_DATA_LINE: Final = 2

Column: TypeAlias = NumberColumn | CategoryColumn
_CellEncoder: TypeAlias = Callable[[str], tuple[float, ...] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Encoded records in file order.

    Attributes:
        subjects: whose record it is, one per row.
        features: float64 [n, F], F = ``len(feature_names(schema))``, each within [-1, 1].
        labels: float64 [n], 1 for the positive word (survival: for an interval with the event).
    """

    subjects: tuple[str, ...]
    features: Floats
    labels: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SubjectBatch:
    """Encoded records grouped by subject: what training and evaluation see.

    Attributes:
        subjects: S names, sorted, so that a file's order changes no result.
        x: float64 [S, k, F]; k = ``schema.records``; zero where padded.
        y: float64 [S, k] of zeros and ones; zero where padded.
        mask: float64 [S, k]; 1 for a record, 0 for padding.
        intervals: of a survival label; 0 for another.
    """

    subjects: tuple[str, ...]
    x: Floats
    y: Floats
    mask: Floats
    intervals: int = 0

    @property
    def divisors(self) -> Floats:
        """What a subject's sum of losses is divided by: its records, or all intervals of a survival label. [S]."""
        return np.full(len(self.subjects), float(self.intervals)) if self.intervals else self.mask.sum(axis=1)

    def select(self, subjects: Collection[str]) -> "SubjectBatch":
        """Only these subjects, in this batch's order; names without a record here are passed over."""
        wanted = frozenset(subjects)
        kept = [index for index, name in enumerate(self.subjects) if name in wanted]
        return SubjectBatch(
            subjects=tuple(self.subjects[index] for index in kept),
            x=self.x[kept],
            y=self.y[kept],
            mask=self.mask[kept],
            intervals=self.intervals,
        )


def feature_names(schema: SchemaContract) -> tuple[str, ...]:
    """The names of the model's inputs, in order."""
    names: list[str] = []
    for column in schema.every_column:
        if isinstance(column, CategoryColumn):
            names += [f"{column.name}={category}" for category in column.categories]
        else:
            names.append(column.name)
        if column.missing:
            names.append(f"{column.name}:missing")
    if isinstance(schema.label, SurvivalLabel):
        names += [f"{schema.label.name}<={plain_decimal(end)}" for end in schema.label.intervals]
    return tuple(names)


def parse_rows(schema: SchemaContract, rows: Iterable[Mapping[str, str]], *, source: str) -> Rows:
    """Check raw rows against the contract and encode them.

    An empty cell is a gap, allowed only in a column with ``missing``. White space around a cell does not count.

    Args:
        schema: the plan's schema contract.
        rows: column -> text, as ``csv.DictReader`` gives them; the first is taken to stand in line 2.
        source: what to call the file in an error.

    Returns:
        The encoded rows, in order.

    Raises:
        OperatorError: the first thing wrong, with source, line, column, value and what is allowed.
    """
    encoders = {column.name: _cell_encoder(column) for column in schema.every_column}
    columns = (schema.subject, *encoders, *schema.label_columns)
    counts: dict[str, int] = {}
    subjects: list[str] = []
    features: list[list[float]] = []
    labels: list[float] = []
    for line, row in enumerate(rows, start=_FIRST_DATA_LINE):
        place = f"{source}, line {line}"
        _check_columns(row, columns, place)
        subject = _subject(row[schema.subject], f"{place}, column {schema.subject}")
        counts[subject] = counts.get(subject, 0) + 1
        if counts[subject] > schema.records_per_subject_max:
            raise OperatorError(
                f"{place}: subject {subject!r} has more than the {schema.records_per_subject_max} records allowed.",
                remedy="Keep at most that many records of one subject, or agree on a plan with a higher "
                "`schema.records_per_subject_max`.",
            )
        encoded: list[float] = []
        for column in schema.every_column:
            cell = row[column.name].strip()
            numbers = encoders[column.name](cell)
            if numbers is None:
                raise _bad_cell(place, column.name, cell, _allowed(column))
            encoded.extend(numbers)
        for more, label in _labels(schema, row, place):
            subjects.append(subject)
            features.append([*encoded, *more])
            labels.append(label)
    if not subjects:
        raise OperatorError(f"{source} has no rows.", remedy="Give a file with a header and at least one record.")
    return Rows(tuple(subjects), np.array(features, dtype=np.float64), np.array(labels, dtype=np.float64))


def by_subject(schema: SchemaContract, rows: Rows) -> SubjectBatch:
    """Group records by subject (sorted), each padded to ``schema.records``; records keep the file's order.

    Raises:
        OperatorError: a subject has more records than the contract allows.
    """
    records_max = schema.records
    subjects = tuple(sorted(set(rows.subjects)))
    position = {name: index for index, name in enumerate(subjects)}
    shape = (len(subjects), records_max)
    x = np.zeros((*shape, rows.features.shape[1]), dtype=np.float64)
    y, mask = np.zeros(shape, dtype=np.float64), np.zeros(shape, dtype=np.float64)
    filled = [0] * len(subjects)
    for row, name in enumerate(rows.subjects):
        subject = position[name]
        slot = filled[subject]
        if slot == records_max:
            raise OperatorError(
                f"Subject {name!r} has more than the {records_max} records allowed.",
                remedy="Keep at most that many records of one subject.",
            )
        x[subject, slot], y[subject, slot], mask[subject, slot] = rows.features[row], rows.labels[row], 1.0
        filled[subject] += 1
    return SubjectBatch(subjects, x, y, mask, schema.intervals)


def row_bytes(subject: str, row: Mapping[str, str]) -> bytes:
    """A raw row as canonical JSON bytes ``{"row": {column: text}, "subject": ...}``: what row commitments hash."""
    return canonical_bytes({"subject": subject, "row": dict(row)})


def _cell_encoder(column: Column) -> _CellEncoder:
    """The function text -> features for one column; None when the text is not allowed."""
    if isinstance(column, CategoryColumn):
        width = len(column.categories)
        places = {category: place for place, category in enumerate(column.categories)}

        def encode(cell: str) -> tuple[float, ...] | None:
            place = places.get(cell)
            return None if place is None else tuple(1.0 if other == place else 0.0 for other in range(width))
    else:
        width = 1
        low, high = column.low, column.high
        low_float, span = float(low), float(high) - float(low)

        def encode(cell: str) -> tuple[float, ...] | None:
            if len(cell) > CELL_CHARACTERS_MAX or not _NUMBER.fullmatch(cell) or not low <= Decimal(cell) <= high:
                return None
            return ((float(cell) - low_float) / span * 2.0 - 1.0,)

    if not column.missing:
        return encode
    gap = (*(0.0 for _ in range(width)), 1.0)

    def encode_with_indicator(cell: str) -> tuple[float, ...] | None:
        if not cell:
            return gap
        numbers = encode(cell)
        return None if numbers is None else (*numbers, 0.0)

    return encode_with_indicator


def _labels(schema: SchemaContract, row: Mapping[str, str], place: str) -> list[tuple[tuple[float, ...], float]]:
    """A row's records: for each what its label adds to the features, and the label."""
    label = schema.label
    if isinstance(label, SurvivalLabel):
        time, event = row[label.name].strip(), row[label.event].strip()
        if len(time) > CELL_CHARACTERS_MAX or not _NUMBER.fullmatch(time) or Decimal(time) < 0:
            raise _bad_cell(place, label.name, time, "a number from 0 on")
        if event not in (label.censored, label.happened):
            raise _bad_cell(place, label.event, event, f"exactly {label.censored!r} or {label.happened!r}")
        seen, happened = _lived_through(label.intervals, Decimal(time), ended=event == label.happened)
        places = range(len(label.intervals))
        return [
            (tuple(float(other == now) for other in places), float(happened and now == seen - 1)) for now in range(seen)
        ]
    words = {label.negative: 0.0, label.positive: 1.0}
    cell = row[label.name].strip()
    if cell not in words:
        raise _bad_cell(place, label.name, cell, f"exactly {label.negative!r} or {label.positive!r}")
    return [((), words[cell])]


def _lived_through(ends: tuple[Decimal, ...], time: Decimal, *, ended: bool) -> tuple[int, bool]:
    """How many intervals a subject counts in, and whether the event fell into the last of them.

    Who was censored in the first half of an interval does not count in it; in the second half, they survived it
    (Gensheimer and Narasimhan 2019, section 2.1).
    """
    place = bisect_left(ends, time)
    if place == len(ends):
        return place, False
    if ended:
        return place + 1, True
    begin = ends[place - 1] if place else Decimal(0)
    return place + (time >= (begin + ends[place]) / 2), False


def _allowed(column: Column) -> str:
    gap = ", or an empty cell for a gap" if column.missing else "; this column has no gaps"
    if isinstance(column, NumberColumn):
        unit = "" if column.unit == "1" else f" {column.unit}"
        return f"a number from {column.low} to {column.high}{unit}{gap}"
    return f"one of {', '.join(repr(category) for category in column.categories)}{gap}"


def _check_columns(row: Mapping[str, str], columns: tuple[str, ...], place: str) -> None:
    # csv.DictReader puts surplus cells under None and fills absent ones with None.
    unknown = [str(name) for name in row if name is not None and name not in columns]
    missing = [name for name in columns if name not in row]
    if unknown or missing:
        found = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(missing)
        raise OperatorError(
            f"{place}: the columns are not those of the plan ({'; '.join(found)}).",
            remedy=f"The file must have exactly these columns: {', '.join(columns)}.",
        )
    if len(row) > len(columns) or any(not isinstance(cell, str) for cell in row.values()):
        raise OperatorError(
            f"{place}: the line has more or fewer cells than the header.",
            remedy="Look for a missing or surplus comma, or a quotation mark that is not closed.",
        )


def _subject(cell: str, place: str) -> str:
    subject = cell.strip()
    if not subject or len(subject) > CELL_CHARACTERS_MAX:
        raise OperatorError(
            f"{place}: {subject[:40]!r} cannot name a subject.",
            remedy=f"Every row needs its subject's name, 1 to {CELL_CHARACTERS_MAX} characters.",
        )
    return subject


def _bad_cell(place: str, column: str, cell: str, allowed: str) -> OperatorError:
    shown = "an empty cell" if not cell else repr(cell[:60])
    return OperatorError(f"{place}, column {column}: {shown} is not allowed.", remedy=f"Allowed here: {allowed}.")
