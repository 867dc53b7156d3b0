"""Erasure: everything that mentions a person goes; the log stays, and stays valid.

The log holds salted hashes only. With the salt gone nobody can tell which of a batch's commitments was the person's, or
whether any was: a commitment is then as good as padding.
"""

from sqlmodel import Session, col, delete, select

from consent.registry.tables import PERSONAL, ConsentState, StoredRecord


def erase(session: Session, ref: str) -> list[bytes]:
    """Delete every row that mentions a name; the records that were there (none: the name was unknown)."""
    records = list(session.exec(select(StoredRecord.data).where(StoredRecord.ref == ref)))
    for table in PERSONAL:
        column = vars(table)["__table__"].c.ref
        session.exec(delete(table).where(col(column) == ref))
    state = session.get_one(ConsentState, 1, populate_existing=True)
    state.epoch += 1
    session.add(state)
    return records
