"""``accord agreement``: what an officer reads, signs once, and may end."""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hand_made import make_node

from clients.comparison import make_sealing_key
from clients.folder import open_node_folder
from clients.storage import StudyMembership
from federation.cli.main import main
from federation.coordinator.folder import open_coordinator
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.documents import Revocation, open_signed
from federation.rules.study import StudyPlan, open_agreement, open_plan
from federation.rules.wire import plain_decimal
from federation.storage.database import write

Output = pytest.CaptureFixture[str]
END = b"\x03the end"


def run(*arguments: str | Path) -> int:
    return main(["agreement", *(str(argument) for argument in arguments)])


def answer(capsys: Output, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: Output, *arguments: str | Path) -> str:
    """What is said to a person, with a remedy; the exit code is 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "what to do: " in err
    return err


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, reply: bytes, *arguments: str | Path) -> tuple[int, str]:
    """The exit code and what the terminal showed, when a person types ``reply``: a real pseudo-terminal."""
    master, slave = os.openpty()
    shown = bytearray()

    def look() -> None:
        while END not in shown:
            shown.extend(os.read(master, 4096))

    person = threading.Thread(target=look)
    person.start()
    os.write(master, reply + b"\n")
    with (
        os.fdopen(slave, encoding="utf-8", closefd=False) as keyboard,
        os.fdopen(slave, "w", encoding="utf-8") as screen,
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stdin", keyboard)
        patched.setattr(sys, "stderr", screen)
        code = run(*arguments)
        screen.flush()
        os.write(slave, END)
        person.join(10)
    os.close(master)
    return code, shown.decode()


def test_a_review_tells_the_plan_and_who_signed_it(node: Path, capsys: Output) -> None:
    data = answer(capsys, "review", "--dir", node)
    plan, envelope = open_plan(open_node_folder(node).membership().plan)
    assert data["signer"] == envelope.signer.did
    assert data["plan_hash"] == plan.plan_hash
    assert data["plan"]["privacy"]["epsilon"] == "3"
    assert run("review", "--dir", node) == 0
    text = capsys.readouterr().out
    assert "What you get." in text
    assert envelope.signer.did in text
    assert "accord agreement sign" in text


def test_a_signature_is_given_once_and_binds_to_this_plan(node: Path, capsys: Output) -> None:
    signed = answer(capsys, "sign", "--nominal-cohort", "240", "--yes", "--dir", node)
    opened = open_node_folder(node)
    agreement, envelope = open_agreement(opened.membership().agreement, signer=opened.key.public)
    assert agreement.nominal_cohort == signed["nominal_cohort"] == 240
    assert agreement.plan_hash == open_plan(opened.membership().plan)[0].plan_hash
    assert "is signed already" in refused(capsys, "sign", "--nominal-cohort", "300", "--yes", "--dir", node)
    assert open_node_folder(node).membership().agreement == envelope.to_bytes()


def test_without_a_terminal_nothing_is_signed_unasked(node: Path, capsys: Output) -> None:
    assert "Nobody is here to answer" in refused(capsys, "sign", "--nominal-cohort", "240", "--dir", node)
    assert open_node_folder(node).membership().agreement == b""
    assert run("sign", "--nominal-cohort", "240", "--yes", "--dir", node) == 0
    assert "Nobody is here to answer" in refused(capsys, "revoke", "--dir", node)
    assert open_node_folder(node).membership().revocation == b""


def test_at_a_terminal_the_plan_is_shown_and_the_answer_counts(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = ("sign", "--nominal-cohort", "240", "--dir", node)
    code, shown = at_a_terminal(monkeypatch, b"n", *sign)
    assert code == 2
    assert "What you sign." in shown
    assert "Nothing was signed." in shown
    assert open_node_folder(node).membership().agreement == b""
    code, shown = at_a_terminal(monkeypatch, b"y", *sign)
    assert code == 0
    assert open_node_folder(node).membership().agreement != b""


def test_a_revocation_ends_it(node: Path, capsys: Output) -> None:
    assert "No agreement" in refused(capsys, "revoke", "--yes", "--dir", node)
    assert run("sign", "--nominal-cohort", "240", "--yes", "--dir", node) == 0
    revoked = answer(capsys, "revoke", "--yes", "--dir", node)
    opened = open_node_folder(node)
    revocation, _ = open_signed(Revocation, opened.membership().revocation, signer=opened.key.public)
    assert revocation.study == revoked["study"] == opened.membership().study
    assert opened.membership().status == "revoked"
    assert "signed already (revoked)" in refused(capsys, "sign", "--nominal-cohort", "240", "--yes", "--dir", node)


def test_where_people_are_compared_the_agreement_says_so_and_brings_a_key(
    node: Path, registry: Path, capsys: Output
) -> None:
    named = ("--same-owner-as", "our-clinic")
    sign = ("sign", "--nominal-cohort", "240", "--yes", "--dir", node)
    assert "no account of who owns" in refused(capsys, *sign, *named)
    coordinator = open_coordinator(registry)
    document = coordinator.plan(None)[0].model_dump(mode="json", by_alias=True, exclude_none=True)
    plan = StudyPlan.model_validate({**document, "overlap": {}})
    opened = open_node_folder(node)
    joined = opened.membership().model_dump() | {"study": plan.study_id, "joined_at": "2999-01-01T00:00:00Z"}
    with write(opened.engine) as session:
        session.add(StudyMembership(**{**joined, "plan": plan.sign(coordinator.key).to_bytes()}))
    text = answer(capsys, "review", "--dir", node)["text"]
    assert "What is compared before." in text
    assert f"would be {plain_decimal(derive_noise_multiplier(coordinator.plan(None)[0]))}." in text
    assert "same_owner_as" in refused(capsys, *sign, "--same-owner-as", "Our Clinic")
    signed = answer(capsys, *sign, *named)
    agreement, _ = open_agreement(open_node_folder(node).membership().agreement, signer=opened.key.public)
    assert signed["same_owner_as"] == ["our-clinic"]
    assert agreement.same_owner_as == ("our-clinic",)
    assert agreement.overlap_key == signed["overlap_key"] == make_sealing_key(opened.engine, plan.study_id)
    assert main(["node", "status", "--dir", str(node)]) == 0
    assert "compared   to come: it is part of the agreement" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_a_nominal_cohort_is_a_number_of_people(node: Path, capsys: Output, size: str) -> None:
    assert "--nominal-cohort" in refused(capsys, "sign", "--nominal-cohort", size, "--yes", "--dir", node)


def test_what_was_not_joined_cannot_be_reviewed(node: Path, registry: Path, tmp_path: Path, capsys: Output) -> None:
    lonely = make_node(tmp_path, "lonely")
    assert "has not joined a study" in refused(capsys, "review", "--dir", lonely)
    known = open_node_folder(node).membership().study
    for command in (("review",), ("sign", "--nominal-cohort", "9", "--yes"), ("revoke", "--yes")):
        assert known in refused(capsys, *command, "--dir", node, "--study", "heart-000000000000")
        assert "folder of a coordinator" in refused(capsys, *command, "--dir", registry)
