"""Who is awaited, and why, at every step of a study."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from federation.coordinator.history import StudyHistory
from federation.coordinator.status import awaited, awaited_cosignatures, phase
from federation.rules.canonical import sha256_hex
from federation.rules.entries import CommitmentsClosed, RoundOpened, UpdateCommitted
from federation.rules.instant import format_instant

SITES = ("ash", "birch", "cedar")


def history(study: Any) -> StudyHistory:
    return StudyHistory(plan=study.plan, plan_blob=sha256_hex(study.plan_bytes), key=study.key, log=study.log)


def waiting(study: Any, there: Collection[str] | None, **invited: str | None) -> dict[str, str]:
    """Who is awaited while the sites ``there`` are connected (None: the coordinator does not run)."""
    connected = None if there is None else [study.institutions[site].public.did for site in there]
    return {item["site"]: item["for"] for item in awaited(history(study), invited=invited, connected=connected)}


def open_round(study: Any, number: int) -> None:
    deadline = format_instant(study.now + timedelta(seconds=60))
    body = RoundOpened(base_model=study.state.model, participants=study.state.active, deadline=deadline)
    study.append(body, number)


def test_before_the_start_those_who_have_not_agreed_are_awaited(play: Any) -> None:
    study = play()
    study.publish()
    assert phase(study.state) == "gathering agreements"
    assert waiting(study, []) == {"coordinator": "an invitation for 3 more institutions (`accord study invite`)"}
    some = waiting(study, [], ash="did:key:ash", birch=None)
    assert list(some) == ["ash", "birch", "coordinator"]
    assert "its agreement" in some["ash"]
    assert "joining with its invitation" in some["birch"]
    assert "one more institution" in some["coordinator"]


def test_a_coordinator_that_does_not_run_is_awaited_itself(play: Any) -> None:
    study = play()
    study.publish()
    assert awaited(history(study), invited={}, connected=None)[0] == {
        "site": "coordinator",
        "for": "running this study (`accord coordinator run`)",
    }
    study = play()
    study.start()
    assert list(waiting(study, None)) == ["coordinator"]


def test_between_rounds_only_those_who_are_away_are_awaited(play: Any) -> None:
    study = play()
    study.start()
    assert phase(study.state) == "between rounds"
    assert waiting(study, SITES) == {}
    assert waiting(study, ["ash", "cedar"]) == {"birch": "connecting, or round 1 opens without it in a few seconds"}
    away = waiting(study, ["ash"])
    assert list(away) == ["birch", "cedar"]
    assert away["birch"] == "connecting: round 1 needs 2 institutions and has 1"


def test_in_a_round_those_who_have_not_answered_are_awaited_until_its_deadline(play: Any) -> None:
    study = play()
    study.start()
    open_round(study, 1)
    assert phase(study.state) == "training"
    until = format_instant(study.state.round.deadline)
    assert waiting(study, ["ash", "cedar"]) == {
        "ash": f"its commitment to round 1, until {until}",
        "birch": f"its commitment to round 1, until {until}; it is not connected",
        "cedar": f"its commitment to round 1, until {until}",
    }
    for site, key in study.institutions.items():
        commitment = study.update(1, key).commitment(key.public).sign(key).to_bytes().decode()
        study.append(UpdateCommitted(envelope=commitment), 1, key)
        assert site not in waiting(study, SITES)
    study.append(CommitmentsClosed(), 1)
    assert phase(study.state) == "collecting updates"
    assert waiting(study, SITES) == dict.fromkeys(SITES, "showing its update of round 1")


def test_cosignatures_are_awaited_until_a_quorum_is_there(play: Any) -> None:
    study = play()
    study.start()
    study.play_round(1)
    study.play_round(2)
    assert phase(study.state) == "settling"
    assert waiting(study, SITES) == {}
    for cosigners, missing in ((3, 0), (2, 1), (1, 2)):
        study.checkpoint(cosigners)
        assert len(awaited_cosignatures(history(study))) == missing
    due = waiting(study, ["ash"])
    assert len(due) == 2
    assert all("1 of the 2 that are needed are there" in text for text in due.values())
    assert any("it is not connected" in text for text in due.values())


def test_a_settled_and_cosigned_study_awaits_nobody_even_when_nothing_runs(play: Any) -> None:
    study = play().played()
    assert phase(study.state) == "settled"
    assert waiting(study, None) == {}
    study = play()
    study.start()
    study.play_round(1)
    study.play_round(2)
    study.settle(cosigners=0)
    assert list(waiting(study, None)) == ["coordinator"]
    assert set(waiting(study, SITES)) == set(SITES)


def test_asking_for_the_status_writes_nothing(play: Any) -> None:
    study = play()
    study.start()
    study.log._notes.clear()
    waiting(study, SITES)
    study.play_round(1)
    before = study.log.checkpoints()
    study.play_round(2)
    study.log._notes.pop(study.log.size)
    waiting(study, SITES)
    assert study.log.checkpoints() == before
