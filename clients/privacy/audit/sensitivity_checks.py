"""Does one person move what leaves by at most the clip, whoever they are and whoever else is there?

The checks are exact: the noise is too faint to leave, and sums with and without a person are compared. They are ordered
so that each speaks of one component: a person alone (clipping), persons too small to be clipped (separation: a forward
pass in which persons touch each other), a person among others (clipping per person and not per batch), many records of
one person (the unit), records that are no numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from clients.privacy.audit.findings import Check, exact
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.probe import CLIP, FAINT, Probe, audit_plan, batch_of
from federation.errors import PrivacyError
from federation.rules.encoding import Rows, SubjectBatch
from federation.rules.fixedpoint import Floats

FEATURES: Final = 8
RECORDS: Final = 4
_OTHERS: Final = 12
_SLACK: Final = 1e-5
_SMALL: Final = 1e-3
"""Features so small that no gradient is clipped (the bias is held by opposite labels)."""
_WORST: Final = (1.0, 1e3, 1e8, 1e150, 1e308)


def sensitivity_checks(path: AuditedPath, *, neighbours: int) -> list[Check]:
    """All checks of this module.

    Args:
        path: what is audited.
        neighbours: how many pairs of neighbouring data sets each check tries.
    """
    probe = Probe(path, audit_plan(FEATURES, records=RECORDS))
    return [
        _bounded(
            "clip-alone",
            "Is a person who is alone held to the clip?",
            [(_nobody(), person) for person in _persons(neighbours)],
            probe,
            needs=("payload",),
        ),
        _separation(probe, neighbours),
        _bounded(
            "clip-neighbours",
            "Does one person among others move the sum by at most the clip?",
            [(_others(seed), person) for seed, person in enumerate(_persons(neighbours))],
            probe,
            needs=("clip-alone", "separation"),
        ),
        _unit(probe, neighbours),
        _finite(probe),
    ]


@dataclass(frozen=True, slots=True)
class _Person:
    x: Floats
    y: Floats


def _bounded(
    name: str,
    question: str,
    pairs: list[tuple[SubjectBatch, _Person]],
    probe: Probe,
    *,
    needs: tuple[str, ...] = (),
) -> Check:
    worst = 0.0
    for number, (others, person) in enumerate(pairs):
        base = _base(number)
        moved = _sum(probe, _with(others, person), base) - _sum(probe, others, base)
        worst = max(worst, float(np.nan_to_num(np.linalg.norm(moved), nan=np.inf)))
    return exact(
        name,
        question,
        holds=worst <= CLIP * (1 + _SLACK),
        measured=f"{worst / CLIP:.4f} of the clip at most, over {len(pairs)} pairs of neighbours",
        needs=needs,
    )


def _separation(probe: Probe, neighbours: int) -> Check:
    """Where nothing is clipped, sums must add up person by person: what two do together is what each does alone."""
    worst = 0.0
    for seed in range(neighbours):
        persons = [_Person(_small(seed, place), _labels(seed + place)) for place in range(3)]
        base = np.zeros(FEATURES + 1)
        together = _nobody()
        for person in persons:
            together = _with(together, person)
        alone = sum(_sum(probe, _with(_nobody(), person), base) for person in persons)
        apart = np.linalg.norm(_sum(probe, together, base) - alone)
        worst = max(worst, float(apart) / _SMALL)
    return exact(
        "separation",
        "Does each person's gradient depend on that person alone?",
        holds=worst <= 0.05,  # noqa: PLR2004 - rounding to the lattice 2^-24 is 1e-4 of these gradients
        measured=f"what persons do together is off by {worst:.4f} of what they do alone, over {neighbours} groups",
        needs=("payload",),
    )


def _unit(probe: Probe, neighbours: int) -> Check:
    """Rows of one person, grouped as the node groups them: they count as one person however many they are."""
    worst = 0.0
    for seed in range(neighbours):
        generator = np.random.default_rng(seed)
        features = generator.uniform(-1, 1, (RECORDS + _OTHERS, FEATURES))
        features[:RECORDS] = np.sign(generator.uniform(-1, 1, FEATURES))  # all in one direction: nothing cancels
        labels = (generator.random(len(features)) < 0.5).astype(np.float64)  # noqa: PLR2004 - a fair coin
        labels[:RECORDS] = 1.0
        subjects = ("the one",) * RECORDS + tuple(f"other {place}" for place in range(_OTHERS))
        base = _base(seed)
        sums = []
        for start in (0, RECORDS):
            rows = Rows(subjects[start:], features[start:], labels[start:])
            sums.append(_sum(probe, probe.path.group(probe.plan.schema_contract, rows), base))
        worst = max(worst, float(np.linalg.norm(sums[0] - sums[1])))
    return exact(
        "unit",
        "Do many records of one person count as one person?",
        holds=worst <= CLIP * (1 + _SLACK),
        measured=f"{RECORDS} records of one person moved the sum by {worst / CLIP:.4f} of the clip at most",
        needs=("clip-neighbours", "clip-alone", "separation"),
    )


def _finite(probe: Probe) -> Check:
    """A record that is no number takes nobody else's contribution away, and adds at most the clip."""
    problem = ""
    others = _others(0)
    clean = _sum(probe, others, _base(0))
    for poison in (np.nan, np.inf, -np.inf):
        person = _Person(np.full((RECORDS, FEATURES), poison), np.ones(RECORDS))
        try:
            moved = _sum(probe, _with(others, person), _base(0)) - clean
        except PrivacyError as error:
            problem = f"a record of {poison} stopped the round: {error.message}"
            break
        if not np.linalg.norm(moved) <= CLIP * (1 + _SLACK):
            problem = f"a record of {poison} moved the sum by {np.linalg.norm(moved) / CLIP:.4g} of the clip"
            break
    return exact(
        "finite",
        "Does a record that is not a number harm nobody else's?",
        holds=not problem,
        measured=problem or "records of NaN and infinity counted as nothing",
        needs=("payload", "separation"),
    )


def _sum(probe: Probe, batch: SubjectBatch, base: Floats) -> Floats:
    return probe.sums(batch, base=base, multiplier=FAINT)


def _persons(count: int) -> Iterator[_Person]:
    """Random persons, and the worst that we know: extreme values, all records alike, on one coordinate."""
    makers: tuple[Callable[[np.random.Generator, float], Floats], ...] = (
        lambda generator, scale: generator.normal(0, 1, (RECORDS, FEATURES)) * min(scale, 1e150),
        lambda _generator, scale: np.full((RECORDS, FEATURES), scale),
        lambda _generator, scale: scale * np.eye(RECORDS, FEATURES),
    )
    for number in range(count):
        generator = np.random.default_rng(number)
        scale = _WORST[number % len(_WORST)]
        yield _Person(makers[number % len(makers)](generator, scale), np.full(RECORDS, float(number % 2)))


def _others(seed: int) -> SubjectBatch:
    generator = np.random.default_rng(1000 + seed)
    x = generator.normal(0, 10, (_OTHERS, RECORDS, FEATURES))
    y = (generator.random((_OTHERS, RECORDS)) < 0.5).astype(np.float64)  # noqa: PLR2004 - a fair coin
    return batch_of(x, y)


def _nobody() -> SubjectBatch:
    return batch_of(np.zeros((0, RECORDS, FEATURES)), np.zeros((0, RECORDS)))


def _with(others: SubjectBatch, person: _Person) -> SubjectBatch:
    return batch_of(np.concatenate([others.x, person.x[None]]), np.concatenate([others.y, person.y[None]]))


def _base(seed: int) -> Floats:
    return np.random.default_rng(2000 + seed).normal(0, 1, FEATURES + 1)


def _small(seed: int, place: int) -> Floats:
    return np.random.default_rng((seed, place)).normal(0, _SMALL, (RECORDS, FEATURES))


def _labels(seed: int) -> Floats:
    """As many ones as zeros, so that the bias does not move at the model 0."""
    labels = np.tile([1.0, 0.0], RECORDS // 2)
    return labels if seed % 2 else 1 - labels
