"""The registry itself: verify, store, commit to the log, answer.

Rules kept: a record is verified before it is stored; record and pending commitment are stored in one transaction, and
the receipt exists only after that transaction is durable, so a withdrawal binds from its receipt whatever happens to
the log; a grant binds once enough named witnesses have cosigned it (:mod:`consent.rules.binding`); a local name
(``subject_ref``) belongs to the chain that began under it, and a key to one name; a chain grows by exactly one record
at a time (:mod:`consent.rules.chain`); time never runs backwards, not even over a restart. The log sees only batches of
one fixed size (:mod:`consent.rules.commitment`). Several processes may use one registry at once: a node that runs, the
pages and the command line beside it.

Decisions are made by :mod:`consent.rules.decision`; this module gives it the stored chains. What is remembered between
two answers, and why that is safe, is said in :mod:`consent.registry.deciding`.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from consent.registry import approving, erasure, participation, receiving
from consent.registry.approving import KeptApproval
from consent.registry.binding import set_notices
from consent.registry.consent_log import BATCH_SIZE_DEFAULT, ConsentLog
from consent.registry.deciding import Decider, blob, stale
from consent.registry.health import Health, Withdrawal, health, withdrawals
from consent.registry.judging import Verified
from consent.registry.participation import ModelVersion, Participation, PassedOn, RoundOf
from consent.registry.tables import LICENCE_REF, LOG_NAME, ConsentState, ConsentStudy, ConsentSubject, StoredRecord
from consent.rules.approval import Approval
from consent.rules.binding import is_stale
from consent.rules.decision import Decision, Head, Status, Use
from consent.rules.guardian import issue_authority
from consent.rules.receipt import ModelMention, Receipt, RoundInFlight, build_receipt
from consent.rules.record import Mechanism
from federation.errors import UnavailableError
from federation.rules.keys import PrivateKey, PublicKey
from federation.storage.database import read, scrub, write
from federation.storage.log import MerkleLog, SqliteLog

STALE_AFTER: Final = timedelta(hours=24)
"""How old the newest word of enough witnesses may be; beyond that nothing is permitted."""
_VERIFIED_MAX: Final = 65_536


class Registry(ConsentLog):
    """The registry of one institution.

    Args:
        engine: a database that was opened with :data:`TABLES`.
        institution: the institution's key; it signs receipts, attested withdrawals and checkpoints.
        consent_log: the institution's log of batches.
        clock: the machine's clock, aware.
        batch_size: commitments in a batch, padding included.
        stale_after: how old the newest word of enough witnesses may be.

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
        stale_after: timedelta = STALE_AFTER,
    ) -> None:
        super().__init__(engine, institution, consent_log=consent_log, clock=clock, batch_size=batch_size)
        self._stale_after = stale_after
        self._verified = Verified(_VERIFIED_MAX)
        self._decider = Decider(self._verified)
        self._deciding = threading.Lock()
        self._eligible: dict[str, tuple[int, int, frozenset[str]]] = {}

    # --- records

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
        opened = [(ref, self._verified.open(data)) for ref, data in records]
        for ref, record in opened:
            receiving.check_for_us(ref, record, self._did)
        with write(self._engine) as session:
            now = self._see(session, self._clock())
            intake = receiving.Intake(session, now, reader=self._verified.open, records=opened)
            receipts = [intake.store(ref, record) for ref, record in opened]
            intake.finish()
        return receipts

    def withdraw(self, subject_ref: str) -> Receipt:
        """Withdraw at the person's request, without their key; see :meth:`withdraw_all`."""
        return self.withdraw_all([subject_ref])[0]

    def withdraw_all(self, refs: Sequence[str]) -> list[Receipt]:
        """Attest the withdrawal of each of ``refs``, all or none; whoever has withdrawn already keeps that receipt.

        In a chain of opt-outs the institution attests the opt-out: what it attests only ever leads towards no.

        Raises:
            ConsentError: no record is known under a name, so nothing of theirs may be used anyway.
        """
        with write(self._engine) as session:
            now = self._see(session, self._clock())
            intake = receiving.Intake(session, now, reader=self._verified.open, refs=refs)
            receipts = [intake.attest(ref, self._key) for ref in refs]
            intake.finish()
        return receipts

    def head(self, subject_ref: str) -> Head | None:
        """The newest acknowledged record under a name: what the next record must continue. None: no record yet."""
        with read(self._engine) as session:
            subject = session.get(ConsentSubject, subject_ref)
        return None if subject is None else Head(subject.seq, subject.digest)

    def heads(self) -> dict[str, Head]:
        """:meth:`head` of every name."""
        with read(self._engine) as session:
            return {row.ref: Head(row.seq, row.digest) for row in session.exec(select(ConsentSubject))}

    def history(self, subject_ref: str) -> tuple[bytes, ...]:
        """One name's records, oldest first, as stored (canonical bytes)."""
        query = select(StoredRecord.data).where(StoredRecord.ref == subject_ref).order_by(col(StoredRecord.seq))
        with read(self._engine) as session:
            return tuple(blob(data) for data in session.exec(query))

    def histories(self) -> dict[str, tuple[bytes, ...]]:
        """Every name's records, oldest first, as stored (canonical bytes)."""
        found: dict[str, list[bytes]] = {}
        query = select(StoredRecord.ref, StoredRecord.data).order_by(col(StoredRecord.ref), col(StoredRecord.seq))
        with read(self._engine) as session:
            for ref, data in session.exec(query):
                found.setdefault(ref, []).append(blob(data))
        return {ref: tuple(chain) for ref, chain in found.items()}

    def receipt(self, digest: str) -> Receipt:
        """The receipt of a stored record, as it was given.

        Raises:
            UnavailableError: no such record is stored.
        """
        with read(self._engine) as session:
            stored = session.get(StoredRecord, digest)
        if stored is None:
            raise UnavailableError(
                f"There is no record {digest[:16]} here.", remedy="Check the digest; what was erased has no receipt."
            )
        return receiving.receipt_of(stored, self._verified.open(blob(stored.data)))

    def receipt_credential(self, digest: str) -> bytes:
        """The receipt that a person keeps, signed now (:mod:`consent.rules.receipt`); its canonical bytes.

        It holds the record and, once its batch is logged, what proves that; for a withdrawal or a refusal of what was
        allowed, the rounds that were in flight when it was received and the models that contain the contribution.

        Raises:
            UnavailableError: no such record is stored.
        """
        receipt = self.receipt(digest)
        with read(self._engine) as session:
            stored = session.get_one(StoredRecord, digest)
            record = blob(stored.data)
            ended = withdrawals(session, digest=digest)
            models = participation.models_with(session, receipt.subject_ref) if ended else ()
            now = self._latest(session, self._clock())
        try:
            logged = self.inclusion(digest)
        except UnavailableError:  # its batch is still open: the receipt binds without it
            logged = None
        return build_receipt(
            receipt,
            record,
            self._key,
            created=now,
            logged=logged,
            rounds_in_flight=[RoundInFlight(of.study, of.round) for item in ended for of in item.in_flight],
            models=[
                ModelMention(item.study, item.round, item.sha256, Decimal(item.epsilon), Decimal(item.delta))
                for item in models
                if item.epsilon and item.delta  # a study that the node has not described names no cap
            ],
        )

    def authorise(
        self, guardian: PublicKey, ward: PublicKey, *, valid_from: datetime, majority: datetime
    ) -> dict[str, Any]:
        """The institution's signed word that a guardian's key speaks for a ward's (:mod:`consent.rules.guardian`).

        Raises:
            ConsentError: it would end before it begins, or somebody would be their own guardian.
        """
        return issue_authority(issuer=self._key, guardian=guardian, ward=ward, valid_from=valid_from, majority=majority)

    def erase(self, subject_ref: str) -> bool:
        """Erase everything that mentions a name, from the database's files too; whether there was anything.

        The log stays as it is. Safe to repeat.

        Raises:
            UnavailableError: another process uses the database, so that its files still hold what was deleted.
        """
        with write(self._engine) as session:
            records = erasure.erase(session, subject_ref)
        self._verified.forget(records)
        scrub(self._engine)
        return bool(records)

    def erasures(self) -> int:
        """A number that is another one after each erasure."""
        with read(self._engine) as session:
            return session.get_one(ConsentState, 1).epoch

    # --- decisions

    def decide_all(
        self, use: Use, now: datetime, refs: Iterable[str], *, round_use: RoundOf | None = None
    ) -> dict[str, Decision]:
        """Whether each of ``refs`` may be used for ``use`` now; a name without a record is a no.

        Under a mechanism for a whole source the holder's one chain (stored under ``*``) decides for all who have not
        objected. ``now`` counts as at least the latest moment that the registry has seen, and its witnesses' time.
        ``round_use`` is the round that is about to read data: who is eligible is stored in the same transaction, and
        from then on the round is in flight.

        Raises:
            UnavailableError: the witnesses' time is far ahead of this machine's clock.
            OperatorError: the log was rolled back.
        """
        names = list(refs)
        witnesses, quorum = self._binding.quorum()
        self._check_skew(quorum)
        with self._deciding:
            with read(self._engine) as session:  # the slow part, while others may write
                moment = self._latest(session, now, quorum)
                self._decider.decide(session, use, moment, (), witnesses=witnesses, quorum=quorum)
            with write(self._engine) as session:
                moment = self._see(session, now, quorum)
                found = self._decider.decide(session, use, moment, names, witnesses=witnesses, quorum=quorum)
                if witnesses.quorum and is_stale(quorum, moment, age_max=self._stale_after):
                    found = {ref: stale(decision) for ref, decision in found.items()}
                stored = None if round_use is None else self._begin(session, round_use, use, found, moment)
            if round_use is not None and stored is not None:
                self._eligible[round_use.study] = stored
        return found

    def coverage(self, use: Use, refs: Iterable[str] | None = None) -> dict[Status, int]:
        """How many of ``refs`` (None: of everybody who has a record) have which status now. For the officer's eyes."""
        names = [ref for ref in self.heads() if ref != LICENCE_REF] if refs is None else list(refs)
        counts = dict.fromkeys(Status, 0)
        for decision in self.decide_all(use, self._clock(), names).values():
            counts[decision.status] += 1
        return counts

    def approve(self, approval: Approval) -> None:
        """Keep what a person found about a study, signed by the institution; it counts from the next decision on.

        Raises:
            OperatorError: this finding was taken back.
        """
        with write(self._engine) as session:
            approving.approve(session, approval, self._key)

    def disapprove(self, identifier: str) -> KeptApproval:
        """Take a finding back (the beginning of its identifier is enough); it counts no more from now on.

        Raises:
            OperatorError: none, or several, begin like this.
        """
        with write(self._engine) as session:
            return approving.disapprove(session, identifier, self._see(session, self._clock()), self.institution)

    def approvals(self) -> list[KeptApproval]:
        """Every finding, by date."""
        with read(self._engine) as session:
            return approving.approvals(session, self.institution)

    def replace_notices(self, replaced: Collection[str]) -> None:
        """Say which notices (SHA-256 of their text) no longer carry a grant; those that are not named do (again)."""
        with write(self._engine) as session:
            set_notices(session, replaced)

    # --- participation

    def finish_round(self, of: RoundOf, *, released: bool) -> None:
        """Note that a round is over here: its update is stored and may be sent, or nothing of it ever leaves."""
        with write(self._engine) as session:
            participation.finish_round(session, of, self._see(session, self._clock()), released=released)

    def note_model(self, of: RoundOf, model_sha256: str) -> None:
        """Note the model that a study had after a round."""
        with write(self._engine) as session:
            participation.note_model(session, of, model_sha256)

    def note_study(self, study: str, *, title: str, plan_bytes: bytes, epsilon: str, delta: str) -> None:
        """Note what people are shown of a study; ``epsilon`` and ``delta`` bound a person's loss (decimal texts)."""
        with write(self._engine) as session:
            row = participation.study_row(session, study)
            row.title, row.plan, row.epsilon, row.delta = title, plan_bytes, epsilon, delta

    def note_spent(self, study: str, epsilon_spent: str) -> None:
        """Note how much of a study's epsilon is spent so far (a decimal text)."""
        with write(self._engine) as session:
            participation.study_row(session, study).spent = epsilon_spent

    def pass_on(self, study: str, amount_microcredits: int, share_percent: int) -> PassedOn:
        """Share a part of what was earned equally among everybody who was eligible in a released round; once a study.

        Raises:
            ValueError: a negative amount, or a share outside of 0 to 100 (mistakes of the caller).
        """
        with write(self._engine) as session:
            return participation.pass_on(session, study, amount_microcredits, share_percent)

    def studies(self) -> list[ConsentStudy]:
        """What is noted of each study."""
        with read(self._engine) as session:
            return list(session.exec(select(ConsentStudy).order_by(col(ConsentStudy.study))))

    def participation(self, subject_ref: str) -> Participation:
        """In which rounds of which studies a person was eligible, and what came of it."""
        with read(self._engine) as session:
            return participation.participation(session, subject_ref)

    def in_flight(self, subject_ref: str) -> tuple[RoundOf, ...]:
        """The rounds that have begun with the person eligible, and are not over."""
        with read(self._engine) as session:
            return tuple(
                sorted({RoundOf(row.study, row.round) for row in participation.in_flight(session, subject_ref)})
            )

    def models(self, subject_ref: str) -> tuple[ModelVersion, ...]:
        """The models that contain the person's contribution."""
        with read(self._engine) as session:
            return participation.models_with(session, subject_ref)

    def withdrawals(self) -> list[Withdrawal]:
        """All withdrawals, oldest first, with the rounds that were in flight and the time to stop."""
        with read(self._engine) as session:
            return withdrawals(session)

    def health(self) -> Health:
        """Where the registry stands: its log, what is pending, its witnesses' newest word."""
        witnesses, quorum = self._binding.quorum()
        with read(self._engine) as session:
            return health(
                session,
                now=self._latest(session, self._clock()),
                log_size=self._log.size,
                witnesses=witnesses,
                quorum=quorum,
                age_max=self._stale_after,
                decisions=self._decider.remembered(),
                verified=len(self._verified),
            )

    def _begin(
        self, session: Session, of: RoundOf, use: Use, found: dict[str, Decision], now: datetime
    ) -> tuple[int, int, frozenset[str]]:
        """Store who is eligible; what to remember once that is durable."""
        eligible = frozenset(ref for ref, decision in found.items() if decision.permitted)
        if use.kind in {Mechanism.LICENCE, Mechanism.DPA} and eligible:
            eligible = frozenset({LICENCE_REF})  # nobody stands behind a row there but the owner
        epoch = session.get_one(ConsentState, 1).epoch
        ordinal, remembered, before = self._eligible.get(of.study, (0, -1, frozenset()))
        fresh = remembered == epoch and ordinal == participation.newest_ordinal(session, of.study)
        ordinal = participation.begin_round(session, of, eligible, now, known=before if fresh else None)
        return ordinal, epoch, eligible


def open_registry(engine: Engine, institution: PrivateKey, *, batch_size: int = BATCH_SIZE_DEFAULT) -> Registry:
    """The registry in a node's database (opened with :data:`TABLES`), on the machine's clock."""
    log = SqliteLog(engine, LOG_NAME)
    return Registry(engine, institution, consent_log=log, clock=lambda: datetime.now(UTC), batch_size=batch_size)
