"""Is every person drawn by a coin of their own, with the plan's rate?

Amplification by sampling is accounted for Poisson sampling alone. Shuffling in epochs and batches of a fixed size draw
everybody as often, but their batch sizes, each person's counts and consecutive repeats spread otherwise. Who was drawn
is read off canaries while the noise is too faint to leave: it is the path's own sampler that draws.
"""

import math
from decimal import Decimal
from typing import Any, Final

import numpy as np
from scipy import stats

from clients.privacy.audit.findings import Check, statistical
from clients.privacy.audit.noise_checks import two_sided
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import CLIP, FAINT, Members, Probe, audit_plan, canaries

FEATURES: Final = 256
RATE: Final = Decimal("0.0625")
TESTS: Final = 4


def sampler_check(path: AuditedPath, *, steps: int, level: float) -> Check:
    """The rate and the independence of the draws; the smallest of four p-values, corrected by their number.

    Args:
        path: what is audited.
        steps: how many steps are looked at, at least 2.
        level: of each of the four tests.
    """
    probe = Probe(path, audit_plan(FEATURES, privacy={"sampling_rate": str(RATE)}))
    drawn = np.array([_drawn(probe) for _ in range(steps)])
    rate, variance = float(RATE), float(RATE * (1 - RATE))
    total, expected = int(drawn.sum()), drawn.size * rate
    repeats, repeats_expected = int((drawn[1:] & drawn[:-1]).sum()), (steps - 1) * FEATURES * rate**2
    tests = {
        "the rate": _normal(total, expected, math.sqrt(drawn.size * variance)),
        "the spread of batch sizes": two_sided(_spread(drawn.sum(axis=1), FEATURES * rate, FEATURES * variance), steps),
        "the spread of persons' counts": two_sided(
            _spread(drawn.sum(axis=0), steps * rate, steps * variance), FEATURES
        ),
        "consecutive repeats": _normal(repeats, repeats_expected, math.sqrt(repeats_expected * (1 - rate**2))),
    }
    least = min(tests, key=lambda name: tests[name])
    return statistical(
        "sampler",
        "Is every person drawn independently, at the plan's rate?",
        p_value=tests[least],
        level=level,
        measured=f"drawn {total} times, expected {expected:.0f}; least likely is {least} (p {tests[least]:.2g})",
        needs=("clip-alone", "separation", "noise-fresh"),
    )


def _drawn(probe: Probe) -> Members:
    """Who moved the sum: bool [persons]."""
    sums = probe.sums(canaries(None, FEATURES), multiplier=FAINT)
    moved: Members = np.abs(sums[:-1]) > CLIP / 2
    return moved


def _spread(counts: Any, mean: float, variance: float) -> float:
    return float(((counts - mean) ** 2).sum() / variance)


def _normal(seen: float, expected: float, deviation: float) -> float:
    return float(2 * stats.norm.sf(abs(seen - expected) / deviation))
