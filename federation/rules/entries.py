"""The entries of a study's log: what the coordinator may append, and in which form.

An entry is a signed envelope; its bytes are the leaf of the coordinator's Merkle log. Documents that institutions
signed stand inside as they were received (the text of their envelope), so that whoever holds the log holds the
evidence. Entry id = H(study, term, kind, round, party, command): a retry of the same command is the same entry.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from federation.rules.canonical import tagged_hash
from federation.rules.documents import Hash, RoundNumber, StudyId
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.failover import TermBegan
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.pledges import Case, TwoStudies
from federation.rules.study import read
from federation.rules.terms import PARTICIPANTS_MAX, TABLE_PLAYERS_MAX
from federation.rules.wire import Did, Wire

ENTRY_TYPE: Final = "application/vnd.accord.log-entry.v1+json"
ENTRY_BYTES_MAX: Final = 1 << 20
STANDARD_ERROR_MAX: Final = (1 << 53) - 1
"""The largest number of canonical JSON: 8,192 nats, more than any value."""

EnvelopeText = Annotated[str, StringConstraints(min_length=1, max_length=ENTRY_BYTES_MAX)]
Micro = Annotated[int, Field(ge=0, le=10**15)]
Fraction = Annotated[str, StringConstraints(pattern=r"^-?\d{1,60}(/[1-9]\d{0,60})?$")]


class StudyPublished(Wire):
    """A plan opens for agreements; its pool is minted into escrow. ``plan`` is the blob of the signed plan."""

    kind: Literal["study-published"] = "study-published"
    plan: Hash
    plan_hash: Hash
    minted: Micro


class AgreementAdmitted(Wire):
    """An institution is in; ``envelope`` is its signed Agreement."""

    kind: Literal["agreement-admitted"] = "agreement-admitted"
    envelope: EnvelopeText


class AgreementRevoked(Wire):
    """An institution is out from the next round on; ``envelope`` is its signed Revocation."""

    kind: Literal["agreement-revoked"] = "agreement-revoked"
    envelope: EnvelopeText


class OverlapCommitted(Wire):
    """An institution's signed OverlapCommitment: what it will compare with, before it sees anybody else's."""

    kind: Literal["overlap-committed"] = "overlap-committed"
    envelope: EnvelopeText


class OverlapDeclined(Wire):
    """An institution's signed OverlapRefusal: it does not compare its people."""

    kind: Literal["overlap-declined"] = "overlap-declined"
    envelope: EnvelopeText


class OverlapClosed(Wire):
    """From here on sketches are shown; nobody commits to one any more."""

    kind: Literal["overlap-closed"] = "overlap-closed"


class OverlapReported(Wire):
    """An institution's signed OverlapReport."""

    kind: Literal["overlap-reported"] = "overlap-reported"
    envelope: EnvelopeText


Groups = Annotated[
    tuple[Annotated[tuple[Did, ...], Field(min_length=2, max_length=TABLE_PLAYERS_MAX)], ...],
    Field(max_length=TABLE_PLAYERS_MAX // 2),
]


class ClustersFormed(Wire):
    """Who counts as one institution, as it follows from the reports: groups of copies, and of copies and owners."""

    kind: Literal["clusters-formed"] = "clusters-formed"
    copies: Groups
    clusters: Groups


class StudyStarted(Wire):
    """Participants, witnesses and weights are fixed; the first model is named."""

    kind: Literal["study-started"] = "study-started"
    weights: Annotated[dict[Did, Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=PARTICIPANTS_MAX)]
    base_model: Hash


class Measured(Wire):
    """What the coordinator measured of one institution's line before a round: its word, which nobody can check.

    Attributes:
        party: the institution.
        there: whether it was connected (where nodes visit: within the last deadline).
        request_ms: how long its last task took to be acknowledged, in milliseconds.
        bytes_s: how quickly its last update came, in bytes per second.
    """

    party: Did
    there: bool
    request_ms: Annotated[int, Field(ge=0, le=10**9)] | None = None
    bytes_s: Annotated[int, Field(ge=1, le=10**12)] | None = None


class RoundOpened(Wire):
    """The participants may train on ``base_model`` and commit until ``deadline``.

    ``measured`` is there where the plan says that a round invites some of the institutions (``cohorts``): one note for
    each active one. ``reference``: where the plan's rule is trust-anchored, the sponsor's own update of this round, by
    hash; its bytes are shown when the round closes.
    """

    kind: Literal["round-opened"] = "round-opened"
    base_model: Hash
    participants: Annotated[tuple[Did, ...], Field(min_length=1, max_length=PARTICIPANTS_MAX)]
    deadline: str
    measured: Annotated[tuple[Measured, ...], Field(max_length=PARTICIPANTS_MAX)] | None = None
    reference: Hash | None = None


class RoundReopened(Wire):
    """A restarted coordinator gives an unclosed round a new deadline; nodes answer with what they stored."""

    kind: Literal["round-reopened"] = "round-reopened"
    deadline: str


class UpdateCommitted(Wire):
    """An institution's signed Commitment arrived before the deadline."""

    kind: Literal["update-committed"] = "update-committed"
    envelope: EnvelopeText


class ParticipationRefused(Wire):
    """An institution's signed Refusal: it takes no part in this round, and says why."""

    kind: Literal["participation-refused"] = "participation-refused"
    envelope: EnvelopeText


class CommitmentsClosed(Wire):
    """From here on updates are shown; no commitment is taken any more."""

    kind: Literal["commitments-closed"] = "commitments-closed"


class CommitmentLate(Wire):
    """An institution's signed Commitment arrived after commitments were closed: it is not in this round."""

    kind: Literal["commitment-late"] = "commitment-late"
    envelope: EnvelopeText


class UpdateAdmitted(Wire):
    """An institution's signed Update passed every admission rule."""

    kind: Literal["update-admitted"] = "update-admitted"
    envelope: EnvelopeText


class UpdateRefused(Wire):
    """A committed update was not admitted, and why."""

    kind: Literal["update-refused"] = "update-refused"
    code: Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,40}$")]
    message: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class RoundClosed(Wire):
    """The round's result: the exact aggregate and the hash of the (still closed) value table."""

    kind: Literal["round-closed"] = "round-closed"
    outcome: Literal["aggregated", "no-quorum"]
    updates: Annotated[dict[Did, Hash], Field(max_length=PARTICIPANTS_MAX)]
    model: Hash
    value_table: Hash


class Payment(Wire):
    """What one institution gets: ``value`` in utility (exact fraction), ``reward`` for it in micro-credits.

    ``fee``: micro-credits for taking part, where the plan has fees.
    ``standard_error`` of the value, in 2^-40 nats, is there exactly where the plan pays by the lower bound.
    """

    party: Did
    site: str
    value: Fraction
    reward: Micro
    fee: Micro | None = None
    standard_error: Annotated[int, Field(ge=0, le=STANDARD_ERROR_MAX)] | None = None

    @property
    def total(self) -> int:
        """Reward and fee, in micro-credits."""
        return self.reward + (self.fee or 0)


class StudyAborted(Wire):
    """No further round is opened, for this reason; what the closed rounds were worth is paid as if all had run."""

    kind: Literal["study-aborted"] = "study-aborted"
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class PanelOpened(Wire):
    """After the last round: these institutions score everybody. Commitments may be closed from ``deadline`` on."""

    kind: Literal["panel-opened"] = "panel-opened"
    members: Annotated[tuple[Did, ...], Field(max_length=14)]
    deadline: str


class ScoresCommitted(Wire):
    """A member's signed commitment to its scores."""

    kind: Literal["scores-committed"] = "scores-committed"
    envelope: EnvelopeText


class ScoresClosed(Wire):
    """From here on scores are shown, no commitment is taken; the study may be settled from ``deadline`` on."""

    kind: Literal["scores-closed"] = "scores-closed"
    deadline: str


class ScoresShown(Wire):
    """A member's signed scores, those that it committed to."""

    kind: Literal["scores-shown"] = "scores-shown"
    envelope: EnvelopeText


class StudySettled(Wire):
    """Value tables open, values and payments follow from them; what is not paid is burned."""

    kind: Literal["study-settled"] = "study-settled"
    tables: Annotated[tuple[Hash, ...], Field(max_length=1000)]
    payments: Annotated[tuple[Payment, ...], Field(max_length=PARTICIPANTS_MAX)]
    burned: Micro


class StakeDeposited(Wire):
    """A party stands in with a stake, on its word; ``envelope`` is its signed Pledge."""

    kind: Literal["stake-deposited"] = "stake-deposited"
    envelope: EnvelopeText


class StakeSlashed(Wire):
    """The entry's party has lost its stake by ``case``, unless it answers the case before the appeal window ends."""

    kind: Literal["stake-slashed"] = "stake-slashed"
    case: Case


class SlashAppealed(Wire):
    """The case of the entry ``slash`` does not hold, as ``answer`` shows: the stake is its party's again."""

    kind: Literal["slash-appealed"] = "slash-appealed"
    slash: Hash
    answer: TwoStudies


class StakeBurned(Wire):
    """The appeal window of the entry ``slash`` has ended without an answer."""

    kind: Literal["stake-burned"] = "stake-burned"
    slash: Hash


class StakeReleased(Wire):
    """The unbonding time has ended: the entry's party owes nothing any more on its pledge."""

    kind: Literal["stake-released"] = "stake-released"


class ChangeProposed(Wire):
    """A party proposes to change a parameter; ``envelope`` is its signed Proposal. Weights are those of now."""

    kind: Literal["change-proposed"] = "change-proposed"
    envelope: EnvelopeText


class VoteCast(Wire):
    """A party votes on a proposal; ``envelope`` is its signed Vote."""

    kind: Literal["vote-cast"] = "vote-cast"
    envelope: EnvelopeText


Body = Annotated[
    StudyPublished
    | AgreementAdmitted
    | AgreementRevoked
    | OverlapCommitted
    | OverlapDeclined
    | OverlapClosed
    | OverlapReported
    | ClustersFormed
    | StudyStarted
    | RoundOpened
    | RoundReopened
    | UpdateCommitted
    | ParticipationRefused
    | CommitmentsClosed
    | CommitmentLate
    | UpdateAdmitted
    | UpdateRefused
    | RoundClosed
    | StudyAborted
    | StudySettled
    | StakeDeposited
    | StakeSlashed
    | SlashAppealed
    | StakeBurned
    | StakeReleased
    | ChangeProposed
    | VoteCast
    | TermBegan
    | PanelOpened
    | ScoresCommitted
    | ScoresClosed
    | ScoresShown,
    Field(discriminator="kind"),
]


class Entry(Wire):
    """One line of the study's history. ``round`` and ``party`` are absent where they do not apply."""

    version: Literal[1] = 1
    id: Hash
    study: StudyId
    term: Annotated[int, Field(ge=0)] = 0
    round: RoundNumber | None = None
    party: Did | None = None
    time: str
    body: Body

    def sign(self, key: PrivateKey) -> Envelope:
        """The entry, signed by the coordinator."""
        return sign(self.to_payload(), ENTRY_TYPE, key)

    @property
    def at(self) -> datetime:
        """When the coordinator appended it."""
        return parse_instant(self.time)


def make_entry(
    body: "Body",
    *,
    study: str,
    now: datetime,
    term: int = 0,
    round_number: int | None = None,
    party: PublicKey | None = None,
) -> Entry:
    """Build an entry; its id depends on what it says, not on when."""
    did = party.did if party else None
    return Entry(
        id=entry_id(body, study=study, term=term, round_number=round_number, party=did),
        study=study,
        term=term,
        round=round_number,
        party=did,
        time=format_instant(now),
        body=body,
    )


def entry_id(body: "Body", *, study: str, term: int, round_number: int | None, party: str | None) -> str:
    """H(study, term, kind, round, party, command), hexadecimal."""
    return tagged_hash(
        "entry-id",
        study.encode("utf-8"),
        str(term).encode("ascii"),
        body.kind.encode("ascii"),
        str(round_number or 0).encode("ascii"),
        (party or "").encode("ascii"),
        body.to_payload(),
    ).hex()


def open_entry(data: bytes, *, signer: PublicKey) -> Entry:
    """Verify and read a log entry.

    Raises:
        PeerError: the signature, the form, or the id is wrong.
    """
    return open_signed_entry(data, signers=(signer,))[0]


def open_signed_entry(data: bytes, *, signers: Collection[PublicKey]) -> tuple[Entry, PublicKey]:
    """As :func:`open_entry`, by any of ``signers``, with the one that signed it."""
    envelope = open_envelope(data, payload_type=ENTRY_TYPE, signers=signers, max_bytes=2 * ENTRY_BYTES_MAX)
    return read(Entry, envelope.payload, max_bytes=ENTRY_BYTES_MAX), envelope.signer
