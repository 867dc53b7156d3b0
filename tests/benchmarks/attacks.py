"""What hostile sites do to a model under each rule of aggregation: ``python tests/benchmarks/attacks.py [--seeds N]``.

Twenty sites of equal weight train a small network (64-32-10) on scikit-learn's digits, each sending a step of momentum
every round; updates go to the lattice and through the shipped rules. Hostile sites know everything that the honest ones
send. Without attackers, and with 20 % and 40 % of them; records spread evenly (IID) or, digit by digit, by
Dirichlet(0.5).

    sign flip x10    minus ten times its own honest update
    ALIE             the honest mean minus z standard deviations in each coordinate (Baruch et al. 2019)
    IPM              minus z times the honest mean (Xie et al. 2020)
    label flip       an honest step on labels 9 - y

For ALIE and IPM the attackers try several z in every round and send with the one that moves this rule's result farthest
from the honest mean (as byzfl's optimal variants do).

``--byzfl PYTHON`` compares the shipped rules with byzfl's on random vectors, where that interpreter has byzfl.
"""

import argparse
import json
import platform
import subprocess
import time
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
from sklearn.datasets import load_digits

from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate, norm_within
from federation.rules.fixedpoint import SCALE, from_fixed, to_fixed
from federation.rules.robust import LOCATIONS, Gathered, trust_anchored

Vector = np.ndarray
SITES, HIDDEN, CLASSES, BATCH = 20, 32, 10, 16
RATE, MOMENTUM = 0.4, 0.9
TEST, ROOT = 360, 100
ATTACKS = ("sign flip x10", "ALIE", "IPM", "label flip")
RULES = ("weighted-mean", "mean, norm bound", *sorted(LOCATIONS), "trust-anchored")
FACTORS = (0.5, 1.5, 4.0, 10.0)
DEFAULT = "aligned-trimmed-mean"
NORM_BOUND = Decimal("0.5")


def shapes(inputs: int) -> list[tuple[int, ...]]:
    return [(inputs, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]


def parts(flat: Vector, inputs: int) -> list[Vector]:
    result, at = [], 0
    for shape in shapes(inputs):
        size = int(np.prod(shape))
        result.append(flat[at : at + size].reshape(shape))
        at += size
    return result


def gradient(flat: Vector, x: Vector, y: Vector) -> Vector:
    """Of the mean cross entropy; one hidden layer of tanh."""
    first, bias, second, last = parts(flat, x.shape[1])
    hidden = np.tanh(x @ first + bias)
    logits = hidden @ second + last
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(y)), y] -= 1
    chances /= len(y)
    back = (chances @ second.T) * (1 - hidden**2)
    return np.concatenate([(x.T @ back).ravel(), back.sum(axis=0), (hidden.T @ chances).ravel(), chances.sum(axis=0)])


def accuracy(flat: Vector, x: Vector, y: Vector) -> float:
    first, bias, second, last = parts(flat, x.shape[1])
    return float((np.argmax(np.tanh(x @ first + bias) @ second + last, axis=1) == y).mean())


def spread(labels: Vector, even: bool, rng: np.random.Generator) -> list[Vector]:
    """Which records each site holds; every site has at least a few."""
    if even:
        return np.array_split(rng.permutation(len(labels)), SITES)
    while True:
        owners: list[list[int]] = [[] for _ in range(SITES)]
        for digit in range(CLASSES):
            own = rng.permutation(np.flatnonzero(labels == digit))
            cuts = (np.cumsum(rng.dirichlet(np.full(SITES, 0.5)))[:-1] * len(own)).astype(int)
            for site, part in enumerate(np.split(own, cuts)):
                owners[site] += part.tolist()
        if min(map(len, owners)) >= 8:
            return [np.array(each) for each in owners]


def hostile(attack: str, factor: float, own: Vector, honest: Vector) -> Vector:
    if attack == "sign flip x10":
        return -10 * own
    if attack == "ALIE":
        return honest.mean(axis=0) - factor * honest.std(axis=0)
    if attack == "IPM":
        return -factor * honest.mean(axis=0)
    return own  # its labels were flipped before it trained


def next_model(rule: str, base: Vector, updates: list[Vector], tolerated: Decimal, root: Vector) -> Vector:
    names = [f"site{number:02}" for number in range(len(updates))]
    named = dict(zip(names, map(to_fixed, updates), strict=True))
    weights = dict.fromkeys(names, 1)
    if rule == "trust-anchored":
        return base + trust_anchored(np.stack(list(named.values())), to_fixed(root))
    if rule == "mean, norm bound":
        named = {name: update for name, update in named.items() if norm_within(update, NORM_BOUND)}
        weights = dict.fromkeys(named, 1) or weights
    chosen = Rule(rule, tolerated) if rule in LOCATIONS else WEIGHTED_MEAN
    return aggregate(base, named, weights, chosen)


def play(rule: str, attack: str | None, attackers: int, even: bool, seed: int, rounds: int) -> float:
    rng = np.random.default_rng(seed)
    digits = load_digits()
    x, y = digits.data / 16.0, digits.target.astype(int)
    order = rng.permutation(len(y))
    test, root, rest = order[:TEST], order[TEST : TEST + ROOT], order[TEST + ROOT :]
    owners = [rest[own] for own in spread(y[rest], even, rng)]
    bad = set(rng.choice(SITES, attackers, replace=False).tolist()) if attack else set()
    labels = [9 - y[own] if attack == "label flip" and site in bad else y[own] for site, own in enumerate(owners)]
    base = to_fixed(rng.normal(0, 0.1, sum(int(np.prod(shape)) for shape in shapes(x.shape[1]))))
    speeds = [np.zeros(len(base)) for _ in range(SITES + 1)]
    tolerated = Decimal(attackers or SITES // 5) / SITES
    for _ in range(rounds):
        model = from_fixed(base)
        updates = []
        for site, own in enumerate([*owners, root]):
            picked = rng.integers(0, len(own), BATCH)
            wanted = y[own] if site == SITES else labels[site]
            step = gradient(model, x[own[picked]], wanted[picked])
            speeds[site] = MOMENTUM * speeds[site] + (1 - MOMENTUM) * step
            length = float(np.linalg.norm(RATE * speeds[site]))
            # As a node does before it releases: within the plan's norm bound.
            updates.append(-RATE * speeds[site] * min(1.0, 0.999 * float(NORM_BOUND) / max(length, 1e-12)))
        anchor = updates.pop()
        honest = np.stack([update for site, update in enumerate(updates) if site not in bad])
        best, farthest = base, -1.0
        for factor in FACTORS if attack in ("ALIE", "IPM") else (1.0,):
            sent = [
                hostile(attack, factor, update, honest) if attack and site in bad else update
                for site, update in enumerate(updates)
            ]
            found = next_model(rule, base, sent, tolerated, anchor)
            away = float(np.linalg.norm(from_fixed(found) - model - honest.mean(axis=0)))
            if away > farthest:
                best, farthest = found, away
        base = best
    return 100 * accuracy(from_fixed(base), x[test], y[test])


def table(
    rules: list[str], attacks: list[str], even: bool, seeds: int, rounds: int
) -> dict[tuple[str, str | None, int], Vector]:
    cells: dict[tuple[str, str | None, int], Vector] = {}
    columns = [(None, 0), *((attack, count) for count in (SITES // 5, 2 * SITES // 5) for attack in attacks)]
    print(f"\n### {'Records spread evenly' if even else 'Records by Dirichlet(0.5)'}\n")
    print(f"| rule | none | {' | '.join(f'{attack}, {100 * count // SITES} %' for attack, count in columns[1:])} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    for rule in rules:
        for attack, count in columns:
            played = [play(rule, attack, count, even, seed, rounds) for seed in range(seeds)]
            cells[rule, attack, count] = np.array(played)
        shown = " | ".join(f"{cells[rule, attack, count].mean():.1f}" for attack, count in columns)
        print(f"| {rule} | {shown} |", flush=True)
    return cells


def judged(
    rules: list[str], attacks: list[str], cells: dict[tuple[str, str | None, int], Vector], even: bool
) -> list[str]:
    """The goals, met or missed by name."""
    best = cells["weighted-mean", None, 0].mean()
    allowed = 2 if even else 5
    lines = []
    for attack in attacks:
        loss = best - cells[DEFAULT, attack, SITES // 5].mean()
        met = "met" if loss <= allowed else "**missed**"
        lines.append(f"- {DEFAULT}, {attack}, 20 %: loses {loss:.1f} points of {best:.1f} (at most {allowed}): {met}")
    for attack in attacks:
        held = {rule: cells[rule, attack, 2 * SITES // 5].mean() for rule in rules}
        rule = max(held, key=lambda name: held[name])
        met = "met" if held[rule] >= 80 else "**missed**"
        lines.append(f"- 40 %, {attack}: {rule} holds {held[rule]:.1f} % (some rule 80 %): {met}")
    return lines


ORACLE = """
import sys, types, json, numpy as np
folder = next(path for path in sys.path if path.endswith("site-packages"))
package = types.ModuleType("byzfl"); package.__path__ = [folder + "/byzfl"]; sys.modules["byzfl"] = package
sys.path.append(sys.argv[1])
import inspect
from byzfl.aggregators import aggregators
from byzfl.aggregators.aggregators import TrMean, GeometricMedian
from byzfl.aggregators.preaggregators import NNM
# byzfl sums the n - f - 1 nearest, Blanchard et al. n - f - 2: its own code with that one number of the paper.
source = inspect.getsource(aggregators.MultiKrum).replace("[:,1:n-self.f]", "[:,1:n-self.f-1]")
exec(source, vars(aggregators))
MultiKrum = aggregators.MultiKrum
rules = {
    "trimmed-mean": lambda f: TrMean(f=f), "multi-krum": lambda f: MultiKrum(f=f),
    "geometric-median": lambda f: GeometricMedian(nu=1e-9, T=300),
    "nnm-trimmed-mean": lambda f: (lambda x: TrMean(f=f)(NNM(f=f)(x))),
}
cases = json.load(sys.stdin)
print(json.dumps([{name: rules[name](f)(np.array(x)).tolist() for name in rules} for f, x in cases]))
"""


def against_byzfl(python: str) -> None:
    """The largest difference, over cases, between the shipped rules and byzfl's, in units of the vectors' spread."""
    import torch

    rng = np.random.default_rng(0)
    cases = [(int(count * 0.2), rng.normal(0, 1, (count, 50)).tolist()) for count in (5, 10, 15, 20) for _ in range(25)]
    packages = str(torch.__file__).rsplit("/torch/", 1)[0]
    answer = subprocess.run(
        [python, "-c", ORACLE, packages], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    far = dict.fromkeys(set(LOCATIONS) - {"aligned-trimmed-mean"}, 0.0)  # byzfl has no such rule
    for (_, vectors), other in zip(cases, json.loads(answer.stdout), strict=True):
        gathered = Gathered(to_fixed(np.array(vectors)), Decimal("0.2"))
        for name in far:
            own = LOCATIONS[name](gathered, range(len(vectors))) / SCALE
            far[name] = max(far[name], float(np.abs(own - np.array(other[name])).max()))
    print("\nLargest difference from byzfl in 100 cases of normal vectors of variance 1:")
    for name, difference in far.items():
        print(f"- {name}: {difference:.2e}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--rounds", type=int, default=150)
    options.add_argument(
        "--rules", nargs="+", choices=RULES, default=list(RULES), help="at least the mean and the default"
    )
    options.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    options.add_argument("--spreads", nargs="+", choices=("even", "dirichlet"), default=["even", "dirichlet"])
    options.add_argument("--byzfl", metavar="PYTHON")
    chosen = options.parse_args()
    started = time.monotonic()
    if chosen.byzfl:
        against_byzfl(chosen.byzfl)
        return
    lines = []
    for even in (spread == "even" for spread in chosen.spreads):
        cells = table(chosen.rules, chosen.attacks, even, chosen.seeds, chosen.rounds)
        lines += ["", "Even:" if even else "Dirichlet(0.5):", "", *judged(chosen.rules, chosen.attacks, cells, even)]
    print("\n".join(lines))
    print(
        f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}: "
        f"{chosen.seeds} seeds, {chosen.rounds} rounds, {time.monotonic() - started:.0f} s."
    )


if __name__ == "__main__":
    main()
