"""Who gets which published rows, and who consents: the demo's draws, all from one seed.

The seed governs the split and the consents (and the first model, elsewhere); never noise or sampling. Each draw has a
generator of its own, so that changing one leaves the others as they were.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from clients.demo.studies import DemoStudy
from federation.rules.study import StudyPlan

HELD_OUT_SHARE: Final = 1 / 5
REFUSED_SHARE: Final = 1 / 10
EXPIRED_SHARE: Final = 1 / 30

Word: TypeAlias = Literal["grant", "refuse", "expire"]
Row: TypeAlias = Mapping[str, str]

_SPLIT, _CONSENT, _WITHDRAWAL = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Split:
    """The published rows, divided.

    Attributes:
        header: the columns of every file.
        training: site -> the rows that the site receives, in the published order.
        held_out: site -> the sponsor's rows of that site, in the published order.
    """

    header: tuple[str, ...]
    training: Mapping[str, tuple[Row, ...]]
    held_out: Mapping[str, tuple[Row, ...]]

    def write_training(self, site: str, path: Path) -> None:
        """Write what the site receives."""
        _write(path, self.header, self.training[site])

    def write_validation(self, path: Path) -> None:
        """Write the sponsor's set: the rows of all sites, one after the other."""
        _write(path, self.header, [row for rows in self.held_out.values() for row in rows])


def split_rows(study: DemoStudy, plan: StudyPlan, seed: int) -> Split:
    """Put the sponsor's fifth aside: stratified by site and label, or the latest days of each site."""
    (column, positive), subject = plan.schema_contract.label.outcome, plan.schema_contract.subject
    training: dict[str, tuple[Row, ...]] = {}
    held_out: dict[str, tuple[Row, ...]] = {}
    header: tuple[str, ...] = ()
    for number, site in enumerate(study.sites):
        reader = csv.DictReader(io.StringIO(study.csv_text(site)))
        rows = list(reader)
        header = tuple(reader.fieldnames or ())
        subjects = list(dict.fromkeys(row[subject] for row in rows))
        if study.held_out == "latest":
            apart = set(sorted(subjects)[len(subjects) - round(len(subjects) * HELD_OUT_SHARE) :])
        else:
            rng = np.random.default_rng([seed, _SPLIT, number])
            positives = {row[subject] for row in rows if row[column] == positive}
            apart = _fifth([name for name in subjects if name in positives], rng)
            apart |= _fifth([name for name in subjects if name not in positives], rng)
        training[site] = tuple(row for row in rows if row[subject] not in apart)
        held_out[site] = tuple(row for row in rows if row[subject] in apart)
    return Split(header, training, held_out)


def draw_consents(study: DemoStudy, site: str, subjects: Iterable[str], seed: int) -> dict[str, Word]:
    """What each subject says: about one in ten no, one in thirty a consent that has expired, the others yes.

    The shares are kept exactly, to the next whole person, so that even a small site has one of each.
    """
    names = sorted(set(subjects))
    rng = np.random.default_rng([seed, _CONSENT, list(study.sites).index(site)])
    order = [names[index] for index in rng.permutation(len(names))]
    refused = max(1, round(len(names) * REFUSED_SHARE))
    expired = max(1, round(len(names) * EXPIRED_SHARE))
    words: dict[str, Word] = dict.fromkeys(names, "grant")
    words |= dict.fromkeys(order[:refused], "refuse")
    words |= dict.fromkeys(order[refused : refused + expired], "expire")
    return words


def draw_withdrawals(study: DemoStudy, site: str, words: Mapping[str, Word], seed: int, count: int) -> tuple[str, ...]:
    """Who changes their mind in the middle of the study: ``count`` of those who said yes."""
    granted = sorted(name for name, word in words.items() if word == "grant")
    rng = np.random.default_rng([seed, _WITHDRAWAL, list(study.sites).index(site)])
    return tuple(sorted(granted[index] for index in rng.permutation(len(granted))[:count]))


def _fifth(names: list[str], rng: np.random.Generator) -> set[str]:
    count = max(1, round(len(names) * HELD_OUT_SHARE))
    return {names[index] for index in rng.permutation(len(names))[:count]}


def _write(path: Path, header: tuple[str, ...], rows: Iterable[Row]) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
