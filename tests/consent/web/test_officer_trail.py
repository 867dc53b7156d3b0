"""The officers' trail is only added to, and shows where somebody changed it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from consent.web.officer_tables import OFFICER_TABLES
from consent.web.officer_trail import Act, Trail
from federation.storage.database import memory_database, write

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def engine() -> Engine:
    return memory_database(*OFFICER_TABLES)


@pytest.fixture
def trail(engine: Engine) -> Trail:
    written = Trail(engine, clock=lambda: NOW)
    written.add(Act.PUBLISHED, request="heart", version=1)
    written.add(Act.INVITED, request="heart", people=12)
    written.add(Act.EXPORTED, kind="csv")
    return written


def test_what_was_done_is_listed_newest_first(trail: Trail) -> None:
    assert [entry.act for entry in trail.entries(newest=2)] == [Act.EXPORTED, Act.INVITED]
    assert trail.entries(newest=9)[1].detail == {"request": "heart", "people": "12"}
    assert trail.broken_at() is None


@pytest.mark.parametrize(
    "change",
    [
        'UPDATE web_officer_action SET detail = \'{"kind":"odrl"}\' WHERE number = 2',
        "UPDATE web_officer_action SET at = '2026-11-22T11:00:00Z' WHERE number = 2",
        "UPDATE web_officer_action SET act = 'closed' WHERE number = 2",
        "DELETE FROM web_officer_action WHERE number = 2",
    ],
)
def test_a_change_is_found_where_it_was_made(engine: Engine, trail: Trail, change: str) -> None:
    with write(engine) as session:
        session.connection().execute(text(change.replace(":", "\\:")))
    assert trail.broken_at() == 2
