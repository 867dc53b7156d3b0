"""What a federation with privacy is worth to each of many sites: one way to measure it, for every table.

Training, release, noise, aggregation and accounting are the shipped code (a ``StudyPlan``, then train, release and
weighted mean); only the network between the parties and the values are left out: 15, 16 or 121 sites enter the same
sums. Rivals are the demo's: logistic regression without privacy, fitted to convergence, L2 chosen by
cross-validation inside the training rows, on a site's own rows (``alone``) and on everybody's (``pooled``).
``alone at E`` is a site that keeps its own people's epsilon E and has no partner.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from site_tables import Table

from clients.demo.comparisons import fit
from clients.demo.studies import HEART
from clients.privacy.cohort import judge_cohort
from clients.privacy.dp_training import train
from clients.privacy.noise import NoiseSource, SecureNoise
from clients.privacy.release import release
from federation.errors import OperatorError
from federation.learning.evaluation import auc
from federation.learning.models import initial_model
from federation.rules.accounting import best_order, derive_noise_multiplier
from federation.rules.aggregation import aggregate, integer_weights
from federation.rules.encoding import Rows, SubjectBatch
from federation.rules.fixedpoint import Floats, from_fixed
from federation.rules.schema import SchemaContract
from federation.rules.study import StudyPlan

TEST_SHARE = 0.2
LARGE_SITE = 500
GAP_GOAL = 0.9
_COUNT_TO_TRAINING_NOISE = 3
_RESAMPLES = 4000

Figures = dict[str, NDArray[np.float64]]
"""Way to learn -> its measure, float64 [seeds, sites]; NaN where a site's held-out part has one label only."""
Measure = Callable[[Floats, SubjectBatch], float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The public figures of training; ``local_steps`` full-batch steps in each of ``rounds`` rounds."""

    rounds: int
    learning_rate: str
    clip: str
    local_steps: int = 1
    l2: str = "0"


def plan_of(
    schema: SchemaContract, recipe: Recipe, epsilon: str, *, model: Mapping[str, Any] | None = None
) -> StudyPlan:
    """The plan of a study at epsilon and delta 1e-5: the demo's terms, this schema and recipe.

    The Renyi order is the one that needs the least noise; counts of the cohort get three times the training's noise, so
    that they take a tenth of the budget.
    """
    document = HEART.plan().model_dump(mode="json", by_alias=True, exclude_none=True)
    steps = {"learning_rate": recipe.learning_rate, "l2": recipe.l2, "local_steps": recipe.local_steps}
    document |= {"schema": schema.model_dump(mode="json", exclude_none=True), "training": steps}
    document["model"] = dict(model or {"family": "logistic"})
    document["rounds"] |= {"count": recipe.rounds}
    document["cohort"] = {"minimum": 1}
    document["aggregation"] |= {"weight_cap": "1", "norm_bound": "1000"}
    count_noise = "100000"
    for _ in range(2):
        document["privacy"] |= {"epsilon": epsilon, "clip": recipe.clip, "cohort_noise_multiplier": count_noise}
        plan = StudyPlan.model_validate(document)
        document["privacy"]["order"] = best_order(plan)
        plan = StudyPlan.model_validate(document)
        count_noise = str(math.ceil(_COUNT_TO_TRAINING_NOISE * derive_noise_multiplier(plan)))
    return plan


def nominal_cohort(subjects: int) -> int:
    """The public size that an agreement would name: two leading digits."""
    digits = max(len(str(subjects)) - 2, 0)
    return max(1, round(subjects, -digits))


def federate(plan: StudyPlan, sites: Mapping[str, SubjectBatch], noise: NoiseSource, *, seed: int) -> Floats:
    """The last model of a study, float64 [P]; a site whose noisy count is below the minimum sits the round out."""
    nominal = {site: nominal_cohort(len(batch.subjects)) for site, batch in sites.items()}
    multiplier = derive_noise_multiplier(plan)
    weights = integer_weights(nominal, plan.aggregation.weight_cap)
    model = initial_model(plan, seed)
    for _ in range(plan.rounds.count):
        base = from_fixed(model)
        updates = {
            site: release(train(plan, base, batch, nominal[site], multiplier, noise), plan)
            for site, batch in sites.items()
            if judge_cohort(len(batch.subjects), plan, noise).large_enough
        }
        model = aggregate(model, updates, weights)
    return from_fixed(model)


def held_out(table: Table, seed: int) -> dict[str, NDArray[np.bool_]]:
    """Site -> which subjects are put aside, bool [S]: the published split; or whole blocks; or a fifth by label."""
    if table.held_out is not None:
        return dict(table.held_out)
    rng = np.random.default_rng(seed)
    if table.blocks is not None:
        blocks = np.unique(np.concatenate(list(table.blocks.values())))
        drawn = rng.choice(blocks, size=round(TEST_SHARE * blocks.size), replace=False)
        return {site: np.isin(own, drawn) for site, own in table.blocks.items()}
    result: dict[str, NDArray[np.bool_]] = {}
    for site, batch in table.sites.items():
        positive = (batch.y * batch.mask).max(axis=1) > 0
        aside = np.zeros(positive.size, dtype=np.bool_)
        for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
            aside[rng.permutation(stratum)[: round(TEST_SHARE * stratum.size)]] = True
        result[site] = aside
    return result


def measure(
    table: Table,
    seeds: Sequence[int],
    together: Mapping[str, Recipe],
    alone: Mapping[str, Recipe],
    *,
    measured_by: Measure,
) -> Figures:
    """Every way to learn on every seed's split; the measure (the AUC) of each site's own held-out subjects.

    Args:
        table: the data.
        seeds: one split, or one draw of the noise, each.
        together: epsilon -> recipe of the federation.
        alone: epsilon -> recipe of a site that keeps epsilon without partners.
        measured_by: model and held-out subjects -> figure.
    """
    source = SecureNoise()
    joint = {epsilon: plan_of(table.schema, recipe, epsilon) for epsilon, recipe in together.items()}
    single = {epsilon: plan_of(table.schema, recipe, epsilon) for epsilon, recipe in alone.items()}
    names = ["alone", *(f"alone at {e}" for e in single), *(f"federated at {e}" for e in joint), "pooled"]
    figures: dict[str, list[list[float]]] = {name: [] for name in names}
    for seed in seeds:
        aside = held_out(table, seed)
        training = {site: take(batch, ~aside[site]) for site, batch in table.sites.items()}
        models = {f"federated at {e}": federate(plan, training, source, seed=seed) for e, plan in joint.items()}
        models["pooled"] = fit_together(list(training.values()), seed)
        rows: dict[str, list[float]] = {name: [] for name in names}
        for site, batch in table.sites.items():
            own = {"alone": fit_together([training[site]], seed)}
            for e, plan in single.items():
                own[f"alone at {e}"] = federate(plan, {site: training[site]}, source, seed=seed)
            test = take(batch, aside[site])
            for name, model in (models | own).items():
                rows[name].append(measured_by(model, test))
        for name, row in rows.items():
            figures[name].append(row)
    return {name: np.array(rows) for name, rows in figures.items()}


def fit_together(batches: Sequence[SubjectBatch], seed: int) -> Floats:
    """The rival without privacy on all these subjects' records, float64 [P]; with one label only, that label."""
    real = [batch.mask == 1 for batch in batches]
    rows = Rows(
        tuple(
            name
            for batch, mask in zip(batches, real, strict=True)
            for name in np.repeat(np.array(batch.subjects), mask.sum(axis=1)).tolist()
        ),
        np.concatenate([batch.x[mask] for batch, mask in zip(batches, real, strict=True)]),
        np.concatenate([batch.y[mask] for batch, mask in zip(batches, real, strict=True)]),
    )
    if len(np.unique(rows.labels)) == 1:
        return np.append(np.zeros(rows.features.shape[1]), 2 * rows.labels[0] - 1)
    model = fit(rows, seed)
    return np.append(model.weight, model.bias)


def take(batch: SubjectBatch, which: NDArray[np.bool_]) -> SubjectBatch:
    """The subjects at these places."""
    names = tuple(name for name, kept in zip(batch.subjects, which, strict=True) if kept)
    return SubjectBatch(names, batch.x[which], batch.y[which], batch.mask[which])


def auc_or_nan(model: Floats, test: SubjectBatch) -> float:
    """The AUC over records; NaN where one label is absent."""
    real = test.mask == 1
    try:
        return auc(test.x[real] @ model[:-1] + model[-1], test.y[real])
    except OperatorError:
        return math.nan


def concordance(risk: Floats, days: NDArray[Any], seen: NDArray[Any]) -> float:
    """Harrell's C: of the pairs whose order is known, the share in which who dies first has the higher risk.

    Ties in risk count half; NaN without such a pair (Harrell et al. 1982, JAMA 247:2543).
    """
    right = pairs = 0.0
    for first in np.flatnonzero(seen):
        later = days > days[first]
        pairs += later.sum()
        right += (risk[first] > risk[later]).sum() + (risk[first] == risk[later]).sum() / 2
    return float(right / pairs) if pairs else math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over splits with 95 %: over these splits, and for new people (Nadeau and Bengio 2003)."""

    mean: float
    half: float
    half_new: float

    def __str__(self) -> str:
        return f"{self.mean - self.half:+.3f} to {self.mean + self.half:+.3f}"


def interval(values: NDArray[np.float64], test_to_training: float = TEST_SHARE / (1 - TEST_SHARE)) -> Interval:
    """Student's t over the splits that have a value; the corrected variance adds test rows / training rows to 1/n."""
    values = values[np.isfinite(values)]
    if values.size < 2:
        return Interval(float(values.mean()) if values.size else math.nan, math.inf, math.inf)
    scale = float(stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1))
    return Interval(
        float(values.mean()), scale / math.sqrt(values.size), scale * math.sqrt(1 / values.size + test_to_training)
    )


def gap_closed(figures: Figures, name: str, sites: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The share of the gap from alone to pooled that ``name`` closes on these sites, with 95 % (seeds resampled)."""
    part = {key: np.nanmean(figures[key][:, sites], axis=1) for key in ("alone", name, "pooled")}
    gained, possible = part[name] - part["alone"], part["pooled"] - part["alone"]
    drawn = np.random.default_rng(0).integers(0, gained.size, (_RESAMPLES, gained.size))
    ratios = gained[drawn].mean(axis=1) / possible[drawn].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(gained.mean() / possible.mean()), float(low), float(high)
