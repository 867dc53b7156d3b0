"""Which subjects' rows may be used at this moment, and a commitment to exactly those rows.

The decision itself is ``consent.rules.decision.permits``; here it is applied to a file. Whoever has no decision is not
used. The commitment hides the rows behind a salt of 256 fresh bits in every round, so that two rounds cannot be
compared from outside; the node keeps the salt, and an auditor on site recomputes it from the file.
"""

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from clients.data.check import CheckedData
from clients.storage import RoundUse
from consent.rules.decision import Decision, Status
from federation.rules.canonical import tagged_hash
from federation.rules.encoding import SubjectBatch
from federation.rules.instant import format_instant

SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Who may be used now.

    Attributes:
        subjects: the eligible ones, sorted.
        counts: how many subjects of the file have each status (every status is named; they add up to all subjects).
        row_counts: the same for rows.
        batch: the eligible subjects' records.
        rows: a commitment to exactly their rows.
    """

    subjects: tuple[str, ...]
    counts: dict[str, int]
    row_counts: dict[str, int]
    batch: SubjectBatch
    rows: "RowsUsed"


@dataclass(frozen=True, slots=True)
class RowsUsed:
    """A salted commitment to a set of rows: what an update signs, and what opens it."""

    salt: bytes
    commitment: bytes

    @classmethod
    def of(cls, data: CheckedData, subjects: Collection[str], *, salt: bytes | None = None) -> "RowsUsed":
        """Commit to all rows of these subjects.

        ``tagged_hash("rows-used", salt, digest, digest, ...)`` over the sorted SHA-256 digests of the raw rows.

        Args:
            data: the file that the rows stand in.
            subjects: whose rows.
            salt: 32 bytes; by default fresh from the operating system.

        Raises:
            ValueError: the salt has another length (a mistake of the caller).
        """
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        if len(salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes")
        wanted = frozenset(subjects)
        used = (digest for name, digest in zip(data.row_subjects, data.row_digests, strict=True) if name in wanted)
        return cls(salt=salt, commitment=tagged_hash("rows-used", salt, *sorted(used)))

    def opens_to(self, data: CheckedData, subjects: Collection[str]) -> bool:
        """Whether this commitment is to exactly these subjects' rows of this file."""
        return RowsUsed.of(data, subjects, salt=self.salt).commitment == self.commitment


def select(data: CheckedData, decisions: Mapping[str, Decision], *, salt: bytes | None = None) -> Selection:
    """Keep the subjects whose decision is yes.

    Args:
        data: the file, checked against the study's contract.
        decisions: subject -> decision, taken at this moment; a subject without one counts as ``missing``.
        salt: for the commitment; by default fresh.
    """
    statuses = {name: _status(decisions.get(name)) for name in data.subjects}
    subjects = tuple(name for name, status in statuses.items() if status is Status.PERMITTED)
    counts, row_counts = dict.fromkeys(map(str, Status), 0), dict.fromkeys(map(str, Status), 0)
    for status in statuses.values():
        counts[status] += 1
    for name in data.row_subjects:
        row_counts[statuses[name]] += 1
    return Selection(
        subjects=subjects,
        counts=counts,
        row_counts=row_counts,
        batch=data.batch.select(subjects),
        rows=RowsUsed.of(data, subjects, salt=salt),
    )


def _status(decision: Decision | None) -> Status:
    """Yes needs both the flag and the word; whatever else says anything but yes."""
    if decision is None:
        return Status.MISSING
    if decision.permitted != (decision.status is Status.PERMITTED):
        return Status.INVALID
    return decision.status


def round_use(
    selection: Selection,
    *,
    study: str,
    number: int,
    dataset_sha256: str,
    decided_at: datetime,
    noisy_count: int | None = None,
) -> RoundUse:
    """The row that says what a round, a comparison or a scoring was permitted to use.

    Args:
        selection: who was eligible.
        study: the study's id.
        number: under which the budget ledger has it.
        dataset_sha256: of the file that was read.
        decided_at: when consents were asked.
        noisy_count: of the eligible people, where one was taken.
    """
    told = {} if noisy_count is None else {"noisy_count": str(noisy_count)}
    return RoundUse(
        study=study,
        round=number,
        decided_at=format_instant(decided_at),
        eligible=len(selection.subjects),
        counts=json.dumps(dict(selection.counts), sort_keys=True),
        subjects=json.dumps(list(selection.subjects)),
        salt=selection.rows.salt.hex(),
        rows_commitment=selection.rows.commitment.hex(),
        dataset_sha256=dataset_sha256,
        **told,
    )
