"""An optional gesture on the person's device (a finger, a face, a PIN) that is bound to the very document they sign.

The passkey's challenge is the SHA-256 of the document's canonical bytes, so that the gesture proves that this person
confirmed this text on this device. It is stored beside the record as evidence and never replaces the record's own
signature. Source: W3C Web Authentication Level 3, sections 5.1.3, 5.1.4 and 7.
"""

import ipaddress
import json
from typing import Any, Final
from urllib.parse import urlsplit

from sqlmodel import col, select
from starlette.requests import Request
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from consent.web.sessions import SignedIn
from consent.web.state import Web, public_origin, web_of
from consent.web.tables import WebPasskey
from federation.errors import ConsentError
from federation.rules.canonical import tagged_hash
from federation.rules.instant import format_instant
from federation.storage.database import read, write

_CHALLENGE: Final = "passkey"


def relying_party(request: Request) -> str | None:
    """The name that passkeys of this site are bound to; None where it has none (an address is no name)."""
    host = urlsplit(public_origin(request)).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host or None
    return None


def gesture_options(request: Request, who: SignedIn, document_hash: str) -> dict[str, Any]:
    """What the browser should do next: ``get`` a gesture for the document, or ``create`` a passkey first.

    Raises:
        ConsentError: this site has no name for passkeys, or the document was not handed out to this person.
    """
    web, party = web_of(request), _party(request)
    if web.store.handed_out(document_hash, who.ref) is None:
        raise _refused("this is not the document that was shown to you")
    known = _credentials(web, who.ref)
    if known:
        asked = generate_authentication_options(
            rp_id=party,
            challenge=bytes.fromhex(document_hash),
            allow_credentials=[PublicKeyCredentialDescriptor(base64url_to_bytes(row.credential)) for row in known],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return {"kind": "get", "options": json.loads(options_to_json(asked))}
    made = generate_registration_options(
        rp_id=party,
        rp_name=web.settings.name,
        user_name=web.settings.name,
        user_id=tagged_hash("web-passkey-user", who.ref.encode()),
        challenge=web.sessions.challenge(_CHALLENGE, who.ref).encode("ascii"),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED, user_verification=UserVerificationRequirement.REQUIRED
        ),
    )
    return {"kind": "create", "options": json.loads(options_to_json(made))}


def keep_passkey(request: Request, who: SignedIn, credential: dict[str, Any]) -> None:
    """Verify a passkey that was just made, and keep its public key.

    Raises:
        ConsentError: it does not verify.
    """
    web = web_of(request)
    challenge = _challenge_of(credential)
    if not web.sessions.answered(challenge.decode("ascii", errors="replace"), _CHALLENGE, who.ref):
        raise _refused("it answers no question that was asked here")
    try:
        made = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=_party(request),
            expected_origin=public_origin(request),
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise _refused("it does not verify") from error
    with write(web.store.engine) as session:
        session.add(
            WebPasskey(
                ref=who.ref,
                credential=bytes_to_base64url(made.credential_id),
                public_key=made.credential_public_key,
                sign_count=made.sign_count,
                made_at=format_instant(web.clock()),
            )
        )


def check_gesture(request: Request, who: SignedIn, gesture: dict[str, Any], document_hash: str) -> WebPasskey:
    """Verify a gesture for a document; what is to be stored as evidence beside the record.

    Raises:
        ConsentError: it does not verify, is for another document, or by an unknown passkey.
    """
    web = web_of(request)
    rows = {row.credential: row for row in _credentials(web, who.ref)}
    row = rows.get(str(gesture.get("id")))
    if row is None:
        raise _refused("the passkey is not known here")
    try:
        verified = verify_authentication_response(
            credential=gesture,
            expected_challenge=bytes.fromhex(document_hash),
            expected_rp_id=_party(request),
            expected_origin=public_origin(request),
            credential_public_key=row.public_key,
            credential_current_sign_count=row.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise _refused("the gesture does not verify") from error
    return WebPasskey(
        ref=who.ref,
        credential=row.credential,
        public_key=row.public_key,
        sign_count=verified.new_sign_count,
        evidence=json.dumps(gesture, sort_keys=True),
        made_at=format_instant(web.clock()),
    )


def keep_gesture(web: Web, evidence: WebPasskey, digest: str) -> None:
    """Store a verified gesture beside the record that it confirmed."""
    with write(web.store.engine) as session:
        evidence.digest = digest
        session.add(evidence)
        query = select(WebPasskey).where(
            col(WebPasskey.ref) == evidence.ref,
            col(WebPasskey.credential) == evidence.credential,
            col(WebPasskey.digest).is_(None),
        )
        for row in session.exec(query):
            row.sign_count = evidence.sign_count
            session.add(row)


def gesture_for(web: Web, digest: str) -> WebPasskey | None:
    """The evidence that is stored beside a record, if any."""
    with read(web.store.engine) as session:
        return session.exec(select(WebPasskey).where(col(WebPasskey.digest) == digest)).first()


def _credentials(web: Web, ref: str) -> list[WebPasskey]:
    with read(web.store.engine) as session:
        query = select(WebPasskey).where(col(WebPasskey.ref) == ref, col(WebPasskey.digest).is_(None))
        return list(session.exec(query))


def _party(request: Request) -> str:
    party = relying_party(request)
    if party is None:
        raise _refused("this site is reached by an address, and passkeys need a name")
    return party


def _challenge_of(credential: dict[str, Any]) -> bytes:
    try:
        client_data = json.loads(base64url_to_bytes(credential["response"]["clientDataJSON"]))
        return base64url_to_bytes(client_data["challenge"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused("it cannot be read") from error


def _refused(why: str) -> ConsentError:
    return ConsentError(f"The passkey is refused: {why}.", remedy="Sign without it; it is never required.")
