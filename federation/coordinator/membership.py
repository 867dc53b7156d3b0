"""Who may talk to the coordinator: invitations, one-time tokens, agreements, revocations."""

import secrets

from sqlalchemy import Engine
from sqlmodel import col, select

from federation.errors import OperatorError, PeerError
from federation.rules.documents import Revocation, open_signed
from federation.rules.entries import AgreementAdmitted, AgreementRevoked
from federation.rules.instant import format_instant
from federation.rules.invitation import TOKEN_BYTES, Invitation, token_hash
from federation.rules.keys import PublicKey
from federation.rules.study import open_agreement, read
from federation.rules.wire import Slug
from federation.storage.database import read as reading
from federation.storage.database import write

from .history import StudyHistory, system_clock
from .protocols import JoinRequest
from .tables import IssuedInvitation


def invite(engine: Engine, *, study: str, site: Slug, address: str) -> Invitation:
    """Make an invitation for one site; the token leaves only in the string.

    Raises:
        OperatorError: the site has joined already. (An unused invitation is replaced by the new one.)
    """
    invitation = Invitation(address=address, study=study, site=site, token=secrets.token_hex(TOKEN_BYTES))
    with write(engine) as session:
        for row in session.exec(
            select(IssuedInvitation).where(IssuedInvitation.study == study, IssuedInvitation.site == site)
        ):
            if row.peer is not None:
                raise OperatorError(
                    f"The site {site} has joined {study} already.",
                    remedy="Choose another site name, or let that institution revoke its agreement first.",
                )
            session.delete(row)
        session.add(IssuedInvitation(token_hash=invitation.token_hash, study=study, site=site))
    return invitation


class Membership:
    """The gate and the doors of one study."""

    def __init__(self, engine: Engine, history: StudyHistory, plan_envelope: bytes) -> None:
        self._engine = engine
        self._history = history
        self._study = history.state.study
        self._plan_envelope = plan_envelope
        self._sites: dict[str, str] = {}

    def allowed(self, peer: PublicKey) -> bool:
        """Whether a peer has joined this study (asked at every request)."""
        return self.site_of(peer) is not None

    def site_of(self, peer: PublicKey) -> str | None:
        """The site name that a peer's invitation gave it; once given, it stays (the gate asks many times a second).

        A standby issued no invitation: there the log tells who takes part.
        """
        site = self._sites.get(peer.did)
        if site is None and peer.did in (agreements := self._history.state.agreements):
            site = self._sites[peer.did] = agreements[peer.did].site
        if site is None:
            with reading(self._engine) as session:
                site = session.exec(
                    select(IssuedInvitation.site).where(
                        IssuedInvitation.study == self._study, IssuedInvitation.peer == peer.did
                    )
                ).first()
            if site is not None:
                self._sites[peer.did] = site
        return site

    def invited(self) -> dict[str, str | None]:
        """Site names with the did that joined (None: not yet)."""
        with reading(self._engine) as session:
            rows = session.exec(
                select(IssuedInvitation)
                .where(IssuedInvitation.study == self._study)
                .order_by(col(IssuedInvitation.site))
            )
            return {row.site: row.peer for row in rows}

    def join(self, peer: PublicKey, payload: bytes) -> bytes:
        """Exchange a token for the signed plan; the token then belongs to this peer.

        Raises:
            PeerError: the token is unknown, for another study, or used by another peer.
        """
        request = read(JoinRequest, payload)
        with write(self._engine) as session:
            row = session.get(IssuedInvitation, token_hash(request.token))
            if row is None or row.study != request.study or row.study != self._study:
                raise PeerError(
                    "The invitation is not valid for this study.",
                    remedy="Ask the coordinator for a new invitation (`accord study invite`).",
                )
            if row.peer not in (None, peer.did):
                raise PeerError(
                    "The invitation has been used by another institution.",
                    remedy="Ask the coordinator for an invitation of your own.",
                )
            if row.peer is None:
                row.peer = peer.did
                row.used_at = format_instant(system_clock())
                session.add(row)
        return self._plan_envelope

    def agree(self, peer: PublicKey, payload: bytes) -> bytes:
        """Log a signed agreement.

        Raises:
            PeerError: signed by another key, under another site name, or refused by the log's rules.
        """
        agreement, envelope = open_agreement(payload, signer=peer)
        if agreement.site != self.site_of(peer):
            raise PeerError(
                f"The agreement is for the site {agreement.site}, the invitation was not.",
                remedy="Sign the agreement again with the site name of the invitation.",
            )
        state = self._history.state
        if peer.did not in state.agreements or peer.did in state.revoked:
            self._history.append(AgreementAdmitted(envelope=envelope.to_bytes().decode("utf-8")), party=peer)
        return b"{}"

    def revoke(self, peer: PublicKey, payload: bytes) -> bytes:
        """Log a signed revocation; one that is logged already is acknowledged again.

        Raises:
            PeerError: signed by another key, or there is nothing to revoke.
        """
        _, envelope = open_signed(Revocation, payload, signer=peer)
        if peer.did not in self._history.state.revoked:
            self._history.append(AgreementRevoked(envelope=envelope.to_bytes().decode("utf-8")), party=peer)
        return b"{}"
