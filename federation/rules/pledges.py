"""What parties sign about stakes, and what can be held against one: pledges, cases, accusations, answers.

A case must stand by itself: whoever reads it checks it, and it does not matter who showed it. There are two kinds. A
``split-view`` holds evidence that one key signed two histories (``equivocation``). A ``false-utility`` names one entry
of a value table and the blob of a challenge that proves it false (``challenge``).

So must an answer: one that nobody can check is none, and there is no place for an explanation in words. A split view
can be answered, as its evidence does not say which studies the two trees belong to. A false utility cannot: all that it
follows from is signed and in the proof, and everybody computes it again before it is logged.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from federation.rules.documents import Hash, RoundNumber, Signed, StudyId
from federation.rules.equivocation import EVIDENCE_BYTES_MAX
from federation.rules.merkle import PROOF_HASHES_MAX
from federation.rules.terms import PARTICIPANTS_MAX, STAKE_MAX
from federation.rules.wire import Did, Wire

_OPENING_BYTES_MAX: Final = 16 * 1024


class Pledge(Signed):
    """A party's word that it owes this amount once a case against it stands in one plan's study.

    A case stands when its proof holds and nobody could answer it in time. The log only keeps the books of that: the
    debt follows from the pledge and the proof.
    """

    version: Literal[1] = 1
    study: StudyId
    plan_hash: Hash
    amount_microcredits: Annotated[int, Field(ge=1, le=STAKE_MAX)]
    signed_at: str


class SplitView(Wire):
    """The accused signed two trees of one log; ``evidence`` is the file (``equivocation.Evidence``)."""

    kind: Literal["split-view"] = "split-view"
    evidence: Annotated[str, StringConstraints(min_length=1, max_length=EVIDENCE_BYTES_MAX)]


class FalseUtility(Wire):
    """The coordinator committed to a utility that does not follow from the blobs.

    Attributes:
        round: whose value table it is.
        coalition: the did of each member, sorted.
        proof: SHA-256 of the challenge's file (``challenge.Challenge``), which travels as a blob.
    """

    kind: Literal["false-utility"] = "false-utility"
    round: RoundNumber
    coalition: Annotated[tuple[Did, ...], Field(max_length=PARTICIPANTS_MAX)]
    proof: Hash

    @model_validator(mode="after")
    def _sorted(self) -> "FalseUtility":
        if list(self.coalition) != sorted(set(self.coalition)):
            raise ValueError("coalition: members are named once, in order")
        return self


Case = Annotated[SplitView | FalseUtility, Field(discriminator="kind")]


class Accusation(Signed):
    """A party shows a case to the coordinator, for the log. That it signs it gives the case no weight."""

    version: Literal[1] = 1
    study: StudyId
    accused: Did
    case: Case
    signed_at: str


class Opening(Wire):
    """The first entry of a log, signed by its coordinator, and its inclusion in the tree of a view of the evidence."""

    entry: Annotated[str, StringConstraints(min_length=1, max_length=_OPENING_BYTES_MAX)]
    proof: Annotated[tuple[Hash, ...], Field(max_length=PROOF_HASHES_MAX)]


class TwoStudies(Wire):
    """The answer to a split view that is none: both trees begin with a publication, of two different studies.

    ``first`` and ``second`` open the evidence's views in their order. A plan names its log freely, so that one
    coordinator's logs of two studies may have one name.
    """

    kind: Literal["two-studies"] = "two-studies"
    first: Opening
    second: Opening
