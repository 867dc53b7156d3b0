"""The registry's process is killed at every statement and every commit, before and after; nothing is lost or doubled.

One warm process forks a child for each case before it has touched any database, so that Python and the libraries are
loaded once. The child goes through a series of everything that a registry does and kills itself (SIGKILL) at one point,
which a listener on the database's events chooses: the product's code knows nothing of it. A second child then opens the
same files, as the next process would, and goes through the whole series again; every step of it may be repeated. At the
end the parent looks at what is there.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgresql import Server
from sqlmodel import select

from consent.registry import LOG_NAME, TABLES, open_registry
from consent.registry.tables import ConsentBatch, ConsentCredit, ConsentRound, ConsentWithdrawal, StoredRecord
from consent.rules.commitment import commitment, open_batch
from consent.rules.receipt import open_receipt
from federation.rules.canonical import sha256_hex
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.storage.database import open_database, read
from federation.storage.log import SqliteLog

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200)]

CHILD = Path(__file__).parent / "registry_series.py"


@dataclass
class Outcome:
    """How one child ended, and the receipts that it had given until then."""

    killed: bool
    failed: str
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: int = 0


class Series:
    """The warm process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, target: Path | str, *, kill_at: int | None, short: bool = False) -> Outcome:
        """One child: it dies at the point number ``kill_at``, or goes through the whole series."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        case = {"target": str(target), "file": isinstance(target, Path), "kill_at": kill_at, "short": short}
        print(json.dumps(case), file=self._process.stdin, flush=True)
        said = json.loads(self._process.stdout.readline())
        return Outcome(**said)

    def close(self) -> None:
        """End the warm process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="module")
def series() -> Iterator[Series]:
    started = Series()
    yield started
    started.close()


def check(target: Path | str, *, before: Outcome, after: Outcome, whole: Outcome) -> None:
    """What must hold once a killed series has been gone through again."""
    assert after.failed == ""
    assert not after.killed
    # Nothing that had a receipt is lost: whoever asks again gets the first receipt, with its time.
    for name, receipt in before.receipts.items():
        assert after.receipts[name] == receipt, name
    assert after.receipts.keys() == whole.receipts.keys()
    with opened(target) as (engine, registry):
        log = SqliteLog(engine, LOG_NAME)
        with read(engine) as session:
            records = session.exec(select(StoredRecord)).all()
            batches = session.exec(select(ConsentBatch)).all()
            rounds = session.exec(select(ConsentRound)).all()
            withdrawals = session.exec(select(ConsentWithdrawal)).all()
            credited = {row.ref: row.microcredits for row in session.exec(select(ConsentCredit))}
        # Nothing is doubled: each record, each round, each withdrawal once.
        stored = {row.digest for row in records}
        assert len(stored) == len(records)
        assert sorted((row.ref, row.seq) for row in records) == [("anna", 1), ("anna", 2), ("ben", 1), ("ben", 2)]
        assert sorted((row.study, row.round) for row in rounds) == [("heart", 1), ("heart", 2)]
        assert sorted(row.ref for row in withdrawals) == ["anna", "ben"]
        assert credited == ({} if "cleo" in credited else {"anna": 166, "ben": 166})
        # Every record stands in exactly one logged batch; the log is whole and what is proven from it verifies.
        logged = [set(open_batch(entry).commitments) for entry in log.entries()]
        assert [row.data for row in batches] == log.entries()
        assert sorted(row.log_index for row in batches if row.log_index is not None) == list(range(log.size))
        for row in records:
            places = [index for index, batch in enumerate(logged) if commitment(row.salt, row.data).hex() in batch]
            assert len(places) == 1
            inclusion = registry.inclusion(row.digest)
            assert inclusion.index == places[0]
            checkpoint = inclusion.checkpoint.checkpoint
            verify_inclusion(
                leaf=leaf_hash(inclusion.batch),
                index=inclusion.index,
                size=checkpoint.size,
                proof=inclusion.proof,
                root=checkpoint.root,
            )
            credential = open_receipt(registry.receipt_credential(row.digest))
            assert credential.receipt.record == sha256_hex(row.data) == row.digest
        # What was erased is gone.
        assert registry.history("cleo") == ()


@contextmanager
def opened(target: Path | str) -> Iterator[tuple[Any, Any]]:
    from consent_series_key import HOSPITAL

    engine = open_database(target, *TABLES)
    try:
        yield engine, open_registry(engine, HOSPITAL, batch_size=8)
    finally:
        engine.dispose()
