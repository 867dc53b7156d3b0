"""Where a study stands, and who is awaited for what, read off its log."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, Final

from federation.rules.checkpoint import finality_quorum
from federation.rules.cohorts import round_ms
from federation.rules.comparing import waits_for
from federation.rules.instant import format_instant
from federation.rules.stakes import stakes_due
from federation.rules.state import PanelState, RoundState, StudyState

from .history import StudyHistory
from .pausing import Pause

_RUN: Final = "running this study (`accord coordinator run`)"
_AGREE: Final = "its agreement (`accord agreement sign`, then `accord node run` brings it)"
_STAKE: Final = "its stake (`accord stake deposit`, then the running party brings it)"
_AWAY: Final = "; it is not connected"


def phase(state: StudyState, pause: Pause | None = None) -> str:
    """The study's phase in one word or two."""
    if state.settled:
        return "settled"
    if not state.weights:
        comparing = state.plan.overlap is not None and state.overlap.since is not None
        return "comparing people" if comparing else "gathering agreements"
    if state.round is not None:
        return "training" if state.round.phase == "open" else "collecting updates"
    if state.complete:
        return "settling" if state.panel is None else "scoring"
    return "between rounds" if pause is None else "paused"


def predicted_s(state: StudyState) -> float | None:
    """How long after its opening the round in progress, or else the next, has enough updates: what the log predicts.

    None: too few institutions have answered yet, or no round is to come.
    """
    predicted = None if state.complete or state.settled else round_ms(state)
    return None if predicted is None else predicted / 1000


def clusters_of(state: StudyState) -> list[dict[str, Any]]:
    """Who counts as one institution: site names, and which of them as copies of one data set."""
    overlap = state.overlap
    return [
        {
            "sites": sorted(map(state.site, group)),
            "copies": [sorted(map(state.site, each)) for each in overlap.copies if set(each) <= set(group)],
        }
        for group in overlap.clusters
    ]


def awaited(
    history: StudyHistory,
    *,
    invited: Mapping[str, str | None],
    connected: Collection[str] | None,
    pause: Pause | None = None,
    seen: Collection[str] = (),
) -> list[dict[str, str]]:
    """Who must do something before the study goes on, and what.

    Args:
        history: the study's log.
        invited: site -> did that joined with the invitation, or None.
        connected: the parties (did) that are connected now; None while the coordinator does not run.
        pause: why no further round is opened; None: it is.
        seen: the parties that count as present although they are not connected: they visited lately.
    """
    state = history.state
    if state.settled and _is_final(history):
        return []
    if connected is None:
        return [_item("coordinator", _RUN), *([] if state.weights else _agreements(state, invited))]
    there = set(connected)
    if not state.weights:
        return _agreements(state, invited) or _comparisons(state, there)
    if state.round is not None:
        return _answers(state, state.round, there)
    if pause is not None and pause.for_good and not state.complete:
        return [_item("coordinator", f"writing into the log that the study is {pause}")]
    if pause is not None and not state.complete:
        return [_item("coordinator", f"the study to go on (`accord study resume`; {pause})")]
    if state.panel is not None and state.panel.awaited and not state.settled:
        return _scores(state, state.panel, there)
    return _cosignatures(history, there) if state.complete else _connections(state, there | set(seen))


def awaited_cosignatures(history: StudyHistory) -> set[str]:
    """Witnesses (did) that have not cosigned the log as it is now."""
    state = history.state
    stored = history.log.checkpoint(state.size)
    done = {cosignature.witness for cosignature in history.open(stored, state.size).cosignatures} if stored else set()
    return {witness.did for witness in state.witnesses if witness not in done}


def _is_final(history: StudyHistory) -> bool:
    total = len(history.state.witnesses)
    return total > 0 and total - len(awaited_cosignatures(history)) >= finality_quorum(total)


def _agreements(state: StudyState, invited: Mapping[str, str | None]) -> list[dict[str, str]]:
    missing = state.plan.rounds.participants - len(state.agreements)
    if not missing:
        return _stakes(state)
    agreed = {agreement.site for agreement in state.agreements.values()}
    waiting = [
        _item(site, _AGREE if peer else "joining with its invitation (`accord node join`)")
        for site, peer in sorted(invited.items())
        if site not in agreed
    ]
    if missing > len(waiting):
        more = missing - len(waiting)
        whom = "one more institution" if more == 1 else f"{more} more institutions"
        waiting.append(_item("coordinator", f"an invitation for {whom} (`accord study invite`)"))
    return waiting


def _stakes(state: StudyState) -> list[dict[str, str]]:
    """Whose stake is missing, where the plan asks for stakes."""
    names = {state.coordinator.did: "coordinator", **{did: state.site(did) for did in state.agreements}}
    return [_item(names[did], _STAKE) for did in stakes_due(state) if did not in state.stakes]


def _comparisons(state: StudyState, there: set[str]) -> list[dict[str, str]]:
    """Who still owes the comparison of people a sketch, or after that a report; it goes on without them."""
    since, deadline = state.overlap.since, timedelta(seconds=state.plan.rounds.deadline_s)
    if since is None:
        return []
    what = "its report on common people" if state.overlap.closed else "its sketch of its people"
    until = format_instant(since + deadline * (2 if state.overlap.closed else 1))
    return [
        _item(state.site(did), f"{what}, until {until}" + ("" if did in there else _AWAY)) for did in waits_for(state)
    ]


def _answers(state: StudyState, current: RoundState, there: set[str]) -> list[dict[str, str]]:
    """Who still owes the open round a commitment, or its update; the round closes without them at its deadline."""
    if current.phase == "open":
        due = [did for did in current.participants if did not in {*current.commitments, *current.refusals}]
        what = f"its commitment to round {current.number}, until {format_instant(current.deadline)}"
        if state.plan.rounds.enough is not None:
            what += f" or until {state.plan.rounds.enough} have committed ({len(current.commitments)} have)"
    else:
        due = [did for did in current.commitments if did not in {*current.admitted, *current.rejected}]
        what = f"showing its update of round {current.number}"
    return [_item(state.site(did), what + ("" if did in there else _AWAY)) for did in sorted(due, key=state.site)]


def _scores(state: StudyState, panel: PanelState, there: set[str]) -> list[dict[str, str]]:
    """Who still owes the panel something; it goes on without them at its deadline."""
    what = "showing its scores" if panel.closed else "its commitment to its scores"
    what += f", until {format_instant(panel.deadline)}"
    return [_item(state.site(did), what + ("" if did in there else _AWAY)) for did in panel.awaited]


def _cosignatures(history: StudyHistory, there: set[str]) -> list[dict[str, str]]:
    """Whose cosignature is missing while there is no quorum of them; with one, the study awaits nobody."""
    if _is_final(history):
        return []
    state = history.state
    missing = awaited_cosignatures(history)
    there_are, quorum = len(state.witnesses) - len(missing), finality_quorum(len(state.witnesses))
    what = f"its cosignature ({there_are} of the {quorum} that are needed are there)"
    return [_item(state.site(did), what + ("" if did in there else _AWAY)) for did in sorted(missing, key=state.site)]


def _connections(state: StudyState, there: set[str]) -> list[dict[str, str]]:
    """Between rounds: whoever is away is awaited; with a quorum the next round opens without them very soon."""
    away = [did for did in state.active if did not in there]
    present, quorum = len(state.active) - len(away), state.rounds.quorum
    if present < quorum:
        why = f"connecting: round {len(state.closed) + 1} needs {quorum} institutions and has {present}"
    else:
        why = f"connecting, or round {len(state.closed) + 1} opens without it in a few seconds"
    return [_item(state.site(did), why) for did in sorted(away, key=state.site)]


def _item(site: str, what: str) -> dict[str, str]:
    return {"site": site, "for": what}
