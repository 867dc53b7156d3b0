"""The consent record: one JSON document that says what a person allows, refuses or withdraws, and that they signed.

It is a W3C Verifiable Credential 2.0 with an ``eddsa-jcs-2022`` proof. A person's records form a chain (``seq``,
``prev``), so none can be left out or exchanged unnoticed; only the newest counts. Rules kept here: bounded, then parsed
strictly, then canonicalised, then verified, and only then read; white space is free, hashes cover the canonical bytes;
decimals are strings and there are no nulls; the issuer controls the signing key; granting and refusing need the
subject's own key, withdrawing does not: the institution may attest it, so that a lost key traps nobody.

What a chain of records means at a given moment is decided in :mod:`consent.rules.decision`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from consent.rules.proof import add_proof, refused, verify_proof
from federation.errors import AccordError, PeerError
from federation.rules.canonical import canonical_bytes, parse, sha256_hex
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import Sha256Hex, describe, plain_decimal

CONTEXT: Final = ("https://www.w3.org/ns/credentials/v2", "https://w3id.org/accord/consent/v1")
TYPE: Final = ("VerifiableCredential", "AccordConsentRecord")
RECORD_BYTES_MAX: Final = 16 * 1024
SEQ_MAX: Final = 1_000_000
_CODES_MAX: Final = 32


class Mechanism(StrEnum):
    """Who speaks for the data: each ``consent`` is one subject's; a ``licence`` is the owner's, for a whole source."""

    CONSENT = "consent"
    LICENCE = "licence"


class Action(StrEnum):
    """What a record does."""

    GRANT = "grant"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant allows: DUO purposes, MONDO diseases, privacy loss per study at most, and until when."""

    purposes: tuple[str, ...]
    epsilon_max: Decimal
    delta_max: Decimal
    valid_until: datetime
    diseases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """A record whose proof has been verified (only :func:`open_record` makes one).

    ``digest`` is the SHA-256 of ``canonical``, hexadecimal: the next record's ``prev``. ``terms`` is there for a grant
    and only for a grant.
    """

    canonical: bytes
    digest: str
    issuer: str
    subject: str
    institution: str
    mechanism: Mechanism
    action: Action
    terms: Terms | None
    seq: int
    prev: str | None
    valid_from: datetime
    signed_at: datetime

    @property
    def attested(self) -> bool:
        """Whether the institution signed it on the subject's behalf (a withdrawal only)."""
        return self.issuer != self.subject


def build(
    *,
    subject: PublicKey,
    institution: PublicKey,
    action: Action,
    seq: int,
    prev: str | None,
    valid_from: datetime,
    terms: Terms | None = None,
    mechanism: Mechanism = Mechanism.CONSENT,
    issuer: PublicKey | None = None,
) -> dict[str, Any]:
    """The unsigned document of a record.

    Args:
        subject: the person's, or the device owner's, key.
        institution: who holds the data.
        action: what the record does; ``terms`` belong to a grant and only to a grant.
        seq: 1 for the first record of a chain, then one more each time.
        prev: the digest of the record before; None at ``seq`` 1.
        valid_from: from when it holds (a withdrawal or a refusal holds at once).
        terms: see :class:`Terms`.
        mechanism: consent or licence.
        issuer: who signs: the subject, unless the institution attests a withdrawal.

    Raises:
        ConsentError: the parts do not make a valid record.
    """
    about: dict[str, Any] = {
        "action": action.value,
        "id": subject.did,
        "institution": institution.did,
        "mechanism": mechanism.value,
        "seq": seq,
    }
    document: dict[str, Any] = {
        "@context": list(CONTEXT),
        "credentialSubject": about,
        "issuer": (issuer or subject).did,
        "type": list(TYPE),
        "validFrom": format_instant(valid_from),
    }
    if prev is not None:
        about["prev"] = prev
    if terms is not None:
        about["purposes"] = list(terms.purposes)
        about["epsilonMax"] = plain_decimal(terms.epsilon_max)
        about["deltaMax"] = plain_decimal(terms.delta_max)
        if terms.diseases:
            about["diseases"] = list(terms.diseases)
        document["validUntil"] = format_instant(terms.valid_until)
    _read(document)
    return document


def sign_record(document: Mapping[str, Any], key: PrivateKey, *, created: datetime) -> bytes:
    """Sign a document of :func:`build`; the record's canonical bytes."""
    return canonical_bytes(add_proof(document, key, created=created))


def open_record(data: bytes) -> ConsentRecord:
    """Verify and read a record from a stranger.

    Raises:
        ConsentError: always this type, whatever is wrong with it.
    """
    try:
        document = parse(data, max_bytes=RECORD_BYTES_MAX)
    except PeerError as error:
        raise refused(error.message.rstrip(".")) from error
    if not isinstance(document, dict):
        raise refused("it is not a JSON object")
    signer, created = verify_proof(document)
    fields = _read({name: value for name, value in document.items() if name != "proof"})
    if fields.issuer != signer.did:
        raise refused("its issuer is not who signed it")
    about = fields.about
    canonical = canonical_bytes(document)
    return ConsentRecord(
        canonical=canonical,
        digest=sha256_hex(canonical),
        issuer=fields.issuer,
        subject=about.subject,
        institution=about.institution,
        mechanism=about.mechanism,
        action=about.action,
        terms=fields.terms(),
        seq=about.seq,
        prev=about.prev,
        valid_from=fields.valid_from,
        signed_at=created,
    )


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


def _did(text: str) -> str:
    try:
        key = PublicKey.from_did(text)
    except AccordError as error:
        raise ValueError(error.message) from error
    if key.did != text:
        raise ValueError("the did:key has an ambiguous spelling")
    return text


_Instant = Annotated[datetime, BeforeValidator(_instant)]
_Plain = Annotated[Decimal, BeforeValidator(_decimal)]
_Did = Annotated[str, AfterValidator(_did)]
_Code = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,12}:[0-9]{7}$")]


class _Strict(BaseModel):
    # Strict: the canonical bytes are what was signed, so a value is read as it stands or not at all.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class _Subject(_Strict):
    subject: Annotated[_Did, Field(alias="id")]
    institution: _Did
    mechanism: Mechanism
    action: Action
    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    prev: Sha256Hex | None = None
    purposes: Annotated[tuple[_Code, ...], Field(min_length=1, max_length=_CODES_MAX)] | None = None
    diseases: Annotated[tuple[_Code, ...], Field(min_length=1, max_length=_CODES_MAX)] | None = None
    epsilon_max: Annotated[_Plain | None, Field(alias="epsilonMax")] = None
    delta_max: Annotated[_Plain | None, Field(alias="deltaMax")] = None


class _Document(_Strict):
    context: Annotated[
        tuple[Literal["https://www.w3.org/ns/credentials/v2"], Literal["https://w3id.org/accord/consent/v1"]],
        Field(alias="@context"),
    ]
    type: tuple[Literal["VerifiableCredential"], Literal["AccordConsentRecord"]]
    issuer: _Did
    valid_from: Annotated[_Instant, Field(alias="validFrom")]
    valid_until: Annotated[_Instant | None, Field(alias="validUntil")] = None
    about: Annotated[_Subject, Field(alias="credentialSubject")]

    def terms(self) -> Terms | None:
        """The grant's terms; None for a refusal or a withdrawal."""
        about = self.about
        if not (about.purposes and about.epsilon_max is not None and about.delta_max is not None and self.valid_until):
            return None
        return Terms(
            purposes=about.purposes,
            diseases=about.diseases or (),
            epsilon_max=about.epsilon_max,
            delta_max=about.delta_max,
            valid_until=self.valid_until,
        )


def _read(document: Mapping[str, Any]) -> _Document:
    """Check everything about an unsigned document that does not need a key."""
    try:
        fields = _Document.model_validate_json(canonical_bytes(document), strict=True)
    except ValidationError as error:
        raise refused(describe(error)) from error
    except PeerError as error:
        raise refused(error.message.rstrip(".")) from error
    if _has_null(document):
        raise refused("it holds a null")
    about = fields.about
    carried = (about.purposes, about.epsilon_max, about.delta_max, fields.valid_until)
    if about.action is Action.GRANT:
        _check_grant(fields)
    elif any(value is not None for value in (*carried, about.diseases)):
        raise refused(f"a {about.action.value} record carries no terms")
    if (about.seq == 1) != (about.prev is None):
        raise refused("the first record has no predecessor, every later one names its own")
    attested = about.action is Action.WITHDRAW and fields.issuer == about.institution
    if fields.issuer != about.subject and not attested:
        raise refused("only the subject can grant or refuse, and only the institution can attest a withdrawal")
    return fields


def _check_grant(fields: _Document) -> None:
    terms = fields.terms()
    if terms is None:
        raise refused("a grant names purposes, epsilonMax, deltaMax and validUntil")
    if terms.valid_until <= fields.valid_from:
        raise refused("it ends before it begins")
    if terms.epsilon_max <= 0 or not 0 < terms.delta_max < 1:
        raise refused("epsilonMax must be above 0, deltaMax between 0 and 1")
    if len(set(terms.purposes)) != len(terms.purposes) or len(set(terms.diseases)) != len(terms.diseases):
        raise refused("a purpose or a disease appears twice")


def _has_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_null(item) for item in value)
    return value is None
