"""The receipt: the institution's signed word that it holds a record, and since when.

A withdrawal binds from its receipt on: the receipt exists only after the record is durable, and before any logging or
cosigning, so nobody can delay a withdrawal by withholding a signature.

There are two forms of one receipt. :class:`Receipt` is the short word that the registry gives at once. The receipt
credential (:func:`build_receipt`) is what a person keeps: a W3C Verifiable Credential 2.0 with an ``eddsa-jcs-2022``
proof that holds the record itself, where it stands in the log with everything that proves it, and after a withdrawal
the rounds that were under way and the models that already contain the contribution, each with the (epsilon, delta)
that protects it. :func:`open_receipt` checks all of it offline; whose cosignatures are enough is the reader's question.
"""

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import Field, StringConstraints, ValidationError

from consent.rules.commitment import commitment, open_batch
from consent.rules.proof import add_proof, verify_detached
from consent.rules.reading import receive, refuse_nulls
from consent.rules.record import SEQ_MAX, Action, ConsentRecord, open_record
from consent.rules.refusal import RefusedRecordError
from consent.rules.wire import CONTEXT, RECEIPT_SCHEMA_ID, LogFields, ReceiptDocument, misfit
from federation.errors import AccordError
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.checkpoint import NOTE_BYTES_MAX, Cosignature, SignedCheckpoint, open_checkpoint
from federation.rules.envelope import Envelope, sign
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.rules.wire import Sha256Hex, Wire, plain_decimal

RECEIPT_TYPE: Final = "application/vnd.accord.consent-receipt.v1+json"
CREDENTIAL_TYPE: Final = ("VerifiableCredential", "AccordConsentReceipt")
REF_CHARACTERS_MAX: Final = 200
RECEIPT_BYTES_MAX: Final = 1 << 20


class Receipt(Wire):
    """What was received: ``record`` is the digest of the record's canonical bytes, ``subject_ref`` the local name."""

    version: Literal[1] = 1
    institution: str
    subject_ref: Annotated[str, StringConstraints(min_length=1, max_length=REF_CHARACTERS_MAX)]
    subject: str
    record: Sha256Hex
    action: Action
    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    received_at: str

    def sign(self, key: PrivateKey) -> Envelope:
        """The receipt, signed by the institution; the same receipt always gives the same bytes."""
        return sign(self.to_payload(), RECEIPT_TYPE, key)


class Logged(Protocol):
    """Where a record stands in the log: ``batch`` is entry ``index`` of the tree that ``checkpoint`` signs."""

    @property
    def salt(self) -> bytes:
        """The 32 bytes that open the record's commitment."""

    @property
    def index(self) -> int:
        """The batch's place in the log, from 0."""

    @property
    def batch(self) -> bytes:
        """The log entry (:mod:`consent.rules.commitment`)."""

    @property
    def proof(self) -> tuple[bytes, ...]:
        """The inclusion proof (RFC 6962)."""

    @property
    def checkpoint(self) -> SignedCheckpoint:
        """The log's signed head, with the cosignatures collected so far."""


@dataclass(frozen=True, slots=True)
class RoundInFlight:
    """A round that was under way when the withdrawal arrived."""

    study: str
    round: int


@dataclass(frozen=True, slots=True)
class ModelMention:
    """A model that contains the contribution: its SHA-256, and the privacy loss that the study is bound to."""

    study: str
    round: int
    model: str
    epsilon: Decimal
    delta: Decimal


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A verified :class:`Logged`."""

    salt: bytes
    index: int
    batch: bytes
    proof: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


@dataclass(frozen=True, slots=True)
class ReceiptCredential:
    """A receipt credential that has been verified (only :func:`open_receipt` makes one).

    ``record`` is the record that it is about, verified too; ``place`` is None until the record's batch is logged.
    """

    canonical: bytes
    receipt: Receipt
    record: ConsentRecord
    signed_at: datetime
    place: LogPlace | None
    rounds_in_flight: tuple[RoundInFlight, ...]
    models: tuple[ModelMention, ...]

    @property
    def cosignatures(self) -> tuple[Cosignature, ...]:
        """The witnesses' verified cosignatures under the checkpoint."""
        return () if self.place is None else self.place.checkpoint.cosignatures


def build_receipt(
    receipt: Receipt,
    record: bytes,
    key: PrivateKey,
    *,
    created: datetime,
    logged: Logged | None = None,
    rounds_in_flight: Sequence[RoundInFlight] = (),
    models: Sequence[ModelMention] = (),
) -> bytes:
    """The receipt credential's canonical bytes.

    Args:
        receipt: the short receipt.
        record: the record, as stored (canonical bytes).
        key: the institution's key.
        created: when it is signed.
        logged: where the record stands in the log; None while it waits for its batch.
        rounds_in_flight: for a withdrawal or a refusal, the rounds that were under way.
        models: for a withdrawal or a refusal, the models that contain the contribution.

    Raises:
        ConsentError: the parts do not belong together.
    """
    about: dict[str, Any] = {
        "action": receipt.action.value,
        "id": receipt.subject,
        "institution": receipt.institution,
        "receivedAt": receipt.received_at,
        "record": receipt.record,
        "recordDocument": parse(record),
        "seq": receipt.seq,
        "subjectRef": receipt.subject_ref,
    }
    if logged is not None:
        about["log"] = {
            "batch": base64.b64encode(logged.batch).decode("ascii"),
            "checkpoint": logged.checkpoint.to_bytes().decode("utf-8"),
            "index": logged.index,
            "inclusionPath": [item.hex() for item in logged.proof],
            "salt": logged.salt.hex(),
        }
    if rounds_in_flight:
        about["roundsInFlight"] = [{"round": item.round, "study": item.study} for item in rounds_in_flight]
    if models:
        about["models"] = [_model_document(item) for item in models]
    document = {
        "@context": list(CONTEXT),
        "credentialSchema": {"id": RECEIPT_SCHEMA_ID, "type": "JsonSchema"},
        "credentialSubject": about,
        "issuer": receipt.institution,
        "type": list(CREDENTIAL_TYPE),
        "validFrom": receipt.received_at,
    }
    data = canonical_bytes(add_proof(document, key, created=created))
    open_receipt(data, trust_guardian=True)
    return data


def open_receipt(data: bytes, *, authorities: Collection[str] = (), trust_guardian: bool = False) -> ReceiptCredential:
    """Verify and read a receipt credential, offline: its proof, the record in it, and the record's place in the log.

    Args:
        data: the document, in any spelling of its JSON.
        authorities: as for :func:`consent.rules.record.open_record`.
        trust_guardian: take the guardian's authority in the record on the institution's word, which took the record.

    Raises:
        ConsentError: whatever is wrong; its ``reason`` is the code.
    """
    received = receive(data, bytes_max=RECEIPT_BYTES_MAX)
    signer, created = verify_detached(
        received.proof, received.unsecured.get("@context"), received.content, received.config
    )
    refuse_nulls(received.unsecured, received.content)
    try:
        fields = ReceiptDocument.model_validate_json(received.content)
    except ValidationError as error:
        raise misfit(error) from error
    if fields.issuer != signer:
        raise _refused("its issuer is not who signed it", reason="issuer-not-signer")
    about = fields.about
    inner = received.unsecured["credentialSubject"]["recordDocument"]
    if trust_guardian:
        authorities = {*authorities, *_authority_of(inner)}
    record = open_record(canonical_bytes(inner), authorities=authorities)
    stated = (fields.issuer, about.institution, about.subject, about.record, about.action, about.seq)
    if (
        stated
        != (
            record.institution,
            record.institution,
            record.subject,
            record.digest,
            record.action,
            record.seq,
        )
        or fields.valid_from != about.received_at
    ):
        raise _refused("it does not match the record in it", reason="wrong-receipt")
    if record.action is Action.GRANT and (about.rounds_in_flight or about.models):
        raise _refused("only a withdrawal or a refusal lists rounds and models", reason="wrong-receipt")
    return ReceiptCredential(
        canonical=received.canonical,
        receipt=Receipt(
            institution=about.institution,
            subject_ref=about.subject_ref,
            subject=about.subject,
            record=about.record,
            action=about.action,
            seq=about.seq,
            received_at=format_instant(about.received_at),
        ),
        record=record,
        signed_at=created,
        place=None if about.log is None else _place(about.log, record, PublicKey.from_did(signer)),
        rounds_in_flight=tuple(RoundInFlight(item.study, item.round) for item in about.rounds_in_flight or ()),
        models=tuple(
            ModelMention(item.study, item.round, item.model, item.epsilon, item.delta) for item in about.models or ()
        ),
    )


def open_note(note: bytes, signer: PublicKey) -> SignedCheckpoint:
    """Verify a log's checkpoint and every cosignature on it, by whomever: a witness's name is its did:key.

    Raises:
        PeerError: a line does not verify.
    """
    text = note[:NOTE_BYTES_MAX].decode("utf-8", errors="replace")
    origin = text.partition("\n")[0]
    lines = text.partition("\n\n")[2].splitlines()[1:]
    names = [line.partition(" ")[2].partition(" ")[0] for line in lines]
    witnesses = {PublicKey.from_did(name) for name in names}
    return open_checkpoint(note, origin=origin, signer=signer, witnesses=witnesses)


def _place(log: LogFields, record: ConsentRecord, institution: PublicKey) -> LogPlace:
    try:
        batch = base64.b64decode(log.batch, validate=True)
    except ValueError as error:
        raise _refused("its batch is not base64", reason="malformed") from error
    path = tuple(bytes.fromhex(item) for item in log.inclusion_path)
    salt = bytes.fromhex(log.salt)
    try:
        checkpoint = open_note(log.checkpoint.encode("utf-8"), institution)
    except AccordError as error:
        raise _refused(error.message.rstrip("."), reason="wrong-checkpoint") from error
    try:
        commitments = open_batch(batch).commitments
        tree = checkpoint.checkpoint
        verify_inclusion(leaf=leaf_hash(batch), index=log.index, size=tree.size, proof=path, root=tree.root)
    except AccordError as error:
        raise _refused(error.message.rstrip("."), reason="wrong-inclusion") from error
    if commitment(salt, record.canonical).hex() not in commitments:
        raise _refused("the batch does not hold the record's commitment", reason="wrong-inclusion")
    return LogPlace(salt=salt, index=log.index, batch=batch, proof=path, checkpoint=checkpoint)


def _model_document(model: ModelMention) -> dict[str, Any]:
    return {
        "delta": plain_decimal(model.delta),
        "epsilon": plain_decimal(model.epsilon),
        "model": model.model,
        "round": model.round,
        "study": model.study,
    }


def _authority_of(document: Any) -> set[str]:
    about = document.get("credentialSubject") if isinstance(document, Mapping) else None
    authority = about.get("authority") if isinstance(about, Mapping) else None
    issuer = authority.get("issuer") if isinstance(authority, Mapping) else None
    return {issuer} if isinstance(issuer, str) else set()


def _refused(why: str, *, reason: str) -> RefusedRecordError:
    return RefusedRecordError(
        f"The receipt is refused: {why}.", remedy="Ask the institution for the receipt again.", reason=reason
    )
