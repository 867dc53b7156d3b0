"""Erasing a person: no byte of theirs stays in the files, and the log stays whole."""

from datetime import timedelta
from pathlib import Path

import pytest
from consent_people import ANNA, BEN, NOW, person, record, use
from registry_parts import SIZE, Clock, again, status
from sqlalchemy import Engine, inspect
from sqlmodel import select

from consent.registry import LOG_NAME, TABLES, Registry, RoundOf
from consent.registry.tables import PERSONAL, ConsentBatch, StoredRecord
from consent.rules.commitment import open_batch
from consent.rules.decision import Status
from federation.errors import ConsentError, UnavailableError
from federation.rules.checkpoint import cosign
from federation.rules.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from federation.storage.database import open_database, read
from federation.storage.log import MemoryLog, SqliteLog

NAME = "anna-of-the-long-unmistakable-name"
WITNESS = person("witness")


def a_life(registry: Registry) -> None:
    """Anna takes part in everything that leaves a row, Ben beside her."""
    registry.submit(record(), NAME)
    registry.submit(record(subject=BEN), "ben")
    registry.append_batch(NOW)
    registry.decide_all(use(), NOW, [NAME, "ben"], round_use=RoundOf("heart", 1))
    registry.finish_round(RoundOf("heart", 1), released=True)
    registry.decide_all(use(), NOW, [NAME, "ben"], round_use=RoundOf("heart", 2))
    registry.withdraw(NAME)
    registry.append_batch(NOW)
    registry.pass_on("heart", 1_000, 100)


def remains(folder: Path, needles: list[bytes]) -> set[str]:
    """The names of the files that still hold one of ``needles``."""
    return {
        path.name
        for path in folder.iterdir()
        if path.name.startswith("accord.db") and any(needle in path.read_bytes() for needle in needles)
    }


def test_no_byte_of_the_record_or_its_salt_stays_in_the_files(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "accord.db", *TABLES)
    clock = Clock()
    registry = again(engine, clock, SqliteLog(engine, LOG_NAME))
    for number in range(40):  # the rows of others lie between and around
        registry.submit(record(subject=person(f"other {number}")), f"other {number}")
    a_life(registry)
    with read(engine) as session:
        rows = session.exec(select(StoredRecord).where(StoredRecord.ref == NAME)).all()
    parts = [row.data[start : start + 64] for row in rows for start in range(0, len(row.data), 256)]
    with read(engine) as session:
        others = b"".join(session.exec(select(StoredRecord.data).where(StoredRecord.ref != NAME)))
    own = [part for part in parts if part not in others]  # what everybody's record says is nobody's trace
    needles = [*own, *(row.salt for row in rows), *(row.digest.encode() for row in rows)]
    needles += [NAME.encode(), ANNA.public.did.encode()]
    assert remains(tmp_path, needles)
    assert registry.erase(NAME)
    assert remains(tmp_path, needles) == set()
    engine.dispose()
    assert remains(tmp_path, needles) == set()
    reopened = again(open_database(tmp_path / "accord.db", *TABLES), clock, SqliteLog(engine, LOG_NAME))
    assert status(reopened, "ben") is Status.PERMITTED


def test_every_table_that_names_somebody_is_erased_from(engine: Engine, registry: Registry) -> None:
    named = {table for table in inspect(engine).get_table_names() if _has_ref(engine, table)}
    assert {vars(model)["__table__"].name for model in PERSONAL} == named
    a_life(registry)
    for model in PERSONAL:
        with read(engine) as session:
            assert NAME in {row.ref for row in session.exec(select(model))}, model
    registry.erase(NAME)
    for model in PERSONAL:
        with read(engine) as session:
            assert NAME not in {row.ref for row in session.exec(select(model))}, model


def _has_ref(engine: Engine, table: str) -> bool:
    return "ref" in {column["name"] for column in inspect(engine).get_columns(table)}


def test_the_log_stays_whole_and_others_proofs_stay_good(registry: Registry, log: MemoryLog) -> None:
    a_life(registry)
    ben = registry.heads()["ben"].digest
    before = registry.checkpoint().checkpoint
    entries = log.entries()
    registry.erase(NAME)
    assert log.entries() == entries
    registry.append_batch(NOW)
    after = registry.checkpoint().checkpoint
    verify_consistency(
        old_size=before.size, old_root=before.root, new_size=after.size, new_root=after.root,
        proof=registry.consistency(before.size),
    )  # fmt: skip
    inclusion = registry.inclusion(ben)
    verify_inclusion(
        leaf=leaf_hash(inclusion.batch), index=inclusion.index, size=after.size, proof=inclusion.proof, root=after.root
    )
    assert root(log.leaf_hashes()) == after.root
    assert all(len(open_batch(entry).commitments) == SIZE for entry in entries)


def test_what_was_erased_is_unknown_everywhere(registry: Registry) -> None:
    a_life(registry)
    digest = registry.heads()[NAME].digest
    registry.erase(NAME)
    assert status(registry, NAME) is Status.MISSING
    assert (registry.head(NAME), registry.history(NAME), registry.in_flight(NAME)) == (None, (), ())
    assert registry.participation(NAME).studies == ()
    assert registry.withdrawals() == []
    for ask in (registry.receipt, registry.inclusion, registry.receipt_credential):
        with pytest.raises(UnavailableError):
            ask(digest)
    with pytest.raises(ConsentError, match="nothing to withdraw"):
        registry.withdraw(NAME)
    assert not registry.erase(NAME)
    assert not registry.erase("nobody")


def test_other_processes_forget_too_and_the_person_may_come_back(
    engine: Engine, clock: Clock, log: MemoryLog, registry: Registry
) -> None:
    other = again(engine, clock, log)
    registry.submit(record(), NAME)
    registry.submit(record(subject=BEN), "ben")
    assert [status(other, NAME), status(other, "ben")] == [Status.PERMITTED] * 2
    registry.erase(NAME)
    assert [status(other, NAME), status(other, "ben")] == [Status.MISSING, Status.PERMITTED]
    clock.now += timedelta(seconds=1)
    registry.submit(record(epsilon_max=use().epsilon), NAME)
    assert [status(other, NAME), status(registry, NAME)] == [Status.PERMITTED] * 2


def test_somebody_who_is_erased_before_their_batch_never_reaches_the_log(
    engine: Engine, registry: Registry, log: MemoryLog
) -> None:
    registry.submit(record(), NAME)
    registry.erase(NAME)
    registry.append_batch(NOW)
    assert len(open_batch(log.entry(0)).commitments) == SIZE
    with read(engine) as session:
        assert session.exec(select(ConsentBatch)).one().log_index == 0
    assert registry.health().pending == 0


def test_a_round_goes_on_when_somebody_in_it_is_erased(registry: Registry) -> None:
    a_life(registry)
    registry.decide_all(use(), NOW, ["ben"], round_use=RoundOf("heart", 3))
    registry.erase(NAME)
    registry.decide_all(use(), NOW, ["ben"], round_use=RoundOf("heart", 4))
    assert [item.round for study in registry.participation("ben").studies for item in study.rounds] == [1, 2, 3, 4]


def test_what_witnesses_cosigned_before_an_erasure_still_binds(registry: Registry) -> None:
    registry.set_witnesses([WITNESS.public.did], 1)
    a_life(registry)
    checkpoint = registry.checkpoint().checkpoint
    registry.erase(NAME)
    registry.add_cosignature(checkpoint.size, cosign(checkpoint, WITNESS, timestamp=int(NOW.timestamp())))
    assert status(registry, "ben") is Status.PERMITTED
