"""What people at the institution found about studies (:mod:`consent.rules.approval`): kept, taken back, read.

A finding is stored as it was signed, and verified when it is read: a row that was altered counts for nothing. What was
taken back stays in the list and never counts again. Whenever a finding comes or goes, everybody is decided anew.
"""

import functools
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from consent.registry.tables import ConsentApproval, ConsentState
from consent.rules.approval import Approval, open_approval
from federation.errors import OperatorError, PeerError
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class KeptApproval:
    """A finding, and when it was taken back (None: it was not)."""

    approval: Approval
    revoked_at: str | None


def approve(session: Session, approval: Approval, key: PrivateKey) -> None:
    """Sign and keep a finding. The same one again changes nothing.

    Raises:
        OperatorError: it was taken back.
    """
    kept = session.get(ConsentApproval, approval.identifier)
    if kept is not None and kept.revoked_at:
        raise OperatorError("This approval was taken back.", remedy="Judge the study again, and record a new approval.")
    if kept is None:
        document = approval.sign(key).to_bytes()
        session.add(ConsentApproval(identifier=approval.identifier, plan_hash=approval.plan_hash, document=document))
        _decide_anew(session)


def disapprove(session: Session, identifier: str, now: datetime, institution: PublicKey) -> KeptApproval:
    """Take a finding back, at once and for good; again changes nothing.

    Raises:
        OperatorError: there is none whose identifier begins so, or there are several.
    """
    rows = [row for row in session.exec(select(ConsentApproval)) if row.identifier.startswith(identifier)]
    read = [(row, _opened(row.document, institution)) for row in rows]
    found = [(row, approval) for row, approval in read if approval is not None]
    if len(found) != 1 or not identifier:
        raise OperatorError(
            f"{len(found) if identifier and found else 'No'} approvals begin with {identifier[:64]!r}.",
            remedy="Name one as `accord consent approvals` shows it.",
        )
    row, approval = found[0]
    if not row.revoked_at:
        row.revoked_at = format_instant(now)
        session.add(row)
        _decide_anew(session)
    return KeptApproval(approval, row.revoked_at)


def approvals(session: Session, institution: PublicKey) -> list[KeptApproval]:
    """Every finding that verifies, by date."""
    rows = session.exec(select(ConsentApproval).order_by(col(ConsentApproval.identifier)))
    read = [(_opened(row.document, institution), row.revoked_at or None) for row in rows]
    kept = [KeptApproval(approval, revoked_at) for approval, revoked_at in read if approval is not None]
    return sorted(kept, key=lambda each: each.approval.given_at)


def standing(session: Session, institution: str, plan_hash: str | None) -> tuple[Approval, ...]:
    """The findings about a plan that were not taken back."""
    if plan_hash is None:
        return ()
    query = select(ConsentApproval).where(ConsentApproval.plan_hash == plan_hash, ConsentApproval.revoked_at == "")
    found = (_opened(row.document, PublicKey.from_did(institution)) for row in session.exec(query))
    return tuple(approval for approval in found if approval is not None)


@functools.lru_cache(maxsize=256)
def _opened(document: bytes, institution: PublicKey) -> Approval | None:
    try:
        return open_approval(bytes(document), institution=institution)
    except PeerError:
        return None


def _decide_anew(session: Session) -> None:
    state = session.get_one(ConsentState, 1)
    state.rules += 1
    session.add(state)
