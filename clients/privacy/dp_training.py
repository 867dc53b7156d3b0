"""Training of one round at one site: DP-SGD (Abadi et al. 2016) with the data subject as the unit.

A batch element is a subject: its records' losses are averaged, so that one gradient per subject is clipped, however
many records there are. Opacus supplies per-subject gradients and the order of clip, noise and scale; three of its
habits are replaced: the noise comes from a :class:`~clients.privacy.noise.NoiseSource`, a subject whose gradient is not
finite counts as zero (else one such record turns everything to NaN), and its loader is never used, as the sampler is
ours. The denominator is the nominal cohort, public, never the exact count. Metrics of training are not computed: they
would be a release of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from clients.privacy.module_guard import check_module
from clients.privacy.noise import Floats, NoiseSource
from federation.errors import PrivacyError
from federation.learning.torch_models import build_module, flat_parameters, load_parameters, subject_losses
from federation.rules.admission import parameter_count
from federation.rules.encoding import SubjectBatch
from federation.rules.study import StudyPlan


def train(
    plan: StudyPlan,
    base: Floats,
    batch: SubjectBatch,
    nominal_cohort: int,
    noise_multiplier: Decimal,
    noise: NoiseSource,
) -> Floats:
    """Take the plan's local steps from ``base`` and return how far they led.

    Each step: draw subjects with the plan's rate q; clip every drawn subject's gradient to L2 norm C; add Gaussian
    noise of standard deviation ``noise_multiplier * C`` to their sum; divide by ``q * nominal_cohort``; add ``l2``
    times the parameters; step by the learning rate. Without subjects a step is noise alone, and looks like any other.

    Args:
        plan: the study's plan.
        base: float64 [P], the round's base model.
        batch: the eligible subjects, S >= 0.
        nominal_cohort: the public cohort size of the institution's agreement.
        noise_multiplier: as derived by ``federation.rules.accounting``.
        noise: where noise and sampling draws come from.

    Returns:
        float64 [P]: the change of the parameters. It is differentially private, and not yet bounded in norm
        (``clients.privacy.release``).

    Raises:
        PrivacyError: a model that mixes subjects, or arguments that would void the guarantee.
    """
    _check(plan, base, batch, nominal_cohort, noise_multiplier)
    rate = float(plan.privacy.sampling_rate)
    with _one_thread():
        module = build_module(plan)
        load_parameters(module, torch.from_numpy(base))
        check_module(module, records=batch.x.shape[1], features=batch.x.shape[2])
        per_subject = GradSampleModule(module, batch_first=True, loss_reduction="sum")
        optimizer = SubjectOptimizer(
            torch.optim.SGD(
                module.parameters(), lr=float(plan.training.learning_rate), weight_decay=float(plan.training.l2)
            ),
            noise=noise,
            noise_multiplier=float(noise_multiplier),
            max_grad_norm=float(plan.privacy.clip),
            expected_batch_size=rate * nominal_cohort,
        )
        tensors = [torch.from_numpy(np.ascontiguousarray(part)) for part in (batch.x, batch.y, batch.mask)]
        for _ in range(plan.training.local_steps):
            drawn = torch.from_numpy(poisson_sample(len(batch.subjects), rate, noise))
            x, y, mask = (part[drawn] for part in tensors)
            optimizer.zero_grad()
            outputs = per_subject(x.requires_grad_())  # else torch warns at each backward hook
            losses = subject_losses(plan, outputs, y, mask)
            losses.sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()
        return flat_parameters(module).numpy() - base


def poisson_sample(subjects: int, rate: float, noise: NoiseSource) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which subjects a step draws: each on its own with probability ``rate``; with rate 1 all. Bool [subjects]."""
    if rate >= 1:
        return np.ones(subjects, dtype=np.bool_)
    return noise.uniform(subjects) < rate


class SubjectOptimizer(DPOptimizer):  # type: ignore[misc] # opacus ships no types
    """Opacus' optimizer with our noise, and with subjects that are not finite counted as zero."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, noise: NoiseSource, **settings: Any) -> None:
        super().__init__(optimizer, loss_reduction="mean", **settings)
        self._noise = noise

    def clip_and_accumulate(self) -> None:
        """Opacus' clipping, after gradients whose squared norm is not finite were set to zero (norm 0 <= C)."""
        samples = self.grad_samples
        squares = sum(sample.flatten(start_dim=1).square().sum(dim=1) for sample in samples)
        finite = torch.isfinite(squares)
        for parameter, sample in zip(self.params, samples, strict=True):
            keep = finite.reshape(-1, *([1] * (sample.dim() - 1)))
            parameter.grad_sample = torch.where(keep, sample, torch.zeros_like(sample))
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Gaussian noise of standard deviation ``noise_multiplier * C`` on each coordinate of the sum."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            noise = torch.from_numpy(self._noise.normal(tuple(parameter.shape), std))
            parameter.grad = (parameter.summed_grad + noise).view_as(parameter)


def _check(plan: StudyPlan, base: Floats, batch: SubjectBatch, nominal_cohort: int, noise_multiplier: Decimal) -> None:
    """Refuse what would silently weaken the guarantee."""
    if base.dtype != np.float64 or base.shape != (parameter_count(plan),) or not np.all(np.isfinite(base)):
        raise _unsafe(f"the base model is not a finite float64 vector of {parameter_count(plan)} parameters")
    subjects = len(batch.subjects)
    shape = (subjects, plan.schema_contract.records_per_subject_max)
    if len(set(batch.subjects)) != subjects:
        raise _unsafe("a subject stands in the batch twice, and would be clipped as two")
    if batch.x.shape != (*shape, plan.schema_contract.inputs) or batch.y.shape != shape or batch.mask.shape != shape:
        raise _unsafe("the batch does not have the plan's shape")
    if not np.all((batch.mask == 0) | (batch.mask == 1)):
        raise _unsafe("the batch's mask holds something other than 0 and 1")
    if nominal_cohort < 1 or not noise_multiplier.is_finite() or noise_multiplier <= 0:
        raise _unsafe("the nominal cohort and the noise multiplier must be positive")


def _unsafe(why: str) -> PrivacyError:
    return PrivacyError(
        f"Training is refused before it starts: {why}.",
        remedy="This is a fault of the node's software; please report it.",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: the same order of additions, hence the same bits, wherever it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
