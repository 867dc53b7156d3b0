"""Institutions that score each other: ``python tests/benchmarks/panel_scoring.py [--seeds N] [--draws N]``.

The four hospitals' study with the shipped training, noise, aggregation, scoring and rules; only the network between the
parties is left out. Every hospital holds back a quarter of its people (part 00) and scores all on them. Each seed draws
the sponsor's fifth, the consents and the training noise anew; the scores' noise is drawn several times for each.

    hospitals          as they are: 34 % to 94 % of their patients are ill
    shuffled           the same patients dealt out to hospitals of the same sizes

How close honest panel values are to the sponsor's set (Spearman's rank correlation of four values), and what a hospital
gains by lying, in percentage points of the pool (negative: it loses):

    self-scorer        itself as high as can be, or twice, or honestly; the others zero, half, or as low as can be
    copier             another's table, as if it had seen it (it cannot: commitments come first)
    withholder         commits, sees all others' tables, and shows its own only where that pays
    two of four        as the self-scorer, both for both, together

Of each family the lie is reported that gains most on average over all seeds, draws, and members or pairs. ``plain
shares`` is what the same lies gain where shares are of a mean over all tables, own ones too: no defence.
"""

import argparse
import dataclasses
import itertools
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
from heart_splits import SITES, permitted_rows
from scipy import stats

from clients.demo.split import split_rows
from clients.demo.studies import HEART
from clients.privacy.dp_training import train
from clients.privacy.noise import NoiseSource, NoNoise, SecureNoise
from clients.privacy.release import release, release_scores
from clients.privacy.scoring import noisy_scores
from federation.learning.models import initial_model
from federation.learning.uncertainty import subject_gains
from federation.rules.accounting import derive_noise_multiplier, derive_scores_noise
from federation.rules.aggregation import aggregate, integer_weights, rule_of
from federation.rules.clusters import quotient
from federation.rules.documents import SCORE_MAX
from federation.rules.encoding import by_subject, parse_rows
from federation.rules.fixedpoint import Floats, from_fixed
from federation.rules.panel import score
from federation.rules.parts import holds
from federation.rules.study import StudyPlan
from federation.rules.terms import Panel

KINDS = ("hospitals", "shuffled")
PART = "00"
PLAYERS = tuple(sorted(SITES))
NO_CLIP = Decimal(64)
SECURE, NONE = SecureNoise(), NoNoise()

Table = dict[str, int]
Tables = dict[str, Table]
Lie = Callable[[Tables, str, tuple[str, ...]], Table]


@dataclasses.dataclass(frozen=True)
class Played:
    """One study: what each player gained for each held-out person, by member; values on the sponsor's set."""

    gains: Mapping[str, Floats]
    on_set: Floats
    nominal: Mapping[str, int]
    weights: Mapping[str, int]


def play(plan: StudyPlan, seed: int, shuffled: bool) -> Played:
    split = split_rows(HEART, plan, seed)
    if shuffled:
        rows = [row for site in SITES for row in split.training[site]]
        order = iter(np.random.default_rng(seed).permutation(len(rows)).tolist())
        dealt = {site: tuple(rows[next(order)] for _ in split.training[site]) for site in SITES}
        split = dataclasses.replace(split, training=dealt)
    rounds, _ = permitted_rows(split, plan, seed)
    sets = [row for site in SITES for row in split.held_out[site]]
    validation = by_subject(plan.schema_contract, parse_rows(plan.schema_contract, sets, source="validation"))
    aside = {site: rounds[-1][site].select([x for x in rounds[-1][site].subjects if holds(PART, x)]) for site in SITES}
    nominal = {site: HEART.sites[site].nominal_cohort * 3 // 4 for site in SITES}
    weights = integer_weights(nominal, plan.aggregation.weight_cap)
    game = quotient(PLAYERS, (), weights)
    multiplier, rule = derive_noise_multiplier(plan), rule_of(plan)
    gains = {site: np.zeros((len(PLAYERS), len(aside[site].subjects))) for site in PLAYERS}
    on_set, model = np.zeros(len(PLAYERS)), initial_model(plan, seed)
    for batches in rounds:
        base, updates = from_fixed(model), {}
        for site in SITES:
            used = batches[site].select([x for x in batches[site].subjects if not holds(PART, x)])
            updates[site] = release(train(plan, base, used, nominal[site], multiplier, SECURE), plan)
        for site in PLAYERS:
            gains[site] += subject_gains(model, updates, weights, game, aside[site], plan)
        on_set += subject_gains(model, updates, weights, game, validation, plan).mean(axis=1)
        model = aggregate(model, updates, weights, rule)
    return Played(gains, on_set, nominal, weights)


def terms(clip: Decimal) -> Panel:
    return Panel(held_out=PART, clip=clip, quorum=3)


def with_panel(plan: StudyPlan, clip: Decimal) -> StudyPlan:
    return plan.model_copy(update={"valuation": plan.valuation.model_copy(update={"panel": terms(clip)})})


def tables_of(study: Played, plan: StudyPlan, clip: Decimal, noise: NoiseSource) -> Tables:
    """What all would show honestly."""
    made, multiplier = with_panel(plan, clip), derive_scores_noise(plan)
    result = {}
    for site, gains in study.gains.items():
        steps = noisy_scores(gains, clip=clip, noise_multiplier=multiplier, noise=noise)
        numbers = release_scores(steps, made, players=len(PLAYERS), nominal_cohort=study.nominal[site])
        result[site] = dict(zip(PLAYERS, numbers, strict=True))
    return result


def shares_by(clip: Decimal) -> Callable[[Tables, Mapping[str, int]], dict[str, Fraction]]:
    return lambda tables, weights: score(PLAYERS, tables, weights, terms(clip)).shares


def plain_shares(tables: Tables, weights: Mapping[str, int]) -> dict[str, Fraction]:
    whole = sum(weights[member] for member in tables)
    means = {
        name: max(Fraction(0), Fraction(sum(weights[member] * table[name] for member, table in tables.items()), whole))
        for name in PLAYERS
    }
    total = sum(means.values())
    return {name: mean / total if total else Fraction(0) for name, mean in means.items()}


def lies() -> dict[str, Lie]:
    """Name -> the table that a liar shows for its friends (itself among them)."""

    def told(up: float | None, down: float | None) -> Lie:
        def lie(tables: Tables, liar: str, friends: tuple[str, ...]) -> Table:
            own = tables[liar]
            return {
                name: (SCORE_MAX if up is None else int(up * max(0, own[name])))
                if name in friends
                else (-SCORE_MAX if down is None else int(down * own[name]))
                for name in PLAYERS
            }

        return lie

    ups, downs = {"honest": 1.0, "1.5 x": 1.5, "2 x": 2.0, "highest": None}, {"0": 0.0, "half": 0.5, "lowest": None}
    pairs = itertools.product(ups.items(), downs.items())
    return {f"self {up}, others {down}": told(factor, part) for (up, factor), (down, part) in pairs}


def gained(
    studies: Iterable[tuple[Tables, Mapping[str, int]]],
    liars: int,
    pay: Callable[[Tables, Mapping[str, int]], dict[str, Fraction]],
) -> dict[str, Floats]:
    """Lie -> change of the liars' part of the pool, one for each study and set of liars."""
    found: dict[str, list[float]] = {}
    for tables, weights in studies:
        honest = pay(tables, weights)
        for friends in itertools.combinations(PLAYERS, liars):
            for name, lie in lies().items():
                shown = pay(tables | {liar: lie(tables, liar, friends) for liar in friends}, weights)
                found.setdefault(name, []).append(float(sum(shown[liar] - honest[liar] for liar in friends)))
    return {name: np.array(values) for name, values in found.items()}


def best(found: Mapping[str, Floats]) -> str:
    name = max(found, key=lambda each: (found[each].mean(), each))
    values = 100 * found[name]
    return f"{values.mean():+.1f} ± {1.96 * values.std() / np.sqrt(len(values)):.1f} ({name})"


def alone(
    studies: list[tuple[Tables, Mapping[str, int]]], pay: Callable[..., Mapping[str, Fraction]]
) -> tuple[float, float]:
    """The largest change, over everything, that copying somebody's table, or showing none, makes to one's own pay."""
    copied = withheld = 0.0
    for tables, weights in studies:
        honest = pay(tables, weights)
        for name in PLAYERS:
            for other in PLAYERS:
                copied = max(copied, abs(float(pay(tables | {name: tables[other]}, weights)[name] - honest[name])))
            rest = {member: table for member, table in tables.items() if member != name}
            withheld = max(withheld, abs(float(pay(rest, weights)[name] - honest[name])))
    return copied, withheld


def told(title: str, played: list[Played], plan: StudyPlan, clip: Decimal, noise: NoiseSource, draws: int) -> None:
    """Two rows: closeness and pay of the honest, and gains of liars."""
    repeats = 1 if noise is NONE else draws
    drawn = [(study, tables_of(study, plan, clip, noise)) for study in played for _ in range(repeats)]
    found = [score(PLAYERS, tables, s.weights, terms(clip)) for s, tables in drawn]
    ranks = [
        stats.spearmanr([float(each.values[name]) for name in PLAYERS], study.on_set)[0]
        for each, (study, _) in zip(found, drawn, strict=True)
    ]
    paid = np.array([[float(each.shares[name]) for name in PLAYERS] for each in found])
    values = np.array([[float(each.values[name]) for name in PLAYERS] for each in found])
    studies = [(tables, study.weights) for study, tables in drawn]
    shares = shares_by(clip)
    copied, withheld = alone(studies, shares)
    ones = np.concatenate(list(gained(studies, 1, shares).values()))
    rank = f"{np.nanmean(ranks):+.2f} ± {1.96 * np.nanstd(ranks) / np.sqrt(len(ranks)):.2f}"
    pay = ", ".join(f"{100 * each:.0f}" for each in paid.mean(axis=0))
    worth = ", ".join(f"{each:+.3f}" for each in values.mean(axis=0))
    print(f"| {title} | {rank} | {worth} | {pay} | {100 - 100 * paid.sum(axis=1).mean():.0f} |")
    print(
        f"  lies: self-scorer at most {100 * np.abs(ones).max():.1f}, copier at most {100 * copied:.1f}, withholder at "
        f"most {100 * withheld:.1f}; two of four {best(gained(studies, 2, shares))}; plain shares: self-scorer "
        f"{best(gained(studies, 1, plain_shares))}, two of four {best(gained(studies, 2, plain_shares))}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=30)
    options.add_argument("--draws", type=int, default=3)
    options.add_argument("--clip", type=Decimal, default=Decimal("0.1"))
    options.add_argument("--epsilon", type=float, nargs="+", default=[3.0, 1.0])
    options.add_argument("--sites", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = options.parse_args()
    started = time.monotonic()
    print(f"Order of figures: {', '.join(PLAYERS)}. {chosen.seeds} studies each, {chosen.draws} draws of noise.\n")
    print("| sites, scores | rank correlation | values (nats) | paid, % of the pool | burned, % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind, epsilon in itertools.product(chosen.sites, chosen.epsilon):
        plan = HEART.plan(epsilon=epsilon)
        played = [play(plan, seed, kind == "shuffled") for seed in range(chosen.seeds)]
        title = f"{kind}, epsilon {epsilon:g}"
        on_set = ", ".join(f"{each:+.3f}" for each in np.mean([study.on_set for study in played], axis=0))
        print(f"| {title}: the sponsor's set | | {on_set} | | |")
        for name, clip, noise in (
            ("no noise, no clip", NO_CLIP, NONE),
            (f"no noise, clip {chosen.clip}", chosen.clip, NONE),
            (f"clip {chosen.clip}, noise {derive_scores_noise(plan):.2f}", chosen.clip, SECURE),
        ):
            told(f"{title}: {name}", played, plan, clip, noise, chosen.draws)
    print(
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}: "
        f"{time.monotonic() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
