"""What values cost: ``python tests/benchmarks/valuation_speed.py [--players-max N] [--pydvl PYTHON]``.

Tables of all coalitions of a logistic model (30 features, 500 people's rows) by the shipped evaluator, beside a loop
that aggregates and evaluates each coalition by itself; values by every method from a finished table; robust rules,
which are run anew for every coalition; and sampled Shapley values of more players than a table can hold. One run, one
thread.

``--pydvl`` asks pyDVL's exact mode for the Shapley values of the same finished tables, where that interpreter has it.
"""

import argparse
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np

from federation.learning.evaluation import coalition_utilities, committed_utility, utilities_of
from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import from_fixed, to_fixed
from federation.rules.robust import LOCATIONS
from federation.rules.sampled_values import Stopping, antithetic_shapley, stratified_values
from federation.rules.terms import Valuation
from federation.rules.valuation import METHODS, shapley
from federation.rules.value_sample import draw, redraw

FEATURES, ROWS, BOUND = 30, 500, Decimal(4)
UNIT = 2**40


class Case:
    """A round of ``players`` sites."""

    def __init__(self, players: int) -> None:
        rng = np.random.default_rng(players)
        x = rng.normal(0, 1, (ROWS, 1, FEATURES))
        truth = rng.normal(0, 0.5, FEATURES)
        y = (rng.random((ROWS, 1)) < 1 / (1 + np.exp(-x @ truth))).astype(float)
        self.batch = SubjectBatch(x=x, y=y, mask=np.ones((ROWS, 1)), subjects=tuple(f"p{row}" for row in range(ROWS)))
        self.base = to_fixed(np.zeros(FEATURES + 1))
        self.names = tuple(f"site{number:02}" for number in range(players))
        self.updates = {
            name: to_fixed(np.append(truth, 0) * rng.uniform(0, 1.5) + rng.normal(0, 0.3, FEATURES + 1))
            for name in self.names
        }
        self.weights = {name: int(rng.integers(50, 500)) for name in self.names}

    def table(self, rule: Rule = WEIGHTED_MEAN) -> tuple[int, ...]:
        return coalition_utilities(self.base, self.updates, self.weights, self.names, self.batch, BOUND, rule)

    def utility(self, mask: int) -> int:
        members = {name: self.updates[name] for at, name in enumerate(self.names) if mask >> at & 1}
        model = aggregate(self.base, members, self.weights)
        return committed_utility(from_fixed(model), self.batch, BOUND)

    def utilities(self, masks: Sequence[int], rule: Rule = WEIGHTED_MEAN) -> tuple[int, ...]:
        return utilities_of(masks, self.base, self.updates, self.weights, self.names, self.batch, BOUND, rule)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of a few: what the work costs when nothing else is in the way."""
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def tables(players_max: int) -> None:
    print("\n| sites | coalitions | all at once | one by one | faster | exact Shapley values of it |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for players in (4, 6, 8, 10, 12, 14):
        if players > players_max:
            break
        case = Case(players)
        table = case.table()
        once = seconds(case.table)
        loop = tuple(case.utility(mask) for mask in range(2**players))
        assert loop == table, "both give the same integers"
        single = seconds(lambda case=case, players=players: [case.utility(mask) for mask in range(2**players)], 1)
        exact = seconds(lambda table=table: shapley(table))
        print(
            f"| {players} | {2**players:,} | {1e3 * once:.1f} ms | {1e3 * single:.0f} ms | {single / once:.0f} x "
            f"| {1e3 * exact:.1f} ms |",
            flush=True,
        )


def methods(players: int) -> None:
    case = Case(players)
    table = case.table()
    print(f"\n| {players} sites, from the finished table | |\n| --- | ---: |")
    for name, method in METHODS.items():
        print(f"| `{name}` | {1e3 * seconds(lambda method=method: method(table)):.1f} ms |")
    print(f"\n| {players} sites, table under the rule | |\n| --- | ---: |")
    for name in ("weighted-mean", *LOCATIONS):
        spent = seconds(lambda name=name: case.table(Rule(name, Decimal("0.2"))), 1)
        print(f"| `{name}` | {spent:.2f} s |", flush=True)


def sampled() -> None:
    print("\n| sites | way | precision (nats) | coalitions asked | of | samples | time | error, in half-widths |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for players, precisions in ((10, (0.002, 0.0005)), (20, (0.002, 0.001)), (40, (0.002,)), (100, (0.0005,))):
        case = Case(players)
        for precision in precisions:
            for way in (antithetic_shapley, stratified_values)[: 1 if players == 100 else 2]:
                started = time.perf_counter()
                found = way(
                    case.utilities,
                    players,
                    np.random.default_rng(1),
                    Stopping(round(precision * UNIT), Fraction(95, 100)),
                )
                spent = time.perf_counter() - started
                error = "not known"
                if players <= 14:
                    exact = shapley(case.table())
                    pairs = zip(exact, found.estimates, found.half_widths, strict=True)
                    error = f"{max(float(abs(one - two)) / max(half, 1) for one, two, half in pairs):.2f}"
                print(
                    f"| {players} | {way.__name__.partition('_')[0]} | {precision} | {found.evaluations:,} "
                    f"| {2**players:,} | {found.samples:,} | {spent:.2f} s | {error} |",
                    flush=True,
                )


def sampled_tables() -> None:
    """Tables of rounds that are too large for all coalitions, as the coordinator makes them and a verifier redraws."""
    mean, trimmed, nearest = (
        WEIGHTED_MEAN,
        *(Rule(name, Decimal("0.2")) for name in ("trimmed-mean", "nnm-trimmed-mean")),
    )
    cases = [
        (15, mean, "0.002"),
        (15, mean, "0.0005"),
        (50, mean, "0.002"),
        (50, mean, "0.0005"),
        (100, mean, "0.0005"),
    ]
    cases += [(30, trimmed, "0.002"), (30, nearest, "0.002"), (100, trimmed, "0.002")]
    print("\n| sites | rule | precision (nats) | coalitions | reached | drawn and evaluated | drawn again | table |")
    print("| ---: | --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for players, rule, precision in cases:
        case = Case(players)
        terms = {"method": "shapley", "utility": "negative-log-loss", "sampling": {"precision": precision}}
        valuation = Valuation.model_validate(terms)
        started = time.process_time()
        sample = draw(players, partial(case.utilities, rule=rule), valuation, "a" * 64)
        spent = time.process_time() - started
        table = ValueTable(
            study="s", round=1, players=case.names, utilities=sample.utilities, salt="5" * 64, seed="a" * 64
        )
        started = time.process_time()
        redraw(table, valuation)
        again = time.process_time() - started
        reached = "yes" if sample.values.reached else "no"
        print(
            f"| {players} | {rule.name} | {precision} | {len(sample.utilities):,} | {reached} "
            f"| {spent:.2f} s | {again:.2f} s | {len(table.to_payload()) / 1000:.0f} kB |",
            flush=True,
        )


PYDVL = """
import json, sys, time
import numpy as np
from pydvl.valuation import Dataset, ShapleyValuation, DeterministicPermutationSampler, DeterministicUniformSampler
from pydvl.valuation.samplers import FiniteNoIndexIteration
from pydvl.valuation.stopping import NoStopping
from pydvl.valuation.utility.base import UtilityBase
tables = json.load(sys.stdin)

class Table(UtilityBase):
    def __init__(self, table): self.table = table
    def __call__(self, sample): return 0.0 if sample is None else self.table[sum(1 << int(i) for i in sample.subset)]

for table in tables:
    count = len(table).bit_length() - 1
    data = Dataset(np.zeros((count, 1)), np.zeros(count))
    base = table[0]
    sampler = DeterministicUniformSampler(batch_size=64)
    game = Table([v - base for v in table])
    valuation = ShapleyValuation(game, sampler=sampler, is_done=NoStopping(sampler), progress=False)
    started = time.perf_counter()
    valuation.fit(data)
    spent = time.perf_counter() - started
    print(json.dumps([spent, [float(v) for v in valuation.result.values]]), flush=True)
"""


def against_pydvl(python: str, players_max: int) -> None:
    """pyDVL's exact Shapley values of the same tables: its time, and how far its figures are."""
    sizes = [players for players in (4, 6, 8, 10) if players <= players_max]
    finished = [Case(players).table() for players in sizes]
    answer = subprocess.run(
        [python, "-c", PYDVL],
        input=json.dumps([[value / UNIT for value in table] for table in finished]),
        capture_output=True,
        text=True,
        check=True,
    )
    print("\n| sites | pyDVL, exact mode | here | faster | largest difference (nats) |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for players, table, line in zip(sizes, finished, answer.stdout.splitlines(), strict=True):
        theirs, values = json.loads(line)
        ours = seconds(lambda table=table: shapley(table))
        pairs = zip(shapley(table), values, strict=True)
        far = max(abs(float(value / UNIT) - other) for value, other in pairs)
        print(
            f"| {players} | {1e3 * theirs:.0f} ms | {1e3 * ours:.2f} ms | {theirs / ours:.0f} x | {far:.1e} |",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--players-max", type=int, default=14)
    options.add_argument("--pydvl", metavar="PYTHON")
    chosen = options.parse_args()
    tables(chosen.players_max)
    if chosen.pydvl:
        against_pydvl(chosen.pydvl, chosen.players_max)
    methods(chosen.players_max)
    sampled()
    sampled_tables()
    print(f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
