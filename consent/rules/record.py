"""The consent record: one JSON document that says what a person allows, refuses or withdraws, and that they signed.

It is a W3C Verifiable Credential 2.0 with an ``eddsa-jcs-2022`` proof, and a consent record of ISO/IEC TS 27560 in the
terms of the Data Privacy Vocabulary. A person's records form a chain (``seq``, ``prev``; :mod:`consent.rules.chain`),
so none can be left out or exchanged unnoticed; only the newest counts. Rules kept here: bounded, then parsed strictly,
then canonicalised, then verified, and only then read; white space is free, hashes cover the canonical bytes; decimals
are strings and there are no nulls; the issuer controls the signing key; granting needs the subject's own key, or a
guardian's with an authority that is in force; withdrawing does not: the institution may attest it, so that a lost key
traps nobody. What the institution attests only ever leads towards no.

What a chain of records means at a given moment is decided in :mod:`consent.rules.decision`.
"""

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from consent.rules.guardian import Guardian, check_guardian, open_authority
from consent.rules.proof import add_proof, verify_detached
from consent.rules.reading import receive, refuse_nulls
from consent.rules.refusal import refused
from consent.rules.statement import (
    DataPermit,
    HipaaAuthorization,
    Statement,
    hipaa_document,
    permit_document,
)
from consent.rules.terms import Action, Mechanism, Terms
from consent.rules.wire import ANY_APPROVED, CONTEXT, SCHEMA_ID, SEQ_MAX, TYPE, RecordDocument, read_record
from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes, sha256_hex
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.wire import plain_decimal

__all__ = [
    "CONTEXT",
    "RECORD_BYTES_MAX",
    "SEQ_MAX",
    "TYPE",
    "Action",
    "ConsentRecord",
    "Mechanism",
    "Statement",
    "Terms",
    "build",
    "next_key_hash",
    "open_record",
    "sign_record",
]

RECORD_BYTES_MAX: Final = 16 * 1024
SKEW_MAX: Final = timedelta(minutes=10)
"""How far a record's signing time may lie ahead of the reader's clock."""


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """A record whose proof has been verified (only :func:`open_record` makes one).

    ``digest`` is the SHA-256 of ``canonical``, hexadecimal: the next record's ``prev``. ``terms`` and ``statement`` are
    there for a grant; a refusal may carry the statement that was refused. ``guardian`` is there if a guardian signed.
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
    statement: Statement | None = None
    guardian: Guardian | None = None
    next_key_hash: str | None = None
    hipaa: HipaaAuthorization | None = None
    permit: DataPermit | None = None

    @property
    def attested(self) -> bool:
        """Whether the institution signed it on the subject's behalf."""
        return self.issuer == self.institution != self.subject


def next_key_hash(did: str) -> str:
    """What ``nextKeyHash`` holds of the next key: SHA-256 of its did:key, hexadecimal."""
    return sha256_hex(did.encode("utf-8"))


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
    statement: Statement | None = None,
    guardian: Mapping[str, Any] | None = None,
    next_key_hash: str | None = None,
    hipaa: HipaaAuthorization | None = None,
    permit: DataPermit | None = None,
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
        mechanism: who speaks for the data.
        issuer: who signs: the subject, unless the institution attests a withdrawal or a guardian signs.
        statement: what the person was told; a grant without one gets the institution's standard statement.
        guardian: the guardian's authority (:func:`consent.rules.guardian.issue_authority`); the guardian is the issuer.
        next_key_hash: the commitment to the next key (:func:`next_key_hash`).
        hipaa: the elements of an authorization under HIPAA; belongs to that mechanism's grants.
        permit: the data permit; belongs to the grants of ``ehds-permit``.

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
    signer = (issuer or subject).did
    if guardian is not None:
        about["authority"] = dict(guardian)
        signer = str(guardian.get("credentialSubject", {}).get("id", ""))
    document: dict[str, Any] = {
        "@context": list(CONTEXT),
        "credentialSchema": {"id": SCHEMA_ID, "type": "JsonSchema"},
        "credentialSubject": about,
        "issuer": signer,
        "type": list(TYPE),
        "validFrom": format_instant(valid_from),
    }
    if action is Action.GRANT and statement is None:
        statement = standard_statement(mechanism, institution.did)
    optional = {"prev": prev, "nextKeyHash": next_key_hash, **_parts_document(statement, hipaa, permit)}
    about |= {name: value for name, value in optional.items() if value is not None}
    if terms is not None:
        about |= _terms_document(terms)
        document["validUntil"] = format_instant(terms.valid_until)
    _check_built(document, guardian, subject.did)
    return document


def _parts_document(
    statement: Statement | None, hipaa: HipaaAuthorization | None, permit: DataPermit | None
) -> dict[str, Any]:
    return {
        "statement": None if statement is None else statement.to_document(),
        "hipaa": None if hipaa is None else hipaa_document(hipaa),
        "permit": None if permit is None else permit_document(permit),
    }


def _check_built(document: Mapping[str, Any], guardian: Mapping[str, Any] | None, subject: str) -> None:
    try:
        fields, _ = _read(document, canonical_bytes(document))
    except PeerError as error:
        raise refused(error.message.rstrip("."), reason="malformed") from error
    if guardian is not None:
        # Who may lend authority is the reader's to say; here it need only be whole.
        held = open_authority(guardian, subject=subject, trusted=(str(guardian["issuer"]),))
        check_guardian(held, signed_at=held.valid_from, valid_until=fields.valid_until)


def standard_statement(mechanism: Mechanism, institution: str) -> Statement:
    """What a grant states if the institution says nothing of its own."""
    basis = _LEGAL_BASIS.get(mechanism)
    if basis is None:
        return Statement.for_institution(institution)
    return Statement.for_institution(institution, legal_basis=basis, consent=False)


_LEGAL_BASIS: Final[Mapping[Mechanism, tuple[str, ...]]] = {
    Mechanism.DPA: ("dpv:DataProcessorContract",),
    Mechanism.LICENCE: ("dpv:Contract",),
    Mechanism.EHDS_PERMIT: ("eu-gdpr:A6-1-e", "eu-gdpr:A9-2-j"),
}


def sign_record(document: Mapping[str, Any], key: PrivateKey, *, created: datetime) -> bytes:
    """Sign a document of :func:`build`; the record's canonical bytes."""
    return canonical_bytes(add_proof(document, key, created=created))


def open_record(
    data: bytes,
    *,
    authorities: Collection[str] = (),
    now: datetime | None = None,
    known: Container[str] = (),
) -> ConsentRecord:
    """Verify and read a record from a stranger.

    Args:
        data: the document, in any spelling of its JSON.
        authorities: dids, beside the institution's own, whose word about guardians counts.
        now: the reader's clock; with it a record that was signed in the future is refused.
        known: dids whose keys the caller found strong before (:func:`consent.rules.signature.strong_point`).

    Raises:
        ConsentError: always this type, whatever is wrong with it; its ``reason`` is the code.
    """
    received = receive(data, bytes_max=RECORD_BYTES_MAX)
    unsecured, content, canonical = received.unsecured, received.content, received.canonical
    signer, created = verify_detached(received.proof, unsecured.get("@context"), content, received.config, known=known)
    fields, terms = _read(unsecured, content)
    if fields.issuer != signer:
        raise refused("its issuer is not who signed it", reason="issuer-not-signer")
    about = fields.about
    guardian = None
    if about.authority is not None:
        trusted = {about.institution, *authorities}
        guardian = open_authority(unsecured["credentialSubject"]["authority"], subject=about.subject, trusted=trusted)
        check_guardian(
            guardian, signed_at=created, valid_until=fields.valid_until if about.action is Action.GRANT else None
        )
    if now is not None and created > now + SKEW_MAX:
        raise refused(f"it was signed in the future, on {format_instant(created)}", reason="future-time")
    return ConsentRecord(
        canonical=canonical,
        digest=sha256_hex(canonical),
        issuer=fields.issuer,
        subject=about.subject,
        institution=about.institution,
        mechanism=about.mechanism,
        action=about.action,
        terms=terms,
        seq=about.seq,
        prev=about.prev,
        valid_from=fields.valid_from,
        signed_at=created,
        statement=about.statement,
        guardian=guardian,
        next_key_hash=about.next_key_hash,
        hipaa=about.hipaa,
        permit=about.permit,
    )


def _terms_document(terms: Terms) -> dict[str, Any]:
    document: dict[str, Any] = {
        "codeHash": ANY_APPROVED if terms.code_hash is None else terms.code_hash,
        "deltaMax": plain_decimal(terms.delta_max),
        "epsilonMax": plain_decimal(terms.epsilon_max),
        "purposes": list(terms.purposes),
    }
    if terms.diseases:
        document["diseases"] = list(terms.diseases)
    if terms.conditions:
        document["conditions"] = {code: list(values) for code, values in terms.conditions.items()}
    if terms.rounds_max is not None:
        document["maxRounds"] = terms.rounds_max
    return document


def _read(document: Mapping[str, Any], content: bytes) -> tuple[RecordDocument, Terms | None]:
    """Check everything about an unsigned document that does not need a key; ``content`` is its canonical bytes."""
    refuse_nulls(document, content)
    if document.get("@context") != list(CONTEXT):
        raise refused("its context is not the context of a consent record", reason="wrong-context")
    fields = read_record(content)
    about = fields.about
    if (about.seq == 1) != (about.prev is None):
        raise refused("the first record has no predecessor, every later one names its own", reason="wrong-chain-fields")
    _check_issuer(fields)
    if about.action is not Action.GRANT:
        _check_no_terms(fields)
        return fields, None
    return fields, _granted(fields)


def _check_issuer(fields: RecordDocument) -> None:
    about, issuer = fields.about, fields.issuer
    if about.authority is not None:
        if issuer != about.authority.about.guardian or issuer == about.subject:
            raise refused("it carries an authority and is not by that guardian", reason="wrong-authority")
    elif issuer == about.subject:
        return
    elif issuer == about.institution:
        attestable = Action.REFUSE if about.mechanism is Mechanism.EHDS_OPTOUT else Action.WITHDRAW
        if about.action is not attestable:
            why = "only the subject can grant or refuse; what the institution attests leads towards no"
            raise refused(why, reason=f"attested-{about.action.value}")
        if about.next_key_hash is not None:
            raise refused("only the subject can name their next key", reason="attested-next-key")
    else:
        why = "only the subject, or a guardian with an authority, can sign it"
        raise refused(why, reason="no-authority")


def _granted(fields: RecordDocument) -> Terms:
    about, terms = fields.about, fields.terms()
    if about.mechanism is Mechanism.EHDS_OPTOUT:
        raise refused("an opt-out never grants", reason="wrong-terms")
    if terms is None or about.statement is None:
        why = "a grant names purposes, epsilonMax, deltaMax, codeHash, validUntil and its statement"
        raise refused(why, reason="missing-terms")
    if terms.valid_until <= fields.valid_from:
        raise refused("it ends before it begins", reason="wrong-terms")
    if terms.epsilon_max <= 0 or not 0 < terms.delta_max < 1:
        raise refused("epsilonMax must be above 0, deltaMax between 0 and 1", reason="wrong-terms")
    if len(set(terms.purposes)) != len(terms.purposes) or len(set(terms.diseases)) != len(terms.diseases):
        raise refused("a purpose or a disease appears twice", reason="wrong-terms")
    if not set(terms.conditions) <= set(terms.purposes):
        raise refused("a condition belongs to no purpose", reason="wrong-terms")
    if (about.hipaa is None) == (about.mechanism is Mechanism.HIPAA_AUTHORIZATION):
        raise refused("the elements of 45 CFR 164.508(c) belong to a HIPAA authorization", reason="missing-terms")
    if (about.permit is None) == (about.mechanism is Mechanism.EHDS_PERMIT):
        raise refused("the permit's number, body and user belong to an EHDS permit", reason="missing-terms")
    return terms


def _check_no_terms(fields: RecordDocument) -> None:
    about = fields.about
    carried = (
        about.purposes,
        about.diseases,
        about.conditions,
        about.epsilon_max,
        about.delta_max,
        about.code_hash,
        about.max_rounds,
        about.hipaa,
        about.permit,
        fields.valid_until,
        about.statement if about.action is Action.WITHDRAW else None,
    )
    if any(value is not None for value in carried):
        raise refused(f"a {about.action.value} record carries no terms", reason="wrong-terms")
