"""``accord node``: making one, joining by invitation over real sockets, and every way in which it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hand_made import make_node
from web_proxy import web_proxy

from clients.folder import open_node_folder
from clients.privacy.budget import BudgetLedger
from federation.cli.main import main
from federation.cli.running import running
from federation.coordinator.folder import open_coordinator
from federation.coordinator.history import system_clock
from federation.coordinator.membership import invite
from federation.settings import PartyFolder, load_settings

Output = pytest.CaptureFixture[str]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def answer(capsys: Output, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: Output, code: int, *arguments: str | Path) -> str:
    """What is said to a person, with a remedy; the exit code is ``code``."""
    capsys.readouterr()
    assert run(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "what to do: " in err
    return err


def invitation(capsys: Output, registry: Path, site: str) -> str:
    return str(answer(capsys, "study", "invite", site, "--dir", registry)["invitation"])


def test_init_fixes_the_lifetime_budget_and_never_makes_a_second_node(tmp_path: Path, capsys: Output) -> None:
    folder = tmp_path / "node"
    options = ("--name", "cleveland", "--lifetime-epsilon", "2.5", "--subject-share", "80")
    made = answer(capsys, "node", "init", "--dir", folder, *options)
    assert load_settings(folder).subject_share_percent == 80
    assert made["did"].startswith("did:key:z6Mk")
    assert made["peer_id"].startswith("12D3KooW")
    ledger = BudgetLedger(open_node_folder(folder).engine, clock=system_clock)
    assert float(ledger.terms.epsilon) == 2.5
    assert "holds a party already" in refused(capsys, 2, "node", "init", "--dir", folder, "--lifetime-epsilon", "8")
    assert float(BudgetLedger(open_node_folder(folder).engine, clock=system_clock).terms.epsilon) == 2.5


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--lifetime-epsilon", "9", "lifetime_epsilon"),
        ("--lifetime-epsilon", "much", "lifetime_epsilon"),
        ("--renyi-order", "1", "--renyi-order"),
        ("--name", "Our Hospital", "name"),
    ],
)
def test_init_refuses_what_is_mistyped_and_makes_nothing(
    tmp_path: Path, capsys: Output, option: str, value: str, named: str
) -> None:
    assert named in refused(capsys, 2, "node", "init", "--dir", tmp_path / "node", option, value)
    assert not (tmp_path / "node").exists()


def test_joining_fetches_the_plan_and_agrees_to_nothing(open_registry: Path, tmp_path: Path, capsys: Output) -> None:
    node = make_node(tmp_path, "cleveland")
    text = invitation(capsys, open_registry, "cleveland")
    joined = answer(capsys, "node", "join", text, "--dir", node)
    plan, envelope = open_coordinator(open_registry).plan(None)
    assert (joined["study"], joined["site"]) == (plan.study_id, "cleveland")
    opened = open_node_folder(node)
    assert opened.membership().plan == envelope
    assert opened.membership().agreement == b""
    assert envelope in [opened.blobs.get(name) for name in opened.blobs.names()]  # a statement is read from it later
    status = answer(capsys, "node", "status", "--dir", node)
    assert (status["agreement"], status["running"], status["rounds"]) == ("invited", False, 5)
    assert "accord agreement sign" in status["awaited"]


def test_a_node_behind_a_firewall_joins_through_its_proxy_alone(
    open_registry: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's name is known to the proxy only, so that no direct way exists."""
    node, opened = make_node(tmp_path, "ward"), open_coordinator(open_registry)
    port = opened.settings.listen.rsplit("/", 1)[-1]
    address = f"/dns4/study.invalid/tcp/{port}/p2p/{opened.key.public.peer_id}"
    text = str(invite(opened.engine, study=opened.plan(None)[0].study_id, site="ward", address=address))
    refused(capsys, 7, "node", "join", text, "--dir", node)
    with web_proxy(names={"study.invalid": "127.0.0.1"}, password="ward:secret") as proxy:
        monkeypatch.setenv("ACCORD_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert "USER:PASSWORD" in refused(capsys, 7, "node", "join", text, "--dir", node)
        monkeypatch.setenv("ACCORD_PROXY", f"http://ward:secret@127.0.0.1:{proxy.port}")
        assert answer(capsys, "node", "join", text, "--dir", node)["site"] == "ward"
        assert f"study.invalid:{port}" in proxy.asked


def test_an_invitation_is_for_one_institution(open_registry: Path, tmp_path: Path, capsys: Output) -> None:
    first, second = make_node(tmp_path, "ash"), make_node(tmp_path, "birch")
    text = invitation(capsys, open_registry, "ash")
    assert run("node", "join", text, "--dir", first) == 0
    assert run("node", "join", text, "--dir", first) == 0  # again: after a crash, say
    assert "used by another institution" in refused(capsys, 4, "node", "join", text, "--dir", second)
    assert "has joined" in refused(capsys, 2, "study", "invite", "ash", "--dir", open_registry)
    assert "has not joined" in refused(capsys, 2, "node", "status", "--dir", second)


def test_an_invitation_that_was_replaced_is_refused(open_registry: Path, tmp_path: Path, capsys: Output) -> None:
    node = make_node(tmp_path, "elm")
    old = invitation(capsys, open_registry, "elm")
    new = invitation(capsys, open_registry, "elm")
    assert "not valid for this study" in refused(capsys, 4, "node", "join", old, "--dir", node)
    assert run("node", "join", new, "--dir", node) == 0


@pytest.mark.parametrize("spoil", [lambda text: text[:-9], lambda text: text[8:], lambda _: "accord1.", lambda _: "x"])
def test_a_garbled_invitation_is_an_input_to_change(registry: Path, tmp_path: Path, capsys: Output, spoil: Any) -> None:
    node = make_node(tmp_path, "oak")
    text = spoil(invitation(capsys, registry, "oak"))
    assert "not an invitation" in refused(capsys, 2, "node", "join", text, "--dir", node)


def test_a_coordinator_that_is_not_there_is_something_to_wait_for(tmp_path: Path, capsys: Output) -> None:
    from hand_made import make_registry

    (tmp_path / "away").mkdir()
    away = make_registry(tmp_path / "away")
    node = make_node(tmp_path, "pine")
    text = invitation(capsys, away, "pine")
    assert run("node", "join", text, "--dir", node, "--json") == 7
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "UnavailableError"
    assert error["remedy"]
    assert "has not joined" in refused(capsys, 2, "node", "status", "--dir", node)


def test_run_needs_an_agreement(node: Path, capsys: Output) -> None:
    assert "No agreement is signed" in refused(capsys, 2, "node", "run", "--dir", node)


def test_a_second_run_in_the_same_folder_is_refused(node: Path, capsys: Output) -> None:
    with running(PartyFolder(node), load_settings(node)):
        assert "running already" in refused(capsys, 2, "node", "run", "--dir", node)


def test_status_names_the_next_thing_to_do(node: Path, capsys: Output) -> None:
    assert run("agreement", "sign", "--nominal-cohort", "40", "--yes", "--dir", node) == 0
    status = answer(capsys, "node", "status", "--dir", node)
    assert status["awaited"] == "you: start the node (`accord node run`)"
    with running(PartyFolder(node), load_settings(node)) as party:
        assert "the coordinator: it does not answer" in answer(capsys, "node", "status", "--dir", node)["awaited"]
        party.show_status({"study": status["study"], "connected": True, "agreement": "admitted", "round": 2})
        assert run("node", "status", "--dir", node) == 0
        text = capsys.readouterr().out
        party.show_status({"study": "another-000000000000", "connected": True, "round": 4})
        assert answer(capsys, "node", "status", "--dir", node)["running"] is False
    assert "agreement  admitted" in text
    assert "round      2 of 5" in text
    assert "awaited    the coordinator: the next step of the study" in text


def test_the_wrong_folder_is_named(registry: Path, tmp_path: Path, capsys: Output) -> None:
    for command in (("run",), ("status",), ("join", "accord1.x")):
        assert "is the folder of a coordinator" in refused(capsys, 2, "node", *command, "--dir", registry)
    assert "No party lives in" in refused(capsys, 2, "node", "status", "--dir", tmp_path / "nowhere")


def test_an_unknown_study_is_answered_with_those_that_were_joined(node: Path, capsys: Output) -> None:
    known = open_node_folder(node).membership().study
    for command in ("run", "status"):
        err = refused(capsys, 2, "node", command, "--dir", node, "--study", "heart-000000000000")
        assert known in err


def test_a_key_file_that_others_may_read_is_refused_with_the_line_to_type(node: Path, capsys: Output) -> None:
    (node / "identity.key").chmod(0o604)
    assert f"chmod 600 {node / 'identity.key'}" in refused(capsys, 2, "node", "run", "--dir", node)
