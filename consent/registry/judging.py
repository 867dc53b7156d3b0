"""Deciding about many people: the part that needs no database, so that other processes can help.

What a decision rests on is given (:class:`Case`); the answer names, beside the decision, the instants at which it may
change by itself. Every process verifies for itself: nothing that another process, or a table, says of a signature
counts. What is taken from the table is that a key was found to have no part of small order when its record was taken
in: who can write into the table gains nothing by such a key, as any key of their own would do.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from typing import Final, Self

from consent.rules.alike import AlikeReader
from consent.rules.approval import Approval
from consent.rules.decision import Decision, Head, NoticePolicy, Use, objection, permits
from consent.rules.duo import moment_of
from consent.rules.record import ConsentRecord
from federation.errors import ConsentError

CHUNK: Final = 1000
"""Cases in one errand of a helping process."""
_NEVER_STORED: Final = Head(0, "")


@dataclass(frozen=True, slots=True)
class Case:
    """One person's stored records, oldest first, the acknowledged head, and whether a grant of theirs binds yet."""

    ref: str
    history: tuple[bytes, ...]
    head: Head | None
    bound: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every case: a use, a moment, which notices still carry a consent.

    ``approvals``: what people found about this study. ``objections``: one record speaks for the whole source, and a
    person is asked only whether they object.
    """

    use: Use
    now: datetime
    notices: NoticePolicy | None
    approvals: tuple[Approval, ...] = ()
    objections: bool = False


Answer = tuple[str, Decision | None, tuple[datetime, ...]]
"""A name, the decision (None: no objection), and the instants at which it may change by itself."""


def judge(case: Case, question: Question, reader: Callable[[bytes], ConsentRecord]) -> Answer:
    """Decide about one person."""
    seen: list[ConsentRecord] = []

    def read(data: bytes) -> ConsentRecord:
        record = reader(data)
        seen.append(record)
        return record

    # A name that has records and no head was never acknowledged like this: such rows permit nothing.
    head = case.head if case.head is not None or not case.history else _NEVER_STORED
    decision: Decision | None
    if question.objections:
        decision = objection(case.history, institution=question.use.institution, head=head, reader=read)
    else:
        decision = permits(
            case.history,
            question.use,
            question.now,
            head=head,
            reader=read,
            binding=lambda _record: case.bound,
            notices=question.notices,
            approvals=question.approvals,
        )
    ends = tuple(approval.ends for approval in question.approvals)
    return case.ref, decision, (*instants(seen[-1]), *ends) if seen else ()


def instants(record: ConsentRecord) -> tuple[datetime, ...]:
    """Every instant that a record names and at which a decision on it may change."""
    if record.terms is None:
        return ()
    found = {record.valid_from, record.terms.valid_until}
    if record.guardian is not None:
        found |= {record.guardian.valid_from, record.guardian.majority}
    for values in record.terms.conditions.values():
        found |= {moment for value in values if (moment := moment_of(value)) is not None}
    return tuple(sorted(found))


class _Admitted:
    """The dids of all records that were taken in: their keys were found strong then."""

    def __contains__(self, did: object) -> bool:
        return True


class Helpers:
    """As many processes as there are cores, each deciding about a part of the people; close at the end.

    They are started by a server process that is itself started afresh, so neither threads nor open connections of this
    process are copied.
    """

    def __init__(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pool = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context)
        self._errands: list[Future[list[Answer]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, cases: Sequence[Case], question: Question) -> None:
        """Send a part of the people to whoever is free."""
        self._errands.append(self._pool.submit(judge_all, tuple(cases), question))

    def answers(self) -> Iterator[Answer]:
        """What became of everything that was sent."""
        for errand in self._errands:
            yield from errand.result()
        self._errands.clear()


def judge_all(cases: Iterable[Case], question: Question) -> list[Answer]:
    """Decide about several people, each record verified; equal decisions are one object."""
    same: dict[Decision | None, Decision | None] = {}
    answers = []
    reader = AlikeReader(_Admitted())
    for case in cases:
        ref, decision, moments = judge(case, question, reader.open)
        answers.append((ref, same.setdefault(decision, decision), moments))
    return answers


class Verified:
    """Records that this process has verified, by what their bytes are; bounded.

    Args:
        records_max: how many are remembered; beyond that the oldest are forgotten.
    """

    def __init__(self, records_max: int) -> None:
        self._max = records_max
        self._records: dict[bytes, ConsentRecord] = {}
        self._reader = AlikeReader(_Admitted())

    def __len__(self) -> int:
        return len(self._records)

    def open(self, data: bytes) -> ConsentRecord:
        """A stored record, verified; remembered.

        Raises:
            ConsentError: the record does not verify (which is not remembered).
        """
        record = self._records.get(data)
        if record is None:
            record = self._reader.open(data)
            while len(self._records) >= self._max:
                self._records.pop(next(iter(self._records)), None)
            self._records[record.canonical] = record
        return record

    def forget(self, ref_records: Iterable[bytes]) -> None:
        """Drop records that were erased."""
        for data in ref_records:
            self._records.pop(data, None)


__all__ = ["CHUNK", "Answer", "Case", "ConsentError", "Helpers", "Question", "Verified", "instants", "judge"]
