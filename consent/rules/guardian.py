"""A guardian speaks for somebody who cannot: a minor, until the day of majority, or a person under guardianship.

The authority is a credential of its own (W3C VC 2.0, ``eddsa-jcs-2022``) and travels inside the record: the
institution, or another authority that the reader trusts by name, says that the guardian's key speaks for the subject's
key, and when that ends. Whoever reads a record passes the names it trusts; nobody else's word counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from consent.rules.proof import add_proof, verify_proof
from consent.rules.refusal import refused
from consent.rules.wire import CONTEXT, AuthorityDocument, read_authority
from federation.errors import ConsentError
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey, PublicKey

AUTHORITY_TYPE: Final = ("VerifiableCredential", "AccordGuardianAuthority")


@dataclass(frozen=True, slots=True)
class Guardian:
    """Who signed for the subject, on whose word, and until when that holds.

    ``majority``: the day on which the subject speaks for themselves; nothing a guardian granted counts from then on.
    """

    did: str
    authority: str
    valid_from: datetime
    majority: datetime


def issue_authority(
    *, issuer: PrivateKey, guardian: PublicKey, ward: PublicKey, valid_from: datetime, majority: datetime
) -> dict[str, Any]:
    """The signed credential that lets ``guardian`` speak for ``ward`` from ``valid_from`` until ``majority``.

    Raises:
        ConsentError: it would end before it begins, or somebody would be their own guardian.
    """
    document = {
        "@context": list(CONTEXT),
        "credentialSubject": {"id": guardian.did, "majority": format_instant(majority), "ward": ward.did},
        "issuer": issuer.public.did,
        "type": list(AUTHORITY_TYPE),
        "validFrom": format_instant(valid_from),
        "validUntil": format_instant(majority),
    }
    signed = add_proof(document, issuer, created=valid_from)
    _check(read_authority(signed))
    return signed


def open_authority(document: Mapping[str, Any], *, subject: str, trusted: Collection[str]) -> Guardian:
    """Verify an authority credential that stands inside a record about ``subject``.

    Args:
        document: the credential, as parsed.
        subject: whom the record is about.
        trusted: the dids whose word counts: the record's institution, and the reader's own list.

    Raises:
        ConsentError: it does not verify, is about somebody else, or is by nobody trusted.
    """
    try:
        fields = read_authority(document)
        signer, _ = verify_proof(document)
    except ConsentError as error:
        raise refused(f"the guardian's authority does not verify: {error.message}", reason="wrong-authority") from error
    if fields.issuer != signer.did:
        raise refused("the guardian's authority is not signed by its issuer", reason="wrong-authority")
    if fields.issuer not in trusted:
        raise refused(
            "the guardian's authority is not by the institution or a named authority", reason="wrong-authority"
        )
    if fields.about.ward != subject:
        raise refused("the guardian's authority is for somebody else", reason="wrong-authority")
    _check(fields)
    return Guardian(
        did=fields.about.guardian,
        authority=fields.issuer,
        valid_from=fields.valid_from,
        majority=fields.about.majority,
    )


def check_guardian(guardian: Guardian, *, signed_at: datetime, valid_until: datetime | None) -> None:
    """What a guardian may sign, and until when it may hold (``valid_until``: a grant's end, else None).

    Raises:
        ConsentError: signed outside the authority's time, or a grant that would outlive it.
    """
    if not guardian.valid_from <= signed_at < guardian.majority:
        raise refused("the guardian's authority was not in force when it was signed", reason="expired-authority")
    if valid_until is not None and valid_until > guardian.majority:
        raise refused("a guardian's grant ends on the day of majority at the latest", reason="beyond-majority")


def _check(fields: AuthorityDocument) -> None:
    if fields.about.guardian == fields.about.ward:
        raise refused("nobody is their own guardian", reason="wrong-authority")
    if not fields.valid_from < fields.about.majority == fields.valid_until:
        raise refused("the guardian's authority ends on the day of majority, after it begins", reason="wrong-authority")
