"""Which institutions a round invites, and when it stops waiting: over-selection by what was measured, and fairness.

A plan that names ``rounds.invite`` lets a round do without some of the active institutions. Who is invited follows from
the log alone: how long each took to answer last (by the entries' times), what the coordinator measured of its line (in
the entry that opens the round), and the fairness rule. So everybody who replays the log makes the same choice; only the
measurements themselves are the coordinator's word.

Fairness: within any ``invite_every`` rounds, every active institution is invited at least once, however slow its line
is said to be. As many as that takes are invited first, the longest waiting before the others (earliest deadline first:
Liu and Layland 1973, section 7); the remaining places go to those that are there and are predicted to answer soonest.
Who was never measured counts as quick: else nobody new would ever be measured.

With ``rounds.enough`` commitments close as soon as so many are there. A signed commitment that comes later is logged as
late: its sender sees that it was not dropped in silence.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from federation.rules.documents import Commitment, open_signed
from federation.rules.entries import CommitmentLate, Entry, Measured, RoundOpened
from federation.rules.families import size
from federation.rules.keys import PublicKey
from federation.rules.state import RoundState, StudyState, require
from federation.rules.study import StudyPlan
from federation.rules.vectors import update_sizes

_MS: Final = 1000


def predicted_ms(state: StudyState, note: Measured) -> int | None:
    """How long an institution will take from a round's opening until its update is here; None: it never answered.

    Its last answer's time (which holds fetching the model and training), two requests, and its update's travel.
    """
    answer_s = state.answer_s.get(note.party)
    if answer_s is None:
        return None
    travel = 0 if note.bytes_s is None else _MS * update_bytes_max(state.plan) // note.bytes_s
    return _MS * answer_s + 2 * (note.request_ms or 0) + travel


def update_bytes_max(plan: StudyPlan) -> int:
    """How many bytes an update of the plan's model has at most."""
    length = size(plan.model, plan.schema_contract.inputs)
    return max(update_sizes(length, plan.aggregation))


def invited(state: StudyState, measured: Sequence[Measured]) -> tuple[str, ...]:
    """The participants of the next round (did, sorted).

    Args:
        state: the study, between two rounds.
        measured: one note for each active institution; nothing where the plan invites everybody.
    """
    rounds, active = state.rounds, state.active
    if rounds.invite is None or rounds.invite_every is None or len(active) <= rounds.invite:
        return active
    slack = {did: _last_invited(state, did) + rounds.invite_every - len(state.closed) - 1 for did in active}
    waiting = sorted(active, key=lambda did: (slack[did], did))
    due = _due([slack[did] for did in waiting], rounds.invite)
    chosen = waiting[:due]
    expected = {note.party: predicted_ms(state, note) or 0 for note in measured}
    there = {note.party for note in measured if note.there}
    others = sorted(waiting[due:], key=lambda did: (did not in there, expected.get(did, 0), slack[did], did))
    in_time = [did for did in others if did in there and expected.get(did, 0) <= _MS * rounds.deadline_s]
    chosen += in_time[: rounds.invite - due]
    missing = (rounds.enough or rounds.quorum) - len(chosen)
    chosen += [did for did in others if did not in in_time][: max(0, missing)]
    return tuple(sorted(chosen))


def _last_invited(state: StudyState, did: str) -> int:
    """The last round that invited an institution; 0 if none did."""
    return max((done.number for done in state.closed if did in done.participants), default=0)


def _due(slacks: Sequence[int], places: int) -> int:
    """How many of the longest waiting this round must invite, so that those left can all still be invited in time.

    Args:
        slacks: ascending; how many further rounds each institution can wait.
        places: how many each round invites.
    """
    for due in range(places):
        rest = slacks[due:]
        if all(index + 1 <= places * slack for index, slack in enumerate(rest)):
            return due
    return places


def check_opening(state: StudyState, body: RoundOpened) -> None:
    """The rules about who takes part in a round that opens.

    Raises:
        PeerError: the participants are not those that follow from the log and the entry.
    """
    if state.plan.rounds.invite is None:
        require(body.measured is None, "the plan invites everybody: there is nothing to measure")
    else:
        noted = tuple(note.party for note in body.measured or ())
        require(noted == state.active, "the measurements are not of the active institutions, each once, in order")
    chosen = invited(state, body.measured or ())
    require(
        body.participants == chosen, "the participants are not the active institutions that the plan's rule invites"
    )


def may_close(plan: StudyPlan, current: RoundState, at: datetime) -> bool:
    """Whether commitments may close: the deadline has passed, everybody has answered, or enough have committed."""
    answered = len(current.commitments) + len(current.refusals)
    enough = plan.rounds.enough is not None and len(current.commitments) >= plan.rounds.enough
    return at >= current.deadline or answered == len(current.participants) or enough


def late(state: StudyState, entry: Entry, body: CommitmentLate) -> StudyState:
    """Fold a commitment that came after enough others (a rule of ``replay``)."""
    current, did = state.round, entry.party or ""
    require(current is not None and entry.round == current.number, "it belongs to no open round")
    if current is None:
        return state
    require(current.phase == "revealing", "commitments are not closed")
    require(did in current.participants, "the party takes no part in this round")
    require(did not in {*current.commitments, *current.refusals, *current.late}, "the party has answered already")
    commitment, _ = open_signed(Commitment, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(
        commitment.study == state.study and commitment.round == current.number, "the commitment is for another round"
    )
    return replace(state, round=replace(current, late=current.late | {did}))


def unanswered(plan: StudyPlan, current: RoundState) -> dict[str, str]:
    """Why nothing of those is in the model who neither committed in time nor refused: did -> reason."""
    answered = {*current.commitments, *current.refusals}
    enough = plan.rounds.enough is not None and len(current.commitments) >= plan.rounds.enough
    until = "commitments closed, as enough were there" if enough else "the deadline"
    silent = {did: f"no-answer: nothing arrived before {until}" for did in current.participants if did not in answered}
    return silent | dict.fromkeys(current.late, f"late: the commitment arrived after {until}")


def round_ms(state: StudyState) -> int | None:
    """When the round in progress, or else the next, is predicted to have enough updates; None: nobody can tell yet.

    Milliseconds from its opening, at most the plan's deadline.
    """
    rounds = state.rounds
    parties = state.round.participants if state.round else state.active
    notes = (state.measured.get(did) or Measured(party=did, there=True) for did in parties)
    known = sorted(each for each in (predicted_ms(state, note) for note in notes) if each is not None)
    wanted = min(rounds.enough or len(parties), len(parties))
    return min(known[wanted - 1], _MS * rounds.deadline_s) if 0 < wanted <= len(known) else None
