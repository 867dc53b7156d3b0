"""What an institution signs in a round: commitment, update, refusal; and the revocation of its agreement.

Commit, then reveal: before the deadline only the commitment leaves the site. It binds peer, study, round, a fresh nonce
and the whole update, so a late site cannot copy what another one showed.
"""

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, StringConstraints

from federation.rules.canonical import sha256_hex, tagged_hash
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import read
from federation.rules.wire import Did, Sha256Hex, Slug, Wire

DOCUMENT_BYTES_MAX: Final = 256 * 1024
CHUNK_BYTES_MAX: Final = 1 << 20
CHUNKS_MAX: Final = 4096

StudyId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
RoundNumber = Annotated[int, Field(ge=1, le=1000)]
Hash = Sha256Hex


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
    squares: Annotated[dict[Did, Annotated[int, Field(ge=0, le=2**53 - 1)]], Field(min_length=1, max_length=14)]
    pairs: Annotated[tuple[PairProduct, ...], Field(max_length=91)] = ()

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


class ValueTable(Wire):
    """Utilities of every coalition of one round, times 2^40; committed by hash, opened at settlement.

    ``utilities[mask]`` is the utility of the coalition of the ``players[i]`` with bit i of ``mask`` set. The salt keeps
    the hash from being searched while the table is closed.
    """

    version: Literal[1] = 1
    study: StudyId
    round: RoundNumber
    players: Annotated[tuple[str, ...], Field(max_length=14)]
    utilities: Annotated[tuple[int, ...], Field(min_length=1, max_length=2**14)]
    salt: Hash


def open_signed(kind: type[S], data: bytes, *, signer: PublicKey | None = None) -> tuple[S, Envelope]:
    """Verify and read a signed document of ``kind``.

    Raises:
        PeerError: the signature or the document is not valid.
    """
    envelope = open_envelope(data, payload_type=kind.payload_type(), signer=signer, max_bytes=2 * DOCUMENT_BYTES_MAX)
    return read(kind, envelope.payload, max_bytes=DOCUMENT_BYTES_MAX), envelope
