"""A lower bound for the epsilon that the training path really gives, by an attack with the strongest adversary.

Canaries (``probe``) take part or not by a fair coin; the adversary is the coordinator, chooses the base model of every
round, sees all that leaves, and guesses who took part. How often it errs bounds epsilon from below (Kairouz, Oh and
Viswanath 2015): an (epsilon, delta)-private path forces false positives a and false negatives b to satisfy
1 - delta - b <= e^epsilon a, and the same with a and b exchanged. Canaries lie on coordinates of their own and the
noise of coordinates is independent, so that each is a trial of its own; errors are bounded by Clopper and Pearson.

Two bounds are told. The first assumes nothing about the mechanism and is loose at a small delta; its threshold is
chosen on one half of the canaries and judged on the other. The second takes the mechanism to be Gaussian, which the
noise checks test (Nasr et al. 2023, "Tight auditing", section 4; Dong, Roth and Su 2022, corollary 2.13): errors at the
middle between a whole contribution and none bound mu, and mu gives epsilon. A bound below the claim proves nothing; one
above it proves the claim false.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import optimize, stats

from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import CLIP, Members, Probe, audit_plan, canaries
from clients.storage import memory_node
from federation.rules.events import GaussianEvent
from federation.rules.fixedpoint import Floats

FEATURES: Final = 512
CONFIDENCE: Final = 0.95
"""Of the bounds that are told. What accuses a node is judged at the audit's own level, which is stricter."""
_THRESHOLDS: Final = 99


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What the adversary could prove.

    Attributes:
        trials: canaries, over all runs.
        rounds: rounds of each run.
        delta: of all epsilons here.
        claimed: epsilon by the node's ledger (its Renyi filter).
        claimed_pld: the same events by privacy loss distributions; exact for these.
        lower: a bound that assumes nothing about the mechanism.
        lower_gaussian: a bound for a Gaussian mechanism.
        confidence: of both bounds, together.
        falsified: whether more leaks, provably at the audit's level, than the ledger claims.
        present, absent: the adversary's scores, 1 being a canary's whole contribution: float64 arrays.
    """

    trials: int
    rounds: int
    delta: float
    claimed: float
    claimed_pld: float
    lower: float
    lower_gaussian: float
    confidence: float
    falsified: bool
    present: Floats
    absent: Floats

    def to_json(self) -> dict[str, Any]:
        """The figures, without the scores."""
        return {
            "trials": self.trials,
            "rounds": self.rounds,
            "delta": self.delta,
            "epsilon_claimed": self.claimed,
            "epsilon_claimed_pld": self.claimed_pld,
            "epsilon_lower_bound": self.lower,
            "epsilon_lower_bound_gaussian": self.lower_gaussian,
            "confidence": self.confidence,
            "falsified": self.falsified,
        }


def attack(path: AuditedPath, *, runs: int, level: float, coins: np.random.Generator) -> CanaryResult:
    """Send canaries through every round of a study, ``runs`` times.

    Args:
        path: what is audited.
        runs: each tries 512 canaries.
        level: the chance that an honest path is accused.
        coins: which canaries take part.
    """
    probe = Probe(path, audit_plan(FEATURES))
    rounds = probe.plan.rounds.count
    scores, present = [], []
    for _ in range(runs):
        included = coins.random(FEATURES) < 0.5  # noqa: PLR2004 - a fair coin
        batch = canaries(included, FEATURES)
        total = sum(probe.sums(batch)[:-1] for _ in range(rounds))
        scores.append(-np.asarray(total) / (rounds * CLIP))
        present.append(included)
    claimed, claimed_pld = _claims(probe)
    score, taken = np.concatenate(scores), np.concatenate(present)
    delta = float(probe.plan.privacy.delta)
    lower, lower_gaussian = lower_bounds(score, taken, delta=delta, level=1 - CONFIDENCE)
    proven, proven_gaussian = lower_bounds(score, taken, delta=delta, level=level)
    return CanaryResult(
        trials=len(score),
        rounds=rounds,
        delta=delta,
        claimed=claimed,
        claimed_pld=claimed_pld,
        lower=lower,
        lower_gaussian=lower_gaussian,
        confidence=CONFIDENCE,
        falsified=proven > claimed or proven_gaussian > claimed_pld,
        present=score[taken],
        absent=score[~taken],
    )


def lower_bounds(scores: Floats, taken: Members, *, delta: float, level: float) -> tuple[float, float]:
    """Lower bounds of epsilon, without and with the Gaussian assumption; each wrong with probability ``level`` / 2.

    Args:
        scores: float64 [n], around 1 for canaries that took part, around 0 for the others.
        taken: bool [n], whether it did.
        delta: of the epsilons.
        level: the chance that one of the bounds is wrong.
    """
    chosen, judged = np.arange(len(scores)) % 2 == 0, np.arange(len(scores)) % 2 == 1
    thresholds = np.quantile(scores[chosen], np.linspace(0.005, 0.995, _THRESHOLDS))
    found = _epsilon(*_errors(scores[chosen], taken[chosen], thresholds, level / 4), delta)
    best = thresholds[int(np.argmax(found))]
    plain = _epsilon(*_errors(scores[judged], taken[judged], np.array([best]), level / 4), delta)
    mu = _mu(*_errors(scores, taken, np.array([0.5]), level / 4))
    return float(plain[0]), gaussian_epsilon(float(mu[0]), delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism that is mu-Gaussian differentially private; 0 for mu = 0."""
    if mu <= 0:
        return 0.0

    def excess(epsilon: float) -> float:
        second = stats.norm.logcdf(-epsilon / mu - mu / 2) + epsilon
        return float(stats.norm.cdf(-epsilon / mu + mu / 2) - math.exp(second) - delta)

    if excess(0.0) <= 0:
        return 0.0
    high = mu * (mu / 2 - float(stats.norm.ppf(delta)))
    return float(optimize.brentq(excess, 0.0, high))


def _errors(scores: Floats, taken: Members, thresholds: Floats, level: float) -> tuple[Floats, Floats]:
    """Upper bounds of false positives and false negatives at each threshold, each exceeded with chance ``level``."""
    absent, present = np.sort(scores[~taken]), np.sort(scores[taken])
    false_positives = len(absent) - np.searchsorted(absent, thresholds, side="right")
    false_negatives = np.searchsorted(present, thresholds, side="right")
    return _clopper_pearson(false_positives, len(absent), level), _clopper_pearson(false_negatives, len(present), level)


def _clopper_pearson(events: Any, trials: int, level: float) -> Floats:
    """The upper ends of the one-sided exact intervals for probabilities."""
    upper: Floats = np.where(
        events >= trials, 1.0, stats.beta.ppf(1 - level, events + 1, np.maximum(trials - events, 1))
    )
    return upper


def _epsilon(false_positive: Floats, false_negative: Floats, delta: float) -> Floats:
    ratios = np.maximum((1 - delta - false_negative) / false_positive, (1 - delta - false_positive) / false_negative)
    epsilon: Floats = np.log(np.maximum(ratios, 1.0))
    return epsilon


def _mu(false_positive: Floats, false_negative: Floats) -> Floats:
    mu: Floats = np.maximum(0.0, stats.norm.ppf(1 - false_positive) - stats.norm.ppf(false_negative))
    return mu


def _claims(probe: Probe) -> tuple[float, float]:
    """What the ledger says of the rounds that were attacked, charged as a node charges them."""
    engine, study = memory_node(), "audit-canaries"
    event = GaussianEvent(noise_multiplier=probe.noise_multiplier)
    for number in range(1, probe.plan.rounds.count + 1):
        probe.path.ledger(engine).reserve(study, number, event)
        probe.path.ledger(engine).start(study, number)
        probe.path.ledger(engine).commit(study, number)
    ledger = probe.path.ledger(engine)
    return ledger.spent(), ledger.spent_pld()
