"""``accord study propose | vote | votes``: change what cannot weaken anybody's privacy, by a majority of weights."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.output import DirOption, JsonOption, emit
from federation.cli.rewards import FolderOption
from federation.errors import OperatorError
from federation.rules.instant import format_instant

if TYPE_CHECKING:
    from federation.rules.state import Ballot, StudyState

StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest.")]

_ID_SHOWN = 12


class Parameter(StrEnum):
    """What can be changed: nothing that adds a charge or takes away noise."""

    DEADLINE_S = "deadline_s"
    QUORUM = "quorum"
    COUNT = "count"


class Choice(StrEnum):
    """A vote."""

    YES = "yes"
    NO = "no"


def propose(
    parameter: Annotated[
        Parameter,
        typer.Argument(help="deadline_s (only longer), quorum, or count (only fewer rounds)."),
    ],
    value: Annotated[int, typer.Argument(min=1, help="The new value, from the next round on.")],
    folder: DirOption,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to change how long rounds wait, how many make one valid, or that there are fewer rounds.

    Who may vote, and with what weight, is taken down when the proposal reaches the log. Privacy, data, purpose and pool
    cannot be changed: another plan is another study.

    Example: accord study propose deadline_s 600 --dir node
    """
    from federation.coordinator.party import open_party
    from federation.rules.ballots import Change, Proposal, unfit

    party = open_party(folder, study)
    state = party.state
    _require_voting(state)
    if not state.weights or state.complete:
        raise OperatorError(
            f"{state.study} has no round to come: there is nothing to change.", remedy="Look at `accord study status`."
        )
    change = Change(parameter=parameter.value, value=value)
    begun = len(state.closed) + (state.round is not None)
    why = unfit(change, plan=state.plan.rounds, now=state.rounds, begun=begun)
    if why:
        raise OperatorError(f"This cannot be proposed: {why}.", remedy="Choose a value within these bounds.")
    proposal = Proposal(
        study=state.study, plan_hash=state.plan.plan_hash, change=change, signed_at=format_instant(datetime.now(UTC))
    )
    party.sign("proposal", proposal)
    emit(
        {**proposal.model_dump(mode="json"), "delivered": "by the running party"},
        as_json=as_json,
        text=f"Proposed for {state.study}: {change.sentence}.\nThe running party brings it into the log; then "
        f"`accord study votes --dir {folder}` shows its id. Vote on it yourself as well.",
    )


def vote(
    proposal: Annotated[str, typer.Argument(help="The proposal's id, or its first digits, as `votes` shows it.")],
    choice: Annotated[Choice, typer.Argument(help="yes or no.")],
    folder: DirOption,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vote on a proposal. A vote is signed, stays in the log, and cannot be changed.

    Example: accord study vote 3f9a01c2d4e5 yes --dir node
    """
    from federation.coordinator.party import open_party
    from federation.rules.ballots import Vote
    from federation.rules.votes import is_open

    party = open_party(folder, study)
    state, did = party.state, party.key.public.did
    found = [name for name in state.ballots if name.startswith(proposal)]
    if len(found) != 1:
        raise OperatorError(
            f"{len(found) or 'No'} proposals of {state.study} begin with {proposal}, as far as {folder} knows.",
            remedy=f"`accord study votes --dir {folder}` lists them; a running node learns of new ones.",
        )
    ballot = state.ballots[found[0]]
    if did not in ballot.weights:
        raise OperatorError(
            "This party has no weight in this proposal: it is not in the snapshot of the moment it was made.",
            remedy="Only those who had a weight then can vote on it.",
        )
    if did in ballot.votes or not is_open(ballot, datetime.now(UTC)):
        told = "voted already" if did in ballot.votes else "nothing to vote on: the proposal is decided or has lapsed"
        raise OperatorError(f"This party has {told}.", remedy="Look at `accord study votes`.")
    cast = Vote(study=state.study, proposal=found[0], choice=choice.value)
    party.sign("vote", cast)
    emit(
        {**cast.model_dump(mode="json"), "delivered": "by the running party"},
        as_json=as_json,
        text=f"Voted {choice.value}: {ballot.change.sentence}.\nThe running party brings it into the log.",
    )


def votes(folder: FolderOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Show what was proposed in a study, who voted how, and what holds now; from the verified log.

    Example: accord study votes --dir node
    """
    from federation.coordinator.party import read_study

    state = read_study(folder, study)[1].state
    _require_voting(state)
    now, rounds = datetime.now(UTC), state.rounds
    ballots = [_shown(state, name, ballot, now) for name, ballot in state.ballots.items()]
    holds = {"count": rounds.count, "quorum": rounds.quorum, "deadline_s": rounds.deadline_s}
    lines = [
        f"{state.study}: {rounds.count} rounds, a quorum of {rounds.quorum}, {rounds.deadline_s} s to answer.",
        *(_line(each) for each in ballots),
    ]
    if not ballots:
        lines.append("Nothing was proposed.")
    emit({"study": state.study, "rounds": holds, "proposals": ballots}, as_json=as_json, text="\n".join(lines))


def _require_voting(state: "StudyState") -> None:
    if state.plan.voting is None:
        raise OperatorError(
            f"The plan of {state.study} lets nobody change anything.", remedy="A plan with a section voting does."
        )


def _shown(state: "StudyState", name: str, ballot: "Ballot", now: datetime) -> dict[str, Any]:
    from federation.coordinator.party import name_of
    from federation.rules.votes import is_open

    outcome = "accepted" if ballot.accepted else "open" if is_open(ballot, now) and not state.complete else "lapsed"
    return {
        "id": name,
        "change": ballot.change.model_dump(mode="json"),
        "sentence": ballot.change.sentence,
        "by": name_of(state, ballot.proposer),
        "closes": format_instant(ballot.closes),
        "outcome": outcome,
        "weights": {name_of(state, did): weight for did, weight in ballot.weights.items()},
        "votes": {name_of(state, did): "yes" if yes else "no" for did, yes in ballot.votes.items()},
        "yes": ballot.yes,
        "total": ballot.total,
    }


def _line(shown: dict[str, Any]) -> str:
    cast = ", ".join(f"{name} {choice}" for name, choice in shown["votes"].items()) or "nobody has voted"
    until = f", votes until {shown['closes']}" if shown["outcome"] == "open" else ""
    return (
        f"{shown['id'][:_ID_SHOWN]}  {shown['outcome']:<8}  {shown['sentence']} (proposed by {shown['by']}{until})\n"
        f"              {shown['yes']} of {shown['total']} weights said yes: {cast}"
    )
