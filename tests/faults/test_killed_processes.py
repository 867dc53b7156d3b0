"""One small study of real processes: a node is killed, another one freezes, and then the coordinator is killed."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from parties_on_loopback import Parties
from prometheus_client.parser import text_string_to_metric_families
from study_in_memory import key_of

from clients.privacy.budget import State
from federation.coordinator.membership import Membership
from federation.coordinator.protocols import AGREEMENT, COSIGN, JOIN, REPLY_BYTES_MAX, JoinRequest
from federation.errors import AccordError, PeerError, UnavailableError
from federation.export.verification import verify_export
from federation.export.writing import write_export
from federation.network.blobs import BLOB
from federation.network.host import Libp2pHost
from federation.rules.accounting import epsilon
from federation.rules.audit import check_round
from federation.rules.canonical import canonical_bytes
from federation.rules.invitation import Invitation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200)]

DEADLINE_S = 90
"""Never reached, however busy the machine: rounds here end when everybody has answered, and a node that was killed
answers as soon as it is back. What happens at a deadline is tested in memory."""


@dataclass
class Story:
    """What happened, in order, as the folders showed it."""

    parties: Parties
    cedar_at_kill: State | None = None
    committed_at_kill: list[str] = field(default_factory=list)
    in_round_at_kill: int | None = None
    awaited_while_frozen: dict[str, str] = field(default_factory=dict)
    stranger: dict[str, AccordError | None] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    healthy: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with Parties(tmp_path_factory.mktemp("killed"), deadline_s=DEADLINE_S) as parties:
        told = Story(parties)
        study, everybody = parties.plan.study_id, ("coordinator", *Parties.SITES)
        parties.start(*everybody)

        def training() -> bool:
            charge = parties.budget("cedar").charge(study, 1)
            return charge is not None and charge.state is State.STARTED

        # Round 1: cedar dies while it trains. The others go on, and meanwhile a stranger tries the doors.
        parties.wait_for("cedar to train", training, timeout_s=60, alive=everybody)
        parties.kill("cedar")
        charge = parties.budget("cedar").charge(study, 1)
        told.cedar_at_kill = charge.state if charge else None
        told.stranger = try_the_doors(parties)
        parties.wait_for(
            "the others' commitments",
            lambda: len(parties.said("update-committed", 1)) == 2,
            timeout_s=60,
            alive=("coordinator", "ash", "birch"),
        )
        parties.start("cedar")

        told.healthy = {name: json.loads(parties.asked(name, "/healthz")) for name in parties.health}
        told.figures = {name: parties.asked(name, "/metrics") for name in parties.health}

        # Round 2: birch freezes, and its connection stays open. The coordinator dies when a commitment is in its log.
        parties.wait_for("round 2", lambda: parties.said("round-opened", 2), timeout_s=60, alive=everybody)
        parties.processes["birch"].freeze()

        def missed() -> bool:
            told.awaited_while_frozen = {item["site"]: item["for"] for item in parties.status()["awaited"]}
            return "it is not connected" in told.awaited_while_frozen.get("birch", "")

        parties.wait_for("birch to be missed", missed, timeout_s=60, alive=everybody)
        parties.wait_for(
            "a commitment of round 2", lambda: parties.said("update-committed", 2), timeout_s=60, alive=everybody
        )
        parties.kill("coordinator")
        told.committed_at_kill = [entry.party or "" for entry in parties.said("update-committed", 2)]
        current = parties.state().round
        told.in_round_at_kill = current.number if current else None
        parties.start("coordinator")
        parties.processes["birch"].thaw()
        parties.wait_for("the settlement", lambda: parties.said("study-settled"), timeout_s=90)
        told.exits = {name: parties.processes[name].wait(30) for name in everybody}
        yield told


def try_the_doors(parties: Parties) -> dict[str, AccordError | None]:
    """What somebody without an invitation gets to hear, at each protocol."""
    guess = JoinRequest(study=parties.plan.study_id, token="0" * 64)
    model = canonical_bytes({"name": parties.state().plan_blob, "offset": 0})
    attempts = {JOIN: guess.to_payload(), AGREEMENT: b"{}", COSIGN: b"{}", BLOB: model}
    heard: dict[str, AccordError | None] = {}
    with Libp2pHost(key_of("stranger"), listen=None) as host:
        coordinator = host.connect(parties.address, timeout_s=20)
        for protocol, payload in attempts.items():
            try:
                host.request(coordinator, protocol, payload, timeout_s=10, max_bytes=REPLY_BYTES_MAX)
            except AccordError as error:
                heard[protocol] = error
            else:
                heard[protocol] = None
    return heard


def test_no_log_names_a_person_or_repeats_their_data(story: Story) -> None:
    """Every line that any party wrote, also the dying ones: no person's name, no row of a file."""
    logs = "".join(path.read_text("utf-8") for path in story.parties.folder.glob("*/party.log"))
    assert "update committed" in logs
    assert not re.search(r"\bp[0-9]{2}\b", logs)
    rows = [row for path in story.parties.folder.glob("*.csv") for row in path.read_text("utf-8").splitlines()[1:]]
    assert len(rows) == 180
    assert not [row for row in rows if row.partition(",")[2] in logs]


def test_running_parties_show_their_health_and_figures(story: Story) -> None:
    """Asked while round 1 waits for the node that was killed."""
    assert {name: said["healthy"] for name, said in story.healthy.items()} == {"coordinator": True, "ash": True}
    assert story.healthy["ash"]["connected"] is True
    found = {
        name: {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.labels
        }
        for name, text in story.figures.items()
    }
    assert found["ash"]["accord_connected"] == 1
    assert found["ash"]["accord_epsilon_spent"] > 0
    assert found["ash"]["accord_epsilon_lifetime"] == 3
    for figures in found.values():
        assert figures["accord_sent_bytes_total"] > 1000
        assert figures["accord_received_bytes_total"] > 1000
    assert found["coordinator"]["accord_round"] == 1
    assert "p00" not in "".join(story.figures.values()), "nobody is in it"


def test_every_process_ends_by_itself_when_the_study_is_settled(story: Story) -> None:
    assert story.exits == dict.fromkeys(("coordinator", *Parties.SITES), 0)


def test_a_killed_node_s_round_goes_on_with_the_quorum(story: Story) -> None:
    assert story.cedar_at_kill is State.STARTED
    first = story.parties.state().closed[0]
    assert first.outcome == "aggregated"
    assert set(first.admitted) == {story.parties.did("ash"), story.parties.did("birch")}
    assert first.refused[story.parties.did("cedar")].startswith("interrupted")


def test_a_killed_node_comes_back_and_continues(story: Story) -> None:
    for done in story.parties.state().closed[1:]:
        assert story.parties.did("cedar") in done.admitted


def test_what_the_killed_node_had_started_stays_charged_and_is_not_repeated(story: Story) -> None:
    budget = story.parties.budget("cedar")
    assert [(charge.round, charge.state) for charge in budget.charges()] == [
        (1, State.STARTED),
        (2, State.COMMITTED),
        (3, State.COMMITTED),
    ]
    assert abs(budget.spent() - story.parties.budget("ash").spent()) < 1e-9


def test_a_frozen_node_is_missed_by_name_and_takes_part_again(story: Story) -> None:
    assert "birch" in story.awaited_while_frozen
    assert not {"ash", "cedar"} & {site for site, what in story.awaited_while_frozen.items() if "not connected" in what}
    assert story.parties.did("birch") in story.parties.state().closed[1].admitted


def test_a_killed_coordinator_s_round_is_carried_to_its_end(story: Story) -> None:
    assert story.in_round_at_kill == 2
    assert story.committed_at_kill
    second = story.parties.state().closed[1]
    assert second.outcome == "aggregated"
    assert set(story.committed_at_kill) <= set(second.admitted)
    assert len(second.admitted) == 3


def test_nothing_is_said_charged_minted_or_paid_twice(story: Story) -> None:
    said = Counter((entry.body.kind, entry.round, entry.party) for entry in story.parties.entries())
    assert {key: count for key, count in said.items() if count > 1 and key[0] != "round-reopened"} == {}
    state = story.parties.state()
    assert state.ledger.minted == state.plan.reward.pool_microcredits
    assert sum(state.ledger.balances.values()) + state.burned == state.plan.reward.pool_microcredits
    for site in ("ash", "birch"):
        budget = story.parties.budget(site)
        assert [(charge.round, charge.state) for charge in budget.charges()] == [
            (number, State.COMMITTED) for number in (1, 2, 3)
        ]
        assert len(budget.history()) == 1 + 3 * 3


def test_epsilon_follows_from_the_logged_events(story: Story) -> None:
    privacy = story.parties.plan.privacy
    for site in ("ash", "birch"):
        events = [done.admitted[story.parties.did(site)].event for done in story.parties.state().closed]
        spent = story.parties.budget(site).spent()
        assert abs(spent - epsilon(events, delta=privacy.delta, order=privacy.order)) < 1e-9
        assert spent <= float(privacy.epsilon)


def test_everybody_holds_the_same_log_and_the_models_follow_from_it(story: Story) -> None:
    parties = story.parties
    log = parties.history.log
    for site in Parties.SITES:
        assert parties.nodes[site].replica(parties.plan.study_id).entries() == log.entries()
    state = parties.state()
    for done in state.closed:
        check_round(done, state, parties.coordinator.blobs.get)


def test_the_study_exports_and_verifies(story: Story, tmp_path: Path) -> None:
    parties = story.parties
    folder = tmp_path / "export"
    write_export(
        folder,
        plan=parties.envelope,
        log=parties.history.log,
        blobs=parties.coordinator.blobs,
        key=parties.coordinator.key,
        validation=parties.coordinator.validation(parties.plan.validation.commitment),
    )
    verify_export(folder, parties.coordinator.key.public)


def test_a_stranger_finds_one_door_and_it_is_locked(story: Story) -> None:
    join = story.stranger[JOIN]
    assert isinstance(join, PeerError)
    assert "The invitation is not valid for this study" in join.message
    for protocol in (AGREEMENT, COSIGN, BLOB):
        assert isinstance(story.stranger[protocol], UnavailableError)
    assert key_of("stranger").public.did not in story.parties.state().agreements


def test_an_invitation_for_another_key_is_none(story: Story) -> None:
    """The token of ash in the hands of somebody else, at the folder that the processes left."""
    parties = story.parties
    membership = parties.nodes["ash"].membership()
    invitation = Invitation(
        address=membership.address, study=membership.study, site=membership.site, token=membership.token
    )
    request = JoinRequest(study=invitation.study, token=invitation.token)
    door = Membership(parties.coordinator.engine, parties.history, parties.envelope)
    with pytest.raises(PeerError, match="used by another institution"):
        door.join(key_of("stranger").public, request.to_payload())
