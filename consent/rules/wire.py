"""The form of a consent record, a guardian's authority and a receipt on the wire: every field, its type, its bounds.

Only form is checked here; what the fields mean together is :mod:`consent.rules.record`'s to decide. The JSON Schema in
the documentation is made from these classes (:func:`json_schema`).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema

from consent.rules.refusal import RefusedRecordError, refused
from consent.rules.statement import STRICT, DataPermit, Did, Digest, HipaaAuthorization, Statement, Words
from consent.rules.terms import Action, Mechanism, Terms
from federation.errors import AccordError, PeerError
from federation.rules.canonical import INTEGER_MAX, canonical_bytes
from federation.rules.checkpoint import NOTE_BYTES_MAX
from federation.rules.instant import parse_instant
from federation.rules.merkle import PROOF_HASHES_MAX
from federation.rules.wire import describe, plain_decimal

CONTEXT: Final = ("https://www.w3.org/ns/credentials/v2", "https://w3id.org/accord/consent/v2")
SCHEMA_ID: Final = "https://w3id.org/accord/consent/v2/record.schema.json"
RECEIPT_SCHEMA_ID: Final = "https://w3id.org/accord/consent/v2/receipt.schema.json"
TYPE: Final = ("VerifiableCredential", "AccordConsentRecord")
ANY_APPROVED: Final = "any-approved"
SEQ_MAX: Final = 1_000_000
ROUNDS_MAX: Final = 1000
MENTIONS_MAX: Final = 1000
_CODES_MAX: Final = 32
_DECIMAL_PATTERN: Final = r"^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$"


def _instant(text: Any) -> datetime:
    if not isinstance(text, str):
        raise ValueError("write the instant as a text")
    try:
        return parse_instant(text)
    except AccordError as error:
        raise ValueError(error.message) from error


def _decimal(text: Any) -> Decimal:
    digits_max = 24
    if not isinstance(text, str) or not 0 < len(text) <= digits_max or not set(text) <= set("0123456789."):
        raise ValueError("write the number as a plain decimal text")
    try:
        value = Decimal(text)
    except ArithmeticError as error:
        raise ValueError("write the number as a plain decimal text") from error
    if plain_decimal(value) != text:
        raise ValueError("write the number in its shortest form")
    return value


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"}),
]
Plain = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    WithJsonSchema({"type": "string", "pattern": _DECIMAL_PATTERN, "maxLength": 24}),
]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,12}:[0-9]{7}$")]
Codes = Annotated[tuple[Code, ...], Field(min_length=1, max_length=_CODES_MAX)]
StudyName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Values = Annotated[tuple[Words, ...], Field(min_length=1, max_length=_CODES_MAX)]
Context = Annotated[
    tuple[Literal["https://www.w3.org/ns/credentials/v2"], Literal["https://w3id.org/accord/consent/v2"]],
    Field(alias="@context"),
]


class Strict(BaseModel):
    """Base of the documents here: frozen, strict, nothing extra, names in camel case."""

    model_config = STRICT | ConfigDict(frozen=True)


class SchemaReference(Strict):
    """Which version of the schema the document follows (W3C VC 2.0, section 4.11)."""

    id: Literal["https://w3id.org/accord/consent/v2/record.schema.json"]
    type: Literal["JsonSchema"]


class Proof(Strict):
    """A Data Integrity proof; :mod:`consent.rules.proof` checks it before it is read here."""

    context: Context
    type: Literal["DataIntegrityProof"]
    cryptosuite: Literal["eddsa-jcs-2022"]
    created: Instant
    proof_purpose: Literal["assertionMethod"]
    proof_value: Annotated[str, StringConstraints(pattern=r"^z[1-9A-HJ-NP-Za-km-z]{64,88}$")]
    verification_method: Annotated[
        str, StringConstraints(pattern=r"^did:key:(z6Mk[1-9A-HJ-NP-Za-km-z]+)#z6Mk[1-9A-HJ-NP-Za-km-z]+$")
    ]


class AuthorityAbout(Strict):
    """Whose key speaks for whose, until the day of majority."""

    guardian: Annotated[Did, Field(alias="id")]
    ward: Did
    majority: Instant


class AuthorityDocument(Strict):
    """A guardian's authority (:mod:`consent.rules.guardian`)."""

    context: Context
    type: tuple[Literal["VerifiableCredential"], Literal["AccordGuardianAuthority"]]
    issuer: Did
    valid_from: Instant
    valid_until: Instant
    about: Annotated[AuthorityAbout, Field(alias="credentialSubject")]
    proof: Proof


class RecordAbout(Strict):
    """Everything a record says about its subject."""

    subject: Annotated[Did, Field(alias="id")]
    institution: Did
    mechanism: Mechanism
    action: Action
    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    prev: Digest | None = None
    next_key_hash: Digest | None = None
    purposes: Codes | None = None
    diseases: Codes | None = None
    conditions: Annotated[dict[Code, Values], Field(min_length=1, max_length=_CODES_MAX)] | None = None
    epsilon_max: Plain | None = None
    delta_max: Plain | None = None
    code_hash: Digest | Literal["any-approved"] | None = None
    max_rounds: Annotated[int, Field(ge=1, le=ROUNDS_MAX)] | None = None
    statement: Statement | None = None
    hipaa: HipaaAuthorization | None = None
    permit: DataPermit | None = None
    authority: AuthorityDocument | None = None


class RecordDocument(Strict):
    """A consent record without its proof."""

    context: Context
    credential_schema: SchemaReference
    type: tuple[Literal["VerifiableCredential"], Literal["AccordConsentRecord"]]
    issuer: Did
    valid_from: Instant
    valid_until: Instant | None = None
    about: Annotated[RecordAbout, Field(alias="credentialSubject")]

    def terms(self) -> Terms | None:
        """The grant's terms; None if any that a grant must name is missing."""
        about = self.about
        if (
            about.purposes is None
            or about.epsilon_max is None
            or about.delta_max is None
            or about.code_hash is None
            or self.valid_until is None
        ):
            return None
        return Terms(
            purposes=about.purposes,
            diseases=about.diseases or (),
            conditions=about.conditions or {},
            epsilon_max=about.epsilon_max,
            delta_max=about.delta_max,
            valid_until=self.valid_until,
            code_hash=None if about.code_hash == ANY_APPROVED else about.code_hash,
            rounds_max=about.max_rounds,
        )


class SignedRecordDocument(RecordDocument):
    """A consent record, whole: what a file holds."""

    proof: Proof


class LogFields(Strict):
    """Where a record stands in the log; ``batch`` is base64, ``checkpoint`` a C2SP signed note."""

    salt: Digest
    index: Annotated[int, Field(ge=0, le=INTEGER_MAX)]
    batch: Annotated[str, StringConstraints(max_length=1 << 20)]
    inclusion_path: Annotated[tuple[Digest, ...], Field(max_length=PROOF_HASHES_MAX)]
    checkpoint: Annotated[str, StringConstraints(max_length=NOTE_BYTES_MAX)]


class RoundFields(Strict):
    """One round of one study; 0 is the comparison of people before its first round."""

    study: StudyName
    round: Annotated[int, Field(ge=0, le=ROUNDS_MAX)]


class ModelFields(RoundFields):
    """One model, by its SHA-256, and the privacy loss that its study is bound to."""

    round: Annotated[int, Field(ge=1, le=ROUNDS_MAX)]
    model: Digest
    epsilon: Plain
    delta: Plain


class ReceiptAbout(Strict):
    """Everything a receipt says; ``recordDocument`` is the record itself."""

    subject: Annotated[Did, Field(alias="id")]
    subject_ref: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    institution: Did
    record: Digest
    record_document: dict[str, Any]
    action: Action
    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    received_at: Instant
    log: LogFields | None = None
    rounds_in_flight: Annotated[tuple[RoundFields, ...], Field(min_length=1, max_length=MENTIONS_MAX)] | None = None
    models: Annotated[tuple[ModelFields, ...], Field(min_length=1, max_length=MENTIONS_MAX)] | None = None


class ReceiptSchemaReference(Strict):
    """Which version of the receipt's schema the document follows."""

    id: Literal["https://w3id.org/accord/consent/v2/receipt.schema.json"]
    type: Literal["JsonSchema"]


class ReceiptDocument(Strict):
    """A receipt credential without its proof (:mod:`consent.rules.receipt`)."""

    context: Context
    credential_schema: ReceiptSchemaReference
    type: tuple[Literal["VerifiableCredential"], Literal["AccordConsentReceipt"]]
    issuer: Did
    valid_from: Instant
    about: Annotated[ReceiptAbout, Field(alias="credentialSubject")]


class SignedReceiptDocument(ReceiptDocument):
    """A receipt credential, whole: what a file holds."""

    proof: Proof


def read_record(canonical: bytes) -> RecordDocument:
    """Read a record's canonical bytes (without its proof).

    Raises:
        ConsentError: a field is missing, unknown, mistyped, null or out of bounds; every such field is named.
    """
    try:
        return RecordDocument.model_validate_json(canonical)
    except ValidationError as error:
        raise misfit(error) from error


def read_authority(document: Mapping[str, Any]) -> AuthorityDocument:
    """Read a guardian's authority, as parsed.

    Raises:
        ConsentError: as :func:`read_record`.
    """
    try:
        return AuthorityDocument.model_validate_json(canonical_bytes(document))
    except ValidationError as error:
        raise misfit(error) from error
    except PeerError as error:
        raise refused(error.message.rstrip("."), reason="malformed") from error


def misfit(error: ValidationError) -> RefusedRecordError:
    """What a document of the wrong form is refused with."""
    unknown = any(item["type"] in {"extra_forbidden", "unexpected_keyword_argument"} for item in error.errors())
    return refused(describe(error), reason="unknown-field" if unknown else "malformed")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a whole, signed record, made from the classes above."""
    return _schema(SignedRecordDocument, SCHEMA_ID)


def receipt_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a whole, signed receipt credential."""
    return _schema(SignedReceiptDocument, RECEIPT_SCHEMA_ID)


def _schema(kind: type[Strict], name: str) -> dict[str, Any]:
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name, **schema}
