"""How long a withdrawal takes to stop computation: the table of docs/benchmarks.md, "Time to stop".

A federation runs: four institutions and a coordinator in one process (the shipped code on the in-memory network and
durable SQLite registries), a light model, many short rounds, secure noise, grants bound by cosignatures. Meanwhile
people withdraw at random moments, each at the desk of their institution. Measured from the receipt on:

(a) until the last round that had begun with the person is over: from then on nothing reads their rows;
(b) until the first decision about a round that knew of it.

Counted from both sides (the registry's receipts, the rows that the nodes wrote down as used): rounds that used the
person and were not under way when the receipt was given. The exit code is 1 unless there is none.

Run it as ``python tests/benchmarks/time_to_stop.py [--withdrawals N]``; it prints Markdown.
"""

import argparse
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study_in_memory import SITES as NAMES
from study_in_memory import InMemoryStudy

from clients.participation import Stop, stops
from clients.privacy.noise import SecureNoise

SITES = 4
PACE_S = 0.12
"""The mean time between two withdrawals."""
SPARE = 200
"""People of each institution who never withdraw."""
ROUNDS = 300
TIMEOUT_S = 1800


def run(folder: Path, withdrawals: int, seed: int) -> tuple[list[Stop], int, float]:
    """One federation, until everybody who was to withdraw has; the stops, the rounds, the seconds."""
    people = SPARE + -(-withdrawals // SITES)
    rng = random.Random(seed)
    with InMemoryStudy(
        folder,
        sites=SITES,
        people=dict.fromkeys(NAMES[:SITES], people),
        noise=SecureNoise(),
        consent_batch_s=1,
        batch_size=512,
        rounds={"count": ROUNDS, "quorum": 2, "deadline_s": 10},
        privacy={"epsilon": "3", "cohort_noise_multiplier": "60"},
        training={"local_steps": 20, "learning_rate": "0.05"},
        cohort={"minimum": 1},
    ) as study:
        for site, institution in study.institutions.items():
            others = [other.did for name, other in study.institutions.items() if name != site]
            institution.registry.set_witnesses(others, 2)
        queue = [(site, ref) for site in study.institutions.values() for ref in site.refs[SPARE:]][:withdrawals]
        rng.shuffle(queue)
        problems: list[BaseException] = []

        def people_withdraw() -> None:
            try:
                wait_for_rounds(study, 2)
                for site, ref in queue:
                    time.sleep(rng.expovariate(1 / PACE_S))
                    site.registry.withdraw(ref)
                wait_for_rounds(study, len(study.state.closed) + 3)  # what was under way ends, what follows is seen
            except BaseException as error:
                problems.append(error)
                raise
            finally:
                study.stop.set()

        thread = threading.Thread(target=people_withdraw)
        started = time.monotonic()
        thread.start()
        study.run(timeout_s=TIMEOUT_S)
        thread.join()
        seconds = time.monotonic() - started
        if problems:
            raise problems[0]
        found = [
            stop for site in study.institutions.values() for stop in stops(site.registry, site.engine, site.engine)
        ]
        return found, len(study.state.closed), seconds


def wait_for_rounds(study: InMemoryStudy, count: int) -> None:
    """Until so many rounds are closed, or the federation has ended."""
    while len(study.state.closed) < count and not study.stop.is_set():
        time.sleep(0.01)


def quantiles(values: Sequence[timedelta]) -> tuple[float, float, float]:
    """Median, p99 and maximum, in seconds (nearest rank)."""
    ordered = sorted(value.total_seconds() for value in values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)], ordered[-1]


def main() -> int:
    """Print the table; 1 if anybody was used after the round in which their withdrawal was received."""
    parser = argparse.ArgumentParser(description="How long a withdrawal takes to stop computation.")
    parser.add_argument("--withdrawals", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the order, never of noise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, rounds, seconds = run(Path(folder), options.withdrawals, options.seed)
    under_way = [stop for stop in found if stop.in_flight]
    reads = [stop.last_read for stop in found if stop.last_read is not None]
    without = [stop.first_without for stop in found if stop.first_without is not None]
    after = sum(stop.uses_after for stop in found)
    print(
        f"Measured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}: {len(found)} withdrawals at "
        f"random moments of {rounds} rounds ({seconds:.0f} s, {seconds / max(rounds, 1) * 1000:.0f} ms a round); "
        f"{len(under_way)} came while a round with the person was under way.\n"
    )
    print("| from the receipt to | median | p99 | max |\n| --- | ---: | ---: | ---: |")
    for name, values in (
        ("the last read of data that used the person", reads),
        ("the same, where a round was under way", [stop.last_read for stop in under_way if stop.last_read is not None]),
        ("the first decision without them", without),
    ):
        if values:
            print("| " + name + " | " + " | ".join(f"{value * 1000:.0f} ms" for value in quantiles(values)) + " |")
    print(f"\nUses after the round in which it was received: **{after}**.")
    complete = len(found) == len(reads) == len(without) == options.withdrawals
    if not complete:
        print(f"\nIncomplete: {len(found)} withdrawals, {len(reads)} ends, {len(without)} decisions.")
    return 0 if after == 0 and complete else 1


if __name__ == "__main__":
    sys.exit(main())
