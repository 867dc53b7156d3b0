"""A database that was put back from a backup is noticed, and what it forgot is charged before anything else is used."""

import base64
import contextlib
import json
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy, Institution

from clients.contribution import Task
from clients.participation import spent_on
from clients.privacy.budget import State
from federation.errors import PrivacyError, UnavailableError
from federation.rules.accounting import count_event, epsilon, round_event
from federation.storage.database import database_name

PLAN = {"rounds": {"count": 4, "quorum": 2}, "privacy": {"epsilon": "2"}}


def backup(site: Institution) -> bytes:
    """The whole database, as a backup has it."""
    copy = site.study.folder / "backup.db"
    with contextlib.closing(sqlite3.connect(database_name(site.engine))) as database:
        database.execute("VACUUM INTO ?", (str(copy),))
    return copy.read_bytes()


def put_back(site: Institution, data: bytes) -> None:
    """Stop the node, put the backup in the place of its database, start it again."""
    site.stop()
    site.engine.dispose()
    file = Path(database_name(site.engine))
    for journal in ("-wal", "-shm"):
        file.with_name(file.name + journal).unlink(missing_ok=True)
    file.write_bytes(data)
    site.start()


def test_what_a_restored_database_forgot_is_charged_from_the_log(tmp_path: Path) -> None:
    """Backup after one round, put back after two: ash sits one round out, knows what it spent, and goes on."""
    saved: list[bytes] = []

    def between(closed: int) -> None:
        if closed == 1:
            saved.append(backup(study["ash"]))
        if closed == 2:
            put_back(study["ash"], saved[0])

    with InMemoryStudy(tmp_path, sites=3, consent_batch_s=3600, **PLAN) as study:
        study.run(between=between)
        ash, plan = study["ash"], study.plan
        assert [ash.did in done.admitted for done in study.state.closed] == [True, True, False, True]
        assert study.state.closed[2].refused[ash.did].startswith("restored:")
        charges = {charge.round: charge.state for charge in ash.budget.charges()}
        assert charges == dict.fromkeys((1, 2, 4), State.COMMITTED)
        ran = [round_event(plan)] * 3
        assert ash.budget.spent() == epsilon(ran, delta=Decimal("1e-5"), order=8)


def test_two_studies_three_restarts_and_a_restored_backup_add_up(tmp_path: Path) -> None:
    """The backup is of before both studies' second rounds; the first study waits while the second goes on."""
    terms: dict[str, Any] = {"privacy": {"epsilon": "1.4", "cohort_noise_multiplier": "200"}, "rounds": {"count": 3}}
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    saved: list[bytes] = []

    def first(closed: int) -> None:
        one["ash"].start()
        if closed == 1:
            saved.append(backup(one["ash"]))
        if closed == 2:
            one.stop.set()

    def second(closed: int) -> None:
        if closed == 1:
            two["ash"].start()
        if closed == 2:
            put_back(two["ash"], saved[0])
            one["ash"].start()

    with (
        InMemoryStudy(folders[0], sites=2, consent_batch_s=3600, name="one", **terms) as one,
        InMemoryStudy(folders[1], sites=2, consent_batch_s=3600, name="two", beside=one, **terms) as two,
    ):
        one.run(between=first)
        two.run(between=second)
        one.restart()
        one.run()
        ran = [
            round_event(study.plan)
            for study in (one, two)
            for done in study.state.closed
            if one["ash"].did in done.admitted
        ]
        assert [len(study.state.closed) for study in (one, two)] == [3, 3]
        assert len(ran) in (4, 5, 6), "in the rounds right after the backup was put back ash may sit out"
        ledger = one["ash"].budget
        assert ledger.spent() == epsilon(ran, delta=Decimal("1e-5"), order=8)
        assert len(ledger.charges()) == len(ran)


def test_a_round_that_was_refused_before_it_was_charged_is_not_charged_when_the_log_comes(tmp_path: Path) -> None:
    """The consents are away for a moment: ash sits round 2 out, and an intact database owes nothing for it."""

    def away() -> None:
        raise UnavailableError("The consents are away.", remedy="Wait.")

    def between(closed: int) -> None:
        node = study["ash"].node
        assert node is not None
        node._contribution._await_grants = away if closed == 1 else lambda: None  # type: ignore[method-assign] # a fault

    with InMemoryStudy(tmp_path, sites=3) as study:
        study.run(between=between)
        ash = study["ash"]
        assert study.state.closed[1].refused[ash.did].startswith("consents-unknown:")
        assert [charge.round for charge in ash.budget.charges()] == [1, 3]


def test_a_node_that_remembers_fewer_rounds_than_the_study_takes_no_part(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2) as study:
        ash = study["ash"]
        assert ash.node is not None
        task = Task(round_number=1, base_model="0" * 64, consent_size=0, updates=1)
        answer = ash.node._contribution.commit(task)
        assert answer.kind == "refusal"
        assert b'"code":"restored"' in payload(answer.data)
        assert ash.budget.charges() == ()


def payload(envelope: bytes) -> bytes:
    """The payload inside a signed envelope."""
    return base64.b64decode(json.loads(envelope)["payload"])


@pytest.mark.parametrize("state", ["unknown", "reserved", "aborted", "started", "committed"])
def test_a_round_that_the_log_shows_is_charged_once_however_far_the_backup_came(tmp_path: Path, state: str) -> None:
    with InMemoryStudy(tmp_path, sites=2) as study:
        ledger, event = study["ash"].budget, round_event(study.plan)
        if state != "unknown":
            ledger.reserve("s", 1, event)
        if state == "aborted":
            ledger.abort("s", 1)
        if state in ("started", "committed"):
            ledger.start("s", 1)
        if state == "committed":
            ledger.commit("s", 1)
        for _ in range(2):
            ledger.record("s", 1, event)
        (charge,) = ledger.charges()
        assert charge.state is (State.STARTED if state == "started" else State.COMMITTED)
        assert ledger.spent() == epsilon([event], delta=Decimal("1e-5"), order=8)


def test_what_the_log_shows_is_charged_beyond_the_cap_and_then_nothing_fits(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2) as study:
        ledger, event = study["ash"].budget, round_event(study.plan)
        for number in range(1, 8):
            ledger.record("s", number, event)
        assert ledger.spent() > 3
        with pytest.raises(PrivacyError, match="does not fit"):
            ledger.reserve("other", 1, event)


def test_a_round_costs_what_its_reason_says(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 1}) as study:
        done, plan, ash = study.run().closed[0], study.plan, study["ash"].did
        whole, count = round_event(plan), count_event(plan)
        assert spent_on(done, plan, ash) == whole
        assert spent_on(done, plan, "did:key:stranger") is None
        expected: dict[str, Any] = {
            "cohort: too few": count,
            "interrupted: by a crash": whole,
            "not-shown: the update did not come": whole,
            "budget: it does not fit": None,
            "consents-unknown: the registry cannot say": None,
            "no-answer: nothing arrived": None,
            "revoked: the agreement": None,
        }
        for reason, event in expected.items():
            assert spent_on(replace(done, admitted={}, refused={ash: reason}), plan, ash) == event
