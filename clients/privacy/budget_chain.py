"""The rows of the privacy budget: a hash chain of transitions, and the state as a fold over it.

Each row's hash covers its content and the hash before it; the newest is kept beside the chain as its head. A row that
was changed, moved, dropped or added by hand breaks the chain, and a broken chain is an error, never a guess. Rules of
the budget itself (what fits) are in ``clients.privacy.budget``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import ValidationError
from sqlmodel import Session, select

from clients.storage import BudgetEntry, recall, remember
from federation.errors import OperatorError, PeerError
from federation.rules.canonical import parse_canonical, tagged_hash
from federation.rules.events import DpEvent, EventJson, event_json, parse_event
from federation.rules.instant import format_instant
from federation.rules.wire import Number, Wire

_HEAD: Final = "budget-head"
_FIRST_PREVIOUS: Final = "0" * 64


class State(StrEnum):
    """Where a (study, round) stands."""

    RESERVED = "reserved"
    STARTED = "started"
    COMMITTED = "committed"
    ABORTED = "aborted"


CREATED: Final = "created"
NEXT: Final = {
    State.RESERVED: frozenset({State.STARTED, State.ABORTED}),
    State.STARTED: frozenset({State.COMMITTED}),
    State.COMMITTED: frozenset[State](),
    State.ABORTED: frozenset[State](),
}


class Terms(Wire):
    """What a person is guaranteed over all studies; fixed when the ledger is made."""

    order: int
    epsilon: Number
    delta: Number


@dataclass(frozen=True, slots=True)
class Charge:
    """One (study, round) in the budget, as it stands.

    ``happened`` is what counts: the reserved event, or what was committed.
    """

    study: str
    round: int
    state: State
    happened: DpEvent
    at: str

    @property
    def event(self) -> EventJson:
        """What counts in its travelling form (JSON)."""
        return event_json(self.happened)

    @property
    def counts(self) -> bool:
        """Whether the event counts against the cap."""
        return self.state is not State.ABORTED


def verified_rows(session: Session, *, name: str) -> Sequence[BudgetEntry]:
    """All rows, oldest first, after the whole chain was checked.

    Raises:
        OperatorError: the chain is broken; ``name`` says in which database.
    """
    rows = session.exec(select(BudgetEntry).order_by("seq")).all()
    _verify(rows, recall(session, _HEAD), name)
    return rows


def fold(rows: Sequence[BudgetEntry]) -> dict[tuple[str, int], Charge]:
    """Where every (study, round) stands after these rows, in the order of first reservation."""
    charges: dict[tuple[str, int], Charge] = {}
    for row in rows[1:]:
        event = parse_event(row.event.encode("utf-8"))
        charges[row.study, row.round] = Charge(row.study, row.round, State(row.state), event, row.at)
    return charges


def reserved_event(rows: Sequence[BudgetEntry], study: str, round_number: int) -> DpEvent:
    """What the last attempt at this round reserved (a commit may have written less)."""
    events = [row.event for row in rows if (row.study, row.round, row.state) == (study, round_number, State.RESERVED)]
    return parse_event(events[-1].encode("utf-8"))


def append(
    session: Session, *, study: str, round_number: int, attempt: int, state: str, event: bytes, at: datetime
) -> None:
    """Add a row at the chain's end, and move its head, in the caller's transaction."""
    last = session.exec(select(BudgetEntry).order_by(BudgetEntry.seq.desc()).limit(1)).first()  # type: ignore[attr-defined] # a column at run time
    entry = BudgetEntry(
        seq=0 if last is None else last.seq + 1,
        study=study,
        round=round_number,
        attempt=attempt,
        state=state,
        event=event.decode("utf-8"),
        at=format_instant(at),
        previous=_FIRST_PREVIOUS if last is None else last.hash,
        hash="",
    )
    entry.hash = _hash(entry)
    session.add(entry)
    remember(session, _HEAD, f"{entry.seq}:{entry.hash}")


def _hash(entry: BudgetEntry) -> str:
    texts = (str(entry.seq), entry.study, str(entry.round), str(entry.attempt), entry.state, entry.event, entry.at)
    return tagged_hash("budget-entry", bytes.fromhex(entry.previous), *(text.encode("utf-8") for text in texts)).hex()


def _verify(rows: Sequence[BudgetEntry], head: str | None, name: str) -> None:
    """The chain, its head and its transitions.

    Raises:
        OperatorError: naming the row where it breaks.
    """
    previous = _FIRST_PREVIOUS
    states: dict[tuple[str, int], State] = {}
    for seq, row in enumerate(rows):
        try:
            intact = (
                row.seq == seq
                and row.previous == previous
                and row.hash == _hash(row)
                and (row.state == CREATED) == (seq == 0)
            )
            if intact and seq:
                parse_event(row.event.encode("utf-8"))
                before, state = states.get((row.study, row.round)), State(row.state)
                fresh = before in (None, State.ABORTED) and state is State.RESERVED
                intact = fresh or (before is not None and state in NEXT[before])
                states[row.study, row.round] = state
        except (ValueError, PeerError) as error:
            raise _broken(name, seq) from error
        if not intact:
            raise _broken(name, seq)
        previous = row.hash
    if head != (f"{len(rows) - 1}:{previous}" if rows else None):
        raise _broken(name, len(rows))


def terms_of(row: BudgetEntry) -> Terms:
    """The terms that row 0 fixes.

    Raises:
        OperatorError: it holds something else.
    """
    try:
        return Terms.model_validate(parse_canonical(row.event.encode("utf-8")))
    except (ValidationError, PeerError) as error:
        raise _broken("the node's database", 0) from error


def _broken(name: str, seq: int) -> OperatorError:
    return OperatorError(
        f"The privacy budget in {name} is damaged: row {seq} of its hash chain does not fit.",
        remedy="Restore the database from a backup that is not older than the last round; until then the node must not "
        "train, as nobody knows what was spent.",
    )
