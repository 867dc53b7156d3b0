"""Rounds of federated averaging on stock Flower and on Accord, in one run:

    python tests/benchmarks/against_flower.py [--megabytes 10 100] [--nodes 2 10] [--rounds N]

The model is float32 of so many megabytes; a node multiplies it by a number of its own, so that nothing is trained and
nothing repeats. Stock Flower (``stock_flower``) is started as its users start it; Accord (``accord_rounds``) runs
Flower's FedAvg on its Grid, and the way of a study's round. All on loopback, one way after the other; both must come to
the same model.
"""

import argparse
import logging
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from accord_rounds import NODE_PARTS, PARTS, Parts, Rounds, factor_of, grid_rounds, study_rounds
from stock_flower import stock_rounds

from federation.flower.messages import MESSAGE_BYTES_MAX

MEGABYTE: Final = 1_000_000
FLOAT32_BYTES: Final = 4
ROUND_S_MAX: Final = 120.0
ENVELOPE_BYTES: Final = 65_536
"""Room for what a message holds beside the model."""
TOLERANCE: Final = 1e-4


class Cell:
    """One size of model with one number of nodes, measured in each way."""

    def __init__(self, megabytes: int, nodes: int, rounds: int) -> None:
        self.megabytes, self.nodes, self.rounds = megabytes, nodes, rounds
        self.parameters = megabytes * MEGABYTE // FLOAT32_BYTES
        self.grid: Rounds | None = None
        self.grid_parts: Parts = {}
        size = {"parameters": self.parameters, "nodes": nodes, "rounds": rounds}
        with tempfile.TemporaryDirectory() as folder:
            self.stock = stock_rounds(Path(folder), **size, timeout_s=ROUND_S_MAX * rounds)
        if megabytes * MEGABYTE + ENVELOPE_BYTES < MESSAGE_BYTES_MAX:
            with tempfile.TemporaryDirectory() as folder:
                self.grid, self.grid_parts = grid_rounds(Path(folder), **size)
        with tempfile.TemporaryDirectory() as folder:
            self.study, self.parts, self.node_parts = study_rounds(Path(folder), **size)
        for way in (self.stock, self.grid, self.study):
            if way is not None:
                self.check(way.growth)

    def check(self, grown: float) -> None:
        """Refuse figures of a way that computed something else."""
        expected = statistics.fmean(factor_of(number) for number in range(self.nodes)) ** self.rounds
        if not math.isclose(grown, expected, rel_tol=TOLERANCE):
            raise RuntimeError(f"the model has grown {grown:.6f} times instead of {expected:.6f}")

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.megabytes} MB, {self.nodes} nodes"


def shown(way: Rounds | None) -> str:
    """The median and the range, and the processor's time."""
    if way is None:
        return "does not fit in a message | "
    spent = way.seconds
    return f"{statistics.median(spent):.2f} s ({min(spent):.2f} to {max(spent):.2f}) | {way.cpu_s:.1f} s"


def ratio(ours: Rounds | None, theirs: Rounds) -> str:
    """How many of our rounds go into one of theirs, by the medians."""
    if ours is None:
        return ""
    return f"{statistics.median(theirs.seconds) / statistics.median(ours.seconds):.1f} x"


def mean(laps: Sequence[Parts], part: str) -> float:
    """The mean seconds of a part."""
    return statistics.fmean(lap[part] for lap in laps)


def print_rounds(cells: Sequence[Cell]) -> None:
    """Seconds per round, and processor seconds of all processes together."""
    print("| | way | seconds per round: median (range) | processor | faster |\n| --- | --- | ---: | ---: | ---: |")
    for cell in cells:
        print(f"| {cell.name} | stock Flower | {shown(cell.stock)} | |")
        print(f"| | its FedAvg on Accord's Grid | {shown(cell.grid)} | {ratio(cell.grid, cell.stock)} |")
        print(f"| | the way of a study | {shown(cell.study)} | {ratio(cell.study, cell.stock)} |")


def print_parts(cells: Sequence[Cell]) -> None:
    """Where Accord's seconds go."""
    heads = " | ".join(cell.name for cell in cells)
    line = "| --- |" + " ---: |" * len(cells)
    print(f"\n| a study's way, mean of the rounds | {heads} |\n{line}")
    for part in PARTS:
        print(f"| {part} | " + " | ".join(f"{mean(cell.parts, part):.2f} s" for cell in cells) + " |")
    print(f"\n| of the first row, at the slowest node | {heads} |\n{line}")
    for part in NODE_PARTS:
        print(f"| {part} | " + " | ".join(f"{mean(cell.node_parts, part):.2f} s" for cell in cells) + " |")
    fitting = [cell for cell in cells if cell.grid is not None]
    if not fitting:
        return
    heads = " | ".join(cell.name for cell in fitting)
    print(f"\n| FedAvg on the Grid, a round | {heads} |\n| --- |" + " ---: |" * len(fitting))
    rows: dict[str, list[float]] = {}
    for cell in fitting:
        one, seconds = cell.grid_parts, cell.grid.seconds if cell.grid else []
        spent = {
            "coordinator writes and reads its messages": cell.nodes * (one["pack"] + one["unpack"]),
            "a node reads, trains, writes": one["unpack"] + one["train"] + one["pack"],
            "aggregate": one["aggregate"],
        }
        spent["transfer, and waiting for each other"] = statistics.median(seconds) - sum(spent.values())
        for part, value in spent.items():
            rows.setdefault(part, []).append(value)
    for part, values in rows.items():
        print(f"| {part} | " + " | ".join(f"{value:.2f} s" for value in values) + " |")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, nargs="+", default=[10])
    options.add_argument("--nodes", type=int, nargs="+", default=[2, 10])
    options.add_argument("--rounds", type=int, default=4)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    began, load = time.monotonic(), os.getloadavg()[0]
    cells = [Cell(size, nodes, given.rounds) for size in given.megabytes for nodes in given.nodes]
    print_rounds(cells)
    print_parts(cells)
    print(
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, flwr {version('flwr')}, libp2p {version('libp2p')}, Python "
        f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after: {given.rounds} rounds each, {time.monotonic() - began:.0f} s."
    )


if __name__ == "__main__":
    main()
