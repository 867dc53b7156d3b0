"""Can somebody who has the model tell who was in the training data? With privacy and without.

The likelihood-ratio attack (Carlini et al. 2022, LiRA, online form): many models are trained on random halves of one
population; for each person the confidence of models that saw them, and of those that did not, is taken as a Gaussian;
a further model's confidence is then more likely under one of the two. Both ways of training are the audited path
itself; "without privacy" makes its noise too faint to leave and raises its clip until it never acts. The population is
made up so that there is much to remember: as many features as persons, labels that follow from hardly any of them.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
from scipy import stats

from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import FAINT, audit_plan
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats, from_fixed
from federation.rules.study import StudyPlan

FEATURES: Final = 48
PERSONS: Final = 64
_STEPS_WITHOUT: Final = 40
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Membership:
    """The attack's success against one way of training.

    Attributes:
        title: how the models were trained.
        auc: the chance that a member scores above a non-member; 0.5 is a guess.
        tpr_low: members found at one false accusation in a hundred.
        false_positives, true_positives: the ROC curve, float64 arrays.
    """

    title: str
    auc: float
    tpr_low: float
    false_positives: Floats
    true_positives: Floats

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return {"title": self.title, "auc": self.auc, "true_positives_at_1_percent": self.tpr_low}


def membership(path: AuditedPath, *, models: int) -> tuple[Membership, Membership]:
    """The attack without privacy, then with the node's default privacy, on ``models`` models each."""
    loose = audit_plan(
        FEATURES,
        records=1,
        privacy={"clip": "1000"},
        training={"learning_rate": "4", "local_steps": _STEPS_WITHOUT},
        rounds={"count": 1},
    )
    private = audit_plan(FEATURES, records=1, privacy={"clip": "1"}, training={"learning_rate": "1"})
    return (
        _attack(path, loose, FAINT, "without privacy", models),
        _attack(
            path, private, derive_noise_multiplier(private), f"with privacy, epsilon {private.privacy.epsilon}", models
        ),
    )


def _attack(path: AuditedPath, plan: StudyPlan, multiplier: Decimal, title: str, models: int) -> Membership:
    generator = np.random.default_rng(_SEED)
    x = generator.uniform(-1, 1, (PERSONS, 1, FEATURES))
    y = (x[:, :, 0] + generator.normal(0, 0.5, (PERSONS, 1)) > 0).astype(np.float64)
    halves = np.array([generator.permutation(PERSONS) < PERSONS // 2 for _ in range(models)])
    confidence = np.array([_confidence(_model(path, plan, multiplier, x[half], y[half]), x, y) for half in halves])
    scores = np.array([_ratios(confidence, halves, number) for number in range(models)])
    return _roc(title, scores.ravel(), halves.ravel())


def _model(path: AuditedPath, plan: StudyPlan, multiplier: Decimal, x: Floats, y: Floats) -> Floats:
    batch = SubjectBatch(tuple(f"p{place:03}" for place in range(len(x))), x, y, np.ones(y.shape))
    model = np.zeros(FEATURES + 1)
    for _ in range(plan.rounds.count):
        delta = path.train(plan, model, batch, len(x), multiplier, path.noise())
        model = model + from_fixed(path.release(delta, plan))[: len(model)]
    return model


def _confidence(model: Floats, x: Floats, y: Floats) -> Floats:
    """The logit of the true label: float64 [persons]."""
    logits: Floats = (x[:, 0] @ model[:-1] + model[-1]) * (2 * y[:, 0] - 1)
    return logits


def _ratios(confidence: Floats, halves: Any, number: int) -> Floats:
    """Log likelihood ratios of each person for one model, from all the others."""
    others = np.arange(len(halves)) != number
    seen = np.where(halves[others], confidence[others], np.nan)
    unseen = np.where(halves[others], np.nan, confidence[others])
    spread = 1e-9
    parts = [
        stats.norm.logpdf(confidence[number], np.nanmean(part, axis=0), np.nanstd(part, axis=0) + spread)
        for part in (seen, unseen)
    ]
    ratios: Floats = parts[0] - parts[1]
    return ratios


def _roc(title: str, scores: Floats, members: Any) -> Membership:
    order = np.argsort(-scores, kind="stable")
    hits = members[order]
    true_positives = np.concatenate([[0.0], np.cumsum(hits) / hits.sum()])
    false_positives = np.concatenate([[0.0], np.cumsum(~hits) / (~hits).sum()])
    auc = float(np.trapezoid(true_positives, false_positives))
    low = float(true_positives[np.searchsorted(false_positives, 0.01, side="right") - 1])
    return Membership(title, auc, low, false_positives, true_positives)
