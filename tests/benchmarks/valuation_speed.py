"""What values cost: ``python tests/benchmarks/valuation_speed.py [--players-max N] [--pydvl PYTHON] [--plot FILE]``.

Tables of all coalitions by the shipped evaluator, beside a loop that aggregates and evaluates each coalition by itself:
of a logistic model (30 features) and of a perceptron 784-128-10 (and one logit), each on 500 people's rows; values by
every method from a finished table; robust rules, which are run anew for every coalition; and sampled Shapley values of
more players than a table can hold. One run, one thread; processor time, so that other work on the machine counts less.

``--pydvl`` asks pyDVL's exact mode for the Shapley values of the same finished tables, where that interpreter has it.
``--plot`` draws the cost over the number of sites.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from federation.learning.evaluation import coalition_utilities, committed_utility, utilities_of
from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.families import LOGISTIC, MlpModel, Model, size
from federation.rules.fixedpoint import from_fixed, to_fixed
from federation.rules.robust import LOCATIONS
from federation.rules.sampled_values import Stopping, antithetic_shapley, stratified_values
from federation.rules.terms import Valuation
from federation.rules.valuation import METHODS, shapley
from federation.rules.value_sample import draw, redraw

ROWS, BOUND = 500, Decimal(4)
UNIT = 2**40
WHOLE_LOOP_MAX = 1 << 10
"""Perceptron coalitions that the loop goes through; of more it takes a sample of :data:`SAMPLE`."""
SAMPLE = 48
PERCEPTRON = MlpModel(family="mlp", hidden=(128, 10))
Curves = dict[str, list[tuple[int, float]]]


class Case:
    """A round of ``players`` sites."""

    def __init__(self, players: int, model: Model = LOGISTIC) -> None:
        rng = np.random.default_rng(players)
        linear = model == LOGISTIC
        features, spread = (30, 1.0) if linear else (784, 0.3)
        x = rng.normal(0, spread, (ROWS, 1, features))
        truth = rng.normal(0, 0.5, features)
        y = (rng.random((ROWS, 1)) < 1 / (1 + np.exp(-x @ truth))).astype(float)
        self.model = model
        self.batch = SubjectBatch(x=x, y=y, mask=np.ones((ROWS, 1)), subjects=tuple(f"p{row}" for row in range(ROWS)))
        count = size(model, features)
        self.base = to_fixed(np.zeros(count) if linear else rng.normal(0, features**-0.5, count))
        towards = np.append(truth, 0) if linear else rng.normal(0, 0.02, count)
        self.names = tuple(f"site{number:02}" for number in range(players))
        self.updates = {
            name: to_fixed(towards * rng.uniform(0, 1.5) + rng.normal(0, 0.3 if linear else 0.01, count))
            for name in self.names
        }
        self.weights = {name: int(rng.integers(50, 500)) for name in self.names}

    def table(self, rule: Rule = WEIGHTED_MEAN) -> tuple[int, ...]:
        return coalition_utilities(
            self.base, self.updates, self.weights, self.names, self.batch, BOUND, rule, self.model
        )

    def utility(self, mask: int) -> int:
        members = {name: self.updates[name] for at, name in enumerate(self.names) if mask >> at & 1}
        model = aggregate(self.base, members, self.weights)
        return committed_utility(from_fixed(model), self.batch, BOUND, self.model)

    def utilities(self, masks: Sequence[int], rule: Rule = WEIGHTED_MEAN) -> tuple[int, ...]:
        return utilities_of(
            masks, self.base, self.updates, self.weights, self.names, self.batch, BOUND, rule, self.model
        )


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of a few: what the work costs when nothing else is in the way."""
    best = math.inf
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def tables(players_max: int, model: Model, curves: Curves) -> None:
    linear = model == LOGISTIC
    kind = "logistic, 30 features" if linear else "perceptron 784-128-10"
    print(f"\n### {kind}\n\n| sites | coalitions | all at once | one by one | faster | exact Shapley values of it |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for players in (4, 6, 8, 10, 12, 14):
        if players > players_max:
            break
        case, count = Case(players, model), 2**players
        found: list[tuple[int, ...]] = []
        once = seconds(lambda case=case, found=found: found.append(case.table()), 5 if linear else 1)
        table = found[-1]
        asked = range(count) if linear or count <= WHOLE_LOOP_MAX else range(0, count, count // SAMPLE)
        loop: list[int] = []
        single = seconds(lambda case=case, asked=asked, loop=loop: loop.extend(map(case.utility, asked)), 1)
        assert loop == [table[mask] for mask in asked], "both give the same integers"
        single *= count / len(asked)
        exact = seconds(lambda table=table: shapley(table))
        print(
            f"| {players} | {count:,} | {1e3 * once:.1f} ms | {1e3 * single:.0f} ms | {single / once:.0f} x "
            f"| {1e3 * exact:.1f} ms |",
            flush=True,
        )
        for name, spent in ((f"{kind}, one by one", single), (f"{kind}, all at once", once)):
            curves.setdefault(name, []).append((players, spent))
        if linear:
            curves.setdefault("Shapley values of a table", []).append((players, exact))


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
                started = time.process_time()
                found = way(
                    case.utilities,
                    players,
                    np.random.default_rng(1),
                    Stopping(round(precision * UNIT), Fraction(95, 100)),
                )
                spent = time.process_time() - started
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
    started = time.process_time()
    valuation.fit(data)
    spent = time.process_time() - started
    print(json.dumps([spent, [float(v) for v in valuation.result.values]]), flush=True)
"""


def against_pydvl(python: str, players_max: int, curves: Curves) -> None:
    """pyDVL's exact Shapley values of the same tables: its time, and how far its figures are."""
    sizes = [players for players in (4, 6, 8, 10) if players <= players_max]
    finished = [Case(players).table() for players in sizes]
    answer = subprocess.run(
        [python, "-c", PYDVL],
        input=json.dumps([[value / UNIT for value in table] for table in finished]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    print("\n| sites | pyDVL, exact mode | here | faster | largest difference (nats) |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for players, table, line in zip(sizes, finished, answer.stdout.splitlines(), strict=True):
        theirs, values = json.loads(line)
        ours = seconds(lambda table=table: shapley(table))
        curves.setdefault("the same by pyDVL, exact mode", []).append((players, theirs))
        pairs = zip(shapley(table), values, strict=True)
        far = max(abs(float(value / UNIT) - other) for value, other in pairs)
        print(
            f"| {players} | {1e3 * theirs:.0f} ms | {1e3 * ours:.2f} ms | {theirs / ours:.0f} x | {far:.1e} |",
            flush=True,
        )


def drawn(curves: Curves, path: str) -> None:
    """The cost over the number of sites, as a picture."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "valuation"
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for (name, points), marker in zip(curves.items(), "osD^vPX", strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, label=name, linestyle="--" if "one by" in name else "-")
    axes.set_yscale("log")
    axes.set_xlabel("sites")
    axes.set_ylabel("processor time, seconds")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--players-max", type=int, default=14)
    options.add_argument("--pydvl", metavar="PYTHON")
    options.add_argument("--plot", metavar="FILE")
    chosen = options.parse_args()
    curves: Curves = {}
    with threadpool_limits(1):
        tables(chosen.players_max, LOGISTIC, curves)
        tables(chosen.players_max, PERCEPTRON, curves)
        if chosen.pydvl:
            against_pydvl(chosen.pydvl, chosen.players_max, curves)
        methods(chosen.players_max)
        sampled()
        sampled_tables()
    if chosen.plot:
        drawn(curves, chosen.plot)
    print(f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
