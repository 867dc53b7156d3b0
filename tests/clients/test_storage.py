"""The node's tables keep what they are given, also across a restart."""

from pathlib import Path

import pytest
from sqlmodel import select

from clients.storage import (
    DATABASE_NAME,
    RoundUse,
    StoredUpdate,
    StudyMembership,
    memory_node,
    open_node,
    recall,
    remember,
)
from federation.errors import OperatorError
from federation.storage.database import read, write


def test_documents_and_payloads_come_back_byte_for_byte(tmp_path: Path) -> None:
    payload = bytes(range(256))
    with write(open_node(tmp_path)) as session:
        session.add(StudyMembership(study="s", plan=payload, coordinator="did:key:z", address="/ip4/..", site="jfk"))
        session.add(
            StoredUpdate(
                study="s", round=1, base_sha256="a", update_sha256="b", nonce="c", payload=payload, envelope=b"e"
            )
        )
    with read(open_node(tmp_path)) as session:
        membership = session.get(StudyMembership, "s")
        update = session.get(StoredUpdate, ("s", 1))
        assert membership is not None
        assert update is not None
        assert (membership.plan, membership.agreement, membership.status) == (payload, b"", "invited")
        assert (update.payload, update.envelope, update.commitment) == (payload, b"e", b"")


def test_one_round_has_one_use_and_one_update() -> None:
    engine = memory_node()

    def use(eligible: int) -> RoundUse:
        return RoundUse(
            study="s",
            round=1,
            decided_at="",
            eligible=eligible,
            counts="{}",
            subjects="[]",
            salt="",
            rows_commitment="",
            dataset_sha256="",
        )

    with write(engine) as session:
        session.merge(use(1))
        session.merge(use(2))
    with read(engine) as session:
        assert [row.eligible for row in session.exec(select(RoundUse)).all()] == [2]


def test_small_facts_are_remembered() -> None:
    engine = memory_node()
    with write(engine) as session:
        assert recall(session, "seen") is None
        remember(session, "seen", "1")
        remember(session, "seen", "2")
    with read(engine) as session:
        assert recall(session, "seen") == "2"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_text("age,sex\n1,2\n" * 100, encoding="utf-8")
    with pytest.raises(OperatorError, match=DATABASE_NAME):
        open_node(tmp_path)
