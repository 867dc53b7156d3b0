"""How far a site's rank by value depends on chance and choice: ``python tests/benchmarks/stability.py [--seeds N]``.

The four hospitals' study with the shipped training, noise, aggregation and valuation; only the network is left out. For
each draw of patients and consents two studies are played that differ in one thing alone, and Spearman's rank
correlation between their values is taken. Four sites have few ranks, so that a mean over draws says more than any one.
Printed are the mean with its 95 % interval over draws (Student's t), and how often the same hospital comes first.
"""

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import numpy as np
import torch
from heart_splits import SITES, permitted_rows
from scipy import stats

from clients.demo.split import split_rows
from clients.demo.studies import HEART
from clients.privacy.dp_training import train
from clients.privacy.noise import NoiseSource, NoNoise, SecureNoise
from clients.privacy.release import release
from federation.learning.evaluation import coalition_utilities
from federation.learning.models import initial_model
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.aggregation import aggregate, integer_weights, rule_of
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.fixedpoint import from_fixed
from federation.rules.study import StudyPlan
from federation.rules.valuation import METHODS, method_named

PLAYERS: Final = tuple(sorted(SITES))
EPSILONS: Final = ("8", "3", "1", "0.5")
RULES: Final[Mapping[str, dict[str, Any]]] = {
    "trimmed-mean": {"tolerated": "0.25"},
    "multi-krum": {"tolerated": "0.25"},
    "nnm-trimmed-mean": {"tolerated": "0.25"},
    "geometric-median": {},
}
Tables = list[tuple[int, ...]]
"""One table of 2^4 utilities for each round."""
Values = list[float]


def changed(plan: StudyPlan, section: str, **fields: Any) -> StudyPlan:
    """The plan with other fields in one section."""
    document = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    document[section] |= fields
    return StudyPlan.model_validate(document)


@dataclass(frozen=True)
class Draw:
    """One draw of patients and consents."""

    rounds: Sequence[Mapping[str, SubjectBatch]]
    validation: SubjectBatch
    seed: int

    def play(self, plan: StudyPlan, noise: NoiseSource, *, validation: SubjectBatch | None = None) -> Tables:
        """A study's value tables on the sponsor's set, or on ``validation``."""
        nominal = {site: HEART.sites[site].nominal_cohort for site in SITES}
        weights, rule = integer_weights(nominal, plan.aggregation.weight_cap), rule_of(plan)
        multiplier, model, found = derive_noise_multiplier(plan), initial_model(plan, self.seed), Tables()
        batch, bound = validation or self.validation, plan.valuation.loss_bound
        for batches in self.rounds:
            base = from_fixed(model)
            updates = {
                site: release(train(plan, base, rows, nominal[site], multiplier, noise), plan)
                for site, rows in batches.items()
            }
            found.append(coalition_utilities(model, updates, weights, PLAYERS, batch, bound, rule, plan.model))
            model = aggregate(model, updates, weights, rule)
        return found


def drawn(plan: StudyPlan, seed: int) -> Draw:
    """Patients and consents of one seed."""
    split = split_rows(HEART, plan, seed)
    rounds, _ = permitted_rows(split, plan, seed)
    rows = [row for site in SITES for row in split.held_out[site]]
    whole = by_subject(plan.schema_contract, parse_rows(plan.schema_contract, rows, source="validation"))
    return Draw(rounds, whole, seed)


def values(tables: Tables, method: str = "shapley") -> Values:
    """Each player's value over the study, in nats."""
    found = [Fraction(0)] * len(PLAYERS)
    for table in tables:
        found = [own + each for own, each in zip(found, method_named(method)(table), strict=True)]
    return [float(each / 2**40) for each in found]


def halves(batch: SubjectBatch, seed: int) -> tuple[SubjectBatch, SubjectBatch]:
    """The validation people, dealt out by chance."""
    names = list(batch.subjects)
    np.random.default_rng(seed).shuffle(names)
    return batch.select(names[::2]), batch.select(names[1::2])


def pairs(plan: StudyPlan, draw: Draw) -> dict[str, tuple[Values, Values]]:
    """What differs -> the two studies' values."""
    quiet, secure = NoNoise(), SecureNoise()
    still = draw.play(plan, quiet)
    first, second = (draw.play(plan, quiet, validation=half) for half in halves(draw.validation, draw.seed))
    found = {"halves of the validation set, no noise": (values(first), values(second))}
    for rule, fields in RULES.items():
        other = draw.play(changed(plan, "aggregation", rule=rule, **fields), quiet)
        found[f"weighted-mean or {rule}, no noise"] = values(still), values(other)
    for method in METHODS:
        if method != "shapley":
            found[f"shapley or {method}, same tables, no noise"] = values(still), values(still, method)
    for epsilon in EPSILONS:
        noisy = HEART.plan(epsilon=float(epsilon))
        one, two = (values(draw.play(noisy, secure)) for _ in range(2))
        found[f"no noise or epsilon {epsilon}"] = values(still), one
        found[f"two draws of the noise at epsilon {epsilon}"] = one, two
    return found


def main() -> None:
    """Measure and print Markdown."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=40, help="three or more")
    seeds, began, plan = options.parse_args().seeds, time.perf_counter(), HEART.plan()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[Values, Values]]] = {}
    before: Values | None = None
    for seed in range(seeds):
        draw = drawn(plan, seed)
        here = pairs(plan, draw)
        still = here["no noise or epsilon 8"][0]
        if before is not None:
            here["other patients, no noise"] = before, still
        before = still
        for what, pair in here.items():
            found.setdefault(what, []).append(pair)
    print(
        "| what differs | pairs | rank correlation | 95 % | same hospital first |\n| --- | ---: | ---: | --- | ---: |"
    )
    for what, several in found.items():
        ranks = np.array([float(stats.spearmanr(one, two).statistic) for one, two in several])
        half = float(stats.t.ppf(0.975, len(ranks) - 1)) * ranks.std(ddof=1) / np.sqrt(len(ranks))
        first = np.mean([np.argmax(one) == np.argmax(two) for one, two in several])
        low, high = max(-1.0, ranks.mean() - half), min(1.0, ranks.mean() + half)
        print(f"| {what} | {len(ranks)} | {ranks.mean():+.2f} | {low:+.2f} to {high:+.2f} | {first:.0%} |")
    now = datetime.now(UTC)
    print(f"\nMeasured {now:%Y-%m-%d}, Python {platform.python_version()}: {seeds} draws, ", end="")
    print(f"{time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
