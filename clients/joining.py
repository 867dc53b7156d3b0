"""Joining a study: show an invitation, keep the coordinator's signed plan. Nothing is agreed by it."""

from datetime import datetime
from typing import Final

from clients.storage import StudyMembership
from federation.coordinator.protocols import JOIN, PLAN_REPLY_BYTES_MAX, JoinRequest
from federation.errors import PeerError
from federation.network.exchange import Exchange
from federation.rules.instant import format_instant
from federation.rules.invitation import Invitation
from federation.rules.study import StudyPlan, open_plan

_REQUEST_S: Final = 30.0


def join(exchange: Exchange, invitation: Invitation) -> tuple[StudyPlan, bytes]:
    """Show the invitation's token to the coordinator that it names; the signed plan.

    Raises:
        UnavailableError: the coordinator does not answer.
        PeerError: the token is not valid (any more), or the plan is not the coordinator's or not the invitation's.
    """
    coordinator = exchange.connect(invitation.address, timeout_s=_REQUEST_S)
    request = JoinRequest(study=invitation.study, token=invitation.token)
    data = exchange.request(
        coordinator, JOIN, request.to_payload(), timeout_s=_REQUEST_S, max_bytes=PLAN_REPLY_BYTES_MAX
    )
    plan, _ = open_plan(data, signer=coordinator)
    if plan.study_id != invitation.study:
        raise PeerError(
            f"The coordinator sent the plan of {plan.study_id}, not of {invitation.study}.",
            remedy="Ask the coordinator for a new invitation.",
        )
    return plan, data


def membership_of(invitation: Invitation, plan_envelope: bytes, *, now: datetime) -> StudyMembership:
    """What the node stores of a study that it has joined."""
    return StudyMembership(
        study=invitation.study,
        plan=plan_envelope,
        coordinator=invitation.coordinator.did,
        address=invitation.address,
        site=invitation.site,
        token=invitation.token,
        joined_at=format_instant(now),
    )
