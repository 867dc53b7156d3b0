"""Whoever is erased is erased from the node as well: from its rows, and from the bytes of its files."""

import json
from pathlib import Path

import pytest
from sqlmodel import select
from study_in_memory import InMemoryStudy, key_of

from clients import erasure
from clients.erasure import forget_erased
from clients.storage import RoundUse, StudyMembership, open_node
from consent.cosigning import COSIGNING_TABLES
from consent.registry import TABLES, open_registry
from federation.errors import UnavailableError
from federation.storage.database import read, write

WHO = "p03"
KEY = key_of("institution ash")


def test_a_study_goes_on_without_a_mention_of_the_erased(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, rounds={"count": 3}) as study:
        ash = study["ash"]

        def between(closed: int) -> None:
            if closed == 1:
                assert WHO in ash.used(1)
                ash.registry.erase(WHO)

        study.run(between=between)
        assert [WHO in ash.used(number) for number in (1, 2, 3)] == [False, False, False]
        assert ash.uses()[1].eligible == 1 + len(ash.used(1)), "how many there were stays"
        assert len(ash.used(2)) == len(ash.used(1))
        assert study.state.settled
        assert forget_erased(ash.engine, ash.registry) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node's folder with the rows used in two studies, one of which asks each person."""
    (tmp_path / "study").mkdir()
    with InMemoryStudy(tmp_path / "study", sites=2, rounds={"count": 1}) as study:
        study.run()
        ash = study["ash"]
        with read(ash.engine) as session:
            membership = session.exec(select(StudyMembership)).one().model_dump()
            used = session.exec(select(RoundUse)).one().model_dump()
        histories = ash.registry.histories()
    engine = open_node(tmp_path, *TABLES, *COSIGNING_TABLES)
    registry = open_registry(engine, ash.key)
    registry.submit_all([(f"patient-of-{ref}", data) for ref, history in histories.items() for data in history])
    used["subjects"] = json.dumps([f"patient-of-{ref}" for ref in json.loads(used["subjects"])])
    with write(engine) as session:
        session.add(StudyMembership(**membership))
        session.add(RoundUse(**used))
    engine.dispose()
    return tmp_path


def names(folder: Path) -> list[str]:
    """The names that stand anywhere in the database's files."""
    data = b"".join(path.read_bytes() for path in folder.glob("accord.db*"))
    return [name for name in (f"patient-of-p{number:02}" for number in range(12)) if name.encode() in data]


def test_no_byte_of_a_name_is_left_in_the_files(folder: Path) -> None:
    before = names(folder)
    engine = open_node(folder, *TABLES, *COSIGNING_TABLES)
    registry = open_registry(engine, KEY)
    registry.erase(f"patient-of-{WHO}")
    assert names(folder) == before, "the node has not looked yet"
    assert forget_erased(engine, registry) == 1
    assert names(folder) == [name for name in before if name != f"patient-of-{WHO}"]


def test_a_node_that_died_in_between_forgets_when_it_is_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_node(folder, *TABLES, *COSIGNING_TABLES)
    registry = open_registry(engine, KEY)
    registry.erase(f"patient-of-{WHO}")

    def busy(_engine: object) -> None:
        raise UnavailableError("busy", remedy="later")

    with monkeypatch.context() as patch:
        patch.setattr(erasure, "scrub", busy)
        with pytest.raises(UnavailableError):
            forget_erased(engine, registry)
    forget_erased(engine, registry)
    assert f"patient-of-{WHO}" not in names(folder)
