"""The schema contract of a plan: which columns a row has, within which public bounds, and what is to be predicted.

Nothing about it is learnt from private data. A contract says how many numbers a record is encoded as and how many
records a subject has at most; how rows become numbers is in ``encoding``.
"""

from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from federation.rules.wire import Number, Slug, Wire

INPUTS_MAX: Final = 16_384
"""The most numbers that a record is encoded as."""


class NumberColumn(Wire):
    """A number within public bounds; ``missing`` allows gaps, which get a public indicator."""

    type: Literal["number"]
    name: Slug
    unit: Annotated[str, StringConstraints(max_length=40)] = "1"
    low: Number
    high: Number
    missing: bool = False
    description: Annotated[str, StringConstraints(max_length=200)] = ""

    @model_validator(mode="after")
    def _ordered(self) -> "NumberColumn":
        if self.low >= self.high:
            raise ValueError(f"column {self.name}: low must be below high")
        return self


class CategoryColumn(Wire):
    """One of a closed list of words; ``missing`` allows gaps, which get a public indicator."""

    type: Literal["category"]
    name: Slug
    categories: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=80)], ...], Field(min_length=2, max_length=64)
    ]
    missing: bool = False
    description: Annotated[str, StringConstraints(max_length=200)] = ""

    @model_validator(mode="after")
    def _unique(self) -> "CategoryColumn":
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"column {self.name}: a category appears twice")
        return self


class NumbersColumn(Wire):
    """A row of like numbers within the same public bounds: an image's pixels, a window of a sensor's readings.

    It stands for the columns ``NAME_1`` to ``NAME_COUNT``, each without gaps.
    """

    type: Literal["numbers"]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,50}$")]
    count: Annotated[int, Field(ge=2, le=INPUTS_MAX)]
    unit: Annotated[str, StringConstraints(max_length=40)] = "1"
    low: Number
    high: Number
    description: Annotated[str, StringConstraints(max_length=200)] = ""

    @model_validator(mode="after")
    def _ordered(self) -> "NumbersColumn":
        if self.low >= self.high:
            raise ValueError(f"column {self.name}: low must be below high")
        return self

    def each(self) -> tuple[NumberColumn, ...]:
        """The columns that it stands for, in order."""
        names = (f"{self.name}_{number}" for number in range(1, self.count + 1))
        return tuple(
            NumberColumn(type="number", name=name, unit=self.unit, low=self.low, high=self.high) for name in names
        )


Column = Annotated[NumberColumn | CategoryColumn | NumbersColumn, Field(discriminator="type")]


class Label(Wire):
    """The column to predict: exactly the words ``negative`` and ``positive``."""

    name: Slug
    negative: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    positive: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    description: Annotated[str, StringConstraints(max_length=200)] = ""

    @property
    def outcome(self) -> tuple[str, str]:
        """The column that holds what is predicted, and the word for it."""
        return self.name, self.positive

    @model_validator(mode="after")
    def _two(self) -> "Label":
        if self.negative == self.positive:
            raise ValueError(f"label {self.name}: negative and positive must be two words")
        return self


class SurvivalLabel(Wire):
    """Time until an event, or until observation ended: two columns, and the intervals in which hazards are modelled.

    Discrete-time survival (Singer and Willett 1993; Gensheimer and Narasimhan 2019): in each interval that a subject
    lived to see, the model predicts whether the event falls into it. ``name`` is the column of the time, ``event`` that
    of the words ``censored`` and ``happened``. ``intervals`` are the upper ends, rising, in the unit of the time; who
    is observed beyond the last one is censored there.
    """

    type: Literal["survival"]
    name: Slug
    event: Slug
    censored: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    happened: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    intervals: Annotated[tuple[Annotated[Number, Field(gt=0)], ...], Field(min_length=2, max_length=64)]
    unit: Annotated[str, StringConstraints(max_length=40)] = "1"
    description: Annotated[str, StringConstraints(max_length=200)] = ""

    @property
    def outcome(self) -> tuple[str, str]:
        """The column that holds whether the event happened, and the word for it."""
        return self.event, self.happened

    @model_validator(mode="after")
    def _sound(self) -> "SurvivalLabel":
        if self.censored == self.happened:
            raise ValueError(f"label {self.name}: censored and happened must be two words")
        if list(self.intervals) != sorted(set(self.intervals)):
            raise ValueError(f"label {self.name}: the intervals' ends must rise")
        return self


def _label_type(value: object) -> str:
    """A label that names no type is one of two words."""
    return "survival" if (value.get("type") if isinstance(value, dict) else getattr(value, "type", None)) else "words"


AnyLabel = Annotated[
    Annotated[Label, Tag("words")] | Annotated[SurvivalLabel, Tag("survival")], Discriminator(_label_type)
]


class SchemaContract(Wire):
    """What a row must look like.

    ``subject`` is the column that names whose row it is (a patient, a station's day); one subject has at most
    ``records_per_subject_max`` rows.
    """

    subject: Slug
    records_per_subject_max: Annotated[int, Field(ge=1, le=512)] = 1
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=512)]
    label: AnyLabel

    @model_validator(mode="after")
    def _unique(self) -> "SchemaContract":
        if sum(column.count for column in self.columns if isinstance(column, NumbersColumn)) > INPUTS_MAX:
            raise ValueError(f"the columns hold more than {INPUTS_MAX} numbers")
        names = [column.name for column in self.every_column] + [self.subject, *self.label_columns]
        if len(set(names)) != len(names):
            raise ValueError("a column name appears twice (columns, subject and label share one name space)")
        if isinstance(self.label, SurvivalLabel) and self.records_per_subject_max != 1:
            raise ValueError("with a survival label a subject has one row: records_per_subject_max must be 1")
        return self

    @cached_property
    def every_column(self) -> tuple[NumberColumn | CategoryColumn, ...]:
        """The columns of the file but subject and label, in order; rows of like numbers one by one."""
        parts = (column.each() if isinstance(column, NumbersColumn) else (column,) for column in self.columns)
        return tuple(column for part in parts for column in part)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the file that the label is read from."""
        return (self.label.name, self.label.event) if isinstance(self.label, SurvivalLabel) else (self.label.name,)

    @property
    def intervals(self) -> int:
        """How many intervals of a survival label; 0 for another label."""
        return len(self.label.intervals) if isinstance(self.label, SurvivalLabel) else 0

    @property
    def records(self) -> int:
        """k, the most records of one subject that a model sees: rows, or intervals of a survival label."""
        return self.intervals or self.records_per_subject_max

    @property
    def inputs(self) -> int:
        """F, how many numbers a record is encoded as; with a survival label, which interval it is comes last."""
        widths = (len(column.categories) if isinstance(column, CategoryColumn) else 1 for column in self.every_column)
        return sum(widths) + sum(column.missing for column in self.every_column) + self.intervals
