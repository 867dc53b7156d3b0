"""What the officer is shown of the registry: its log's health, and the withdrawals with their time to stop."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select

from consent.registry.participation import RoundOf, RoundState, moment
from consent.registry.tables import (
    ConsentInFlight,
    ConsentRound,
    ConsentState,
    ConsentSubject,
    ConsentWithdrawal,
    StoredRecord,
)
from consent.rules.binding import Quorum, Witnesses, is_stale
from federation.rules.instant import parse_instant


@dataclass(frozen=True, slots=True)
class Health:
    """Where the registry stands.

    Attributes:
        subjects: names that have a record.
        records: stored records.
        pending: records that no batch carries yet.
        log_size: entries of the consent log.
        batched_at: when the newest batch was closed; None: never.
        witnesses: how many witnesses are named, of whom ``quorum`` must cosign (0: nobody).
        cosigned_size: the largest log that enough of them cosigned.
        cosigned_at: the time that enough of them have reached; None: never.
        cosigned_age: how long ago that was; None: never.
        stale: whether it is too long ago, so that nothing is permitted.
        decisions: how many decisions this process remembers.
        verified: how many verified records this process remembers.
    """

    subjects: int
    records: int
    pending: int
    log_size: int
    batched_at: datetime | None
    witnesses: int
    quorum: int
    cosigned_size: int
    cosigned_at: datetime | None
    cosigned_age: timedelta | None
    stale: bool
    decisions: int
    verified: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One withdrawal (or a refusal of what was allowed before) and how long it took to stop.

    Attributes:
        ref: who.
        digest: the record.
        received_at: when the receipt was given: from here on no round begins with the person.
        decided_at: the first decision about a round after that, of any study; None: there was none yet.
        in_flight: the rounds that had begun with the person and were not over.
        ended_at: when the last of those was over (``received_at`` if there was none); None: one of them is not yet.
    """

    ref: str
    digest: str
    received_at: datetime
    decided_at: datetime | None
    in_flight: tuple[RoundOf, ...]
    ended_at: datetime | None

    @property
    def time_to_stop(self) -> timedelta | None:
        """From the receipt to the end of the last round that had begun with the person; None: not over yet."""
        return None if self.ended_at is None else self.ended_at - self.received_at


def health(
    session: Session,
    *,
    now: datetime,
    log_size: int,
    witnesses: Witnesses,
    quorum: Quorum,
    age_max: timedelta,
    decisions: int,
    verified: int,
) -> Health:
    """Where the registry stands at ``now``."""
    batched_at = session.get_one(ConsentState, 1).batched_at
    records = select(func.count()).select_from(StoredRecord)
    return Health(
        subjects=session.exec(select(func.count()).select_from(ConsentSubject)).one(),
        records=session.exec(records).one(),
        pending=session.exec(records.where(col(StoredRecord.batch).is_(None))).one(),
        log_size=log_size,
        batched_at=parse_instant(batched_at) if batched_at else None,
        witnesses=len(witnesses.keys),
        quorum=witnesses.quorum,
        cosigned_size=quorum.size,
        cosigned_at=quorum.at,
        cosigned_age=None if quorum.at is None else now - quorum.at,
        stale=bool(witnesses.quorum) and is_stale(quorum, now, age_max=age_max),
        decisions=decisions,
        verified=verified,
    )


def withdrawals(session: Session, *, digest: str | None = None) -> list[Withdrawal]:
    """All withdrawals, or one, oldest first."""
    query = select(ConsentWithdrawal)
    flying = select(ConsentInFlight.digest, ConsentRound).join(
        ConsentRound,
        (col(ConsentRound.study) == col(ConsentInFlight.study))
        & (col(ConsentRound.ordinal) == col(ConsentInFlight.ordinal)),
    )
    if digest is not None:
        query = query.where(ConsentWithdrawal.digest == digest)
        flying = flying.where(ConsentInFlight.digest == digest)
    rounds: dict[str, list[ConsentRound]] = {}
    for key, row in session.exec(flying.order_by(col(ConsentRound.study), col(ConsentRound.ordinal))):
        rounds.setdefault(key, []).append(row)
    order = (col(ConsentWithdrawal.received_us), col(ConsentWithdrawal.digest))
    return [_withdrawal(row, rounds.get(row.digest, [])) for row in session.exec(query.order_by(*order))]


def _withdrawal(row: ConsentWithdrawal, rounds: list[ConsentRound]) -> Withdrawal:
    flying = any(item.state == RoundState.IN_FLIGHT for item in rounds)
    ended = max([row.received_us, *(item.finished_us or 0 for item in rounds)])
    return Withdrawal(
        ref=row.ref,
        digest=row.digest,
        received_at=moment(row.received_us),
        decided_at=None if row.decided_us is None else moment(row.decided_us),
        in_flight=tuple(sorted({RoundOf(item.study, item.round) for item in rounds})),
        ended_at=None if flying else moment(ended),
    )
