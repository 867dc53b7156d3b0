"""How the audit looks into the training path: made-up persons whose gradients are known, and what leaves for them.

A **canary** is a person whose gradient lies on a coordinate of its own: two records +e_i (ill) and -e_i (healthy) have,
at the model 0, opposite residuals, so that their mean gradient is -e_i / 2 and the bias does not move. The clip of the
audit's plans is half that length, so clipping always acts. With a learning rate of 1 and a nominal cohort of 1, what a
round releases is minus the noised sum of the clipped gradients, divided by the sampling rate: everything that the
guarantee speaks of can be read off.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clients.privacy.audit.path import AuditedPath
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats, from_fixed
from federation.rules.study import StudyPlan

Members = NDArray[np.bool_]

CLIP: Final = 0.25
RECORDS: Final = 2
FAINT: Final = Decimal("1e-12")
"""A noise multiplier below the lattice of what leaves: the path's own noise source runs, and nothing of it is seen.

Exact checks use it. No source without noise is needed for them, so none ships: a node derives its multiplier, never
below 2, from the plan.
"""


def audit_plan(features: int, *, records: int = RECORDS, **changes: dict[str, Any]) -> StudyPlan:
    """A plan on ``features`` numbers within [-1, 1]; ``section={...}`` changes its fields.

    Its privacy is what a node has by default: epsilon 3, delta 1e-5, 15 full-batch rounds.
    """
    document: dict[str, Any] = {
        "name": "audit",
        "title": "Privacy audit",
        "sponsor": "audit",
        "origin": "accord/audit",
        "purpose": {"duo": "DUO:0000042", "statement": "To try the training path with made-up persons."},
        "schema": {
            "subject": "person",
            "records_per_subject_max": records,
            "columns": [{"type": "number", "name": f"x{index}", "low": "-1", "high": "1"} for index in range(features)],
            "label": {"name": "ill", "negative": "no", "positive": "yes"},
        },
        "model": {"family": "logistic"},
        "privacy": {"unit": "subject", "epsilon": "3", "delta": "1e-5", "clip": str(CLIP)},
        "training": {"learning_rate": "1"},
        "rounds": {"count": 15, "participants": 1, "quorum": 1, "deadline_s": 1},
        "cohort": {"minimum": 1},
        "aggregation": {"rule": "weighted-mean", "norm_bound": "1000000"},
        "valuation": {"method": "shapley", "utility": "negative-log-loss"},
        "reward": {"pool_microcredits": 0},
        "validation": {"rule": "none", "commitment": "0" * 64},
        "code_approved": ["0" * 64],
    }
    for section, fields in changes.items():
        document[section] = {**document[section], **fields}
    return StudyPlan.model_validate(document)


def canaries(which: Members | None, features: int) -> SubjectBatch:
    """One canary for each coordinate that ``which`` (bool [features]) selects; None selects all."""
    kept = np.arange(features) if which is None else np.flatnonzero(which)
    x = np.zeros((len(kept), RECORDS, features))
    x[np.arange(len(kept)), 0, kept] = 1.0
    x[np.arange(len(kept)), 1, kept] = -1.0
    return batch_of(x, np.tile([1.0, 0.0], (len(kept), 1)))


def batch_of(x: Floats, y: Floats) -> SubjectBatch:
    """Persons with all their records present: float64 [S, k, F] and [S, k]."""
    names = tuple(f"p{index:06}" for index in range(len(x)))
    return SubjectBatch(names, x, y, np.ones(x.shape[:2]))


@dataclass(frozen=True, slots=True)
class Probe:
    """One plan, sent through an audited path."""

    path: AuditedPath
    plan: StudyPlan

    @property
    def noise_multiplier(self) -> Decimal:
        """What the node derives from the plan."""
        return derive_noise_multiplier(self.plan)

    @property
    def noise_std(self) -> float:
        """The standard deviation that each coordinate of a noised sum must have."""
        return float(self.noise_multiplier * self.plan.privacy.clip)

    def sums(self, batch: SubjectBatch, *, base: Floats | None = None, multiplier: Decimal | None = None) -> Floats:
        """The noised sum of clipped gradients of one round of one step: float64 [P], as it left the site.

        Args:
            batch: who is there.
            base: float64 [P], the model of the round; zeros by default.
            multiplier: of the noise; by default what the node derives from the plan.
        """
        model = np.zeros(batch.x.shape[2] + 1) if base is None else base
        noise = self.path.noise()
        delta = self.path.train(self.plan, model, batch, 1, multiplier or self.noise_multiplier, noise)
        released = from_fixed(self.path.release(delta, self.plan))[: len(model)]
        rate = float(self.plan.privacy.sampling_rate)
        sums: Floats = -released * rate / float(self.plan.training.learning_rate)
        return sums
