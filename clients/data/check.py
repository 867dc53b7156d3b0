"""Whether an institution's file keeps a study's schema contract, and the file as the study sees it.

Everything counted here stays inside the institution: it is shown to its own officers, never sent.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from clients.data.dataset import LoadedFile
from federation.errors import OperatorError
from federation.rules.encoding import SubjectBatch, by_subject, feature_names, parse_rows, row_bytes
from federation.rules.parts import EVERYBODY, holds
from federation.rules.schema import SchemaContract


@dataclass(frozen=True, slots=True, eq=False)
class CheckedData:
    """A file that keeps the contract: the rows of everybody, or of the part of the people that a study is about.

    Attributes:
        source: the file, as errors name it.
        sha256: of the file's bytes.
        row_subjects: whose row it is, one per row in file order.
        row_digests: SHA-256 of each raw row's canonical bytes (``row_bytes``), in file order.
        batch: all rows, encoded and grouped by subject.
        gaps: column -> number of empty cells in the whole file, where there are any.
    """

    source: str
    sha256: str
    row_subjects: tuple[str, ...]
    row_digests: tuple[bytes, ...]
    batch: SubjectBatch
    gaps: dict[str, int]

    def of_part(self, part: str) -> "CheckedData":
        """Only the rows of one part of the people (``federation.rules.parts``); empty: all."""
        if part == EVERYBODY:
            return self
        kept = [subject for subject in self.subjects if holds(part, subject)]
        named = frozenset(kept)
        rows = [pair for pair in zip(self.row_subjects, self.row_digests, strict=True) if pair[0] in named]
        return replace(
            self,
            row_subjects=tuple(subject for subject, _ in rows),
            row_digests=tuple(digest for _, digest in rows),
            batch=self.batch.select(kept),
        )

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose rows are in the file, sorted: also who adds no record (censored before half of the first interval)."""
        return tuple(sorted(set(self.row_subjects)))

    def summary(self, schema: SchemaContract) -> dict[str, Any]:
        """What the institution's officers are told about their file."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "rows": len(self.row_subjects),
            "subjects": len(self.subjects),
            "features": len(feature_names(schema)),
            "positive_rows": int((self.batch.y * self.batch.mask).sum()),
            "gaps": dict(self.gaps),
        }


def check_data(loaded: LoadedFile, schema: SchemaContract, *, subject_column: str) -> CheckedData:
    """Check every row against the contract and encode it.

    Args:
        loaded: the file.
        schema: the study's contract.
        subject_column: the column under which the file was registered.

    Raises:
        OperatorError: the first thing that the contract does not allow: file, line, column, value, what is allowed.
    """
    if subject_column != schema.subject:
        raise OperatorError(
            f"{loaded.source} was registered with {subject_column!r} as its subject column; the study says "
            f"{schema.subject!r}.",
            remedy=f"Register it again: `accord data add ... --subject {schema.subject} --replace`, if that column "
            "names the same people.",
        )
    rows = parse_rows(schema, loaded.rows, source=loaded.source)
    row_subjects = tuple(row[schema.subject].strip() for row in loaded.rows)
    digests = tuple(
        hashlib.sha256(row_bytes(subject, row)).digest() for subject, row in zip(row_subjects, loaded.rows, strict=True)
    )
    gaps = {name: sum(not row[name].strip() for row in loaded.rows) for name in loaded.columns}
    return CheckedData(
        source=loaded.source,
        sha256=loaded.sha256,
        row_subjects=row_subjects,
        row_digests=digests,
        batch=by_subject(schema, rows),
        gaps={name: count for name, count in gaps.items() if count},
    )
