"""Decisions about everybody, remembered as long as they provably cannot have changed.

For each use a table holds the decision for every name that has records. It is brought up to date before each answer:
looked at again are the names whose records or heads changed (the database numbers its changes, whoever makes them),
those whose records name an instant that has passed since, and those whose grants were waiting for witnesses who have
spoken since. If witnesses or notices were exchanged, or the database is another than it was, everybody is. The first
answer of a process verifies every signature; above some thousands of records all cores take part.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from consent.registry.approving import standing
from consent.registry.judging import CHUNK, Answer, Case, Helpers, Question, Verified, judge
from consent.registry.tables import (
    LICENCE_REF,
    ConsentBatch,
    ConsentChange,
    ConsentNotice,
    ConsentState,
    ConsentSubject,
    StoredRecord,
)
from consent.rules.binding import Quorum, Witnesses, binds
from consent.rules.decision import NOT_PERMITTED, Decision, Head, NoticePolicy, Reason, Status, Use, permits

HELPERS_FROM: Final = 4000
"""From how many people on other processes help; to start them takes about as long as a thousand records."""
USES_MAX: Final = 16
_AT_ONCE: Final = 500


@dataclass(slots=True)
class Table:
    """What was decided for one use.

    ``turns`` is a heap of the instants at which a decision may change by itself; ``waiting`` are the names whose grants
    wait for witnesses.
    """

    decisions: dict[str, Decision] = field(default_factory=dict)
    turns: list[tuple[datetime, str]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    changes: int = -1
    epoch: int = -1
    rules: int = -1
    covered: int = 0


class Decider:
    """The tables of one process; one caller at a time.

    Args:
        verified: the records that this process has verified.
    """

    def __init__(self, verified: Verified) -> None:
        self._verified = verified
        self._tables: dict[tuple[Use, bool], Table] = {}

    def decide(
        self, session: Session, use: Use, now: datetime, refs: Iterable[str], *, witnesses: Witnesses, quorum: Quorum
    ) -> dict[str, Decision]:
        """The decision about each of ``refs`` in the state that the session sees."""
        own = self.table(session, use, now, witnesses=witnesses, quorum=quorum, objections=use.kind.whole_source)
        if not use.kind.whole_source:
            missing = permits((), use, now)
            return {ref: own.decisions.get(ref, missing) for ref in refs}
        shared = self._shared(session, use, now, witnesses, quorum)
        if not shared.permitted:
            return dict.fromkeys(refs, shared)
        return {ref: own.decisions.get(ref, shared) for ref in refs}

    def table(
        self,
        session: Session,
        use: Use,
        now: datetime,
        *,
        witnesses: Witnesses,
        quorum: Quorum,
        objections: bool,
    ) -> Table:
        """The table of a use, brought up to date."""
        table = self._tables.pop((use, objections), None) or Table()
        state = session.get_one(ConsentState, 1, populate_existing=True)
        if state.rules != table.rules or state.changes < table.changes or state.epoch < table.epoch:
            table = Table(rules=state.rules)
        question = Question(
            use, now, notices_of(session), standing(session, use.institution, use.plan_hash), objections
        )
        if table.changes < 0:
            cases, count = _everybody(session, witnesses, quorum), _count(session)
        else:
            names = self._changed(session, table, now, epoch=state.epoch, covered=quorum.size)
            cases, count = _cases(session, sorted(names), witnesses, quorum), len(names)
        for case, (ref, decision, moments) in self._answers(cases, count, question):
            self._enter(table, case, ref, decision, [moment for moment in moments if moment > now])
        if len(table.turns) > 4 * len(table.decisions) + 64:
            table.turns = [turn for turn in table.turns if turn[1] in table.decisions]
            heapq.heapify(table.turns)
        table.changes, table.epoch, table.covered = state.changes, state.epoch, quorum.size
        while len(self._tables) >= USES_MAX:
            self._tables.pop(next(iter(self._tables)))
        self._tables[(use, objections)] = table
        return table

    def remembered(self) -> int:
        """How many decisions are remembered."""
        return sum(len(table.decisions) for table in self._tables.values())

    def _shared(self, session: Session, use: Use, now: datetime, witnesses: Witnesses, quorum: Quorum) -> Decision:
        """What the holder's record says for the whole source."""
        question = Question(use, now, notices_of(session), standing(session, use.institution, use.plan_hash))
        for case in _cases(session, [LICENCE_REF], witnesses, quorum):
            _, decision, _ = judge(case, question, self._verified.open)
            if decision is not None:
                return decision
        return permits((), use, now)

    def _changed(self, session: Session, table: Table, now: datetime, *, epoch: int, covered: int) -> set[str]:
        """The names to look at again."""
        query = select(ConsentChange.ref).where(col(ConsentChange.number) > table.changes)
        names = set(session.exec(query))
        while table.turns and table.turns[0][0] <= now:
            names.add(heapq.heappop(table.turns)[1])
        if covered != table.covered:
            names |= table.waiting
        if epoch != table.epoch:
            names |= table.decisions.keys() - set(session.exec(select(ConsentSubject.ref)).all())
        return names

    def _answers(self, cases: Iterator[Case], count: int, question: Question) -> Iterator[tuple[Case, Answer]]:
        if count < HELPERS_FROM:
            for case in cases:
                yield case, judge(case, question, self._verified.open)
            return
        with Helpers() as helpers:
            sent: list[Case] = []
            chunk: list[Case] = []
            for case in cases:
                chunk.append(case)
                if len(chunk) == CHUNK:
                    helpers.ask(chunk, question)
                    sent += _without_records(chunk)
                    chunk = []
            helpers.ask(chunk, question)
            sent += _without_records(chunk)
            yield from zip(sent, helpers.answers(), strict=True)

    def _enter(
        self, table: Table, case: Case, ref: str, decision: Decision | None, moments: Sequence[datetime]
    ) -> None:
        known = case.head is not None or bool(case.history)
        if decision is None or not known:
            table.decisions.pop(ref, None)
        else:
            table.decisions[ref] = decision
        if decision is not None and decision.status is Status.PENDING:
            table.waiting.add(ref)
        else:
            table.waiting.discard(ref)
        for moment in moments:
            heapq.heappush(table.turns, (moment, ref))


def stale(decision: Decision) -> Decision:
    """What is left of a decision when the witnesses' newest word is too old: no permission."""
    if not decision.permitted:
        return decision
    why = "the witnesses have not confirmed the consent log for too long"
    return Decision(False, Status.INVALID, (Reason("stale", why),), NOT_PERMITTED.format(because=why))


def notices_of(session: Session) -> NoticePolicy:
    """Which notices no longer carry a consent."""
    return NoticePolicy(replaced=frozenset(session.exec(select(ConsentNotice.sha256))))


def _without_records(cases: Iterable[Case]) -> list[Case]:
    """The cases as they are kept while others work on them."""
    return [Case(case.ref, case.history[:1] and (b"",), case.head, case.bound) for case in cases]


def _count(session: Session) -> int:
    return len(session.exec(select(ConsentSubject.ref)).all())


def _everybody(session: Session, witnesses: Witnesses, quorum: Quorum) -> Iterator[Case]:
    """Every name that has records or a head."""
    heads = {
        ref: Head(seq, digest)
        for ref, seq, digest in session.exec(select(ConsentSubject.ref, ConsentSubject.seq, ConsentSubject.digest))
    }
    query = select(StoredRecord.ref, StoredRecord.data, StoredRecord.batch)
    rows = session.exec(query.order_by(col(StoredRecord.ref), col(StoredRecord.seq)).execution_options(yield_per=2000))
    logged = _logged(session, witnesses)
    yield from _grouped(rows, heads, logged, witnesses, quorum)
    for ref, head in heads.items():
        yield Case(ref, (), head, bound=False)


def _cases(session: Session, refs: Sequence[str], witnesses: Witnesses, quorum: Quorum) -> Iterator[Case]:
    """The named ones, those without any row included."""
    logged = _logged(session, witnesses)
    for start in range(0, len(refs), _AT_ONCE):
        names = refs[start : start + _AT_ONCE]
        found = select(ConsentSubject.ref, ConsentSubject.seq, ConsentSubject.digest)
        heads = {
            ref: Head(seq, digest) for ref, seq, digest in session.exec(found.where(col(ConsentSubject.ref).in_(names)))
        }
        query = select(StoredRecord.ref, StoredRecord.data, StoredRecord.batch)
        query = query.where(col(StoredRecord.ref).in_(names)).order_by(col(StoredRecord.ref), col(StoredRecord.seq))
        seen = set()
        for case in _grouped(session.exec(query), heads, logged, witnesses, quorum):
            seen.add(case.ref)
            yield case
        for ref in names:
            if ref not in seen:
                yield Case(ref, (), heads.pop(ref, None), bound=False)


def _grouped(
    rows: Iterable[tuple[str, object, int | None]],
    heads: dict[str, Head],
    logged: Mapping[int, int],
    witnesses: Witnesses,
    quorum: Quorum,
) -> Iterator[Case]:
    """One case for each name in ``rows`` (by name and number); takes the heads that it uses out of ``heads``."""
    current: str | None = None
    history: list[bytes] = []
    batch: int | None = None

    def done() -> Case:
        index = None if batch is None else logged.get(batch)
        bound = binds(index, quorum, witnesses)
        return Case(str(current), tuple(history), heads.pop(str(current), None), bound=bound)

    for ref, data, number in rows:
        if ref != current and current is not None:
            yield done()
        if ref != current:
            current, history = ref, []
        history.append(blob(data))
        batch = number
    if current is not None:
        yield done()


def _logged(session: Session, witnesses: Witnesses) -> Mapping[int, int]:
    """Where each batch stands in the log; not asked where nobody has to cosign."""
    if not witnesses.quorum:
        return {}
    query = select(ConsentBatch.number, ConsentBatch.log_index).where(col(ConsentBatch.log_index).is_not(None))
    return {number: index for number, index in session.exec(query) if index is not None}


def blob(value: object) -> bytes:
    """A column's bytes; an altered row may hold any type in SQLite, and then counts as a record that never verifies."""
    return value if isinstance(value, bytes) else b""
