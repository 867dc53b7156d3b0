"""Taking records in: what may follow what, and the rows that a record leaves. Inside the caller's write transaction."""

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlmodel import Session, select

from consent.registry.participation import in_flight, note_withdrawal
from consent.registry.tables import LICENCE_REF, ConsentKey, ConsentSubject, StoredRecord
from consent.rules.chain import continues
from consent.rules.commitment import SALT_BYTES
from consent.rules.receipt import REF_CHARACTERS_MAX, Receipt
from consent.rules.record import SKEW_MAX, Action, ConsentRecord, Mechanism, build, sign_record
from federation.errors import ConsentError
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey, PublicKey

Reader = Callable[[bytes], ConsentRecord]
"""Verifies and reads one stored record."""
_FIRST_PRINTABLE: Final = " "


def check_for_us(ref: str, record: ConsentRecord, institution: str) -> None:
    """Check what does not need the database: the name, the institution, and that name and mechanism fit.

    Raises:
        ConsentError: they do not.
    """
    if not 1 <= len(ref) <= REF_CHARACTERS_MAX:
        raise refused(ref, f"a subject's name has 1 to {REF_CHARACTERS_MAX} characters")
    if any(character < _FIRST_PRINTABLE or "\ud800" <= character <= "\udfff" for character in ref):
        raise refused(ref, "a subject's name has no control characters")
    if record.institution != institution:
        raise refused(ref, f"it was given to {record.institution}, not to this institution")
    if record.mechanism.whole_source != (ref == LICENCE_REF):
        raise refused(ref, f"what is given for a whole source, and only that, is stored under the name {LICENCE_REF!r}")


def store(session: Session, ref: str, record: ConsentRecord, now: datetime, *, reader: Reader) -> Receipt:
    """Store one verified record and its pending commitment; its receipt, or the first one if it is stored already.

    Raises:
        ConsentError: it does not continue its chain, or name and key do not fit.
    """
    stored = session.get(StoredRecord, record.digest)
    if stored is not None:
        if stored.ref != ref:
            raise refused(ref, "the same record is stored under another name")
        return receipt_of(stored, record)
    if record.signed_at > now + SKEW_MAX:
        raise refused(ref, f"it was signed in the future, on {format_instant(record.signed_at)}")
    subject = session.get(ConsentSubject, ref)
    _check_continues(session, ref, subject, record, reader)
    if subject is None:
        subject = ConsentSubject(ref=ref, did=record.subject, seq=record.seq, digest=record.digest)
    before = subject.did
    subject.did, subject.seq, subject.digest = record.subject, record.seq, record.digest
    session.add(subject)
    for did in {before, record.subject}:
        if session.get(ConsentKey, did) is None:
            session.add(ConsentKey(did=did, ref=ref))
    session.flush()  # the record refers to the subject
    stored = StoredRecord(
        digest=record.digest,
        ref=ref,
        seq=record.seq,
        action=record.action.value,
        data=record.canonical,
        salt=secrets.token_bytes(SALT_BYTES),
        received_at=format_instant(now),
    )
    session.add(stored)
    if _is_a_no(record) and (record.seq > 1 or in_flight(session, ref)):
        note_withdrawal(session, record.digest, ref, now)
    return receipt_of(stored, record)


def attest(session: Session, ref: str, now: datetime, *, institution: PrivateKey, reader: Reader) -> Receipt:
    """Attest, at the person's request, that they withdraw; in a chain of opt-outs, that they opt out.

    Raises:
        ConsentError: nothing is known under this name.
    """
    subject = session.get(ConsentSubject, ref)
    newest = None if subject is None else session.get(StoredRecord, subject.digest)
    if subject is None or newest is None:
        raise ConsentError(
            f"No consent is known for {ref!r}: there is nothing to withdraw, and nothing of theirs is used.",
            remedy="Check the name; `accord consent verify --dir NODE --subject REF` shows what is known.",
        )
    record = reader(newest.data)
    action = Action.REFUSE if record.mechanism is Mechanism.EHDS_OPTOUT else Action.WITHDRAW
    if record.action is action:
        return receipt_of(newest, record)
    document = build(
        subject=PublicKey.from_did(subject.did),
        institution=institution.public,
        action=action,
        seq=subject.seq + 1,
        prev=subject.digest,
        valid_from=now,
        mechanism=record.mechanism,
        issuer=institution.public,
    )
    return store(session, ref, reader(sign_record(document, institution, created=now)), now, reader=reader)


def receipt_of(stored: StoredRecord, record: ConsentRecord) -> Receipt:
    """The receipt of a stored record; always the same for the same record."""
    return Receipt(
        institution=record.institution,
        subject_ref=stored.ref,
        subject=record.subject,
        record=stored.digest,
        action=Action(stored.action),
        seq=stored.seq,
        received_at=stored.received_at,
    )


def refused(ref: str, why: str) -> ConsentError:
    """The error for a record that is not taken in."""
    return ConsentError(
        f"The consent record for {ref[:80]!r} is refused: {why}.",
        remedy="Ask the registry for the newest record under this name, and sign one that continues it.",
    )


def _is_a_no(record: ConsentRecord) -> bool:
    """Whether a record stops uses; who takes an opt-out back stops none."""
    return record.action is Action.REFUSE or (
        record.action is Action.WITHDRAW and record.mechanism is not Mechanism.EHDS_OPTOUT
    )


def _check_continues(
    session: Session, ref: str, subject: ConsentSubject | None, record: ConsentRecord, reader: Reader
) -> None:
    if _name_of(session, record.subject) not in (None, ref):
        raise refused(ref, "its key speaks for another name already; everybody has a key of their own")
    previous = None if subject is None else session.get(StoredRecord, subject.digest)
    if subject is not None and previous is None:
        raise refused(ref, "the record before it is gone from the database")
    fault = continues(None if previous is None else reader(previous.data), record)
    if fault is not None:
        raise refused(ref, fault.text)


def _name_of(session: Session, did: str) -> str | None:
    """For which name a key speaks, or ever spoke."""
    key = session.get(ConsentKey, did)
    if key is not None:
        return key.ref
    return session.exec(select(ConsentSubject.ref).where(ConsentSubject.did == did)).first()
