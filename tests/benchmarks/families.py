"""What an owner gains by several names: ``python tests/benchmarks/families.py [--seeds N] [--epsilon E]``.

The four hospitals' study with the shipped training, noise, aggregation and valuation; only the network between the
parties is left out. One hospital (the next one with every seed) takes part under one name, and, on the same draw of
patients and consents, under three: as full copies, or with its patients dealt out to three. Each name trains for itself
and adds its own noise. Without the rule every name is an institution; with it a family is one player and weighs as one
(``federation.rules.clusters``), as if it had been found, or had declared itself.

Printed are the family's share of all positive value beside the single one's, mean over seeds with the standard error
of the paired difference, by hospital, and whether the one that gains most gains at most 5 %. Then how often the
sketches of ``rules.overlap`` find three full copies among the hospitals, and how often they take two different
hospitals for one.
"""

import argparse
import itertools
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
from clients.privacy.noise import NoiseSource, NoNoise, SecureNoise
from clients.privacy.release import release
from federation.learning.evaluation import coalition_utilities
from federation.learning.models import initial_model
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.aggregation import aggregate, rule_of
from federation.rules.clusters import cluster_weights, connected, quotient
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.fixedpoint import from_fixed
from federation.rules.overlap import beyond_chance, measured_size, person_hashes, product, sketch_of
from federation.rules.rewards import pay
from federation.rules.study import StudyPlan

NAMES = 3
KINDS = ("copy", "split")
GOAL = 1.05
Batches = Mapping[str, SubjectBatch]
Terms = tuple[int, Decimal]


def family(site: str) -> tuple[str, ...]:
    return tuple(f"{site}-{number}" for number in range(1, NAMES + 1))


def dealt(rounds: Sequence[Batches], site: str, kind: str) -> list[dict[str, SubjectBatch]]:
    """The rounds' patients when ``site`` takes part under three names."""
    result = []
    for batches in rounds:
        whole, named = batches[site], {name: batch for name, batch in batches.items() if name != site}
        for number, name in enumerate(family(site)):
            named[name] = whole if kind == "copy" else whole.select(rounds[0][site].subjects[number::NAMES])
        result.append(named)
    return result


def play(
    plan: StudyPlan,
    seed: int,
    rounds: Sequence[Batches],
    validation: SubjectBatch,
    nominal: Mapping[str, int],
    noise: NoiseSource,
    *,
    clusters: tuple[tuple[str, ...], ...] = (),
    copies: tuple[tuple[str, ...], ...] = (),
) -> dict[str, float]:
    """Each name's share of the pool."""
    multiplier = derive_noise_multiplier(plan)
    weights = cluster_weights(nominal, plan.aggregation.weight_cap, clusters=clusters, copies=copies)
    players, model = sorted(nominal), initial_model(plan, seed)
    game = quotient(players, clusters, weights)
    values = dict.fromkeys(players, Fraction(0))
    for batches in rounds:
        base = from_fixed(model)
        updates = {
            name: release(train(plan, base, batch, nominal[name], multiplier, noise), plan)
            for name, batch in batches.items()
        }
        table = coalition_utilities(
            model, updates, weights, players, validation, plan.valuation.loss_bound, rule_of(plan), plan.model
        )
        for name, value in zip(players, game.values(table), strict=True):
            values[name] += value
        model = aggregate(model, updates, weights, rule_of(plan))
    shares = pay(values, plan.reward.pool_microcredits, Decimal(0)).shares
    return {name: float(share) for name, share in shares.items()}


def seed_shares(plan: StudyPlan, seed: int, noise: NoiseSource) -> dict[tuple[str, bool], tuple[float, float]]:
    """(kind, rule on) -> the family's and the single one's share."""
    split = split_rows(HEART, plan, seed)
    rounds, _ = permitted_rows(split, plan, seed)
    rows = [row for site in SITES for row in split.held_out[site]]
    validation = by_subject(plan.schema_contract, parse_rows(plan.schema_contract, rows, source="validation"))
    site = SITES[seed % len(SITES)]
    nominal = {name: HEART.sites[name].nominal_cohort for name in SITES}
    alone = play(plan, seed, rounds, validation, nominal, noise)[site]
    found = {}
    for kind in KINDS:
        part = nominal[site] if kind == "copy" else round(nominal[site] / NAMES)
        named = {name: size for name, size in nominal.items() if name != site} | dict.fromkeys(family(site), part)
        batches = dealt(rounds, site, kind)
        for on in (False, True):
            one = (family(site),) if on else ()
            copies = one if kind == "copy" else ()
            shares = play(plan, seed, batches, validation, named, noise, clusters=one, copies=copies)
            found[kind, on] = sum(shares[name] for name in family(site)), alone
    return found


def table(plan: StudyPlan, seeds: int, noise: NoiseSource, told: str) -> None:
    played = [seed_shares(plan, seed, noise) for seed in range(seeds)]
    for kind in KINDS:
        for on in (False, True):
            pairs = 100 * np.array([each[kind, on] for each in played])
            together, alone = pairs.mean(axis=0)
            error = (pairs[:, 0] - pairs[:, 1]).std(ddof=1) / np.sqrt(seeds)
            each = [pairs[place :: len(SITES)].mean(axis=0) for place in range(len(SITES))]
            worst = max(several / single - 1 for several, single in each)
            met = f"{worst:+.1%}: " + ("met" if worst <= GOAL - 1 else "**missed**")
            cells = [
                f"{kind} x3",
                told,
                "on" if on else "off",
                f"{alone:.1f} %",
                f"{together:.1f} %",
                f"{together - alone:+.2f} ± {error:.2f}",
                f"{together / alone - 1:+.1%}",
                *(f"{single:.1f} → {several:.1f} %" for several, single in each),
                met,
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def detections(plan: StudyPlan, draws: int, terms: Terms, threshold: Decimal, z: Decimal) -> str:
    """How often three copies of each hospital are one cluster of exactly them, and how often a false edge appears."""
    buckets, multiplier = terms
    noise, std = SecureNoise(), Fraction(terms[1])
    found, apart, false, pairs = dict.fromkeys(SITES, 0), dict.fromkeys(SITES, 0), 0, 0
    for draw in range(draws):
        split = split_rows(HEART, plan, draw)
        rounds, _ = permitted_rows(split, plan, draw)
        hashes = {site: person_hashes(rounds[0][site]) for site in SITES}
        seed = b"%d" % draw
        exact = {site: sketch_of(hashes[site], buckets, seed) for site in SITES}
        for copied in SITES:
            nominal = {site: HEART.sites[site].nominal_cohort for site in SITES if site != copied}
            named = {site: exact[site] for site in nominal} | dict.fromkeys(family(copied), exact[copied])
            nominal |= dict.fromkeys(family(copied), HEART.sites[copied].nominal_cohort)
            shown = {name: sketch + noise.discrete_gaussian(buckets, std) for name, sketch in named.items()}
            squares = {name: product(sketch, sketch) for name, sketch in shown.items()}
            edges = []
            for first, second in itertools.combinations(sorted(shown), 2):
                dot = product(shown[first], shown[second])
                sizes = [
                    min(Fraction(nominal[name]), max(Fraction(1), measured_size(squares[name], buckets, multiplier)))
                    for name in (first, second)
                ]
                same = beyond_chance(dot, (squares[first], squares[second]), buckets, z)
                if same and dot >= Fraction(threshold) * min(sizes):
                    edges.append((first, second))
                honest = not {first, second} <= set(family(copied))
                false += honest and (first, second) in edges
                pairs += honest
            groups = connected(sorted(shown), edges)
            found[copied] += groups == (family(copied),)
            apart[copied] += not any(set(family(copied)) & set(group) for group in groups)
    cells = [f"{100 * found[site] / draws:.0f} % ({100 * apart[site] / draws:.0f} %)" for site in SITES]
    return f"| {buckets} | {multiplier} | {' | '.join(cells)} | {100 * false / pairs:.2f} % |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=40)
    options.add_argument("--draws", type=int, default=100)
    options.add_argument("--epsilon", type=float)
    chosen = options.parse_args()
    started = time.monotonic()
    plan = HEART.plan(epsilon=chosen.epsilon)
    print(f"Epsilon {plan.privacy.epsilon}, {plan.rounds.count} rounds, {chosen.seeds} seeds, pay by value.\n")
    titles = ["single share", "family share", "difference", "relative", *SITES, "most: at most +5 %"]
    print(f"| family | noise | rule | {' | '.join(titles)} |")
    print(f"| --- | --- | --- |{' ---: |' * len(titles)}")
    table(plan, chosen.seeds, NoNoise(), "none")
    table(plan, chosen.seeds, SecureNoise(), "privacy")
    if chosen.draws:
        threshold, z = Decimal("0.5"), Decimal(3)
        print(f"\nThree copies found whole (in brackets: not at all), threshold {threshold}, z {z}:\n")
        print(f"| buckets | noise multiplier | {' | '.join(SITES)} | false pairs |")
        print("| ---: | ---: |" + " ---: |" * (len(SITES) + 1))
        for terms in ((64, "1"), (64, "2"), (64, "3"), (32, "4")):
            print(detections(plan, chosen.draws, (terms[0], Decimal(terms[1])), threshold, z), flush=True)
    print(
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}: "
        f"{time.monotonic() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
