"""The panel in the log: opened after the last round, commitments first, then the scores, then the settlement.

A commitment binds the member's key, so that the copy of another's opens to nothing; and whoever commits has seen no
scores. A member that does not commit, or does not show what it committed to, is absent: what absent members mean for
the settlement is in ``panel``. Commitments count until they are closed, which is possible from the deadline on, or once
everybody has committed; the same for showing. So a restarted coordinator may wait longer, and nobody is cut off sooner.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from federation.errors import PeerError
from federation.rules.accounting import scores_event
from federation.rules.canonical import canonical_bytes
from federation.rules.documents import Scores, ScoresCommitment, open_signed
from federation.rules.entries import Entry, PanelOpened, ScoresClosed, ScoresCommitted, ScoresShown
from federation.rules.instant import parse_instant
from federation.rules.keys import PublicKey
from federation.rules.state import PanelState, StudyState, require


def _opened(state: StudyState, entry: Entry, body: PanelOpened) -> StudyState:
    require(entry.round is None and entry.party is None, "a panel has neither round nor party")
    require(state.plan.valuation.panel is not None, "the plan has no panel")
    require(state.panel is None, "the panel is open already")
    require(state.complete, "rounds are still to come")
    require(body.members == state.active, "the members are not the active institutions")
    deadline = parse_instant(body.deadline)
    require(deadline > entry.at, "the deadline has passed already")
    return replace(state, panel=PanelState(members=body.members, deadline=deadline))


def _committed(state: StudyState, entry: Entry, body: ScoresCommitted) -> StudyState:
    panel, did = _member(state, entry)
    require(not panel.closed, "commitments are closed")
    require(did not in panel.commitments, "the party has committed already")
    commitment, _ = open_signed(ScoresCommitment, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(commitment.study == state.study, "the commitment is for another study")
    return _with(state, replace(panel, commitments={**panel.commitments, did: commitment.commitment}))


def _closed(state: StudyState, entry: Entry, body: ScoresClosed) -> StudyState:
    panel = _panel(state)
    require(entry.round is None and entry.party is None, "closing has neither round nor party")
    require(not panel.closed, "commitments are closed already")
    require(entry.at >= panel.deadline or not panel.awaited, "the deadline is to come and somebody may still commit")
    deadline = parse_instant(body.deadline)
    require(deadline > entry.at, "the deadline has passed already")
    return _with(state, replace(panel, closed=True, deadline=deadline))


def _shown(state: StudyState, entry: Entry, body: ScoresShown) -> StudyState:
    panel, did = _member(state, entry)
    require(panel.closed, "scores are shown after commitments close")
    require(did in panel.commitments, "the party has not committed")
    require(did not in panel.shown, "the party has shown its scores already")
    party = PublicKey.from_did(did)
    scores, _ = open_signed(Scores, body.envelope.encode("utf-8"), signer=party)
    check_scores(state, scores)
    require(scores.commitment(party).commitment == panel.commitments[did], "these are not the scores of the commitment")
    return _with(state, replace(panel, shown={**panel.shown, did: scores}))


def check_scores(state: StudyState, scores: Scores) -> None:
    """Refuse scores that are not of this study, of its institutions, by its code and with its noise.

    Raises:
        PeerError: which of them does not hold.
    """
    require(scores.study == state.study and scores.model == state.model, "the scores are of another study or model")
    require(scores.players == tuple(sorted(state.weights)), "the scores do not name every institution once, in order")
    require(len(scores.values) == len(scores.players), "the scores are not one for each institution")
    require(scores.code_hash in state.plan.code_approved, "the plan does not approve the code that scored")
    event = canonical_bytes(scores.event)
    require(event == canonical_bytes(scores_event(state.plan)), "the scores' privacy event is not the plan's")


def require_over(state: StudyState, entry: Entry) -> None:
    """Refuse a settlement while a panel still has to score.

    Raises:
        PeerError: it has.
    """
    if state.plan.valuation.panel is None:
        return
    panel = _panel(state)
    over = panel.closed and (entry.at >= panel.deadline or not panel.awaited)
    require(over, "the deadline is to come and somebody may still show its scores")


def _panel(state: StudyState) -> PanelState:
    if state.panel is None:
        raise PeerError("no panel is open.", remedy="Keep the log as evidence.")
    return state.panel


def _member(state: StudyState, entry: Entry) -> tuple[PanelState, str]:
    panel, did = _panel(state), entry.party or ""
    require(entry.round is None, "scores belong to no round")
    require(did in panel.members, "the party is not on the panel")
    return panel, did


def _with(state: StudyState, panel: PanelState) -> StudyState:
    return replace(state, panel=panel)


RULES: Final[Mapping[str, Any]] = {
    "panel-opened": _opened,
    "scores-committed": _committed,
    "scores-closed": _closed,
    "scores-shown": _shown,
}
