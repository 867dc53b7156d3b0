"""Findings in the registry: durable, taken back at once, worthless once altered."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from consent_people import HOSPITAL, NOW, record, use
from sqlmodel import select

from consent.registry import LOG_NAME, TABLES, Registry
from consent.registry.tables import ConsentApproval
from consent.rules.approval import Approval
from consent.rules.decision import Status
from consent.rules.duo import Declared
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.storage.database import open_database, write
from federation.storage.log import SqliteLog

PLAN, ETHICS = "ab" * 32, "DUO:0000021"
FOUND = Approval(
    duo=ETHICS,
    plan_hash=PLAN,
    by="Dr. Ada Okoro",
    grounds="Ethics committee, 2026/117",
    given_at=format_instant(NOW),
    valid_until=format_instant(NOW + timedelta(days=10)),
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = opened(tmp_path)
    made.submit(record(purposes=("DUO:0000042", ETHICS)), "anna")
    made.submit(record(purposes=("DUO:0000042",), subject=HOSPITAL), "ben")
    return made


def opened(folder: Path, now: datetime = NOW) -> Registry:
    engine = open_database(folder / "accord.db", *TABLES)
    return Registry(engine, HOSPITAL, consent_log=SqliteLog(engine, LOG_NAME), clock=lambda: now)


def status(registry: Registry, ref: str = "anna", *, now: datetime = NOW) -> Status:
    asked = use(duo="DUO:0000042", disease=None, declared=Declared(study=("study", PLAN)))
    return registry.decide_all(asked, now, [ref])[ref].status


def test_a_finding_counts_at_once_survives_and_is_taken_back_at_once(registry: Registry, tmp_path: Path) -> None:
    assert (status(registry), status(registry, "ben")) == (Status.NEEDS_PERSON, Status.PERMITTED)
    registry.approve(FOUND)
    registry.approve(FOUND)
    assert status(registry) is Status.PERMITTED
    other = opened(tmp_path)
    assert (status(other), len(other.approvals())) == (Status.PERMITTED, 1)
    other.disapprove(FOUND.identifier[:6])
    assert (status(other), status(registry), status(registry, "ben")) == (
        Status.NEEDS_PERSON,
        Status.NEEDS_PERSON,
        Status.PERMITTED,
    )
    assert registry.approvals()[0].revoked_at == format_instant(NOW)


def test_a_remembered_yes_ends_with_the_finding(registry: Registry) -> None:
    registry.approve(FOUND)
    assert status(registry) is Status.PERMITTED
    assert status(registry, now=NOW + timedelta(days=10)) is Status.NEEDS_PERSON


def test_a_withdrawal_wins(registry: Registry) -> None:
    registry.approve(FOUND)
    registry.withdraw("anna")
    assert status(registry) is Status.WITHDRAWN


def test_an_altered_row_counts_for_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.approve(FOUND)
    with write(open_database(tmp_path / "accord.db", *TABLES)) as session:
        row = session.exec(select(ConsentApproval)).one()
        row.document = row.document[:-30] + b"0" * 28 + row.document[-2:]
        session.add(row)
    assert status(opened(tmp_path)) is Status.NEEDS_PERSON
    assert opened(tmp_path).approvals() == []


@pytest.mark.parametrize("identifier", ["", "zz"])
def test_what_is_not_there_cannot_be_taken_back(registry: Registry, identifier: str) -> None:
    registry.approve(FOUND)
    with pytest.raises(OperatorError, match="approvals begin with"):
        registry.disapprove(identifier)
