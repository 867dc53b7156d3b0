"""Is the noise new each time, of the right size and shape?

Noise is what a round without persons releases. Its variance is held against the claimed one by a chi-square test, its
shape against the Gaussian by Kolmogorov and Smirnov's, and two rounds against each other by their correlation, after
every global generator was given the same seed: a generator that anything can seed repeats itself then.
"""

import random
from typing import Final

import numpy as np
import torch
from scipy import stats

from clients.privacy.audit.findings import Check, exact, statistical
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import Probe, audit_plan, batch_of
from federation.rules.fixedpoint import Floats

FEATURES: Final = 511
TESTS: Final = 3
_SEED: Final = 20211


def noise_checks(path: AuditedPath, *, rounds: int, level: float) -> list[Check]:
    """Freshness, variance and shape of the noise.

    Args:
        path: what is audited.
        rounds: how many rounds of 512 parameters are looked at, at least 2.
        level: of each test.
    """
    probe = Probe(path, audit_plan(FEATURES))
    draws = np.array([_seeded_round(probe) for _ in range(rounds)])
    scaled = draws / probe.noise_std
    return [_fresh(scaled, level), _variance(scaled, level), _shape(scaled, level)]


def two_sided(statistic: float, degrees: int) -> float:
    """The p-value of a chi-square statistic in either direction: too little and too much are both wrong."""
    return float(min(1.0, 2 * min(stats.chi2.cdf(statistic, degrees), stats.chi2.sf(statistic, degrees))))


def _seeded_round(probe: Probe) -> Floats:
    """A round without persons, after all that a program can seed was seeded alike; the generators are put back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the global one is the point
    random.seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002 - as above
    torch.manual_seed(_SEED)
    try:
        nobody = batch_of(np.zeros((0, 2, FEATURES)), np.zeros((0, 2)))
        return probe.sums(nobody)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - as above
        torch.set_rng_state(states[2])


def _variance(scaled: Floats, level: float) -> Check:
    p_value = two_sided(float((scaled**2).sum()), scaled.size)
    return statistical(
        "noise-variance",
        "Has the noise the standard deviation that is accounted for?",
        p_value=p_value,
        level=level,
        measured=f"{np.sqrt((scaled**2).mean()):.4f} of the claimed standard deviation, over {scaled.size} draws",
        needs=("payload", "noise-fresh"),
    )


def _shape(scaled: Floats, level: float) -> Check:
    found = stats.kstest(scaled.ravel(), "norm")
    return statistical(
        "noise-shape",
        "Is the noise Gaussian?",
        p_value=float(found.pvalue),
        level=level,
        measured=f"its distribution is off by {found.statistic:.4f} at most",
        needs=("noise-variance",),
    )


def _fresh(scaled: Floats, level: float) -> Check:
    """Rounds that are alike share their noise; else the correlation of consecutive rounds is that of chance."""
    name, question = "noise-fresh", "Is the noise of every round new, whatever is seeded?"
    if not scaled.any():
        measured = "there is no noise that could repeat itself"
        return exact(name, question, holds=True, measured=measured, needs=("payload",))
    if len(np.unique(scaled, axis=0)) < len(scaled):
        return exact(name, question, holds=False, measured="two rounds had the same noise", needs=("payload",))
    found = stats.pearsonr(scaled[:-1].ravel(), scaled[1:].ravel())
    return statistical(
        name,
        question,
        p_value=float(found.pvalue),
        level=level,
        measured=f"the noise of consecutive rounds correlates by {found.statistic:+.4f}",
        needs=("payload",),
    )
