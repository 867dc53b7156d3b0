"""From answers to a document, and from a signed document to a receipt.

Rules kept: the server makes the document and the person's own key signs it, elsewhere; only a document that was handed
out to this very person is taken back, so that nothing of it can have been changed on the way; every purpose is answered
by itself, and nothing is granted that was not answered with yes; the registry decides whether the record continues the
person's chain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from consent.registry import LICENCE_REF
from consent.rules.proof import unsigned_proof
from consent.rules.receipt import Receipt
from consent.rules.record import (
    RECORD_BYTES_MAX,
    Action,
    Mechanism,
    Terms,
    build,
    open_record,
    standard_statement,
)
from consent.rules.refusal import refused
from consent.rules.statement import Statement, notice_of
from consent.web.request import notice_text
from consent.web.sessions import SignedIn
from consent.web.state import Web
from consent.web.store import Draft, Notice
from federation.errors import ConsentError
from federation.rules.canonical import canonical_bytes, parse, sha256_hex
from federation.rules.keys import PublicKey

CONSENT_RECORD: Final = "dpv:ConsentRecord"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document to be signed, its proof without a value, and the SHA-256 of the document's canonical bytes."""

    document: dict[str, Any]
    config: dict[str, Any]
    hash: str
    action: Action


class OtherKeyError(ConsentError):
    """Another key speaks for this person: a new one can follow only a withdrawal."""


def prepare_answer(
    web: Web,
    who: SignedIn,
    *,
    did: str,
    notice: Notice,
    language: str,
    choices: Mapping[str, bool],
    ward: str | None = None,
) -> Prepared:
    """The document for a person's answers: a grant, or a refusal if no answer allows anything.

    Where a guardian speaks, ``did`` is the guardian's key, and ``ward`` a key for the person, who has none of their own
    yet (nobody needs to hold it); once the person has a record, its key stands for them and ``ward`` is not looked at.

    Raises:
        ConsentError: a purpose has no answer, the key is weak, or another key speaks for this person.
    """
    key = PublicKey.from_did(did)
    now = web.registry.now()
    speaker = _speaker(web, who.ref, key, ward, now)
    seq, prev = _next(web, who.ref, speaker.subject)
    try:
        codes, diseases = notice.asked.granted(choices)
    except ValueError as error:
        raise ConsentError(f"The answers are not complete: {error}.", remedy="Answer every purpose.") from error
    until = _whole_seconds(now) + timedelta(days=notice.asked.valid_days)
    terms = Terms(
        purposes=codes,
        diseases=diseases,
        epsilon_max=notice.asked.epsilon_max,
        delta_max=notice.asked.delta_max,
        valid_until=until if speaker.until is None else min(until, speaker.until),
        conditions={code: values for code, values in notice.asked.conditions.items() if code in codes},
    )
    action = Action.GRANT if codes else Action.REFUSE
    document = build(
        subject=speaker.subject,
        guardian=speaker.authority,
        institution=web.registry.institution,
        action=action,
        seq=seq,
        prev=prev,
        valid_from=now,
        terms=terms if codes else None,
        mechanism=notice.asked.mechanism,
        statement=statement(web, notice, language),
    )
    draft = Draft(who.ref, notice.request, notice.version, language, dict(choices))
    return _hand_out(web, key, document, draft, action, now)


def prepare_withdrawal(web: Web, who: SignedIn, *, did: str) -> Prepared:
    """The document of a withdrawal that the person's own key signs.

    Raises:
        ConsentError: nothing is known of this person, or another key speaks for them (they can withdraw without one).
    """
    key = PublicKey.from_did(did)
    guardian = web.guardians.of(who.ref)
    if (web.store.did_of(who.ref) if guardian is None else guardian.did) != did:
        raise OtherKeyError("Another key speaks here.", remedy="Withdraw without a key: being signed in is enough.")
    head = web.registry.head(who.ref)
    if head is None:
        raise ConsentError("There is nothing to withdraw.", remedy="Nothing of yours is used.")
    now = web.registry.now()
    speaker = _speaker(web, who.ref, key, None, now)
    document = build(
        subject=speaker.subject,
        guardian=speaker.authority,
        institution=web.registry.institution,
        action=Action.WITHDRAW,
        seq=head.seq + 1,
        prev=head.digest,
        valid_from=now,
        mechanism=mechanism_of(web, who.ref),
    )
    return _hand_out(web, key, document, Draft(who.ref, None, None, None, {}), Action.WITHDRAW, now)


def take_back(web: Web, who: SignedIn, data: bytes) -> tuple[Receipt, str]:
    """Verify and store what the person signed; the receipt, and the hash of the document that was signed.

    Raises:
        ConsentError: it does not verify, was not handed out to this person, or does not continue their chain.
    """
    record = open_record(data, now=web.registry.now())
    signed = document_hash(record.canonical)
    draft = web.store.handed_out(signed, who.ref)
    if draft is None:
        raise ConsentError(
            "This is not the document that was shown to you.",
            remedy="Open the request again and sign what it shows then; nothing was stored.",
        )
    if (record.guardian is None) != (web.guardians.of(who.ref) is None):
        raise ConsentError("Who speaks here has changed in the meantime.", remedy="Open the request again.")
    receipt = web.registry.submit(record.canonical, who.ref)
    web.store.answered(receipt.record, draft)
    if record.guardian is not None:
        web.guardians.signed_with(who.ref, record.guardian.did)
    return receipt, signed


@dataclass(frozen=True, slots=True)
class _Speaker:
    """For whom is signed, on whose word if somebody else signs, and until when that holds."""

    subject: PublicKey
    authority: Mapping[str, Any] | None = None
    until: datetime | None = None


def _speaker(web: Web, ref: str, key: PublicKey, ward: str | None, now: datetime) -> _Speaker:
    guardian = web.guardians.of(ref)
    if guardian is None:
        return _Speaker(key)
    did = web.store.did_of(ref) or ward
    if did is None:
        raise ConsentError("No key stands for the person yet.", remedy="Load the page again and answer once more.")
    subject = PublicKey.from_did(did)
    authority = web.registry.authorise(key, subject, valid_from=now, majority=guardian.until)
    return _Speaker(subject, authority, guardian.until)


def document_hash(record: bytes) -> str:
    """SHA-256 of a signed record without its proof: what was shown before it was signed."""
    document = parse(record, max_bytes=RECORD_BYTES_MAX)
    if not isinstance(document, dict):
        raise refused("it is not a JSON object", reason="malformed")
    return sha256_hex(canonical_bytes({name: value for name, value in document.items() if name != "proof"}))


def statement(web: Web, notice: Notice, language: str) -> Statement:
    """What the record says about the notice that the person read."""
    usual = standard_statement(notice.asked.mechanism, web.registry.institution.did)
    return Statement.for_institution(
        web.registry.institution.did,
        legal_basis=usual.legal_basis,
        consent=usual.type == CONSENT_RECORD,
        name=notice.asked.controller.name,
        contact=notice.asked.controller.contact,
        data_categories=notice.asked.data_categories,
        notice=notice_of(
            notice_text(notice.asked, language), version=f"{notice.request}/{notice.version}", language=language
        ),
    )


def mechanism_of(web: Web, ref: str) -> Mechanism:
    """Under which mechanism a person's newest record stands."""
    chain = web.store.chain(ref)
    if not chain:
        return Mechanism.LICENCE if ref == LICENCE_REF else Mechanism.CONSENT
    return open_record(chain[-1][0]).mechanism


def _next(web: Web, ref: str, key: PublicKey) -> tuple[int, str | None]:
    head = web.registry.head(ref)
    if head is None:
        return 1, None
    chain = web.store.chain(ref)
    if web.store.did_of(ref) != key.did and open_record(chain[-1][0]).action is not Action.WITHDRAW:
        raise OtherKeyError(
            "Your earlier decision was signed with another key.",
            remedy="Withdraw it first (that needs no key), then decide again with the key of this device.",
        )
    return head.seq + 1, head.digest


def _hand_out(
    web: Web, key: PublicKey, document: dict[str, Any], draft: Draft, action: Action, now: datetime
) -> Prepared:
    prepared = Prepared(
        document, unsigned_proof(document, key, created=now), sha256_hex(canonical_bytes(document)), action
    )
    web.store.hand_out(prepared.hash, draft)
    return prepared


def _whole_seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
