"""An update as it leaves the institution: packed integers, cut into content-addressed chunks, in a signed document."""

from dataclasses import dataclass
from typing import Any

from federation.rules.canonical import sha256_hex
from federation.rules.documents import CHUNK_BYTES_MAX, Commitment, ConsistencyProof, Update
from federation.rules.fixedpoint import Integers
from federation.rules.keys import PublicKey
from federation.rules.terms import Aggregation
from federation.rules.vectors import pack_update


@dataclass(frozen=True, slots=True)
class PreparedUpdate:
    """The document, its commitment, and the chunks that the coordinator will fetch."""

    update: Update
    commitment: Commitment
    packed: bytes
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an update says about itself beside its numbers (see ``documents.Update``)."""

    event: dict[str, Any]
    consent_checkpoint: str
    consent_consistency: ConsistencyProof
    dataset_commitment: str
    code_hash: str


def prepare_update(
    vector: Integers,
    *,
    party: PublicKey,
    study: str,
    round_number: int,
    base_model: str,
    nonce: bytes,
    provenance: Provenance,
    aggregation: Aggregation,
) -> PreparedUpdate:
    """Build the documents of one round.

    Args:
        vector: int64 ``[P]``, released (``clients.privacy.release``).
        party: whose update it is.
        study: the study's id.
        round_number: the round.
        base_model: SHA-256 of the model that was trained on.
        nonce: 32 fresh random bytes; without them nobody could tell a commitment from a copy.
        provenance: event, consent checkpoint, dataset commitment, code.
        aggregation: the plan's; it says how updates are written.
    """
    packed = pack_update(vector, aggregation)
    chunks = cut(packed)
    update = Update(
        study=study,
        round=round_number,
        base_model=base_model,
        update=sha256_hex(packed),
        update_bytes=len(packed),
        chunks=tuple(sha256_hex(chunk) for chunk in chunks),
        nonce=nonce.hex(),
        event=provenance.event,
        consent_checkpoint=provenance.consent_checkpoint,
        consent_consistency=provenance.consent_consistency,
        dataset_commitment=provenance.dataset_commitment,
        code_hash=provenance.code_hash,
    )
    return PreparedUpdate(update=update, commitment=update.commitment(party), packed=packed, chunks=chunks)


def cut(packed: bytes) -> tuple[bytes, ...]:
    """The chunks that, joined, are ``packed``; each at most ``CHUNK_BYTES_MAX`` bytes."""
    return tuple(packed[start : start + CHUNK_BYTES_MAX] for start in range(0, len(packed), CHUNK_BYTES_MAX))
