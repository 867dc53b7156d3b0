"""A series of everything that a registry does, each step for a process of its own that may be killed at any point.

Run as a program, this is the warm process of ``test_registry_killed.py``: it reads cases from stdin (one JSON object a
line), forks a child for each before any database is open, and answers with how the child ended, the receipts that it
had given until then, and what it found. The product's code knows nothing of it: the points are chosen by listeners on
SQLAlchemy's and SQLite's own events.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlmodel import Session, select

from consent.registry import LOG_NAME, TABLES, Registry, RoundOf, RoundState
from consent.registry.tables import ConsentBatch, ConsentCredit, ConsentRound, StoredRecord
from consent.rules.commitment import commitment, open_batch
from consent.rules.decision import Use
from consent.rules.receipt import Receipt, open_receipt
from consent.rules.record import Action, Mechanism, Terms, build, sign_record
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import cosign
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.storage.database import open_database, read
from federation.storage.log import SqliteLog

NOW: Final = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
HOSPITAL, WITNESS, ANNA, BEN, CLEO = (
    PrivateKey(hashlib.sha256(name.encode()).digest()) for name in ("hospital", "witness", "anna", "ben", "cleo")
)
USE: Final = Use(HOSPITAL.public.did, Mechanism.CONSENT, "DUO:0000042", None, Decimal(1), Decimal("0.00001"))
PEOPLE: Final = ("anna", "ben", "cleo")
READING: Final = ("SELECT", "PRAGMA", "SHOW", "SET TRANSACTION", "BEGIN")
Give = Callable[[str, Receipt], None]


def signed(key: PrivateKey, action: Action, *, after: bytes | None = None) -> bytes:
    """A record, the same bytes in every process."""
    terms = Terms(("DUO:0000042",), Decimal(3), Decimal("0.00001"), NOW + timedelta(days=365))
    document = build(
        subject=key.public,
        institution=HOSPITAL.public,
        action=action,
        seq=1 if after is None else 2,
        prev=None if after is None else sha256_hex(after),
        valid_from=NOW - timedelta(days=1),
        terms=terms if action is Action.GRANT else None,
    )
    return sign_record(document, key, created=NOW - timedelta(days=1))


GRANTS: Final = {
    "anna": signed(ANNA, Action.GRANT),
    "ben": signed(BEN, Action.GRANT),
    "cleo": signed(CLEO, Action.GRANT),
}
REFUSAL: Final = signed(BEN, Action.REFUSE, after=GRANTS["ben"])


def grant(registry: Registry, give: Give) -> None:
    """Three people allow it: one by one, and two at once."""
    give("anna 1", registry.submit(GRANTS["anna"], "anna"))
    for name, receipt in zip(
        ("ben 1", "cleo 1"), registry.submit_all([(n, GRANTS[n]) for n in PEOPLE[1:]]), strict=True
    ):
        give(name, receipt)


def append(registry: Registry, _give: Give) -> None:
    """What is pending goes to the log."""
    registry.append_due(registry.now(), every_s=60)


def witness(registry: Registry, _give: Give) -> None:
    """A witness is named, and cosigns."""
    registry.set_witnesses([WITNESS.public.did], 1)
    checkpoint = registry.checkpoint().checkpoint
    registry.add_cosignature(checkpoint.size, cosign(checkpoint, WITNESS, timestamp=int(NOW.timestamp())))


def decide(registry: Registry, _give: Give) -> None:
    """A round begins."""
    registry.decide_all(USE, NOW, PEOPLE, round_use=RoundOf("heart", 1))


def withdraw(registry: Registry, give: Give) -> None:
    """One person withdraws at the desk."""
    give("anna 2", registry.withdraw("anna"))


def refuse(registry: Registry, give: Give) -> None:
    """Another one signs a no."""
    give("ben 2", registry.submit(REFUSAL, "ben"))


def finish(registry: Registry, _give: Give) -> None:
    """The round is over, its model known, and the reward is passed on."""
    registry.finish_round(RoundOf("heart", 1), released=True)
    registry.note_model(RoundOf("heart", 1), "ab" * 32)
    registry.pass_on("heart", 1_000, 50)


def erase(registry: Registry, _give: Give) -> None:
    """The third one is forgotten."""
    registry.erase("cleo")


STEPS: Final[dict[str, Callable[[Registry, Give], None]]] = {
    step.__name__: step for step in (grant, append, witness, decide, withdraw, refuse, finish, erase)
}


def opened(target: Path | str, *, late: int = 0) -> tuple[Engine, Registry]:
    """The registry as a process opens it; ``late`` minutes after the series began."""
    engine = open_database(target, *TABLES)
    now = NOW + timedelta(minutes=late)
    log = SqliteLog(engine, LOG_NAME)
    return engine, Registry(engine, HOSPITAL, consent_log=log, clock=lambda: now, batch_size=8)


def found(engine: Engine, registry: Registry) -> dict[str, Any]:
    """What is there, after checking that it fits together: each record logged at most once, every proof, every receipt.

    Two runs of the same steps find the same, whatever happened in between.
    """
    log = SqliteLog(engine, LOG_NAME)
    with read(engine) as session:
        records = session.exec(select(StoredRecord)).all()
        batches = session.exec(select(ConsentBatch)).all()
        rounds = session.exec(select(ConsentRound)).all()
        credits_ = session.exec(select(ConsentCredit)).all()
    logged = [set(open_batch(entry).commitments) for entry in log.entries()]
    assert [row.data for row in sorted(batches, key=lambda row: row.number)] == log.entries(), "a batch is not logged"
    for row in records:
        places = [index for index, batch in enumerate(logged) if commitment(row.salt, row.data).hex() in batch]
        assert len(places) == (0 if row.batch is None else 1), "a record is in the log twice, or lost"
        credential = open_receipt(registry.receipt_credential(row.digest))
        assert credential.receipt.record == row.digest == sha256_hex(row.data)
        if places:
            inclusion = registry.inclusion(row.digest)
            tree = inclusion.checkpoint.checkpoint
            verify_inclusion(
                leaf=leaf_hash(inclusion.batch), index=places[0], size=tree.size, proof=inclusion.proof, root=tree.root
            )
    decisions = registry.decide_all(USE, NOW, PEOPLE)
    return {
        "records": sorted([row.ref, row.seq, row.action, row.batch is None] for row in records),
        "rounds": sorted([row.study, row.round, row.ordinal, row.state] for row in rounds),
        "eligible": {ref: [[of.study, of.round] for of in registry.in_flight(ref)] for ref in PEOPLE},
        "models": {ref: [model.sha256 for model in registry.models(ref)] for ref in PEOPLE},
        "withdrawals": sorted(
            [item.ref, len(item.in_flight), item.ended_at is None] for item in registry.withdrawals()
        ),
        "credits": sorted([row.ref, row.microcredits] for row in credits_),
        "statuses": {ref: decision.status.value for ref, decision in decisions.items()},
        "cosigned": registry.health().cosigned_size > 0,
        "released": any(row.state == RoundState.RELEASED for row in rounds),
    }


def listen(kill_at: int | None) -> Callable[[], int]:
    """Kill this process at the point number ``kill_at``; how many points there were.

    Points: before each statement that changes something (what is read in between leaves the database as it is), before
    each commit, after each commit, and before SQLite writes its file anew.
    """
    passed = 0

    def point(*_: Any) -> None:
        nonlocal passed
        if passed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def executed(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().startswith(READING):
            point()

    def traced(statement: str) -> None:
        if statement.startswith(("VACUUM", "PRAGMA wal_checkpoint")):
            point()

    def connected(connection: Any, _record: Any) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(traced)

    event.listen(Engine, "before_cursor_execute", executed)
    event.listen(Engine, "commit", point)
    event.listen(Session, "after_commit", point)
    event.listen(Engine, "connect", connected)
    return lambda: passed


def child(case: dict[str, Any], out: int) -> None:
    """Go through some steps, dying where the case says; each receipt is told as soon as it is given."""

    def tell(kind: str, name: str, value: Any) -> None:
        os.write(out, json.dumps([kind, name, value]).encode() + b"\n")

    def give(name: str, receipt: Receipt) -> None:
        tell("receipt", name, receipt.model_dump(mode="json"))

    target = Path(case["target"]) if case["file"] else case["target"]
    kill_in = case["kill_in"]
    try:
        points = listen(case["kill_at"]) if kill_in == "open" else None
        engine, registry = opened(target, late=case["late"])
        for name in case["steps"]:
            if name == kill_in:
                points = listen(case["kill_at"])
            STEPS[name](registry, give)
            if name == kill_in and points is not None:
                tell("points", name, points())
        if kill_in == "open" and points is not None:
            tell("points", "open", points())
        if case["look"]:
            tell("found", "", found(engine, registry))
        engine.dispose()
    except BaseException:  # noqa: BLE001 - the boundary of the child, told to the parent
        tell("failed", "", traceback.format_exc())


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for one case and wait for its end."""
    if "copy_from" in case:
        shutil.copytree(case["copy_from"], Path(case["target"]).parent, dirs_exist_ok=True)
    incoming, outgoing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(incoming)
        child(case, outgoing)
        os._exit(0)
    os.close(outgoing)
    with os.fdopen(incoming) as lines:
        told = [json.loads(line) for line in lines]
    _, ended = os.waitpid(process, 0)
    return {
        "killed": os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL,
        "failed": "".join(value for kind, _, value in told if kind == "failed"),
        "receipts": {name: value for kind, name, value in told if kind == "receipt"},
        "points": next((value for kind, _, value in told if kind == "points"), 0),
        "found": next((value for kind, _, value in told if kind == "found"), None),
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
