"""The registry itself: verify, store, commit to the log, answer.

Rules kept: a record is verified before it is stored; record and pending commitment are stored in one transaction, and
the receipt exists only after that transaction is durable, so a withdrawal binds from its receipt whatever happens to
the log; a local name (``subject_ref``) belongs to the first key that spoke for it, and a key to one name; a chain grows
by exactly one record at a time; time never runs backwards, not even over a restart. The log sees only batches of one
fixed size (:mod:`consent.rules.commitment`). Several processes may use one registry at once: a node that runs and the
command line beside it.

Decisions are made by :mod:`consent.rules.decision`; this module gives it the stored chains. Only the verification of a
record's bytes is remembered, never a decision.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from consent.registry.tables import (
    LICENCE_REF,
    LOG_NAME,
    ConsentBatch,
    ConsentClock,
    ConsentSubject,
    StoredRecord,
)
from consent.rules.commitment import BATCH_SIZE_MAX, COMMITMENT_BYTES, SALT_BYTES, batch_bytes, commitment
from consent.rules.decision import Decision, Head, Use, permits
from consent.rules.receipt import REF_CHARACTERS_MAX, Receipt
from consent.rules.record import Action, ConsentRecord, Mechanism, build, open_record, sign_record
from federation.errors import ConsentError, OperatorError, UnavailableError
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, SignedCheckpoint, sign_checkpoint
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import consistency_proof, inclusion_proof, root
from federation.storage.database import read, write
from federation.storage.log import MerkleLog, SqliteLog

BATCH_SIZE_DEFAULT: Final = 512
_VERIFIED_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Inclusion:
    """What proves offline that a record is in the log: with the record it opens one commitment of one logged batch.

    ``commitment(salt, record)`` is among the commitments of ``batch``, which is entry ``index`` of the checkpoint's
    tree.
    """

    salt: bytes
    index: int
    batch: bytes
    proof: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


class Registry:
    """The registry of one institution.

    Args:
        engine: a database that was opened with :data:`TABLES`.
        institution: the institution's key; it signs receipts, attested withdrawals and checkpoints.
        consent_log: the institution's log of batches.
        clock: the machine's clock, aware.
        batch_size: commitments in a batch, padding included.

    Raises:
        OperatorError: the batch size is out of range.
    """

    def __init__(
        self,
        engine: Engine,
        institution: PrivateKey,
        *,
        consent_log: MerkleLog,
        clock: Callable[[], datetime],
        batch_size: int = BATCH_SIZE_DEFAULT,
    ) -> None:
        if not 1 <= batch_size <= BATCH_SIZE_MAX:
            raise OperatorError(
                f"A consent batch cannot hold {batch_size} commitments.",
                remedy=f"Set consent_batch_size between 1 and {BATCH_SIZE_MAX}.",
            )
        self._engine = engine
        self._key = institution
        self._did = institution.public.did
        self._log = consent_log
        self._clock = clock
        self._batch_size = batch_size
        self._verified: dict[str, ConsentRecord] = {}

    @property
    def institution(self) -> PublicKey:
        """The institution's public key."""
        return self._key.public

    @property
    def origin(self) -> str:
        """The name of the consent log in its checkpoints."""
        return f"consent/{self._did}"

    def now(self) -> datetime:
        """The latest of the machine's clock and the latest moment that this registry has seen."""
        with write(self._engine) as session:
            return self._see(session, self._clock())

    def submit(self, record: bytes, subject_ref: str) -> Receipt:
        """Take in one record; see :meth:`submit_all`."""
        return self.submit_all([(subject_ref, record)])[0]

    def submit_all(self, records: Sequence[tuple[str, bytes]]) -> list[Receipt]:
        """Take in (subject_ref, record) pairs, all of them or none, durably when this returns.

        A record that is stored already under the same name gives its first receipt again.

        Raises:
            ConsentError: a record does not verify, is not for this institution, does not continue its chain, or the
                name belongs to another key. Nothing is stored.
        """
        opened = [(ref, self._for_us(ref, data)) for ref, data in records]
        with write(self._engine) as session:
            now = self._see(session, self._clock())
            return [self._store(session, ref, record, now) for ref, record in opened]

    def withdraw(self, subject_ref: str) -> Receipt:
        """Withdraw at the person's request, without their key; see :meth:`withdraw_all`."""
        return self.withdraw_all([subject_ref])[0]

    def withdraw_all(self, refs: Sequence[str]) -> list[Receipt]:
        """Attest the withdrawal of each of ``refs``, all or none; whoever has withdrawn already keeps that receipt.

        Raises:
            ConsentError: no record is known under a name, so nothing of theirs may be used anyway.
        """
        with write(self._engine) as session:
            now = self._see(session, self._clock())
            return [self._attest(session, ref, now) for ref in refs]

    def head(self, subject_ref: str) -> Head | None:
        """The newest acknowledged record under a name: what the next record must continue. None: no record yet."""
        with read(self._engine) as session:
            subject = session.get(ConsentSubject, subject_ref)
        return None if subject is None else Head(subject.seq, subject.digest)

    def heads(self) -> dict[str, Head]:
        """:meth:`head` of every name."""
        with read(self._engine) as session:
            return {row.ref: Head(row.seq, row.digest) for row in session.exec(select(ConsentSubject))}

    def histories(self) -> dict[str, tuple[bytes, ...]]:
        """Every name's records, oldest first, as stored (canonical bytes)."""
        with read(self._engine) as session:
            return _histories(session)

    def decide_all(self, use: Use, now: datetime, refs: Iterable[str]) -> dict[str, Decision]:
        """Whether each of ``refs`` may be used for ``use`` now; a name without a record is a no.

        Under a licence the owner's one chain (stored under ``*``) decides for all. ``now`` counts as at least the
        latest moment that the registry has seen.
        """
        with write(self._engine) as session:
            moment = self._see(session, now)
            histories = _histories(session)
            heads = {row.ref: Head(row.seq, row.digest) for row in session.exec(select(ConsentSubject))}

        def decide(ref: str) -> Decision:
            return permits(histories.get(ref, ()), use, moment, head=heads.get(ref), reader=self._open)

        if use.kind is Mechanism.LICENCE:
            shared = decide(LICENCE_REF)
            return dict.fromkeys(refs, shared)
        return {ref: decide(ref) for ref in refs}

    def append_batch(self, now: datetime) -> int:
        """Close one batch, whether or not anything is pending, and append it to the log; its index there.

        Call it at fixed times. What does not fit waits for the next batch, oldest first. A batch that a crash left
        behind is appended first, as it was.
        """
        self._append_closed()
        with write(self._engine) as session:
            moment = self._see(session, now)
            query = select(StoredRecord).where(col(StoredRecord.batch).is_(None))
            order = (col(StoredRecord.received_at), col(StoredRecord.digest))
            pending = session.exec(query.order_by(*order).limit(self._batch_size)).all()
            last = session.exec(select(func.max(ConsentBatch.number))).one()
            number = 1 if last is None else last + 1
            for row in pending:
                row.batch = number
                session.add(row)
            data = batch_bytes(
                [commitment(row.salt, row.data) for row in pending],
                size=self._batch_size,
                padding=[secrets.token_bytes(COMMITMENT_BYTES) for _ in range(self._batch_size - len(pending))],
                appended_at=moment,
            )
            session.add(ConsentBatch(number=number, data=data))
        self._append_closed()
        with read(self._engine) as session:  # another process may have appended it first
            index = session.get_one(ConsentBatch, number).log_index
        if index is None:
            raise RuntimeError(f"batch {number} was appended and has no place in the log")
        return index

    def checkpoint(self) -> SignedCheckpoint:
        """The log's present state, signed by the institution and kept."""
        hashes = self._log.leaf_hashes()
        signed = sign_checkpoint(Checkpoint(origin=self.origin, size=len(hashes), root=root(hashes)), self._key)
        if self._log.checkpoint(len(hashes)) is None:
            self._log.save_checkpoint(signed.to_bytes(), len(hashes))
        return signed

    def consistency(self, old_size: int, new_size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the log of ``new_size`` (None: now) extends its first ``old_size`` entries (RFC 6962).

        Raises:
            PeerError: there was no such size.
            UnavailableError: the log is shorter than ``new_size``.
        """
        return consistency_proof(self._log.leaf_hashes(new_size), old_size)

    def inclusion(self, digest: str) -> Inclusion:
        """What the person needs to check that their record is in the log.

        Raises:
            UnavailableError: the record is unknown, or its batch is not in the log yet.
        """
        with read(self._engine) as session:
            row = session.get(StoredRecord, digest)
            batch = None if row is None or row.batch is None else session.get(ConsentBatch, row.batch)
        if row is None or batch is None or batch.log_index is None:
            raise UnavailableError(
                f"The record {digest[:16]} is not in the log yet.", remedy="Ask again after the next batch."
            )
        checkpoint = self.checkpoint()
        return Inclusion(
            salt=row.salt,
            index=batch.log_index,
            batch=batch.data,
            proof=inclusion_proof(self._log.leaf_hashes(checkpoint.checkpoint.size), batch.log_index),
            checkpoint=checkpoint,
        )

    def _append_closed(self) -> None:
        """Append every closed batch that is not in the log yet. Safe to repeat, and from several processes."""
        with read(self._engine) as session:
            query = select(ConsentBatch).where(col(ConsentBatch.log_index).is_(None))
            closed = session.exec(query.order_by(col(ConsentBatch.number))).all()
        placed = {row.number: self._log.append(f"consent-batch/{row.number}", row.data) for row in closed}
        if placed:
            with write(self._engine) as session:
                for number, index in placed.items():
                    row = session.get_one(ConsentBatch, number)
                    row.log_index = index
                    session.add(row)

    def _open(self, data: bytes) -> ConsentRecord:
        """``open_record``, remembered by what the bytes are."""
        name = sha256_hex(data)
        record = self._verified.get(name)
        if record is None:
            record = open_record(data)
            if len(self._verified) >= _VERIFIED_MAX:
                self._verified.clear()
            self._verified[name] = record
        return record

    def _for_us(self, ref: str, data: bytes) -> ConsentRecord:
        """Verify what does not need the database."""
        if not 1 <= len(ref) <= REF_CHARACTERS_MAX:
            raise _refused(ref, f"a subject's name has 1 to {REF_CHARACTERS_MAX} characters")
        record = self._open(data)
        if record.institution != self._did:
            raise _refused(ref, f"it was given to {record.institution}, not to this institution")
        if (record.mechanism is Mechanism.LICENCE) != (ref == LICENCE_REF):
            raise _refused(ref, f"a licence, and only a licence, is stored under the name {LICENCE_REF!r}")
        return record

    def _store(self, session: Session, ref: str, record: ConsentRecord, now: datetime) -> Receipt:
        stored = session.get(StoredRecord, record.digest)
        if stored is not None:
            if stored.ref != ref:
                raise _refused(ref, "the same record is stored under another name")
            return self._receipt(stored, record.subject)
        subject = session.get(ConsentSubject, ref)
        _check_continues(session, ref, subject, record)
        if subject is None:
            subject = ConsentSubject(ref=ref, did=record.subject, seq=record.seq, digest=record.digest)
        subject.seq, subject.digest = record.seq, record.digest
        session.add(subject)
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
        return self._receipt(stored, record.subject)

    def _attest(self, session: Session, ref: str, now: datetime) -> Receipt:
        subject = session.get(ConsentSubject, ref)
        newest = None if subject is None else session.get(StoredRecord, subject.digest)
        if subject is None or newest is None:
            raise ConsentError(
                f"No consent is known for {ref!r}: there is nothing to withdraw, and nothing of theirs is used.",
                remedy="Check the name; `accord consent verify --dir NODE --subject REF` shows what is known.",
            )
        if newest.action == Action.WITHDRAW.value:
            return self._receipt(newest, subject.did)
        document = build(
            subject=PublicKey.from_did(subject.did),
            institution=self.institution,
            action=Action.WITHDRAW,
            seq=subject.seq + 1,
            prev=subject.digest,
            valid_from=now,
            mechanism=Mechanism.LICENCE if ref == LICENCE_REF else Mechanism.CONSENT,
            issuer=self.institution,
        )
        return self._store(session, ref, self._open(sign_record(document, self._key, created=now)), now)

    def _receipt(self, stored: StoredRecord, did: str) -> Receipt:
        return Receipt(
            institution=self._did,
            subject_ref=stored.ref,
            subject=did,
            record=stored.digest,
            action=Action(stored.action),
            seq=stored.seq,
            received_at=stored.received_at,
        )

    def _see(self, session: Session, now: datetime) -> datetime:
        """``now``, or the latest moment seen if that is later; persisted with the transaction."""
        row = session.get(ConsentClock, 1)
        if row is None:
            session.add(ConsentClock(last_seen=format_instant(now)))
            return now
        last = parse_instant(row.last_seen)
        if now > last:
            row.last_seen = format_instant(now)
            session.add(row)
        return max(now, last)


def open_registry(engine: Engine, institution: PrivateKey, *, batch_size: int = BATCH_SIZE_DEFAULT) -> Registry:
    """The registry in a node's database (opened with :data:`TABLES`), on the machine's clock."""
    log = SqliteLog(engine, LOG_NAME)
    return Registry(engine, institution, consent_log=log, clock=lambda: datetime.now(UTC), batch_size=batch_size)


def _check_continues(session: Session, ref: str, subject: ConsentSubject | None, record: ConsentRecord) -> None:
    if subject is None:
        if session.exec(select(ConsentSubject).where(col(ConsentSubject.did) == record.subject)).first() is not None:
            raise _refused(ref, "its key speaks for another name already; everybody has a key of their own")
        expected, prev = 1, None
    else:
        if subject.did != record.subject:
            raise _refused(ref, "another key speaks for this name")
        expected, prev = subject.seq + 1, subject.digest
    if record.seq != expected:
        raise _refused(ref, f"it is number {record.seq} of its chain, number {expected} is due")
    if record.prev != prev:
        raise _refused(ref, "it does not continue the record before it")


def _histories(session: Session) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, list[bytes]] = {}
    for row in session.exec(select(StoredRecord).order_by(col(StoredRecord.ref), col(StoredRecord.seq))):
        found.setdefault(row.ref, []).append(_blob(row.data))
    return {ref: tuple(chain) for ref, chain in found.items()}


def _blob(value: object) -> bytes:
    """A column's bytes; an altered row may hold any type in SQLite, and then counts as a record that never verifies."""
    return value if isinstance(value, bytes) else b""


def _refused(ref: str, why: str) -> ConsentError:
    return ConsentError(
        f"The consent record for {ref[:80]!r} is refused: {why}.",
        remedy="Ask the registry for the newest record under this name, and sign one that continues it.",
    )
