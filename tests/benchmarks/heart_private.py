"""Fed-Heart-Disease on FLamby's split with privacy: the demo's recipe, several epsilons, twenty draws of the noise.

Also the published figures without privacy, reproduced (``flamby_heart.py``). The split is fixed, so that the spread is
the noise's and the first model's, not that of other patients.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import flamby_heart
import numpy as np
from federated_sites import Recipe, auc_or_nan, federate, fit_together, held_out, plan_of, take
from numpy.typing import NDArray
from site_tables import heart

from clients.demo.studies import HEART
from clients.privacy.noise import NoNoise, SecureNoise
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats

EPSILONS = ("8", "3", "1", "0.5")
_DEMO = HEART.plan()
RECIPE = Recipe(_DEMO.rounds.count, str(_DEMO.training.learning_rate), str(_DEMO.privacy.clip))
MEASURES = ("accuracy", "balanced accuracy", "AUC")


def heart_report(folder: Path, seeds: int) -> str:
    """The sub-section."""
    start = time.perf_counter()
    published = flamby_heart.table(flamby_heart.reproduce(folder / "fed_heart_disease"))
    figures = measure_heart(folder, seeds)
    lines = ["### Fed-Heart-Disease (FLamby)", "", *published, ""]
    plans = {epsilon: plan_of(heart(folder).schema, RECIPE, epsilon) for epsilon in EPSILONS}
    noises = "; ".join(f"epsilon {e}: {derive_noise_multiplier(plan):.1f}" for e, plan in plans.items())
    terms = (
        f"The demo's recipe on public bounds: {RECIPE.rounds} rounds of one full step of {RECIPE.learning_rate}, clip "
        f"{RECIPE.clip}, delta 1e-5; noise multipliers {noises}. {seeds} seeds: mean and standard deviation."
    )
    titles = ("measure", *(name.capitalize() for name in flamby_heart.CENTRES), "mean of the four")
    lines += [terms, "", "| | " + " | ".join(titles) + " |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, found in figures.items():
        for place, title in enumerate(MEASURES):
            columns = np.column_stack([found[:, :, place], found[:, :, place].mean(axis=1)])
            cells = [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in columns.T]
            lines.append(f"| {name} | {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{time.perf_counter() - start:.0f} s.", ""])


def measure_heart(folder: Path, seeds: int) -> Mapping[str, NDArray[np.float64]]:
    """Way to learn -> float64 [seeds, centres, measures]."""
    table = heart(folder)
    aside = held_out(table, 0)
    training = {site: take(batch, ~aside[site]) for site, batch in table.sites.items()}
    tests = [take(batch, aside[site]) for site, batch in table.sites.items()]
    plan = plan_of(table.schema, RECIPE, EPSILONS[0])
    figures: dict[str, list[list[tuple[float, float, float]]]] = {}
    for seed in range(seeds):
        own = [fit_together([batch], seed) for batch in training.values()]
        pooled = fit_together(list(training.values()), seed)
        models = {
            "alone, no privacy": own,
            "pooled, no privacy": [pooled] * len(tests),
            "federated, no privacy": [federate(plan, training, NoNoise(), seed=seed)] * len(tests),
        }
        for epsilon in EPSILONS:
            model = federate(plan_of(table.schema, RECIPE, epsilon), training, SecureNoise(), seed=seed)
            models[f"federated, epsilon {epsilon}"] = [model] * len(tests)
        for name, of_site in models.items():
            figures.setdefault(name, []).append([_measures(m, t) for m, t in zip(of_site, tests, strict=True)])
    return {name: np.array(rows) for name, rows in figures.items()}


def _measures(model: Floats, test: SubjectBatch) -> tuple[float, float, float]:
    """Accuracy at even odds, mean of the two labels' recalls, AUC."""
    y = test.y[:, 0] == 1
    said = test.x[:, 0] @ model[:-1] + model[-1] > 0
    right = said == y
    return float(right.mean()), float((right[y].mean() + right[~y].mean()) / 2), auc_or_nan(model, test)
