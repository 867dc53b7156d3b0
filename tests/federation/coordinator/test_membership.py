"""Who gets in: one token, one site, one key; and what each may bring."""

from pathlib import Path
from typing import Any

import pytest
from study_in_memory import key_of, small_plan

from federation.coordinator.history import StudyHistory
from federation.coordinator.membership import Membership, invite
from federation.coordinator.protocols import JoinRequest
from federation.coordinator.tables import IssuedInvitation, PublishedPlan, ValidationSet
from federation.errors import OperatorError, PeerError
from federation.rules.canonical import sha256_hex
from federation.rules.documents import Revocation
from federation.rules.entries import StudyPublished
from federation.rules.invitation import Invitation
from federation.rules.keys import PrivateKey
from federation.rules.study import Agreement
from federation.storage.database import memory_database, open_database
from federation.storage.log import MemoryLog

COORDINATOR = key_of("coordinator")
ASH, BIRCH = key_of("ash"), key_of("birch")
PLAN = small_plan(b"", sites=2)
ENVELOPE = PLAN.sign(COORDINATOR).to_bytes()
ADDRESS = f"/memory/1/p2p/{COORDINATOR.public.peer_id}"
TABLES = (PublishedPlan, IssuedInvitation, ValidationSet)


class Office:
    def __init__(self) -> None:
        self.engine = memory_database(*TABLES)
        self.history = StudyHistory(plan=PLAN, plan_blob=sha256_hex(ENVELOPE), key=COORDINATOR, log=MemoryLog("office"))
        self.history.append(
            StudyPublished(plan=sha256_hex(ENVELOPE), plan_hash=PLAN.plan_hash, minted=PLAN.reward.pool_microcredits)
        )
        self.membership = Membership(self.engine, self.history, ENVELOPE)

    def invite(self, site: str = "ash", study: str = PLAN.study_id) -> Invitation:
        return invite(self.engine, study=study, site=site, address=ADDRESS)

    def join(self, key: PrivateKey, invitation: Invitation, **changes: str) -> bytes:
        fields = {"study": invitation.study, "token": invitation.token}
        return self.membership.join(key.public, JoinRequest(**{**fields, **changes}).to_payload())

    def agreement(self, key: PrivateKey, site: str = "ash", **changes: Any) -> bytes:
        fields = {
            "study": PLAN.study_id,
            "plan_hash": PLAN.plan_hash,
            "site": site,
            "nominal_cohort": 10,
            "signed_at": "2026-11-22T00:00:00Z",
        }
        return Agreement(**{**fields, **changes}).sign(key).to_bytes()

    def revocation(self, key: PrivateKey, site: str = "ash") -> bytes:
        document = Revocation(
            study=PLAN.study_id, plan_hash=PLAN.plan_hash, site=site, signed_at="2026-11-22T00:00:00Z"
        )
        return document.sign(key).to_bytes()


@pytest.fixture
def office() -> Office:
    return Office()


def test_whoever_shows_a_token_gets_the_plan_and_is_let_in(office: Office) -> None:
    assert not office.membership.allowed(ASH.public)
    assert office.join(ASH, office.invite()) == ENVELOPE
    assert office.membership.allowed(ASH.public)
    assert office.membership.site_of(ASH.public) == "ash"
    assert not office.membership.allowed(BIRCH.public)


def test_the_token_itself_is_not_stored(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", *TABLES)
    made = invite(engine, study=PLAN.study_id, site="ash", address=ADDRESS)
    engine.dispose()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert made.token_hash.encode() in stored
    assert made.token.encode() not in stored


def test_a_token_belongs_to_the_first_key_that_shows_it(office: Office) -> None:
    invitation = office.invite()
    office.join(ASH, invitation)
    assert office.join(ASH, invitation) == ENVELOPE  # again, as its answer may have been lost
    with pytest.raises(PeerError, match="used by another institution"):
        office.join(BIRCH, invitation)
    assert not office.membership.allowed(BIRCH.public)


@pytest.mark.parametrize("changes", [{"token": "0" * 64}, {"study": "other-0"}])
def test_a_wrong_token_or_study_is_refused(office: Office, changes: dict[str, str]) -> None:
    with pytest.raises(PeerError, match="not valid for this study") as refused:
        office.join(ASH, office.invite(), **changes)
    assert "accord study invite" in refused.value.remedy
    assert not office.membership.allowed(ASH.public)


def test_an_invitation_to_another_study_is_refused_here(office: Office) -> None:
    other = office.invite(study="other-0")
    with pytest.raises(PeerError, match="not valid for this study"):
        office.join(ASH, other)


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"study":"x","token":"y","version":1}', b"\xff"])
def test_garbage_at_the_door_is_a_peer_s_error(office: Office, payload: bytes) -> None:
    with pytest.raises(PeerError):
        office.membership.join(ASH.public, payload)


def test_an_unused_invitation_is_replaced_and_a_used_one_stays(office: Office) -> None:
    lost, found = office.invite(), office.invite()
    with pytest.raises(PeerError, match="not valid"):
        office.join(ASH, lost)
    office.join(ASH, found)
    with pytest.raises(OperatorError, match=r"has joined .* already"):
        office.invite()
    assert office.membership.invited() == {"ash": ASH.public.did}
    office.invite("birch")
    assert office.membership.invited() == {"ash": ASH.public.did, "birch": None}


def test_an_agreement_is_logged_once(office: Office) -> None:
    office.join(ASH, office.invite())
    for _ in range(3):
        assert office.membership.agree(ASH.public, office.agreement(ASH)) == b"{}"
    assert list(office.history.state.agreements) == [ASH.public.did]
    assert office.history.log.size == 2


def test_an_agreement_must_be_the_peer_s_own_and_under_its_invitation_s_name(office: Office) -> None:
    office.join(ASH, office.invite())
    with pytest.raises(PeerError, match="it is signed by"):
        office.membership.agree(ASH.public, office.agreement(BIRCH))
    with pytest.raises(PeerError, match="for the site birch, the invitation was not"):
        office.membership.agree(ASH.public, office.agreement(ASH, site="birch"))
    with pytest.raises(PeerError, match="the invitation was not"):
        office.membership.agree(BIRCH.public, office.agreement(BIRCH))
    with pytest.raises(PeerError, match="the agreement is for another plan"):
        office.membership.agree(ASH.public, office.agreement(ASH, plan_hash="0" * 64))
    assert office.history.log.size == 1


def test_a_revocation_is_logged_once_and_only_by_who_agreed(office: Office) -> None:
    office.join(ASH, office.invite())
    with pytest.raises(PeerError, match="there is no agreement to revoke"):
        office.membership.revoke(ASH.public, office.revocation(ASH))
    office.membership.agree(ASH.public, office.agreement(ASH))
    with pytest.raises(PeerError, match="it is signed by"):
        office.membership.revoke(ASH.public, office.revocation(BIRCH))
    office.membership.revoke(ASH.public, office.revocation(ASH))
    assert ASH.public.did not in office.history.state.agreements


def test_a_revocation_before_the_start_is_acknowledged_again(office: Office) -> None:
    """The node brings it until it is acknowledged; the first acknowledgement may have been lost."""
    office.join(ASH, office.invite())
    office.membership.agree(ASH.public, office.agreement(ASH))
    revocation = office.revocation(ASH)
    assert office.membership.revoke(ASH.public, revocation) == b"{}"
    assert office.membership.revoke(ASH.public, revocation) == b"{}"
