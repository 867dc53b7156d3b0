"""DP-SGD written down a second time, in NumPy, with faults that can be planted in it one at a time.

Without a fault it is an independent implementation of the contract of ``clients.privacy.dp_training.train``: the audit
must pass it. Each fault is one that has been seen in real systems.
"""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from clients.privacy.noise import NoiseSource
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats, Integers
from federation.rules.study import StudyPlan

FAULTS = (
    "no-noise",
    "noise-over-batch",
    "no-clipping",
    "batch-clipping",
    "shuffled",
    "forward-leak",
    "nan-record",
)


FINE = 1 << 40


class Seeded:
    """A noise source that a test can repeat; the audited path has it in place of the system's generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        return np.rint(self._generator.normal(0.0, float(std), count)).astype(np.int64)

    def coins(self, count: int, rate: Fraction) -> Any:
        return self._generator.random(count) < float(rate)


class PlainTraining:
    """One model, logistic regression; ``fault`` names what is wrong with it, and None makes it right."""

    def __init__(self, fault: str | None = None) -> None:
        assert fault in (None, *FAULTS)
        self.fault = fault
        self._epoch: list[int] = []
        self._shuffler = np.random.default_rng(5)

    def __call__(
        self,
        plan: StudyPlan,
        base: Floats,
        batch: SubjectBatch,
        nominal_cohort: int,
        noise_multiplier: Decimal,
        noise: NoiseSource,
    ) -> Floats:
        rate, clip = float(plan.privacy.sampling_rate), float(plan.privacy.clip)
        current = base.copy()
        for _ in range(plan.training.local_steps):
            drawn = self._drawn(len(batch.subjects), rate, noise)
            with np.errstate(all="ignore"):
                gradients = self._gradients(current, batch.x[drawn], batch.y[drawn], batch.mask[drawn])
                total = self._clipped(gradients, clip)
            total = total + self._noise(float(noise_multiplier) * clip, len(current), len(batch.subjects), noise)
            gradient = total / (rate * nominal_cohort) + float(plan.training.l2) * current
            current = current - float(plan.training.learning_rate) * gradient
        return current - base

    def _drawn(self, subjects: int, rate: float, noise: NoiseSource) -> Any:
        if rate >= 1:
            return np.arange(subjects)
        if self.fault != "shuffled":
            return np.flatnonzero(noise.coins(subjects, Fraction(rate)))
        size = round(rate * subjects)
        if len(self._epoch) < size:
            self._epoch = list(self._shuffler.permutation(subjects))
        drawn, self._epoch = self._epoch[:size], self._epoch[size:]
        return np.array(drawn, dtype=np.int64)

    def _gradients(self, model: Floats, x: Floats, y: Floats, mask: Floats) -> Floats:
        """The mean gradient of each person: float64 [B, P]."""
        if self.fault == "forward-leak" and len(x):
            x = x - x.mean(axis=0)
        logits = x @ model[:-1] + model[-1]
        residuals = (1 / (1 + np.exp(-logits)) - y) * mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        weights = np.einsum("bk,bkf->bf", residuals, x)
        return np.concatenate([weights, residuals.sum(axis=1, keepdims=True)], axis=1)

    def _clipped(self, gradients: Floats, clip: float) -> Floats:
        norms = np.sqrt((gradients**2).sum(axis=1))
        if self.fault != "nan-record":
            gradients = np.where(np.isfinite(norms)[:, None], gradients, 0.0)
            norms = np.where(np.isfinite(norms), norms, 0.0)
        if self.fault == "no-clipping":
            return gradients.sum(axis=0)
        if self.fault == "batch-clipping":
            total = gradients.sum(axis=0)
            longest = clip * max(1, len(gradients))
            return total * min(1.0, longest / (np.linalg.norm(total) + 1e-6))
        return (gradients * np.minimum(1.0, clip / (norms + 1e-6))[:, None]).sum(axis=0)

    def _noise(self, std: float, parameters: int, subjects: int, noise: NoiseSource) -> Floats:
        if self.fault == "no-noise":
            return np.zeros(parameters)
        if self.fault == "noise-over-batch":
            std = std / max(4, subjects)
        return noise.discrete_gaussian(parameters, Fraction(FINE)) * (std / FINE)
