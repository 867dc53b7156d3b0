"""What the network's model is compared with: each site alone, and all rows in one place, both without privacy.

A real network cannot compute these figures; the demo can, because its data is published. They are the strongest fair
rivals: the same family (logistic regression), fitted to convergence, the strength of L2 chosen by cross-validation
inside the training rows, on exactly the rows that subjects consented to. Every figure is an area under the ROC curve on
the sponsor's rows of one site, with a 95 % bootstrap interval over subjects. Whether the network's model is better than
training alone is judged on the paired difference: both models on the same resampled subjects.

For weather two baselines that need no learning are added: persistence (what is now will be) and climatology (how often
it was so before).
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from clients.demo.split import Row, Split
from clients.demo.studies import DemoStudy
from federation.errors import OperatorError
from federation.learning.evaluation import auc
from federation.rules.encoding import Rows, parse_rows
from federation.rules.fixedpoint import Floats, Integers, from_fixed
from federation.rules.study import StudyPlan

RESAMPLES: Final = 2000
_FOLDS: Final = 5
_STRENGTHS: Final = tuple(float(value) for value in np.logspace(-4, 2, 13))
_LOSS_BOUND: Final = 4.0

Scores: TypeAlias = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Linear:
    """A logistic model: weight float64 [F], bias."""

    weight: Floats
    bias: float

    def scores(self, features: Floats) -> Floats:
        """float64 [n, F] -> log odds float64 [n]."""
        result: Floats = features @ self.weight + self.bias
        return result


def network_model(parameters: Integers) -> Linear:
    """The network's model from its parameters on the lattice (int64 [P]: the weights, then the bias)."""
    flat = from_fixed(parameters)
    return Linear(flat[:-1], float(flat[-1]))


def fit(rows: Rows, seed: int) -> Linear:
    """Logistic regression to convergence; L2 chosen by cross-validation among these rows, a subject in one fold only.

    Raises:
        OperatorError: the rows do not hold both labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    by_label = [len({s for s, y in zip(rows.subjects, rows.labels, strict=True) if y == label}) for label in (0, 1)]
    if min(by_label) == 0:
        raise OperatorError(
            "A model cannot be fitted: the rows hold only one of the two labels.", remedy="Use a larger data set."
        )
    losses = np.zeros(len(_STRENGTHS))
    if min(by_label) > 1:
        folds = StratifiedGroupKFold(n_splits=min(_FOLDS, *by_label), shuffle=True, random_state=seed)
        for inside, outside in folds.split(rows.features, rows.labels, groups=np.array(rows.subjects)):
            if len(np.unique(rows.labels[inside])) == 1:
                continue
            for place, strength in enumerate(_STRENGTHS):
                model = LogisticRegression(C=strength, solver="newton-cholesky")
                model.fit(rows.features[inside], rows.labels[inside])
                chances = model.predict_proba(rows.features[outside])
                losses[place] += len(outside) * log_loss(rows.labels[outside], chances, labels=[0, 1])
    model = LogisticRegression(C=_STRENGTHS[int(np.argmin(losses))], solver="newton-cholesky", max_iter=1000, tol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a model that has not converged would be an unfair rival
        model.fit(rows.features, rows.labels)
    return Linear(model.coef_[0], float(model.intercept_[0]))


def compare(
    study: DemoStudy,
    plan: StudyPlan,
    split: Split,
    consented: Mapping[str, Collection[str]],
    parameters: Integers,
    *,
    seed: int,
) -> dict[str, Any]:
    """All figures that the report compares.

    Args:
        study: which study.
        plan: its plan (the schema contract encodes the rows).
        split: the published rows, divided.
        consented: site -> subjects who had consented when the study began.
        parameters: the network's last model, int64 [P].
        seed: of folds and resampling.

    Returns:
        ``sites``: site -> ``auc_alone_nonprivate``, ``auc_federated``, ``auc_pooled_nonprivate`` and, for weather,
        ``auc_persistence``, each with ``_low`` and ``_high``; ``gain`` (federated minus alone), ``gain_low``,
        ``gain_high``; ``validation_rows``, ``validation_positive``. ``summary``: the means over sites, ``mean_alone``,
        ``mean_federated``, ``mean_pooled``, ``gain``, ``gain_low``, ``gain_high``. ``baselines``: a list of {``name``,
        ``auc``, ``log_loss``}, means over sites, for the weather (else empty).
    """
    training = {site: _encode(plan, _permitted(plan, rows, consented[site])) for site, rows in split.training.items()}
    held_out = {site: _encode(plan, rows) for site, rows in split.held_out.items()}
    alone = {site: fit(rows, seed) for site, rows in training.items()}
    pooled = fit(_together(list(training.values())), seed)
    federated = network_model(parameters)
    sites: dict[str, dict[str, Any]] = {}
    differences: list[Floats] = []
    forecasts: dict[str, list[tuple[float, float]]] = {}
    for number, (site, rows) in enumerate(held_out.items()):
        scores = {
            "alone_nonprivate": alone[site].scores(rows.features),
            "federated": federated.scores(rows.features),
            "pooled_nonprivate": pooled.scores(rows.features),
        }
        drawn = _resample(rows, seed=seed + number)
        figures, difference = _site_figures(scores, rows, drawn)
        if study.persistence:
            before = _column(study.persistence, _permitted(plan, split.training[site], consented[site]))
            now = _column(study.persistence, split.held_out[site])
            figures |= _interval("auc_persistence", -now, rows, drawn)[0]
            for name, chances in _forecasts(scores, training[site].labels, before, now).items():
                found = (auc(chances, rows.labels), _log_loss(chances, rows.labels))
                forecasts.setdefault(name, []).append(found)
        sites[site] = figures
        differences.append(difference)
    return {"sites": sites, "summary": _summary(sites, differences), "baselines": _baselines(forecasts)}


def _site_figures(scores: Scores, rows: Rows, drawn: Integers) -> tuple[dict[str, Any], Floats]:
    figures: dict[str, Any] = {"validation_rows": len(rows.labels), "validation_positive": int(rows.labels.sum())}
    resampled: dict[str, Floats] = {}
    for name, values in scores.items():
        found, resampled[name] = _interval(f"auc_{name}", values, rows, drawn)
        figures |= found
    difference = resampled["federated"] - resampled["alone_nonprivate"]
    low, high = np.quantile(difference, (0.025, 0.975))
    figures["gain"] = figures["auc_federated"] - figures["auc_alone_nonprivate"]
    return figures | {"gain_low": float(low), "gain_high": float(high)}, difference


def _interval(name: str, scores: Floats, rows: Rows, drawn: Integers) -> tuple[dict[str, float], Floats]:
    """The AUC with its interval, and the resampled values float64 [R]."""
    values = _weighted_auc(scores, rows.labels, drawn)
    low, high = np.quantile(values, (0.025, 0.975))
    return {name: auc(scores, rows.labels), f"{name}_low": float(low), f"{name}_high": float(high)}, values


def _resample(rows: Rows, *, seed: int) -> Integers:
    """How often each row is drawn: int64 [R, n]; subjects with replacement, those with and without a positive apart.

    Stratifying keeps both labels in every draw, also where a site has a single negative; its interval is then too
    narrow, and the report says that the figure rests on few.
    """
    rng = np.random.default_rng(seed)
    names, owner = np.unique(np.array(rows.subjects), return_inverse=True)
    positive = np.zeros(len(names), dtype=bool)
    np.logical_or.at(positive, owner, rows.labels == 1)
    times = np.zeros((RESAMPLES, len(names)), dtype=np.int64)
    for stratum in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        if stratum.size:
            chances = np.full(stratum.size, 1 / stratum.size)
            times[:, stratum] = rng.multinomial(stratum.size, chances, size=RESAMPLES)
    result: Integers = times[:, owner]
    return result


def _weighted_auc(scores: Floats, labels: Floats, times: Integers) -> Floats:
    """The AUC of every resample at once: scores [n], labels [n], times [R, n] -> float64 [R]; ties count half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    sorted_times, sorted_labels = times[:, order], labels[order]
    positives = np.add.reduceat(sorted_times * (sorted_labels == 1), starts, axis=1)
    negatives = np.add.reduceat(sorted_times * (sorted_labels == 0), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    result: Floats = (positives * (below + negatives / 2)).sum(axis=1) / np.maximum(pairs, 1)
    return result


def _summary(sites: Mapping[str, Mapping[str, Any]], differences: Sequence[Floats]) -> dict[str, float]:
    low, high = np.quantile(np.mean(differences, axis=0), (0.025, 0.975))
    means = {
        f"mean_{name}": float(np.mean([figures[f"auc_{key}"] for figures in sites.values()]))
        for name, key in (("alone", "alone_nonprivate"), ("federated", "federated"), ("pooled", "pooled_nonprivate"))
    }
    gain = means["mean_federated"] - means["mean_alone"]
    return means | {"gain": gain, "gain_low": float(low), "gain_high": float(high)}


def _forecasts(scores: Scores, labels_before: Floats, before: Floats, now: Floats) -> dict[str, Floats]:
    """Each way to forecast -> chances float64 [n]: by models, by what is now, by how often it was so before.

    Args:
        scores: the models' log odds on the sponsor's rows.
        labels_before: the labels of the training rows.
        before: the persistence column in the training rows.
        now: the persistence column in the sponsor's rows.
    """
    clear = float(max(before.max(), now.max()))
    base_rate = float(labels_before.mean())
    if_reduced, if_clear = (
        float(labels_before[mask].mean()) if mask.any() else base_rate for mask in (before < clear, before >= clear)
    )
    plain = {
        "climatology": np.full(len(now), base_rate),
        "persistence": np.where(now < clear, if_reduced, if_clear),
    }
    return plain | {name: 1 / (1 + np.exp(-np.clip(values, -500, 500))) for name, values in scores.items()}


def _log_loss(chances: Floats, labels: Floats) -> float:
    right = np.where(labels == 1, chances, 1 - chances)
    return float(np.minimum(-np.log(np.maximum(right, 1e-300)), _LOSS_BOUND).mean())


def _baselines(losses: Mapping[str, Sequence[tuple[float, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "auc": float(np.mean([value for value, _ in found])),
            "log_loss": float(np.mean([value for _, value in found])),
        }
        for name, found in losses.items()
    ]


def _permitted(plan: StudyPlan, rows: Sequence[Row], consented: Collection[str]) -> list[Row]:
    return [row for row in rows if row[plan.schema_contract.subject] in consented]


def _column(name: str, rows: Sequence[Row]) -> Floats:
    return np.array([float(row[name]) for row in rows])


def _encode(plan: StudyPlan, rows: Sequence[Row]) -> Rows:
    return parse_rows(plan.schema_contract, rows, source="published rows")


def _together(parts: Sequence[Rows]) -> Rows:
    return Rows(
        tuple(subject for part in parts for subject in part.subjects),
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
