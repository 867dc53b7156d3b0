"""The tables of docs/benchmarks.md, "Privacy on real data": ``python tests/benchmarks/privacy_on_real_data.py NAME``.

Each recipe was chosen by simulating the same steps on splits of other seeds (1000 and up), and fixed before the seeds
that are reported (0 and up) ran: as many steps as the noise allows, the clip near the largest gradient where many
people make noise cheap, smaller where few do.
"""

import argparse
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import site_report
import torch
from federated_sites import Measure, Recipe, auc_or_nan, concordance, measure, plan_of
from heart_private import heart_report
from site_tables import Table, beijing, gusto, impact, pneumonia, reviews, shared_data, tcga

from federation.rules.accounting import derive_noise_multiplier
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table, how its models are measured (the AUC unless it says otherwise), and the recipes by epsilon."""

    table: Callable[[Path], tuple[Table, Measure]]
    seeds: int
    together: Mapping[str, Recipe]
    alone: Mapping[str, Recipe]
    unit: str = "AUC"


def survival(folder: Path) -> tuple[Table, Measure]:
    """Fed-TCGA-BRCA, measured by Harrell's C on the days that were seen."""
    table, times = tcga(folder)

    def c_index(model: Floats, test: SubjectBatch) -> float:
        days, seen = (np.array(column) for column in zip(*(times[name] for name in test.subjects), strict=True))
        return concordance(test.x[:, 0] @ model[:-1], days, seen)

    return table, c_index


_ALONE = {"8": Recipe(40, "3", "2.5"), "3": Recipe(20, "3", "2.5"), "1": Recipe(20, "1", "1.5")}
EXPERIMENTS = {
    "gusto-regions": Experiment(
        lambda folder: (gusto(folder, "regl", "GUSTO-I, 16 regions"), auc_or_nan),
        10,
        {"8": Recipe(60, "5", "3.5"), "3": Recipe(50, "5", "3.5"), "1": Recipe(25, "5", "2.5")},
        _ALONE,
    ),
    "impact": Experiment(
        lambda folder: (impact(folder), auc_or_nan),
        20,
        {"8": Recipe(50, "2", "3"), "3": Recipe(50, "2", "3"), "1": Recipe(30, "4", "1.5")},
        _ALONE,
    ),
    "beijing": Experiment(
        lambda folder: (beijing(folder), auc_or_nan),
        20,
        {"8": Recipe(50, "5", "1"), "3": Recipe(50, "5", "1"), "1": Recipe(50, "5", "1")},
        _ALONE,
    ),
    "tcga": Experiment(
        survival,
        60,
        {"8": Recipe(14, "14", "1.5"), "3": Recipe(14, "14", "0.6"), "1": Recipe(10, "4", "0.6")},
        {"8": Recipe(20, "3", "1"), "3": Recipe(20, "3", "1"), "1": Recipe(10, "3", "1")},
        "C-index",
    ),
    "pneumonia": Experiment(
        lambda folder: (pneumonia(folder), auc_or_nan),
        20,
        {"8": Recipe(60, "4", "3"), "3": Recipe(40, "6", "2"), "1": Recipe(30, "4", "1.5")},
        {"8": Recipe(20, "3", "2"), "3": Recipe(20, "3", "2"), "1": Recipe(20, "3", "1")},
    ),
    "reviews": Experiment(
        lambda folder: (reviews(folder), auc_or_nan),
        6,
        {"8": Recipe(60, "4", "0.5"), "3": Recipe(60, "4", "0.5"), "1": Recipe(15, "16", "0.3")},
        {"8": Recipe(20, "8", "0.5"), "3": Recipe(20, "8", "0.5"), "1": Recipe(20, "8", "0.5")},
    ),
    "gusto-centres": Experiment(
        lambda folder: (gusto(folder, "grps", "GUSTO-I, 121 centres"), auc_or_nan),
        6,
        {"8": Recipe(40, "5", "3"), "3": Recipe(30, "5", "3"), "1": Recipe(15, "5", "2")},
        {"3": Recipe(10, "1", "1")},
    ),
}


def run(experiment: Experiment, folder: Path, seeds: int) -> str:
    """One sub-section."""
    start = time.perf_counter()
    table, measured_by = experiment.table(folder)
    figures = measure(table, range(seeds), experiment.together, experiment.alone, measured_by=measured_by)
    body = site_report.report(table, figures, unit=experiment.unit)
    return "\n".join([f"### {table.title}", "", *_terms(experiment, table), _when(seeds, start), "", body, ""])


def _terms(experiment: Experiment, table: Table) -> list[str]:
    lines = [f"{sum(len(b.subjects) for b in table.sites.values())} people, {len(table.sites)} sites; delta 1e-5."]
    for title, recipes in (("Federated", experiment.together), ("Alone with privacy", experiment.alone)):
        parts = [
            f"epsilon {e}: {r.rounds * r.local_steps} steps of {r.learning_rate}, clip {r.clip}, noise multiplier "
            f"{derive_noise_multiplier(plan_of(table.schema, r, e)):.1f}"
            for e, r in recipes.items()
        ]
        lines.append(f"{title}: " + "; ".join(parts) + ".")
    return lines


def _when(seeds: int, start: float) -> str:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"Measured {day} on a 2-core machine that did other work as well, Python {platform.python_version()}, one "
        f"thread: {seeds} seeds, {time.perf_counter() - start:.0f} s."
    )


def main() -> None:
    """Measure what is named and print Markdown."""
    parser = argparse.ArgumentParser(description="Federations with privacy on published tables, as Markdown.")
    names = ["heart", *EXPERIMENTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; default: all")
    parser.add_argument("--seeds", type=int, help="splits; default: each table's own number")
    chosen = parser.parse_args()
    folder = shared_data()
    if folder is None:
        print("The published data is not beside this checkout (../shared/data, or ACCORD_SHARED): nothing is measured.")
        return
    torch.set_num_threads(1)
    for name in chosen.names or names:
        if name == "heart":
            print(heart_report(folder, chosen.seeds or 20), flush=True)
        else:
            print(run(EXPERIMENTS[name], folder, chosen.seeds or EXPERIMENTS[name].seeds), flush=True)


if __name__ == "__main__":
    main()
