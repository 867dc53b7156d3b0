"""Where a study stands, and who is awaited for what, read off its log."""

from datetime import datetime

from federation.rules.replay import StudyState

from .history import StudyHistory


def phase(state: StudyState) -> str:
    """The study's phase in one word or two."""
    if state.settled:
        return "settled"
    if not state.weights:
        return "gathering agreements"
    if state.round is not None:
        return "training" if state.round.phase == "open" else "collecting updates"
    return "settling" if state.complete else "between rounds"


def awaited(history: StudyHistory, *, invited: dict[str, str | None]) -> list[dict[str, str]]:
    """Who must do something before the study goes on, and what."""
    state = history.state
    if not state.weights:
        missing = state.plan.rounds.participants - len(state.agreements)
        agreed = {agreement.site for agreement in state.agreements.values()}
        waiting = [
            {"site": site, "for": "its agreement" if peer else "joining with its invitation"}
            for site, peer in sorted(invited.items())
            if site not in agreed
        ]
        if missing > len(waiting):
            waiting.append({"site": "-", "for": f"{missing - len(waiting)} more invitations to be issued"})
        return waiting if missing else []
    if state.round is not None:
        current = state.round
        if current.phase == "open":
            done = {*current.commitments, *current.refusals}
            return [
                {"site": state.site(did), "for": f"its commitment to round {current.number}"}
                for did in current.participants
                if did not in done
            ]
        decided = {*current.admitted, *current.rejected}
        return [
            {"site": state.site(did), "for": f"showing its update of round {current.number}"}
            for did in sorted(current.commitments)
            if did not in decided
        ]
    if state.complete or state.settled:
        return [{"site": state.site(did), "for": "its cosignature"} for did in sorted(awaited_cosignatures(history))]
    return [{"site": state.site(did), "for": "being connected"} for did in state.active]


def awaited_cosignatures(history: StudyHistory) -> dict[str, datetime | None]:
    """Witnesses (did) that have not cosigned the newest checkpoint."""
    done = {cosignature.witness for cosignature in history.checkpoint().cosignatures}
    return {witness.did: history.state.last_time for witness in history.state.witnesses if witness not in done}
