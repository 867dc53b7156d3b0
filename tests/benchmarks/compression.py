"""What shorter updates cost in utility, and save in bytes: ``python tests/benchmarks/compression.py [--seeds N]``.

PneumoniaMNIST on eight artificial sites (a logistic model of 64 numbers, as in the table of privacy) at epsilon 3: the
longest model of the published tables that trains in minutes. Training, release, noise, compression,
aggregation and accounting are the shipped code; only the network is left out. Each way runs on the same splits; the
noise is drawn anew for each. ``without memory`` forgets what was left out, which no plan can ask for: it shows what
error feedback is worth.
"""

import argparse
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import torch
from federated_sites import Recipe, auc_or_nan, held_out, nominal_cohort, plan_of, take
from site_tables import pneumonia, shared_data

from clients.privacy.dp_training import train
from clients.privacy.noise import SecureNoise
from clients.privacy.release import release
from federation.learning.models import initial_model
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.aggregation import aggregate, integer_weights
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats, Integers, from_fixed
from federation.rules.study import StudyPlan
from federation.rules.vectors import compressed, pack_update

RECIPE: Final = Recipe(40, "6", "2")
"""That of the table in docs/benchmarks.md at epsilon 3."""
EPSILON: Final = "3"
FORMS: Final[Mapping[str, dict[str, str]]] = {
    "8 bytes a number": {},
    "fewest bytes": {"encoding": "fewest-bytes"},
    "int8": {"compression": "int8"},
    "top-k, a quarter": {"compression": "top-k", "keep": "0.25"},
    "top-k, a tenth": {"compression": "top-k", "keep": "0.1"},
    "top-k, a tenth, without memory": {"compression": "top-k", "keep": "0.1"},
}


def study(plan: StudyPlan, sites: Mapping[str, SubjectBatch], seed: int, *, memory: bool) -> tuple[Floats, float]:
    """The last model (float64 ``[P]``), and the mean number of bytes of an update."""
    noise, multiplier = SecureNoise(), derive_noise_multiplier(plan)
    nominal = {site: nominal_cohort(len(batch.subjects)) for site, batch in sites.items()}
    weights = integer_weights(nominal, plan.aggregation.weight_cap)
    model, sizes = initial_model(plan, seed), list[int]()
    left_out: dict[str, Integers] = {site: np.zeros_like(model) for site in sites}
    for _ in range(plan.rounds.count):
        base, updates = from_fixed(model), dict[str, Integers]()
        for site, batch in sites.items():
            update = release(train(plan, base, batch, nominal[site], multiplier, noise), plan)
            updates[site], rest = compressed(update, left_out[site], plan.aggregation)
            left_out[site] = rest if memory else np.zeros_like(rest)
            sizes.append(len(pack_update(updates[site], plan.aggregation)))
        model = aggregate(model, updates, weights)
    return from_fixed(model), float(np.mean(sizes))


def main() -> None:
    """Measure and print Markdown."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    seeds, folder = options.parse_args().seeds, shared_data()
    if folder is None:
        print("The published data is not beside this checkout (../shared/data, or ACCORD_SHARED): nothing is measured.")
        return
    torch.set_num_threads(1)
    began, table = time.perf_counter(), pneumonia(folder)
    whole = plan_of(table.schema, RECIPE, EPSILON)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FORMS}
    for seed in range(seeds):
        aside = held_out(table, seed)
        training = {site: take(batch, ~aside[site]) for site, batch in table.sites.items()}
        tests = [take(batch, aside[site]) for site, batch in table.sites.items()]
        for name, form in FORMS.items():
            model, size = study(_with(whole, form), training, seed, memory="without" not in name)
            found[name].append((float(np.nanmean([auc_or_nan(model, test) for test in tests])), size))
    first = np.array([one for one, _ in found["8 bytes a number"]])
    print("| updates | bytes each | AUC, mean of sites | less 8 bytes a number |\n| --- | ---: | ---: | ---: |")
    for name, rows in found.items():
        aucs, sizes = np.array(rows).T
        gap = aucs - first
        spread = f" ± {gap.std(ddof=1):.4f}" if seeds > 1 and gap.any() else ""
        print(f"| {name} | {sizes.mean():,.0f} | {aucs.mean():.4f} | {gap.mean():+.4f}{spread} |")
    now = datetime.now(UTC)
    print(f"\nMeasured {now:%Y-%m-%d}, Python {platform.python_version()}: {seeds} seeds, ", end="")
    print(f"{time.perf_counter() - began:.0f} s. ± is the standard deviation over seeds.")


def _with(plan: StudyPlan, form: Mapping[str, Any]) -> StudyPlan:
    document = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["aggregation"] |= form
    return StudyPlan.model_validate(document)


if __name__ == "__main__":
    main()
