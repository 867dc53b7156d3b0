"""``accord study propose | vote | votes`` on the folders of parties."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from study_folder import in_folder

from federation.cli.main import main
from federation.rules.ballots import Change, Proposal, Vote
from federation.rules.documents import open_signed
from federation.rules.entries import ChangeProposed, VoteCast
from federation.rules.keys import PrivateKey
from federation.storage.database import open_database
from federation.storage.outbox import Outbox, OutgoingDocument

Output = pytest.CaptureFixture[str]
STRANGER = PrivateKey(bytes([55]) * 32)


def waiting(folder: Path, study: Any) -> list[OutgoingDocument]:
    return Outbox(open_database(folder / "accord.db", OutgoingDocument), study.plan.study_id).waiting()


def refused(capsys: Output, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main(["study", *(str(argument) for argument in arguments)]) == 2
    err = capsys.readouterr().err
    assert "what to do: " in err
    return err


@pytest.fixture
def started(staked: Callable[..., Any]) -> Any:
    study = staked()
    study.now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=100)
    study.start()
    return study


def test_a_proposal_waits_for_the_running_party(started: Any, tmp_path: Path, capsys: Output) -> None:
    ash = started.institutions["ash"]
    node = in_folder(started, tmp_path / "node", "node", key=ash)
    assert main(["study", "propose", "deadline_s", "600", "--dir", str(node)]) == 0
    assert "rounds wait 600 s for answers" in capsys.readouterr().out
    proposal, _ = open_signed(Proposal, waiting(node, started)[0].document, signer=ash.public)
    assert proposal.change == Change(parameter="deadline_s", value=600)
    assert "60 .. 604800 now, not to 59" in refused(capsys, "propose", "deadline_s", "59", "--dir", node)
    assert "'epsilon' is not one of" in refused(capsys, "propose", "epsilon", "3", "--dir", node)
    assert main(["study", "votes", "--dir", str(node)]) == 0
    assert "Nothing was proposed." in capsys.readouterr().out


def test_those_of_the_snapshot_vote_and_everybody_sees_how_it_stands(
    started: Any, tmp_path: Path, capsys: Output
) -> None:
    ash, birch, cedar = (started.institutions[site] for site in ("ash", "birch", "cedar"))
    plan = started.plan
    change = Change(parameter="count", value=1)
    document = Proposal(study=plan.study_id, plan_hash=plan.plan_hash, change=change, signed_at="now")
    started.append(ChangeProposed(envelope=document.sign(birch).to_bytes().decode()), party=birch)
    name = next(iter(started.state.ballots))
    vote = Vote(study=plan.study_id, proposal=name, choice="no")
    started.append(VoteCast(envelope=vote.sign(birch).to_bytes().decode()), party=birch)
    node = in_folder(started, tmp_path / "ash", "node", key=ash)
    assert main(["study", "vote", name[:12], "yes", "--dir", str(node)]) == 0
    cast, _ = open_signed(Vote, waiting(node, started)[0].document, signer=ash.public)
    assert (cast.proposal, cast.choice) == (name, "yes")
    capsys.readouterr()
    assert main(["study", "votes", "--dir", str(node), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["proposals"][0]
    assert (shown["by"], shown["outcome"], shown["yes"], shown["total"]) == ("birch", "open", 0, 600)
    assert shown["votes"] == {"birch": "no"}
    assert shown["weights"] == {"ash": 100, "birch": 200, "cedar": 300}
    assert "voted already" in refused(
        capsys, "vote", name, "yes", "--dir", in_folder(started, tmp_path / "birch", "node", key=birch)
    )
    stranger = in_folder(started, tmp_path / "stranger", "node", key=STRANGER)
    assert "not in the snapshot" in refused(capsys, "vote", name, "yes", "--dir", stranger)
    assert "No proposals" in refused(capsys, "vote", "ffff" + name[4:8], "yes", "--dir", node)
    yes = Vote(study=plan.study_id, proposal=name, choice="yes")
    for key in (ash, cedar):
        started.append(VoteCast(envelope=yes.sign(key).to_bytes().decode()), party=key)
    folder = in_folder(started, tmp_path / "coordinator", "coordinator")
    capsys.readouterr()
    assert main(["study", "votes", "--dir", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "1 rounds, a quorum of 2" in text
    assert f"{name[:12]}  accepted" in text


def test_a_plan_without_votes_says_so(play: Callable[[], Any], tmp_path: Path, capsys: Output) -> None:
    study = play()
    study.start()
    folder = in_folder(study, tmp_path / "node", "node", key=study.institutions["ash"])
    assert "lets nobody change anything" in refused(capsys, "votes", "--dir", folder)
    assert "lets nobody change anything" in refused(capsys, "propose", "quorum", "3", "--dir", folder)
