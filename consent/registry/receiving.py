"""Taking records in: what may follow what, and the rows that a record leaves. Inside the caller's write transaction."""

import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlmodel import Session, SQLModel, col, select

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
_AT_ONCE: Final = 500
T = TypeVar("T", bound=SQLModel)


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


class Intake:
    """Takes records in within one transaction: looks up what is known of all of them at once, then one after the other.

    Call :meth:`finish` at the end.

    Args:
        session: a transaction that writes.
        now: when the records are received.
        reader: verifies and reads a stored record.
        records: the names and records that will come.
        refs: further names that will come.
    """

    def __init__(
        self,
        session: Session,
        now: datetime,
        *,
        reader: Reader,
        records: Sequence[tuple[str, ConsentRecord]] = (),
        refs: Sequence[str] = (),
    ) -> None:
        self._session = session
        self._now = now
        self._reader = reader
        self._fresh: list[StoredRecord] = []
        by_ref = _found(session, ConsentSubject, col(ConsentSubject.ref), {*refs, *(ref for ref, _ in records)})
        self._subjects = {row.ref: row for row in by_ref}
        dids = {record.subject for _, record in records}
        self._names = {row.did: row.ref for row in _found(session, ConsentSubject, col(ConsentSubject.did), dids)}
        self._keys = {row.did: row.ref for row in _found(session, ConsentKey, col(ConsentKey.did), dids)}
        digests = {record.digest for _, record in records} | {row.digest for row in by_ref}
        self._records = {row.digest: row for row in _found(session, StoredRecord, col(StoredRecord.digest), digests)}

    def store(self, ref: str, record: ConsentRecord) -> Receipt:
        """Take in a verified record and its pending commitment; its receipt, or the first one if it is stored already.

        Raises:
            ConsentError: it does not continue its chain, or name and key do not fit.
        """
        stored = self._records.get(record.digest)
        if stored is not None:
            if stored.ref != ref:
                raise refused(ref, "the same record is stored under another name")
            return receipt_of(stored, record)
        if record.signed_at > self._now + SKEW_MAX:
            raise refused(ref, f"it was signed in the future, on {format_instant(record.signed_at)}")
        subject = self._subjects.get(ref)
        self._check_continues(ref, subject, record)
        if subject is None:
            subject = ConsentSubject(ref=ref, did=record.subject, seq=record.seq, digest=record.digest)
            self._subjects[ref] = subject
        for did in (subject.did, record.subject):
            self._keep_key(did, ref)
        subject.did, subject.seq, subject.digest = record.subject, record.seq, record.digest
        self._session.add(subject)
        stored = StoredRecord(
            digest=record.digest,
            ref=ref,
            seq=record.seq,
            action=record.action.value,
            data=record.canonical,
            salt=secrets.token_bytes(SALT_BYTES),
            received_at=format_instant(self._now),
        )
        self._records[record.digest] = stored
        self._fresh.append(stored)
        if _is_a_no(record) and (record.seq > 1 or in_flight(self._session, ref)):
            note_withdrawal(self._session, record.digest, ref, self._now)
        return receipt_of(stored, record)

    def attest(self, ref: str, institution: PrivateKey) -> Receipt:
        """Attest, at the person's request, that they withdraw; in a chain of opt-outs, that they opt out.

        Raises:
            ConsentError: nothing is known under this name.
        """
        subject = self._subjects.get(ref)
        newest = None if subject is None else self._records.get(subject.digest)
        if subject is None or newest is None:
            raise ConsentError(
                f"No consent is known for {ref!r}: there is nothing to withdraw, and nothing of theirs is used.",
                remedy="Check the name; `accord consent verify --dir NODE --subject REF` shows what is known.",
            )
        record = self._reader(newest.data)
        action = Action.REFUSE if record.mechanism is Mechanism.EHDS_OPTOUT else Action.WITHDRAW
        if record.action is action:
            return receipt_of(newest, record)
        document = build(
            subject=PublicKey.from_did(subject.did),
            institution=institution.public,
            action=action,
            seq=subject.seq + 1,
            prev=subject.digest,
            valid_from=self._now,
            mechanism=record.mechanism,
            issuer=institution.public,
        )
        return self.store(ref, self._reader(sign_record(document, institution, created=self._now)))

    def finish(self) -> None:
        """Write what was taken in: the people first, as their records refer to them."""
        self._session.flush()
        self._session.add_all(self._fresh)
        self._session.flush()

    def _keep_key(self, did: str, ref: str) -> None:
        if did not in self._keys and self._session.get(ConsentKey, did) is None:
            self._session.add(ConsentKey(did=did, ref=ref))
        self._keys[did] = ref

    def _check_continues(self, ref: str, subject: ConsentSubject | None, record: ConsentRecord) -> None:
        if self._keys.get(record.subject, self._names.get(record.subject, ref)) != ref:
            raise refused(ref, "its key speaks for another name already; everybody has a key of their own")
        previous = None if subject is None else self._records.get(subject.digest)
        if subject is not None and previous is None:
            raise refused(ref, "the record before it is gone from the database")
        fault = continues(None if previous is None else self._reader(previous.data), record)
        if fault is not None:
            raise refused(ref, fault.text)


def _found(session: Session, table: type[T], column: Any, values: Collection[str]) -> list[T]:
    """The rows whose column is among some values."""
    wanted = sorted(values)
    return [
        row
        for start in range(0, len(wanted), _AT_ONCE)
        for row in session.exec(select(table).where(column.in_(wanted[start : start + _AT_ONCE])))
    ]


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
