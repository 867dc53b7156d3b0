"""Two institutions that differ in one person: everything that leaves is alike, but for what the noise is there to hide.

One person withdraws at the second one. Nonces, salts, hashes and signatures are fresh everywhere; every other field,
and the length of every document, must be the same. The released vectors differ, before noise, by at most the clip over
the nominal cohort, and the noise is of the size that was charged for.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_in_memory import InMemoryStudy, Institution

from clients.contribution import Task
from clients.privacy.cohort import judge_cohort
from clients.privacy.noise import Bools, NoiseSource, NoNoise
from federation.learning.models import initial_model
from federation.rules.accounting import derive_noise_multiplier
from federation.rules.documents import Commitment, Refusal, Update, open_signed
from federation.rules.fixedpoint import SCALE, Floats, Integers, from_fixed, pack, unpack

FRESH = {"update", "chunks", "nonce", "consent_checkpoint", "dataset_commitment", "commitment"}
"""Fields that are hashes, or hold one, over fresh random bytes."""


class Recorded:
    """The same noise in both runs, and what was asked for."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(11)
        self.asked: list[tuple[int, Fraction]] = []

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        self.asked.append((count, std))
        return np.rint(self.generator.normal(0, float(std), count)).astype(np.int64)

    def coins(self, count: int, rate: Fraction) -> Bools:
        drawn: Bools = self.generator.random(count) < float(rate)
        return drawn


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[tuple[Institution, Institution]]:
    """Everybody's data at both; at the second, p03 has withdrawn. Both logs have grown by one padded batch since."""
    folders = tmp_path / "with", tmp_path / "without"
    for folder in folders:
        folder.mkdir()
    with (
        InMemoryStudy(folders[0], sites=2, cohort={"minimum": 1}) as one,
        InMemoryStudy(folders[1], sites=2, cohort={"minimum": 1}) as other,
    ):
        for study in (one, other):
            study["ash"].stop()
        other["ash"].registry.withdraw("p03")
        for study in (one, other):
            study["ash"].registry.append_batch(study.clock())
        yield one["ash"], other["ash"]


def leaves(site: Institution, noise: NoiseSource) -> dict[str, bytes]:
    """Every document and chunk that a round sends."""
    work = site.contribution(noise=noise)
    base = site.study.blobs.put(pack(initial_model(site.study.plan, 7)))
    answer = work.commit(Task(round_number=1, base_model=base, consent_size=0))
    if answer.kind == "refusal":
        return {answer.kind: answer.data}
    shown = work.reveal(1)
    update, _ = open_signed(Update, shown.data)
    chunks = {f"chunk {at}": site.blobs.get(name) for at, name in enumerate(update.chunks)}
    return {answer.kind: answer.data, shown.kind: shown.data, **chunks}


def fields(data: bytes, kind: type[Commitment] | type[Update] | type[Refusal]) -> dict[str, Any]:
    document = open_signed(kind, data)[0].model_dump(mode="json")
    return {name: value for name, value in document.items() if name not in FRESH}


def vector(sent: dict[str, bytes], site: Institution) -> Floats:
    names = [name for name in sent if name.startswith("chunk")]
    return from_fixed(unpack(b"".join(sent[name] for name in names), length=len(initial_model(site.study.plan, 7))))


def test_all_that_leaves_is_alike_but_for_the_vector_and_fresh_hashes(
    neighbours: tuple[Institution, Institution],
) -> None:
    noises = Recorded(), Recorded()
    first, second = (leaves(site, noise) for site, noise in zip(neighbours, noises, strict=True))
    assert {name: len(data) for name, data in first.items()} == {name: len(data) for name, data in second.items()}
    assert fields(first["commitment"], Commitment) == fields(second["commitment"], Commitment)
    assert fields(first["update"], Update) == fields(second["update"], Update)
    assert noises[0].asked == noises[1].asked, "the same noise is asked for, whoever is there"
    checkpoints = [open_signed(Update, sent["update"])[0].consent_checkpoint for sent in (first, second)]
    origins = [text.splitlines()[:2] for text in checkpoints]
    assert origins[0] == origins[1], "the log's name and its size"
    assert first.keys() == second.keys()


def test_the_vectors_differ_by_at_most_the_clip_over_the_nominal_cohort_and_the_noise_is_the_charged_one(
    neighbours: tuple[Institution, Institution],
) -> None:
    plan = neighbours[0].study.plan
    people, rate = 12, float(plan.training.learning_rate)
    first, second = (vector(leaves(site, NoNoise()), site) for site in neighbours)
    moved = float(np.linalg.norm(first - second))
    rounding = 2 * np.sqrt(len(first)) / SCALE
    assert 0 < moved <= rate * float(plan.privacy.clip) / people + rounding
    charged = json.loads(json.dumps(fields(leaves(neighbours[0], NoNoise())["update"], Update)["event"]))
    assert str(derive_noise_multiplier(plan).normalize()) in json.dumps(charged)


def test_the_size_of_a_cohort_is_judged_with_noise_that_one_person_moves_by_one(
    neighbours: tuple[Institution, Institution],
) -> None:
    plan = neighbours[0].study.plan
    first, second = (judge_cohort(count, plan, Recorded()) for count in (12, 11))
    assert first.noisy_count - second.noisy_count == 1
    noise = Recorded()
    judge_cohort(12, plan, noise)
    assert noise.asked == [(1, Fraction(plan.privacy.cohort_noise_multiplier))]
    assert Decimal(plan.privacy.cohort_noise_multiplier) >= 2


def test_a_refusal_for_too_few_people_says_the_same_of_both(tmp_path: Path) -> None:
    """The words are fixed; with the same noise, only a count at the very edge decides otherwise."""
    documents = []
    for name, people in (("a", 7), ("b", 6)):
        folder = tmp_path / name
        folder.mkdir()
        with InMemoryStudy(folder, sites=2, people={"ash": people}, cohort={"minimum": 500}) as study:
            study["ash"].stop()
            sent = leaves(study["ash"], Recorded())
            assert list(sent) == ["refusal"]
            documents.append((fields(sent["refusal"], Refusal), len(sent["refusal"])))
    (first, first_length), (second, second_length) = documents
    assert first_length == second_length
    assert {**first, "study": ""} == {**second, "study": ""}
