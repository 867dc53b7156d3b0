"""Batches at fixed times: what is pending goes to the log, and what is not there is made up by padding.

A batch is closed in one transaction (which records it carries, its bytes, its time) and appended to the log after that,
under a name that makes the append idempotent: a crash between the two leaves a closed batch that the next caller
appends as it is. Several processes may do this at once.
"""

import secrets
from datetime import UTC, datetime
from math import floor

from sqlalchemy import Engine
from sqlmodel import Session, col, func, select

from consent.registry.tables import ConsentBatch, ConsentState, StoredRecord
from consent.rules.commitment import COMMITMENT_BYTES, batch_bytes, commitment
from federation.rules.instant import format_instant, parse_instant
from federation.storage.database import read, write
from federation.storage.log import MerkleLog


def close_batch(session: Session, now: datetime, *, size: int) -> int:
    """Close one batch of ``size`` commitments, the oldest pending ones first; its number."""
    query = select(StoredRecord).where(col(StoredRecord.batch).is_(None))
    order = (col(StoredRecord.received_at), col(StoredRecord.digest))
    pending = session.exec(query.order_by(*order).limit(size)).all()
    last = session.exec(select(func.max(ConsentBatch.number))).one()
    number = 1 if last is None else last + 1
    for row in pending:
        row.batch = number
        session.add(row)
    data = batch_bytes(
        [commitment(row.salt, row.data) for row in pending],
        size=size,
        padding=[secrets.token_bytes(COMMITMENT_BYTES) for _ in range(size - len(pending))],
        appended_at=now,
    )
    session.add(ConsentBatch(number=number, data=data))
    state = session.get_one(ConsentState, 1)
    state.batched_at = format_instant(now)
    session.add(state)
    return number


def append_closed(engine: Engine, log: MerkleLog) -> None:
    """Append every closed batch that is not in the log yet. Safe to repeat, and from several processes."""
    with read(engine) as session:
        query = select(ConsentBatch).where(col(ConsentBatch.log_index).is_(None))
        closed = session.exec(query.order_by(col(ConsentBatch.number))).all()
    placed = {row.number: log.append(f"consent-batch/{row.number}", row.data) for row in closed}
    if placed:
        with write(engine) as session:
            for number, index in placed.items():
                row = session.get_one(ConsentBatch, number)
                row.log_index = index
                session.add(row)


def is_due(session: Session, now: datetime, *, every_s: float) -> bool:
    """Whether no batch has been closed since the newest multiple of ``every_s`` on the clock (POSIX time)."""
    closed_at = session.get_one(ConsentState, 1).batched_at
    return not closed_at or slot(parse_instant(closed_at), every_s) < slot(now, every_s)


def slot(now: datetime, every_s: float) -> int:
    """Which of the clock's intervals of ``every_s`` seconds a moment lies in."""
    return floor(now.astimezone(UTC).timestamp() / every_s)
