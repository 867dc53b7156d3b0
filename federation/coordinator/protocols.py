"""The names and limits of the protocols between coordinator and nodes.

Everything runs over authenticated streams (``network.exchange``); payloads are canonical JSON or signed envelopes.
Model and update arrays travel by content address (``network.blobs``), rounds as Flower messages (``flower``).
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from federation.rules.checkpoint import NOTE_BYTES_MAX
from federation.rules.entries import ENTRY_BYTES_MAX, EnvelopeText
from federation.rules.study import PLAN_BYTES_MAX
from federation.rules.terms import TABLE_PLAYERS_MAX
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
REPLY_BYTES_MAX: Final = 64 * 1024
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
    """The witness's size after the entries, and its cosignature line if a checkpoint was shown and holds."""

    version: Literal[1] = 1
    size: Annotated[int, Field(ge=0)]
    cosignature: Annotated[str, StringConstraints(max_length=1024)] | None = None


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
