"""What the privacy budget's ledger costs: ``python tests/benchmarks/budget_ledger.py [--cycles N]``.

Transitions per second on the disk (each its own transaction, WAL, synchronous=FULL: the disk has it before the call
returns), beside as many bare transactions of one inserted row in the same kind of database, in the same run and in
turns. Then: how long the ledger takes to open, to add up and to answer "does it fit" with a past of 1,000 rounds, and
the figures by loss distributions, which are shown and gate nothing.
"""

import argparse
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from clients.privacy.budget import BudgetLedger
from clients.storage import open_node
from federation.rules.accounting import epsilon, pld_epsilon
from federation.rules.events import GaussianEvent, PoissonEvent, RepeatedEvent

TURNS = 5
DELTA = Decimal("1e-5")


def clock() -> datetime:
    return datetime.now(UTC)


def ledger_in(folder: Path) -> BudgetLedger:
    return BudgetLedger.create(open_node(folder), epsilon=Decimal(8), delta=DELTA, order=8, clock=clock)


def event(number: int) -> RepeatedEvent:
    """A round of ten sampled steps; every twentieth has other noise, as other studies have."""
    noise = GaussianEvent(noise_multiplier=Decimal(200 + number % 20))
    return RepeatedEvent(count=10, event=PoissonEvent(rate=Decimal("0.5"), event=noise))


def cycle(ledger: BudgetLedger, number: int) -> None:
    ledger.reserve("study", number, event(number))
    ledger.start("study", number)
    ledger.commit("study", number)


def bare(database: sqlite3.Connection, number: int) -> None:
    for step in range(3):
        with database:
            database.execute("INSERT INTO entries (study, text) VALUES (?, ?)", ("study", f"{number} {step}" * 20))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def transitions(cycles: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "bare.db")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, study TEXT, text TEXT)")
        ratios, rates, number = [], [], 0
        node = Path(folder) / "node"
        node.mkdir()
        ledger = ledger_in(node)
        for turn in range(TURNS + 1):
            numbers = range(number + 1, number + cycles + 1)
            number += cycles
            ours = seconds(lambda numbers=numbers: [cycle(ledger, n) for n in numbers])  # type: ignore[misc] # bound now
            theirs = seconds(lambda numbers=numbers: [bare(database, n) for n in numbers])  # type: ignore[misc] # as above
            if turn:
                ratios.append(ours / theirs)
                rates.append(3 * cycles / ours)
        database.close()
    print(f"| transitions a second, up to {number} rounds in the ledger | {statistics.median(rates):.0f} |")
    print(f"| time of a transition, bare transactions = 1 | {statistics.median(ratios):.1f} |")


def a_thousand() -> None:
    events = [event(number) for number in range(1000)]
    with tempfile.TemporaryDirectory() as folder:
        ledger = ledger_in(Path(folder))
        for number in range(1000):
            ledger.record("study", number, events[number])
        fresh = open_node(Path(folder))
        opened = seconds(lambda: BudgetLedger(fresh, clock=clock))
        ledger = BudgetLedger(fresh, clock=clock)
        rows = len(ledger.history())
        fits = statistics.median(seconds(lambda: ledger.would_fit(events[0])) for _ in range(9))
        spent = statistics.median(seconds(ledger.spent) for _ in range(9))
    first = seconds(lambda: epsilon(events, delta=DELTA, order=8))
    again = statistics.median(seconds(lambda: epsilon(events, delta=DELTA, order=8)) for _ in range(9))
    by_loss = seconds(lambda: pld_epsilon(events, DELTA))
    print(f"| opening a ledger of 1,000 rounds, its chain of {rows} rows verified | {opened * 1e3:.0f} ms |")
    print(
        f"| adding up 1,000 events, the events given (first time; again) | {first * 1e3:.0f} ms; {again * 1e3:.1f} ms |"
    )
    print(f"| what is spent, from the disk with its chain verified | {spent * 1e3:.0f} ms |")
    print(f"| whether a round fits, from the disk with its chain verified | {fits * 1e3:.0f} ms |")
    print(f"| the same 1,000 events by loss distributions (shown beside) | {by_loss * 1e3:.0f} ms |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20, help="rounds in each of the turns")
    cycles = parser.parse_args().cycles
    print("| | |\n| --- | ---: |")
    transitions(cycles)
    a_thousand()
    print(f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
