"""What parties sign about changes of a running study: proposals and votes.

What may be changed is closed by type: how long a round waits, how many institutions make one valid, and that there are
fewer rounds. None of them adds a charge or takes away noise: the noise still follows from the plan, for all rounds that
it planned. Whatever else binds (epsilon, columns, purpose, pool) can only be changed by another plan, which everybody
signs anew.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from federation.rules.documents import Hash, Signed, StudyId
from federation.rules.terms import Rounds
from federation.rules.wire import Wire

DEADLINE_S_MAX: Final = 604_800
QUORUM_MIN: Final = 2
"""No vote lets a round count with a single institution, unless the plan does."""


class Change(Wire):
    """One parameter's new value.

    Attributes:
        parameter: ``deadline_s``, the seconds that a round waits, never less than the plan says; ``quorum``, the
            institutions that make a round valid, from 2 to all that a round can have; ``count``, only fewer rounds.
        value: the new value.
    """

    parameter: Literal["deadline_s", "quorum", "count"]
    value: Annotated[int, Field(ge=1, le=DEADLINE_S_MAX)]

    @property
    def sentence(self) -> str:
        """The change in words, without a full stop."""
        told = {
            "deadline_s": f"rounds wait {self.value} s for answers",
            "quorum": f"{self.value} institutions make a round valid",
            "count": f"the study ends after round {self.value}",
        }
        return told[self.parameter]


class Proposal(Signed):
    """A party proposes one change, from the next round on."""

    version: Literal[1] = 1
    study: StudyId
    plan_hash: Hash
    change: Change
    signed_at: str


class Vote(Signed):
    """A party's answer to one proposal, which is named by the id of its entry in the log. It cannot be changed."""

    version: Literal[1] = 1
    study: StudyId
    proposal: Hash
    choice: Literal["yes", "no"]


def unfit(change: Change, *, plan: Rounds, now: Rounds, begun: int) -> str:
    """Why a change is out of its bounds; empty where it is not.

    Args:
        change: what is proposed.
        plan: what the plan says.
        now: what holds now.
        begun: rounds that are closed or open.
    """
    bounds = {
        "deadline_s": (plan.deadline_s, DEADLINE_S_MAX),
        "quorum": (min(plan.quorum, QUORUM_MIN), plan.enough or plan.invite or plan.participants),
        "count": (max(1, begun), now.count - 1),
    }
    low, high = bounds[change.parameter]
    if not low <= change.value <= high:
        return f"rounds.{change.parameter} can be changed to {low} .. {high} now, not to {change.value}"
    if getattr(now, change.parameter) == change.value:
        return f"rounds.{change.parameter} is {change.value} already"
    return ""


def changed(now: Rounds, change: Change, *, begun: int) -> Rounds:
    """What holds once a change is accepted: rounds that were closed or opened meanwhile stay, and none is added."""
    value = max(begun, min(now.count, change.value)) if change.parameter == "count" else change.value
    return Rounds.model_validate({**now.model_dump(), change.parameter: value})
