"""The names and limits of the protocols between coordinator and nodes.

Everything runs over authenticated streams (``network.exchange``); payloads are canonical JSON or signed envelopes.
Model and update arrays travel by content address (``network.blobs``), rounds as Flower messages (``flower``).
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from federation.rules.checkpoint import NOTE_BYTES_MAX
from federation.rules.documents import Hash
from federation.rules.entries import ENTRY_BYTES_MAX, EnvelopeText
from federation.rules.study import PLAN_BYTES_MAX
from federation.rules.terms import PARTICIPANTS_MAX, TABLE_PLAYERS_MAX
from federation.rules.wire import Did, Wire

JOIN: Final = "/accord/join/1"
AGREEMENT: Final = "/accord/agreement/1"
REVOCATION: Final = "/accord/revocation/1"
SUBMISSION: Final = "/accord/submission/1"
"""What a party brings to the study's log of its own accord: pledge, accusation, proposal or vote (``submissions``)."""
SCORES_COMMITMENT: Final = "/accord/scores-commitment/1"
SCORES: Final = "/accord/scores/1"
"""A panel member brings its signed commitment, and once commitments are closed the scores themselves."""
CHECKPOINT: Final = "/accord/checkpoint/1"
"""Asked with nothing, answered with the newest signed checkpoint of the study's log, as a note."""
COSIGN: Final = "/accord/cosign/1"
FOLLOW: Final = "/accord/follow/1"
"""Asked by the plan's standby: the log from an index on, its notes, and which blobs hold plan and validation set."""
SEALED: Final = "/accord/sealed/1"
"""As ``network.blobs``, for the standby alone: value tables that wait for the settlement, and the validation set."""
PROMISE: Final = "/accord/promise/1"
"""Asked by the standby of a witness; answered with its signed promise (``rules.succession``)."""
CONSENT_COSIGN: Final = "/accord/consent-cosign/1"
"""A peer's consent log is shown to a witness (``consent.cosigning``); served by every node."""
CONSENT_RELAY: Final = "/accord/consent-relay/1"
"""The coordinator's door through which nodes, which listen nowhere, reach each other's ``CONSENT_COSIGN``."""
OVERLAP: Final = "/accord/overlap/1"
"""The coordinator leads each node through the comparison of people; served by nodes whose plan asks for one."""

JOIN_BYTES_MAX: Final = 4096
PLAN_REPLY_BYTES_MAX: Final = 2 * PLAN_BYTES_MAX
DOCUMENT_BYTES_MAX: Final = 64 * 1024
SUBMISSION_BYTES_MAX: Final = 256 * 1024
COSIGN_BYTES_MAX: Final = 16 * ENTRY_BYTES_MAX
COSIGN_ENTRIES_MAX: Final = 256
TAKEOVER_BYTES_MAX: Final = 256 * 1024
"""An entry ``term-began`` with the promises of as many witnesses as a study can have."""
REPLY_BYTES_MAX: Final = TAKEOVER_BYTES_MAX + 64 * 1024
FOLLOW_BYTES_MAX: Final = 1024
FOLLOW_ENTRIES_BYTES: Final = 4 * ENTRY_BYTES_MAX
"""A reply takes no further entry once it holds so many bytes of them."""
FOLLOW_NOTES_MAX: Final = 64
FOLLOW_REPLY_BYTES_MAX: Final = 16 * ENTRY_BYTES_MAX
PROMISE_BYTES_MAX: Final = 256 * 1024
PROMISE_REPLY_BYTES_MAX: Final = 4096
CONSENT_COSIGN_BYTES_MAX: Final = 16 * 1024
CONSENT_REPLY_BYTES_MAX: Final = 4096
RELAY_BYTES_MAX: Final = 3 * CONSENT_COSIGN_BYTES_MAX
SEALED_BYTES_MAX: Final = 4096 + 16
"""A packed sketch of 1,024 places, sealed."""
OVERLAP_BYTES_MAX: Final = TABLE_PLAYERS_MAX * (2 * SEALED_BYTES_MAX + 256)


class JoinRequest(Wire):
    """A newcomer shows its invitation's token."""

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    token: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CosignRequest(Wire):
    """The coordinator shows entries from index ``first`` on and, where they complete it, a signed checkpoint."""

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    first: Annotated[int, Field(ge=0)]
    entries: Annotated[tuple[EnvelopeText, ...], Field(max_length=COSIGN_ENTRIES_MAX)]
    checkpoint: Annotated[str, StringConstraints(max_length=NOTE_BYTES_MAX)] | None = None


class CosignReply(Wire):
    """The witness's size after the entries, and its cosignature line if a checkpoint was shown and holds.

    ``superseded``: the ``term-began`` entry by which another coordinator leads; whoever asked must stop.
    """

    version: Literal[1] = 1
    size: Annotated[int, Field(ge=0)]
    cosignature: Annotated[str, StringConstraints(max_length=1024)] | None = None
    superseded: Annotated[str, StringConstraints(max_length=TAKEOVER_BYTES_MAX)] | None = None


class FollowRequest(Wire):
    """The standby has the entries before ``first``, and the notes of sizes below ``notes``."""

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    first: Annotated[int, Field(ge=0)] = 0
    notes: Annotated[int, Field(ge=0)] = 0


class FollowReply(Wire):
    """The log of ``study`` from the index that was asked for, as much as one answer holds.

    ``plan`` is the blob of the signed plan; ``validation`` the sealed blob of the validation set (32 bytes of salt,
    then the rows), where the answering party has it; ``began`` the ``term-began`` entry, once there is one.
    """

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    plan: Hash
    validation: Hash | None = None
    size: Annotated[int, Field(ge=0)]
    entries: Annotated[tuple[EnvelopeText, ...], Field(max_length=COSIGN_ENTRIES_MAX)] = ()
    notes: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=NOTE_BYTES_MAX)], ...], Field(max_length=FOLLOW_NOTES_MAX)
    ] = ()
    began: Annotated[str, StringConstraints(max_length=TAKEOVER_BYTES_MAX)] | None = None


class PromiseRequest(Wire):
    """The standby asks for a promise, and shows those that it has."""

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    promises: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=PROMISE_REPLY_BYTES_MAX)], ...],
        Field(max_length=PARTICIPANTS_MAX),
    ] = ()


SealedText = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$", max_length=2 * SEALED_BYTES_MAX)]


class OverlapRequest(Wire):
    """The coordinator asks for the next step: a commitment, the sketch sealed to every other party, or a report.

    ``sealed``: with ``report``, by sender, what the others sealed to this party (hexadecimal).
    """

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    step: Literal["commit", "show", "report"]
    sealed: Annotated[dict[Did, SealedText], Field(max_length=TABLE_PLAYERS_MAX - 1)] | None = None


class OverlapReply(Wire):
    """A signed commitment, report or refusal; or, to ``show``, this party's sketch sealed to each other party."""

    version: Literal[1] = 1
    kind: Literal["committed", "reported", "declined", "shown"]
    envelope: EnvelopeText | None = None
    sealed: Annotated[dict[Did, SealedText], Field(max_length=TABLE_PLAYERS_MAX - 1)] | None = None


class RelayRequest(Wire):
    """A party asks the coordinator to pass ``request`` on to the party ``witness``, by ``CONSENT_COSIGN``."""

    version: Literal[1] = 1
    study: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    witness: Did
    request: Annotated[str, StringConstraints(min_length=1, max_length=CONSENT_COSIGN_BYTES_MAX)]
