"""What an institution signs in a round: commitment, update, refusal; its scores; the revocation of its agreement.

Commit, then reveal: before the deadline only the commitment leaves the site. It binds peer, study, round, a fresh nonce
and the whole update, so a late site cannot copy what another one showed.
"""

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, StringConstraints

from federation.rules.canonical import sha256_hex, tagged_hash
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import read
from federation.rules.terms import COALITIONS_MAX, PARTICIPANTS_MAX, TABLE_PLAYERS_MAX
from federation.rules.wire import Did, Sha256Hex, Slug, Wire

DOCUMENT_BYTES_MAX: Final = 256 * 1024
TABLE_BYTES_MAX: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 1 << 20
CHUNKS_MAX: Final = 4096

StudyId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
RoundNumber = Annotated[int, Field(ge=1, le=1000)]
Hash = Sha256Hex
SCORE_MAX: Final = (1 << 53) - 1
"""The largest number of canonical JSON: 8,192 nats."""
Score = Annotated[int, Field(ge=-SCORE_MAX, le=SCORE_MAX)]


class Signed(Wire):
    """Base of the documents of this module: each class names its payload type."""

    @classmethod
    def payload_type(cls) -> str:
        """The type that the signature covers."""
        return f"application/vnd.accord.{cls.__name__.lower()}.v1+json"

    def sign(self, key: PrivateKey) -> Envelope:
        """The document in a signed envelope."""
        return sign(self.to_payload(), self.payload_type(), key)


S = TypeVar("S", bound=Signed)


class Commitment(Signed):
    """The promise of one update, made before the deadline."""

    version: Literal[1] = 1
    study: StudyId
    round: RoundNumber
    commitment: Hash


class ConsistencyProof(Wire):
    """RFC 6962 consistency of the institution's consent log with the last size that it showed in this study."""

    old_size: Annotated[int, Field(ge=0)]
    proof: Annotated[tuple[Hash, ...], Field(max_length=64)] = ()


class Update(Signed):
    """One institution's noised contribution to one round.

    ``chunks`` are the SHA-256 names of the pieces that, joined, are the packed int64 vector (see ``fixedpoint``);
    ``update`` is the SHA-256 of the whole. ``event`` is the differential-privacy event that really happened (see
    ``accounting``). ``dataset_commitment`` commits to the rows used under a fresh 256-bit salt.
    """

    version: Literal[1] = 1
    study: StudyId
    round: RoundNumber
    base_model: Hash
    update: Hash
    update_bytes: Annotated[int, Field(ge=1, le=CHUNK_BYTES_MAX * CHUNKS_MAX)]
    chunks: Annotated[tuple[Hash, ...], Field(min_length=1, max_length=CHUNKS_MAX)]
    nonce: Hash
    event: dict[str, Any]
    consent_checkpoint: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    consent_consistency: ConsistencyProof
    dataset_commitment: Hash
    code_hash: Hash

    def commitment(self, party: PublicKey) -> Commitment:
        """The commitment that this update must have been announced with."""
        value = tagged_hash(
            "update-commitment",
            party.peer_id.encode("ascii"),
            self.study.encode("utf-8"),
            str(self.round).encode("ascii"),
            bytes.fromhex(self.nonce),
            bytes.fromhex(sha256_hex(self.to_payload())),
        )
        return Commitment(study=self.study, round=self.round, commitment=value.hex())


class Refusal(Signed):
    """The node's own word that it does not take part in a round, and why (never an exact count of persons)."""

    version: Literal[1] = 1
    study: StudyId
    round: RoundNumber
    code: Slug
    message: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Revocation(Signed):
    """An institution ends its agreement: from the next round on it takes no part."""

    version: Literal[1] = 1
    study: StudyId
    plan_hash: Hash
    site: Slug
    signed_at: str


class OverlapCommitment(Signed):
    """What an institution fixes before it sees another's sketch, and before there is noise of any training.

    ``sketch`` is the hash of the noised sketch (``overlap.sketch_hash``). ``exact`` commits to the sketch before noise,
    ``rows`` to the rows behind it, both under salts that stay at the institution: whoever audits on site recomputes
    them. ``event`` is the differential-privacy event that happened.
    """

    version: Literal[1] = 1
    study: StudyId
    sketch: Hash
    exact: Hash
    rows: Hash
    event: dict[str, Any]

    @classmethod
    def payload_type(cls) -> str:
        """The type that the signature covers."""
        return "application/vnd.accord.overlap-commitment.v1+json"


class PairProduct(Wire):
    """The inner product of two institutions' noised sketches; ``first`` < ``second``."""

    first: Did
    second: Did
    product: Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]


class OverlapReport(Signed):
    """What an institution found between all sketches that it could open and that are those committed to, its own too.

    ``squares``: each sketch's product with itself; ``pairs``: those of all pairs of them, in order. Everybody who tells
    the truth reports the same numbers.
    """

    version: Literal[1] = 1
    study: StudyId
    squares: Annotated[
        dict[Did, Annotated[int, Field(ge=0, le=2**53 - 1)]], Field(min_length=1, max_length=TABLE_PLAYERS_MAX)
    ]
    pairs: Annotated[tuple[PairProduct, ...], Field(max_length=TABLE_PLAYERS_MAX * (TABLE_PLAYERS_MAX - 1) // 2)] = ()

    @classmethod
    def payload_type(cls) -> str:
        """The type that the signature covers."""
        return "application/vnd.accord.overlap-report.v1+json"


class OverlapRefusal(Signed):
    """An institution's own word that it does not compare its people, and why."""

    version: Literal[1] = 1
    study: StudyId
    code: Slug
    message: Annotated[str, StringConstraints(min_length=1, max_length=500)]

    @classmethod
    def payload_type(cls) -> str:
        """The type that the signature covers."""
        return "application/vnd.accord.overlap-refusal.v1+json"


class ScoresCommitment(Signed):
    """A panel member's promise of its scores, made before it sees any others'."""

    version: Literal[1] = 1
    study: StudyId
    commitment: Hash


class Scores(Signed):
    """One panel member's scores of every institution, noised: what it committed to.

    ``values[i]`` is the Shapley value of ``players[i]`` over the whole study on the member's held-out people, in 2^-40
    nats; ``players`` are all institutions of the study, sorted. ``model`` is the last round's model, ``event`` the
    differential-privacy event of this release (see ``accounting.scores_event``).
    """

    version: Literal[1] = 1
    study: StudyId
    model: Hash
    players: Annotated[tuple[Did, ...], Field(min_length=1, max_length=14)]
    values: Annotated[tuple[Score, ...], Field(min_length=1, max_length=14)]
    event: dict[str, Any]
    nonce: Hash
    code_hash: Hash

    def commitment(self, party: PublicKey) -> ScoresCommitment:
        """The commitment that these scores must have been announced with."""
        value = tagged_hash(
            "scores-commitment",
            party.peer_id.encode("ascii"),
            self.study.encode("utf-8"),
            bytes.fromhex(self.nonce),
            bytes.fromhex(sha256_hex(self.to_payload())),
        )
        return ScoresCommitment(study=self.study, commitment=value.hex())


class ValueTable(Wire):
    """Utilities of the coalitions of one round, times 2^40; committed by hash, opened at settlement.

    Up to 14 players: of every coalition; ``utilities[mask]`` is that of the ``players[i]`` with bit i of ``mask`` set.
    With more, ``seed`` is there, and the coalitions are those that it asks for (``value_sample``). The salt keeps the
    hash from being searched while the table is closed.
    """

    version: Literal[1] = 1
    study: StudyId
    round: RoundNumber
    players: Annotated[tuple[str, ...], Field(max_length=PARTICIPANTS_MAX)]
    utilities: Annotated[tuple[int, ...], Field(min_length=1, max_length=COALITIONS_MAX)]
    salt: Hash
    seed: Hash | None = None


def open_signed(kind: type[S], data: bytes, *, signer: PublicKey | None = None) -> tuple[S, Envelope]:
    """Verify and read a signed document of ``kind``.

    Raises:
        PeerError: the signature or the document is not valid.
    """
    envelope = open_envelope(data, payload_type=kind.payload_type(), signer=signer, max_bytes=2 * DOCUMENT_BYTES_MAX)
    return read(kind, envelope.payload, max_bytes=DOCUMENT_BYTES_MAX), envelope
