"""Training against an independent oracle, and the laws that the privacy proof rests on."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch.func import functional_call, grad, vmap

from clients.privacy.dp_training import train
from clients.privacy.gradients import Engine
from clients.privacy.lattice import from_steps
from clients.privacy.noise import NoNoise, SecureNoise
from federation.errors import PrivacyError
from federation.learning.torch_models import build_module, load_parameters
from federation.rules.admission import parameter_count
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Integers
from federation.rules.study import StudyPlan

Floats = NDArray[np.float64]
FEATURES, RECORDS = 5, 3


class Scripted:
    """A noise source that writes down what it gave out."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.steps: list[Integers] = []
        self.draws: list[NDArray[np.bool_]] = []

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        self.steps.append(np.rint(self.generator.normal(0.0, float(std), count)).astype(np.int64))
        return self.steps[-1]

    def coins(self, count: int, rate: Fraction) -> NDArray[np.bool_]:
        self.draws.append(self.generator.random(count) < float(rate))
        return self.draws[-1]


def batch_of(subjects: int, *, seed: int = 0, scale: float = 1.0) -> SubjectBatch:
    generator = np.random.default_rng(seed)
    mask = (generator.random((subjects, RECORDS)) < 0.6).astype(np.float64)
    if subjects:
        mask[:, 0] = 1.0
    x = generator.normal(0, scale, (subjects, RECORDS, FEATURES)) * mask[:, :, None]
    y = (generator.random((subjects, RECORDS)) < 0.5) * mask
    return SubjectBatch(tuple(f"p{index:04}" for index in range(subjects)), x, y, mask)


def base_of(seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, FEATURES + 1)


def oracle(
    plan: StudyPlan,
    base: Floats,
    batch: SubjectBatch,
    nominal: int,
    draws: list[NDArray[np.bool_]],
    noises: list[Floats],
) -> Floats:
    """DP-SGD written down a second time: torch.func's per-subject gradients, numpy for all the rest."""
    layer = torch.nn.Linear(FEATURES, 1, dtype=torch.float64)

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits = functional_call(layer, params, (x,)).squeeze(-1)
        losses = torch.nn.functional.softplus(logits) - y * logits
        return (losses * mask).sum() / mask.sum()

    clip, rate = float(plan.privacy.clip), float(plan.privacy.sampling_rate)
    current = base.copy()
    for drawn, noise in zip(draws, noises, strict=True):
        params = {
            "weight": torch.from_numpy(current[:-1].reshape(1, -1).copy()),
            "bias": torch.from_numpy(current[-1:].copy()),
        }
        total = np.zeros_like(current)
        if drawn.any():
            parts = [torch.from_numpy(part[drawn]) for part in (batch.x, batch.y, batch.mask)]
            found = vmap(grad(loss), in_dims=(None, 0, 0, 0))(params, *parts)
            flat = np.concatenate([found["weight"].reshape(len(parts[0]), -1), found["bias"].reshape(-1, 1)], axis=1)
            norms = np.linalg.norm(flat, axis=1)
            total = (flat * np.minimum(1.0, clip / np.maximum(norms, 1e-300))[:, None]).sum(axis=0)
        gradient = (total + noise) / (rate * nominal) + float(plan.training.l2) * current
        current = current - float(plan.training.learning_rate) * gradient
    return current - base


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("l2", ["0", "0.03"])
@pytest.mark.parametrize("engine", ["opacus", "torch-func"])
def test_training_agrees_with_the_oracle(
    make_plan: Callable[..., StudyPlan], steps: int, scale: float, l2: str, engine: Engine
) -> None:
    plan = make_plan(training={"local_steps": steps, "l2": l2})
    batch, base = batch_of(40, scale=scale), base_of()
    everybody = [np.ones(40, dtype=np.bool_)] * steps
    expected = oracle(plan, base, batch, 50, everybody, [np.zeros_like(base)] * steps)
    found = train(plan, base, batch, 50, Decimal(6), NoNoise(), engine=engine)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        {"family": "mlp", "hidden": [4, 3], "activation": "tanh"},
        {"family": "mlp", "hidden": [4], "activation": "relu"},
        {"family": "cnn", "shape": [5], "filters": [3, 2]},
        {"family": "transformer", "length": 5, "width": 4, "heads": 2, "hidden": 6, "activation": "tanh"},
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", ["opacus", "torch-func"])
def test_other_models_are_trained_as_one_subject_after_another_would_be(
    make_plan: Callable[..., StudyPlan], model: dict[str, Any], engine: Engine
) -> None:
    """One step from plain gradients, one subject at a time, each clipped over all layers together."""
    plan = make_plan(model=model, privacy={"clip": "0.3"})
    batch, module = batch_of(30), build_module(plan)
    base = np.random.default_rng(5).normal(0, 1, parameter_count(plan))
    load_parameters(module, torch.from_numpy(base))
    total = np.zeros_like(base)
    for x, y, mask in zip(*(torch.from_numpy(part) for part in (batch.x, batch.y, batch.mask)), strict=True):
        module.zero_grad()
        scores = module(x[None]).reshape(-1)
        losses = torch.nn.functional.softplus(scores) - y * scores
        ((losses * mask).sum() / mask.sum()).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        found = np.concatenate([part.grad.reshape(-1).numpy() for part in module.parameters() if part.grad is not None])
        total += found * min(1.0, 0.3 / np.linalg.norm(found))
    expected = -float(plan.training.learning_rate) * (total / 40 + float(plan.training.l2) * base)
    found = train(plan, base, batch, 40, Decimal(6), NoNoise(), engine=engine)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_sampled_and_noised_training_agrees_with_the_oracle(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(training={"local_steps": 6, "l2": "0.01"}, privacy={"sampling_rate": "0.3", "clip": "0.7"})
    batch, base, noise = batch_of(60), base_of(), Scripted(3)
    found = train(plan, base, batch, 64, Decimal("2.5"), noise)
    noises = [from_steps(steps, plan.privacy.clip) for steps in noise.steps]
    assert len(noises) == len(noise.draws) == 6
    np.testing.assert_allclose(found, oracle(plan, base, batch, 64, noise.draws, noises), rtol=0, atol=1e-9)


def test_without_noise_training_is_repeatable_to_the_bit_and_leaves_torch_as_it_was(plan: StudyPlan) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second = (train(plan, base_of(), batch_of(30), 30, Decimal(6), NoNoise()).tobytes() for _ in range(2))
    assert first == second
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_seeding_torch_does_not_repeat_the_noise(plan: StudyPlan) -> None:
    def once() -> bytes:
        torch.manual_seed(7)
        return train(plan, base_of(), batch_of(30), 30, Decimal(6), SecureNoise()).tobytes()

    assert once() != once()


subject = st.builds(
    lambda seed, exponent, label: (
        np.random.default_rng(seed).normal(0, 10.0**exponent, (1, RECORDS, FEATURES)),
        np.full((1, RECORDS), float(label)),
    ),
    st.integers(0, 10**6),
    st.integers(-2, 200),
    st.booleans(),
)


@settings(max_examples=40)
@given(count=st.integers(0, 12), seed=st.integers(0, 1000), newcomer=subject, clip=st.sampled_from(["0.1", "1", "3"]))
def test_one_subject_moves_the_sum_by_at_most_the_clip(
    make_plan: Callable[..., StudyPlan], count: int, seed: int, newcomer: tuple[Floats, Floats], clip: str
) -> None:
    """Add/remove sensitivity: with noise off, a learning rate of 1 and a denominator of 1 the change is the sum."""
    plan = make_plan(privacy={"clip": clip}, training={"learning_rate": "1"})
    without = batch_of(count, seed=seed)
    x, y = newcomer
    with_newcomer = SubjectBatch(
        (*without.subjects, "newcomer"),
        np.concatenate([without.x, x]),
        np.concatenate([without.y, y]),
        np.concatenate([without.mask, np.ones((1, RECORDS))]),
    )
    sums = [train(plan, base_of(seed), part, 1, Decimal(6), NoNoise()) for part in (without, with_newcomer)]
    assert np.all(np.isfinite(sums))
    assert float(np.linalg.norm(sums[1] - sums[0])) <= float(clip) + 1e-9


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e308, -1e200])
def test_a_subject_that_is_not_finite_counts_as_absent(plan: StudyPlan, poison: float) -> None:
    batch = batch_of(20)
    clean = train(plan, base_of(), batch.select(batch.subjects[1:]), 20, Decimal(6), NoNoise())
    batch.x[0, 0, 0] = poison
    poisoned = train(plan, base_of(), batch, 20, Decimal(6), NoNoise())
    assert np.all(np.isfinite(poisoned))
    # A gradient of 1e308 is finite; its square is not: such a subject is left out, or clipped to C.
    assert float(np.linalg.norm(poisoned - clean)) <= 0.5 * 1.0 / 20 + 1e-12
    if not math.isfinite(poison):
        np.testing.assert_allclose(poisoned, clean, rtol=0, atol=1e-12)


def test_many_records_of_one_person_count_as_one(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(training={"learning_rate": "1"})
    x = np.full((1, RECORDS, FEATURES), 50.0)
    everything = SubjectBatch(("p",), x, np.zeros((1, RECORDS)), np.ones((1, RECORDS)))
    moved = train(plan, base_of(), everything, 1, Decimal(6), NoNoise())
    assert float(np.linalg.norm(moved)) <= 1.0


def test_padding_says_nothing(plan: StudyPlan) -> None:
    batch = batch_of(20)
    before = train(plan, base_of(), batch, 20, Decimal(6), NoNoise())
    batch.x[batch.mask == 0] = 1e6
    batch.y[batch.mask == 0] = 1.0
    np.testing.assert_allclose(train(plan, base_of(), batch, 20, Decimal(6), NoNoise()), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", ["1", "0.2"])
def test_an_empty_cohort_gives_noise_that_looks_like_any_other(make_plan: Callable[..., StudyPlan], rate: str) -> None:
    plan = make_plan(privacy={"sampling_rate": rate}, training={"learning_rate": "1"})
    noise = Scripted(5)
    moved = train(plan, np.zeros(FEATURES + 1), batch_of(0), 40, Decimal(4), noise)
    expected = -from_steps(noise.steps[0], plan.privacy.clip) / (float(rate) * 40)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-15)
    assert moved.any()


def test_the_noise_on_the_sum_has_the_multiplier_times_the_clip(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(training={"learning_rate": "1"}, privacy={"clip": "0.7"})
    batch, base = batch_of(10), base_of()
    clean = train(plan, base, batch, 1, Decimal("1.3"), NoNoise())
    noise = np.concatenate([train(plan, base, batch, 1, Decimal("1.3"), SecureNoise()) - clean for _ in range(150)])
    scaled = float((noise**2).sum()) / (1.3 * 0.7) ** 2
    assert 2 * min(stats.chi2.cdf(scaled, len(noise)), stats.chi2.sf(scaled, len(noise))) > 1e-7
    assert stats.kstest(noise / (1.3 * 0.7), "norm").pvalue > 1e-7


def test_the_sampler_is_poisson() -> None:
    """Independent coins: the spread of batch sizes, of subjects' counts, and of consecutive repeats is binomial."""
    subjects, rate, steps = 500, 0.1, 300
    drawn = np.array([SecureNoise().coins(subjects, Fraction(rate)) for _ in range(steps)])
    variance = rate * (1 - rate)
    for sums, trials in ((drawn.sum(axis=1), subjects), (drawn.sum(axis=0), steps)):
        score = float(((sums - trials * rate) ** 2).sum() / (trials * variance))
        assert 2 * min(stats.chi2.cdf(score, len(sums)), stats.chi2.sf(score, len(sums))) > 1e-7
    repeats, expected = int((drawn[1:] & drawn[:-1]).sum()), (steps - 1) * subjects * rate**2
    assert abs(repeats - expected) < 6 * math.sqrt(expected)


def _duplicated(batch: SubjectBatch) -> SubjectBatch:
    return SubjectBatch((batch.subjects[0],) * len(batch.subjects), batch.x, batch.y, batch.mask)


def _half_masked(batch: SubjectBatch) -> SubjectBatch:
    return SubjectBatch(batch.subjects, batch.x, batch.y, batch.mask * 0.5)


def _wider(batch: SubjectBatch) -> SubjectBatch:
    return SubjectBatch(batch.subjects, np.concatenate([batch.x, batch.x], axis=2), batch.y, batch.mask)


@pytest.mark.parametrize("spoil", [_duplicated, _half_masked, _wider])
def test_a_batch_that_would_void_the_bound_is_refused(
    plan: StudyPlan, spoil: Callable[[SubjectBatch], SubjectBatch]
) -> None:
    with pytest.raises(PrivacyError, match="refused before it starts"):
        train(plan, base_of(), spoil(batch_of(10)), 10, Decimal(6), NoNoise())


@pytest.mark.parametrize(
    "arguments",
    [
        {"base": np.zeros(3)},
        {"base": np.full(FEATURES + 1, np.nan)},
        {"base": np.zeros(FEATURES + 1, dtype=np.float32)},
        {"nominal_cohort": 0},
        {"noise_multiplier": Decimal(0)},
        {"noise_multiplier": Decimal("NaN")},
    ],
)
def test_arguments_that_would_void_the_guarantee_are_refused(plan: StudyPlan, arguments: dict[str, Any]) -> None:
    given_ = {"base": base_of(), "batch": batch_of(10), "nominal_cohort": 10, "noise_multiplier": Decimal(6)}
    with pytest.raises(PrivacyError, match="refused before it starts"):
        train(plan, noise=NoNoise(), **{**given_, **arguments})
