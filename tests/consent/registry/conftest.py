"""A registry on each kind of database."""

from collections.abc import Iterator

import pytest
from consent_people import HOSPITAL
from registry_parts import SIZE, Clock
from sqlalchemy import Engine

from consent.registry import TABLES, Registry
from federation.storage.database import memory_database, open_database
from federation.storage.log import MemoryLog


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = memory_database(*TABLES)
    else:
        engine = open_database(request.getfixturevalue("postgresql_url"), *TABLES)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def registry(engine: Engine, clock: Clock, log: MemoryLog) -> Registry:
    return Registry(engine, HOSPITAL, consent_log=log, clock=clock, batch_size=SIZE)
