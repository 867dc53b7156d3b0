"""How much each hospital gains, over many random splits: the table of docs/benchmarks.md (``make bench``).

Training, release and aggregation are the shipped code, with the shipped secure noise; only the network between the
parties is left out. Each split draws the sponsor's fifth and the consents anew (the demo's draws with another seed),
ten patients of Cleveland withdraw in the middle, and a site sits a round out when its noisy count says so. The rival,
"alone without privacy", is the demo's: fitted to convergence with L2 chosen inside the training rows.

Run it as ``python tests/benchmarks/heart_splits.py [--splits N] [--epsilon E ...]``; it prints Markdown.
"""

import argparse
import math
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
from scipy import stats

from clients.demo.comparisons import fit, network_model
from clients.demo.split import Row, Split, draw_consents, draw_withdrawals, split_rows
from clients.demo.studies import HEART
from clients.privacy.cohort import judge_cohort
from clients.privacy.dp_training import train
from clients.privacy.noise import NoiseSource, SecureNoise
from clients.privacy.release import release
from federation.learning.evaluation import auc
from federation.learning.models import initial_model
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.aggregation import aggregate, integer_weights
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.fixedpoint import Integers, from_fixed
from federation.rules.study import StudyPlan

WITHDRAWING_SITE = "cleveland"
WITHDRAWALS = 10
TEST_TO_TRAINING = 1 / 4
SITES = tuple(HEART.sites)


def train_network(
    plan: StudyPlan,
    permitted: Sequence[Mapping[str, SubjectBatch]],
    nominal: Mapping[str, int],
    noise: NoiseSource,
    *,
    seed: int,
) -> list[Integers]:
    """The models of a study, the first one included: int64 [P] each. ``permitted`` has one entry for each round."""
    multiplier = derive_noise_multiplier(plan)
    weights = integer_weights(nominal, plan.aggregation.weight_cap)
    models = [initial_model(plan, seed)]
    for batches in permitted:
        base = from_fixed(models[-1])
        updates = {
            site: release(train(plan, base, batch, nominal[site], multiplier, noise), plan)
            for site, batch in batches.items()
            if judge_cohort(len(batch.subjects), plan, noise).large_enough
        }
        models.append(aggregate(models[-1], updates, weights))
    return models


def permitted_rows(split: Split, plan: StudyPlan, seed: int) -> tuple[list[Mapping[str, SubjectBatch]], Split]:
    """Each round's permitted subjects by site, and the split with only the rows permitted at the start."""
    subject = plan.schema_contract.subject
    start: dict[str, SubjectBatch] = {}
    late: dict[str, SubjectBatch] = {}
    kept: dict[str, tuple[Row, ...]] = {}
    for site, rows in split.training.items():
        words = draw_consents(HEART, site, [row[subject] for row in rows], seed)
        granted = {name for name, word in words.items() if word == "grant"}
        gone = draw_withdrawals(HEART, site, words, seed, WITHDRAWALS) if site == WITHDRAWING_SITE else ()
        batch = by_subject(plan.schema_contract, parse_rows(plan.schema_contract, rows, source=site))
        start[site], late[site] = batch.select(granted), batch.select(granted - set(gone))
        kept[site] = tuple(row for row in rows if row[subject] in granted)
    middle = math.ceil(plan.rounds.count / 2)
    rounds: list[Mapping[str, SubjectBatch]] = [start if r < middle else late for r in range(plan.rounds.count)]
    return rounds, Split(split.header, kept, split.held_out)


def measure(plans: Mapping[str, StudyPlan], splits: int) -> dict[str, np.ndarray]:
    """Name of the way to learn -> AUC float64 [splits, sites]."""
    nominal = {site: HEART.sites[site].nominal_cohort for site in SITES}
    schema = next(iter(plans.values())).schema_contract
    figures: dict[str, list[list[float]]] = {name: [] for name in ("alone", "pooled", *plans)}
    noise = SecureNoise()
    for seed in range(splits):
        any_plan = next(iter(plans.values()))
        split = split_rows(HEART, any_plan, seed)
        rounds, kept = permitted_rows(split, any_plan, seed)
        held_out = {site: parse_rows(schema, split.held_out[site], source=site) for site in SITES}
        together = [row for site in SITES for row in kept.training[site]]
        pooled = fit(parse_rows(schema, together, source="pooled"), seed)
        models = {
            name: network_model(train_network(plan, rounds, nominal, noise, seed=seed)[-1])
            for name, plan in plans.items()
        }
        for name, measured in figures.items():
            row = []
            for site in SITES:
                if name == "alone":
                    model = fit(parse_rows(schema, kept.training[site], source=site), seed)
                else:
                    model = pooled if name == "pooled" else models[name]
                row.append(auc(model.scores(held_out[site].features), held_out[site].labels))
            measured.append(row)
    return {name: np.array(rows) for name, rows in figures.items()}


def interval(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, half width over splits, half width corrected for splits that overlap, share of splits above zero.

    The correction is that of Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning 52:
    variance times (1/n + test rows / training rows).
    """
    count = len(values)
    quantile = float(stats.t.ppf(0.975, count - 1))
    spread = float(values.std(ddof=1))
    plain = quantile * spread / math.sqrt(count)
    corrected = quantile * spread * math.sqrt(1 / count + TEST_TO_TRAINING)
    return float(values.mean()), plain, corrected, float((values > 0).mean())


def table(figures: Mapping[str, np.ndarray], name: str) -> list[str]:
    """The Markdown table of one way against "alone", and its winners and losers in words."""
    lines = [
        "| hospital | alone | here | difference | 95 % over splits | 95 % for new patients | better in |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    better: list[str] = []
    worse: list[str] = []
    clear: list[str] = []
    for place, site in enumerate((*SITES, "mean")):
        alone, network = (
            figures[key].mean(axis=1) if site == "mean" else figures[key][:, place] for key in ("alone", name)
        )
        mean, plain, corrected, above = interval(network - alone)
        title = "**mean of the four**" if site == "mean" else HEART.sites[site].title
        lines.append(
            f"| {title} | {alone.mean():.3f} | {network.mean():.3f} | {mean:+.3f} | {mean - plain:+.3f} to "
            f"{mean + plain:+.3f} | {mean - corrected:+.3f} to {mean + corrected:+.3f} | {above:.0%} of splits |"
        )
        if site != "mean" and abs(mean) > plain:
            (better if mean > 0 else worse).append(HEART.sites[site].title)
            clear += [HEART.sites[site].title] if abs(mean) > corrected else []
    unclear = [site.title for site in HEART.sites.values() if site.title not in (*better, *worse)]
    verdict = (
        f"Better off over these splits: {_names(better)}. Worse off: {_names(worse)}. "
        f"Undecided: {_names(unclear)}. Clear also for new patients: {_names(clear)}."
    )
    lines += [
        "",
        verdict,
        "",
    ]
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def report(figures: Mapping[str, np.ndarray], plans: Mapping[str, StudyPlan], splits: int, seconds: float) -> str:
    """The whole section of docs/benchmarks.md."""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    lines = [
        f"Measured {now}, Python {platform.python_version()}, {platform.machine()}: {splits} splits, {seconds:.0f} s.",
        "",
        f"Mean AUC over hospitals and splits: alone without privacy {figures['alone'].mean():.3f}, "
        f"pooled without privacy {figures['pooled'].mean():.3f}"
        + "".join(f", network at {name} {figures[name].mean():.3f}" for name in plans)
        + f". Standard deviation of one split's mean: {figures['alone'].mean(axis=1).std(ddof=1):.3f} (alone).",
        "",
    ]
    for name, plan in plans.items():
        privacy = plan.privacy
        terms = (
            f"Delta {privacy.delta:f}, Renyi order {privacy.order}, noise multiplier {derive_noise_multiplier(plan)}, "
            f"cohort counts with {privacy.cohort_noise_multiplier}, {plan.rounds.count} rounds."
        )
        lines += [
            f"### Network at {name}",
            "",
            terms,
            "",
            *table(figures, name),
        ]
    lines += ["### Pooled, no privacy", "", *table(figures, "pooled")]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="AUC by hospital over many splits, as Markdown.")
    parser.add_argument("--splits", type=int, default=30)
    parser.add_argument("--epsilon", type=Decimal, nargs="+", default=[Decimal(3), Decimal(1)])
    chosen = parser.parse_args()
    plans = {f"epsilon {epsilon}": HEART.plan(epsilon=float(epsilon)) for epsilon in chosen.epsilon}
    start = time.perf_counter()
    figures = measure(plans, chosen.splits)
    print(report(figures, plans, chosen.splits, time.perf_counter() - start))


if __name__ == "__main__":
    main()
