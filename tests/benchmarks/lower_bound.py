"""Who is paid by the lower bound: ``python tests/benchmarks/lower_bound.py [--seeds N] [--epsilon E] [--sites ...]``.

The four hospitals' study with the shipped training, noise, aggregation, valuation and standard errors; only the network
between the parties is left out. Each seed draws the sponsor's fifth and the consents anew. In each row but the honest
ones one hospital (the next one with every seed) sends something else than what it learnt:

    zero               nothing but zeros
    noise only         the shipped release of no patient at all
    random             a random direction, as long as its honest update, anew in every round
    random, long       the same at the plan's norm bound
    random, kept       one random direction in all rounds, as long as its honest updates

Printed are the share of seeds in which such a site is paid anything for several z, its mean part of the pool, the z
that would leave each kind unpaid in 95 % of seeds, and what the bound costs honest hospitals.
"""

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
from heart_splits import SITES, permitted_rows

from clients.demo.split import split_rows
from clients.demo.studies import HEART
from clients.privacy.dp_training import train
from clients.privacy.noise import SecureNoise
from clients.privacy.release import release
from federation.learning.evaluation import coalition_utilities
from federation.learning.models import initial_model
from federation.learning.uncertainty import standard_errors
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.aggregation import aggregate, integer_weights, rule_of
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.fixedpoint import Integers, from_fixed, to_fixed
from federation.rules.rewards import lower_bounds, pay
from federation.rules.study import StudyPlan
from federation.rules.valuation import shapley

KINDS = ("zero", "noise only", "random", "random, long", "random, kept")
JUDGED = KINDS[:4]
"""Those who draw anew in every round; a direction that is kept is shown, and not what z is calibrated for."""
ZS = ("0", "1", "1.3", "1.65", "2", "3")
POOL_AT = ("0", "1.65")
UNIT = 2**40
NOISE = SecureNoise()

Worth = dict[str, Fraction]


class Sender:
    """What one site sends in place of what it learnt."""

    def __init__(self, kind: str | None, plan: StudyPlan, seed: int) -> None:
        self.kind = kind
        self.plan = plan
        self.rng = np.random.default_rng(seed)
        self.kept: np.ndarray | None = None

    def update(self, base: np.ndarray, batch: SubjectBatch, nominal: int, multiplier: Decimal) -> Integers:
        if self.kind == "zero":
            return np.zeros(len(base), dtype=np.int64)
        used = batch.select(()) if self.kind == "noise only" else batch
        honest = release(train(self.plan, base, used, nominal, multiplier, NOISE), self.plan)
        if self.kind in (None, "noise only"):
            return honest
        drawn = self.rng.normal(size=len(base))
        if self.kind == "random, kept":
            self.kept = drawn = drawn if self.kept is None else self.kept
        length = np.linalg.norm(from_fixed(honest))
        if self.kind == "random, long":
            length = 0.999 * float(self.plan.aggregation.norm_bound)
        return to_fixed(length * drawn / np.linalg.norm(drawn))


def play(plan: StudyPlan, seed: int, kind: str | None) -> tuple[Worth, Worth]:
    """Values and standard errors of one study, in nats; ``kind`` is what the seed's hospital sends."""
    split = split_rows(HEART, plan, seed)
    rounds, _ = permitted_rows(split, plan, seed)
    rows = [row for site in SITES for row in split.held_out[site]]
    validation = by_subject(plan.schema_contract, parse_rows(plan.schema_contract, rows, source="validation"))
    nominal = {site: HEART.sites[site].nominal_cohort for site in SITES}
    multiplier = derive_noise_multiplier(plan)
    weights = integer_weights(nominal, plan.aggregation.weight_cap)
    senders = {site: Sender(kind if site == hostile(seed) else None, plan, seed) for site in SITES}
    players, model = sorted(SITES), initial_model(plan, seed)
    values, played = dict.fromkeys(players, Fraction(0)), []
    for batches in rounds:
        base = from_fixed(model)
        updates = {site: senders[site].update(base, batches[site], nominal[site], multiplier) for site in SITES}
        bound, rule = plan.valuation.loss_bound, rule_of(plan)
        table = coalition_utilities(model, updates, weights, players, validation, bound, rule, plan.model)
        for site, value in zip(players, shapley(table), strict=True):
            values[site] += value / UNIT
        played.append((model, updates))
        model = aggregate(model, updates, weights, rule)
    errors = standard_errors(played, weights, validation, plan, seed=b"%d" % seed)
    return values, {site: Fraction(error, UNIT) for site, error in errors.items()}


def hostile(seed: int) -> str:
    return SITES[seed % len(SITES)]


def rewards(plan: StudyPlan, study: tuple[Worth, Worth], z: str) -> dict[str, int]:
    bounds = lower_bounds(*study, Decimal(z))
    return pay(bounds, plan.reward.pool_microcredits, plan.reward.minimum_share).rewards


def line(name: str, plan: StudyPlan, studies: Mapping[str, Sequence[tuple[Worth, Worth]]]) -> str:
    """One row: ``studies`` by site, those in which the site is of this kind."""
    pairs = [(float(v[site]), float(e[site])) for site, played in studies.items() for v, e in played]
    values, errors = np.array(pairs).T
    ratios = np.divide(values, errors, out=np.zeros_like(values), where=errors > 0)
    paid = [
        np.mean([rewards(plan, study, z)[site] > 0 for site, played in studies.items() for study in played]) for z in ZS
    ]
    cells = [f"{values.mean():+.4f} ± {values.std(ddof=1):.4f}", f"{errors.mean():.4f}"]
    cells += [f"{np.quantile(ratios, 0.95):.2f}", *(f"{100 * share:.0f} %" for share in paid)]
    pool = plan.reward.pool_microcredits
    for z in POOL_AT:
        got = [rewards(plan, study, z)[site] / pool for site, played in studies.items() for study in played]
        cells.append(f"{100 * np.mean(got):.1f} %")
    return f"| {name} | {' | '.join(cells)} |"


def calibrated(plan: StudyPlan, studies: Mapping[str, list[tuple[Worth, Worth]]]) -> str:
    """The smallest z, in steps of 0.05, that leaves every judged kind unpaid in 95 % of seeds."""
    for step in range(101):
        z = str(Decimal(step) / 20)
        if all(
            np.mean([rewards(plan, study, z)[hostile(seed)] > 0 for seed, study in enumerate(studies[kind])]) <= 0.05
            for kind in JUDGED
        ):
            return z
    raise SystemExit("no z up to 5 leaves them unpaid")


def costs(plan: StudyPlan, honest: Sequence[tuple[Worth, Worth]], z: str) -> list[str]:
    """What honest hospitals get of the pool when all are honest: mean and standard deviation over seeds."""
    lines = ["", "| of the pool | " + " | ".join(SITES) + " | burned |", f"| --- |{' ---: |' * (len(SITES) + 1)}"]
    for shown in ("0", z):
        paid = np.array([[rewards(plan, study, shown)[site] for site in SITES] for study in honest], dtype=float)
        shares = 100 * paid / plan.reward.pool_microcredits
        cells = [f"{mean:.1f} ± {spread:.1f} %" for mean, spread in zip(shares.mean(0), shares.std(0), strict=True)]
        lines.append(f"| z = {shown} | {' | '.join(cells)} | {100 - shares.sum(1).mean():.1f} % |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=200)
    options.add_argument("--epsilon", type=float)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = options.parse_args()
    started = time.monotonic()
    plan = HEART.plan(epsilon=chosen.epsilon)
    print(f"Epsilon {plan.privacy.epsilon}, {plan.rounds.count} rounds, {chosen.seeds} seeds.\n")
    titles = [f"paid, z = {z}" for z in ZS] + [f"of the pool, z = {z}" for z in POOL_AT]
    print(f"| who | value (nats) | standard error | 95 % of seeds below | {' | '.join(titles)} |")
    print(f"| --- |{' ---: |' * (len(titles) + 3)}", flush=True)
    studies: dict[str, list[tuple[Worth, Worth]]] = {}
    for kind in chosen.kinds:
        studies[kind] = [play(plan, seed, kind) for seed in range(chosen.seeds)]
        by_site: dict[str, list[tuple[Worth, Worth]]] = {site: [] for site in SITES}
        for seed, study in enumerate(studies[kind]):
            by_site[hostile(seed)].append(study)
        print(line(kind, plan, by_site), flush=True)
    honest = [play(plan, seed, None) for seed in range(chosen.seeds)]
    for site in SITES:
        print(line(f"honest: {site}", plan, {site: honest}), flush=True)
    if set(JUDGED) <= set(studies):
        z = calibrated(plan, studies)
        print(f"\nThe smallest z that leaves {', '.join(JUDGED)} unpaid in 95 % of seeds: {z}.")
    print("\n".join(costs(plan, honest, POOL_AT[1])))
    print(
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}: "
        f"{time.monotonic() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
