"""A node: it joins with an invitation, brings what was signed, and goes on where its database stands."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from study_in_memory import InMemoryStudy, key_of

from clients.folder import create_node, open_node_folder
from clients.joining import join, membership_of
from clients.node import Node
from clients.storage import StudyMembership
from federation.coordinator.folder import create_coordinator
from federation.coordinator.membership import invite
from federation.coordinator.protocols import AGREEMENT, JOIN
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.network.memory import Delivery, Fate
from federation.network.pieces import PIECE, PIECE_REPLY_BYTES_MAX, PieceRequest, open_piece
from federation.rules.entries import StudyPublished
from federation.rules.invitation import Invitation
from federation.rules.sharing import shared_models
from federation.settings import PartySettings
from federation.storage.database import write

NODE = PartySettings(role="node", name="ash")


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path, sites=2) as made:
        yield made


def new_invitation(study: InMemoryStudy, **changes: str) -> Invitation:
    fields = {"study": study.plan.study_id, "site": "elm", "address": study.exchange.addresses()[0]}
    return invite(study.engine, **{**fields, **changes})


# The folder


def test_a_node_s_folder_opens_as_it_was_made(tmp_path: Path) -> None:
    made = create_node(tmp_path / "node", NODE)
    opened = open_node_folder(tmp_path / "node")
    assert opened.key == made.key
    assert opened.settings == NODE
    assert opened.registry.histories() == {}
    with pytest.raises(OperatorError, match="holds a party already"):
        create_node(tmp_path / "node", NODE)


def test_a_coordinator_s_folder_is_no_node(tmp_path: Path) -> None:
    create_coordinator(tmp_path / "c", PartySettings(role="coordinator", name="c"))
    with pytest.raises(OperatorError, match="is the folder of a coordinator"):
        open_node_folder(tmp_path / "c")
    with pytest.raises(OperatorError, match="No party lives"):
        open_node_folder(tmp_path / "nowhere")


def test_a_folder_names_the_studies_that_it_joined(tmp_path: Path) -> None:
    opened = create_node(tmp_path / "node", NODE)
    with pytest.raises(OperatorError, match=r"has not joined a study \(joined: none yet\)") as refused:
        opened.membership()
    assert "accord node join" in refused.value.remedy
    for number, joined_at in ((1, "2026-11-22T00:00:02Z"), (2, "2026-11-22T00:00:01Z")):
        row = StudyMembership(study=f"s-{number}", plan=b"", coordinator="", address="", site="", joined_at=joined_at)
        with write(opened.engine) as session:
            session.add(row)
    assert opened.membership().study == "s-1"  # the newest
    assert opened.membership("s-2").study == "s-2"
    with pytest.raises(OperatorError, match=r"has not joined s-3 \(joined: s-2, s-1\)"):
        opened.membership("s-3")
    opened.update_membership("s-2", status="agreed", agreement=b"signed")
    assert (opened.membership("s-2").status, opened.membership("s-2").agreement) == ("agreed", b"signed")
    with pytest.raises(OperatorError, match="has not joined s-3"):
        opened.update_membership("s-3", status="agreed")


# Joining


def test_joining_brings_the_signed_plan(study: InMemoryStudy) -> None:
    exchange = study.network.exchange(key_of("elm"))
    invitation = new_invitation(study)
    plan, envelope = join(exchange, invitation)
    assert plan == study.plan
    assert envelope == study.envelope
    stored = membership_of(invitation, envelope, now=study.clock())
    assert (stored.study, stored.coordinator, stored.site) == (plan.study_id, study.key.public.did, "elm")
    assert join(exchange, invitation) == (plan, envelope)  # again, after a crash


def test_a_wrong_token_is_refused(study: InMemoryStudy) -> None:
    exchange = study.network.exchange(key_of("elm"))
    guessed = new_invitation(study).model_copy(update={"token": "0" * 64})
    with pytest.raises(PeerError, match="The invitation is not valid for this study"):
        join(exchange, guessed)


def test_an_invitation_serves_one_institution(study: InMemoryStudy) -> None:
    invitation = new_invitation(study)
    join(study.network.exchange(key_of("elm")), invitation)
    with pytest.raises(PeerError, match="used by another institution"):
        join(study.network.exchange(key_of("thief")), invitation)


def test_a_plan_by_another_key_is_refused(study: InMemoryStudy) -> None:
    forged = study.plan.sign(key_of("forger")).to_bytes()
    study.exchange.serve(JOIN, lambda _peer, _payload: forged, max_bytes=4096, strangers=True)
    with pytest.raises(PeerError, match="it is signed by"):
        join(study.network.exchange(key_of("elm")), new_invitation(study))


def test_another_plan_than_the_invitation_s_is_refused(study: InMemoryStudy) -> None:
    other = type(study.plan).model_validate(
        {**study.plan.model_dump(by_alias=True, mode="json", exclude_none=True), "title": "Another"}
    )
    data = other.sign(study.key).to_bytes()
    study.exchange.serve(JOIN, lambda _peer, _payload: data, max_bytes=4096, strangers=True)
    with pytest.raises(PeerError, match="sent the plan of"):
        join(study.network.exchange(key_of("elm")), new_invitation(study))


def test_nobody_at_the_address(study: InMemoryStudy) -> None:
    invitation = new_invitation(study)
    study.exchange.close()
    with pytest.raises(UnavailableError):
        join(study.network.exchange(key_of("elm")), invitation)


# Running


def test_without_a_signed_agreement_no_node_runs(study: InMemoryStudy) -> None:
    ash = study["ash"]
    parts = ash.parts()
    parts.membership.agreement = b""
    with pytest.raises(OperatorError, match="No agreement is signed") as refused:
        Node(parts)
    assert "accord agreement sign" in refused.value.remedy


def test_an_agreement_by_another_key_does_not_run(study: InMemoryStudy) -> None:
    parts = study["ash"].parts()
    parts.membership.agreement = study["birch"].parts().membership.agreement
    with pytest.raises(PeerError, match="it is signed by"):
        Node(parts)


def test_a_stored_plan_that_was_tampered_with_does_not_run(study: InMemoryStudy) -> None:
    parts = study["ash"].parts()
    parts.membership.plan = parts.membership.plan.replace(b"payload", b"pay1oad", 1)
    with pytest.raises(PeerError):
        Node(parts)


def test_an_agreement_is_brought_until_it_arrives_and_then_no_more(study: InMemoryStudy) -> None:
    brought: list[Delivery] = []
    lose = True

    def courier(delivery: Delivery) -> Fate:
        if delivery.protocol == AGREEMENT and delivery.sender == study["ash"].key.public:
            brought.append(delivery)
            return Fate.REQUEST_LOST if lose else Fate.DELIVERED
        return Fate.DELIVERED

    study.network.courier = courier
    publish(study)
    node = study["ash"].node
    assert node is not None
    node.tick()
    node.tick()
    assert len(brought) == 2
    assert node.status()["agreement"] == "waiting"
    lose = False
    node.tick()
    node.tick()
    assert len(brought) == 3
    assert node.status()["agreement"] == "delivered"
    assert list(study.state.agreements) == [study["ash"].did]


def publish(study: InMemoryStudy) -> None:
    study.history.append(
        StudyPublished(
            plan=study.state.plan_blob,
            plan_hash=study.plan.plan_hash,
            minted=study.plan.reward.pool_microcredits,
        )
    )


def test_a_refused_agreement_is_shown_as_the_problem(study: InMemoryStudy) -> None:
    node = study["ash"].node
    assert node is not None
    node.tick()
    assert "the study is not published" in node.status()["problem"]
    publish(study)
    study.clock.forward(minutes=5)
    node.tick()
    assert node.status()["problem"] == ""


def test_a_node_that_is_away_from_its_coordinator_waits(study: InMemoryStudy) -> None:
    node = study["ash"].node
    assert node is not None
    study.exchange.close()
    node.tick()
    status = node.status()
    assert status["connected"] is False
    assert status["agreement"] == "waiting"


def test_a_node_s_status_follows_the_log(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 1}) as study:
        study.run()
        node = study["ash"].node
        assert node is not None
        assert node.status() == {
            "study": study.plan.study_id,
            "site": "ash",
            "connected": True,
            "agreement": "admitted",
            "round": 1,
            "rounds": 1,
            "log_size": study.log.size,
            "settled": True,
            "problem": "",
            "line": "",
            "consent_log": {},
            "submissions": {},
        }


# Models that it passes on


def test_a_node_passes_models_on_to_parties_whose_agreement_holds_and_to_nobody_else(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, rounds={"count": 2}) as study:
        study.run(between=lambda closed: study["cedar"].revoke() if closed == 1 else None)
        ash, model = study["ash"], study.state.first_model
        assert model is not None
        assert ash.node is not None
        ash.node.tick()
        ash.stop()
        door = study.network.exchange(ash.key, allowed=lambda peer: peer == study.key.public)

        def ask(by: str, **changes: str) -> bytes:
            asked = PieceRequest(**({"study": study.plan.study_id, "name": model, "number": 0} | changes))
            exchange = study[by].exchange if by in study.institutions else study.network.exchange(key_of(by))
            exchange.connect(door.addresses()[0], timeout_s=1)
            limits = {"timeout_s": 1, "max_bytes": PIECE_REPLY_BYTES_MAX}
            return open_piece(exchange.request(ash.key.public, PIECE, asked.to_payload(), **limits), count=1)[1]

        with Node(replace(ash.parts(), exchange=door, peer_models="serve")).serve():
            assert ask("birch") == study.blobs.get(model)
            for by in ("cedar", "stranger"):  # one has revoked, the other is no party
                with pytest.raises(UnavailableError):
                    ask(by)
            with pytest.raises(PeerError, match="of this study"):
                ask("birch", name=next(name for name in ash.blobs.names() if name not in shared_models(study.state)))
        with (
            Node(replace(ash.parts(), exchange=door, peer_models="fetch")).serve(),
            pytest.raises(UnavailableError, match="passes nothing on"),
        ):
            ask("birch")
