"""The institution's consent log: batches at fixed times, checkpoints, proofs, the witnesses' cosignatures, and time.

The log is append-only, and what was signed once stays true: a log that no longer extends its newest signed checkpoint
was rolled back or altered, and is refused by name.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from consent.registry import batching
from consent.registry.binding import Binding, set_witnesses, witnesses_of
from consent.registry.tables import ConsentBatch, ConsentClock, StoredRecord
from consent.rules.binding import Quorum
from consent.rules.commitment import BATCH_SIZE_MAX
from federation.errors import OperatorError, UnavailableError
from federation.rules.checkpoint import Checkpoint, Cosignature, SignedCheckpoint, sign_checkpoint
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import consistency_proof, inclusion_proof
from federation.storage.database import database_name, read, write
from federation.storage.log import MerkleLog

BATCH_SIZE_DEFAULT: Final = 512
SKEW_MAX: Final = timedelta(minutes=10)
"""How far the witnesses' time may lie ahead of this machine's clock; beyond that nothing is decided."""


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


class ConsentLog:
    """The consent log of one institution.

    Args:
        engine: a database that was opened with :data:`~consent.registry.tables.TABLES`.
        institution: the institution's key; it signs checkpoints.
        consent_log: where the log is.
        clock: the machine's clock, aware.
        batch_size: commitments in a batch, padding included.

    Raises:
        OperatorError: the batch size is out of range, or the log does not extend the checkpoint that was signed last.
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
        self._binding = Binding(engine, consent_log, self.origin)
        self._check_whole()

    @property
    def institution(self) -> PublicKey:
        """The institution's public key."""
        return self._key.public

    @property
    def origin(self) -> str:
        """The name of the consent log in its checkpoints."""
        return f"consent/{self._did}"

    def now(self) -> datetime:
        """The latest of the machine's clock, the latest moment that this registry has seen, and its witnesses' time."""
        _, quorum = self._binding.quorum()
        with write(self._engine) as session:
            return self._see(session, self._clock(), quorum)

    def append_batch(self, now: datetime) -> int:
        """Close one batch, whether or not anything is pending, and append it to the log; its index there.

        Call it at fixed times (:meth:`append_due`). What does not fit waits for the next batch, oldest first. A batch
        that a crash left behind is appended first, as it was.
        """
        batching.append_closed(self._engine, self._log)
        with write(self._engine) as session:
            number = batching.close_batch(session, self._see(session, now), size=self._batch_size)
        return self._placed(number)

    def append_due(self, now: datetime, *, every_s: float) -> int | None:
        """:meth:`append_batch`, at most once for each multiple of ``every_s`` seconds on the clock; None: not due.

        When batches are due depends on the clock alone, over restarts and among several processes; what was missed
        while nobody ran is not made up for.
        """
        batching.append_closed(self._engine, self._log)
        with read(self._engine) as session:
            if not batching.is_due(session, now, every_s=every_s):
                return None
        with write(self._engine) as session:
            moment = self._see(session, now)
            if not batching.is_due(session, moment, every_s=every_s):  # another process was first
                return None
            number = batching.close_batch(session, moment, size=self._batch_size)
        return self._placed(number)

    def checkpoint(self, size: int | None = None) -> SignedCheckpoint:
        """The log at ``size`` (None: now), signed by the institution and kept, without cosignatures.

        Raises:
            UnavailableError: the log is shorter.
        """
        wanted = self._log.size if size is None else size
        root = self._log.root(wanted)
        signed = sign_checkpoint(Checkpoint(origin=self.origin, size=wanted, root=root), self._key)
        if self._log.checkpoint(wanted) is None:
            self._log.save_checkpoint(signed.to_bytes(), wanted)
        return signed

    def cosigned_checkpoint(self) -> SignedCheckpoint | None:
        """The largest checkpoint that enough witnesses cosigned, with their cosignatures; None: there is none."""
        _, quorum = self._binding.quorum()
        if not quorum.size:
            return None
        return self.checkpoint(quorum.size).with_cosignatures(self._binding.cosignatures(quorum.size))

    def consistency(self, old_size: int, new_size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the log of ``new_size`` (None: now) extends its first ``old_size`` entries (RFC 6962).

        Raises:
            PeerError: there was no such size.
            UnavailableError: the log is shorter than ``new_size``.
        """
        return consistency_proof(self._log.leaf_hashes(new_size), old_size)

    def inclusion(self, digest: str) -> Inclusion:
        """What the person needs to check that their record is in the log.

        The checkpoint is the newest that enough witnesses cosigned, if it covers the record, else the present one.

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
        checkpoint = self.cosigned_checkpoint()
        if checkpoint is None or checkpoint.checkpoint.size <= batch.log_index:
            checkpoint = self.checkpoint()
        return Inclusion(
            salt=row.salt,
            index=batch.log_index,
            batch=batch.data,
            proof=inclusion_proof(self._log.leaf_hashes(checkpoint.checkpoint.size), batch.log_index),
            checkpoint=checkpoint,
        )

    def witnesses(self) -> tuple[frozenset[PublicKey], int]:
        """The named witnesses, and how many of them must cosign before a grant binds (0: it binds from its receipt)."""
        with read(self._engine) as session:
            known = witnesses_of(session)
        return known.keys, known.quorum

    def set_witnesses(self, dids: Collection[str], quorum: int) -> None:
        """Name the witnesses, and how many of them must cosign before a grant binds.

        Whatever was cosigned by others before does not count any more: grants wait for the new ones' word.

        Raises:
            PeerError: one of them is not the did:key of an Ed25519 key.
            OperatorError: more are needed than are named.
        """
        with write(self._engine) as session:
            set_witnesses(session, dids, quorum)

    def add_cosignature(self, size: int, cosignature: Cosignature) -> None:
        """Take a witness's cosignature over the first ``size`` entries.

        Raises:
            PeerError: it is not by a named witness, or not over this log.
            UnavailableError: the log is shorter than ``size``.
        """
        with write(self._engine) as session:
            self._binding.add(session, size, cosignature)

    def _placed(self, number: int) -> int:
        batching.append_closed(self._engine, self._log)
        with read(self._engine) as session:  # another process may have appended it first
            index = session.get_one(ConsentBatch, number).log_index
        if index is None:
            raise RuntimeError(f"batch {number} was appended and has no place in the log")
        return index

    def _check_whole(self) -> None:
        """Refuse a log that does not extend what was signed last."""
        signed = self._log.latest_checkpoint()
        if signed is None:
            return
        size, note = signed
        whole = size <= self._log.size
        if whole:
            body = Checkpoint(origin=self.origin, size=size, root=self._log.root(size)).body()
            whole = note.startswith(body)
        if not whole:
            raise OperatorError(
                f"The consent log in {database_name(self._engine)} does not extend its checkpoint of size {size}:"
                " it was rolled back or altered.",
                remedy="Restore the newest backup; until then nothing of it may be used.",
            )

    def _see(self, session: Session, now: datetime, quorum: Quorum | None = None) -> datetime:
        """The latest of ``now``, the latest moment seen and the witnesses' time; persisted with the transaction."""
        moment = self._latest(session, now, quorum)
        row = session.get(ConsentClock, 1)
        if row is None:
            session.add(ConsentClock(last_seen=format_instant(moment)))
        elif parse_instant(row.last_seen) < moment:
            row.last_seen = format_instant(moment)
            session.add(row)
        return moment

    def _latest(self, session: Session, now: datetime, quorum: Quorum | None = None) -> datetime:
        row = session.get(ConsentClock, 1)
        moments = [now] if row is None else [now, parse_instant(row.last_seen)]
        if quorum is not None and quorum.at is not None and not self._skewed(quorum.at):
            moments.append(quorum.at)
        return max(moments)

    def _skewed(self, at: datetime) -> bool:
        return at - self._clock() > SKEW_MAX

    def _check_skew(self, quorum: Quorum) -> None:
        if quorum.at is not None and self._skewed(quorum.at):
            raise UnavailableError(
                f"This machine's clock is behind its witnesses' time ({format_instant(quorum.at)}) by more than"
                f" {SKEW_MAX.total_seconds() / 60:.0f} minutes: nothing can be decided about consents.",
                remedy="Set the machine's clock (NTP); withdrawals are taken meanwhile.",
            )
