"""Training of one round at one site: DP-SGD (Abadi et al. 2016) with the data subject as the unit.

A batch element is a subject: its records' losses are averaged, so that one gradient per subject is clipped, however
many records there are (``gradients``). Clipped gradients are summed and noised as whole numbers (``lattice``,
``noise``). A subject whose gradient is not finite counts as zero (else one such record turns everything to NaN), and
the sampler is ours. The denominator is the nominal cohort, public, never the exact count. Metrics of training are not
computed: they would be a release of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
import torch

from clients.privacy.gradients import Engine, faster_engine, per_subject_gradients
from clients.privacy.lattice import AT_ONCE, SUBJECTS_MAX, clipped_sum, from_steps, noise_std
from clients.privacy.module_guard import check_module
from clients.privacy.noise import STD_MAX, Bools, NoiseSource
from federation.errors import PrivacyError
from federation.learning.torch_models import build_module
from federation.rules.admission import parameter_count
from federation.rules.encoding import SubjectBatch
from federation.rules.families import widest
from federation.rules.fixedpoint import Floats
from federation.rules.study import StudyPlan

_NUMBERS_MAX: Final = 1 << 22
"""How many numbers the per-subject gradients, or the widest layer, of one part of a batch may hold: 32 MiB."""


def train(
    plan: StudyPlan,
    base: Floats,
    batch: SubjectBatch,
    nominal_cohort: int,
    noise_multiplier: Decimal,
    noise: NoiseSource,
    *,
    engine: Engine | None = None,
) -> Floats:
    """Take the plan's local steps from ``base`` and return how far they led.

    Each step: draw subjects with the plan's rate q; clip every drawn subject's gradient to L2 norm C; add Gaussian
    noise of standard deviation ``noise_multiplier * C`` to their sum (a little more: ``lattice.sensitivity``); divide
    by ``q * nominal_cohort``; add ``l2`` times the parameters; step by the learning rate. Without subjects a step is
    noise alone, and looks like any other.

    Args:
        plan: the study's plan.
        base: float64 [P], the round's base model.
        batch: the eligible subjects, S >= 0.
        nominal_cohort: the public cohort size of the institution's agreement.
        noise_multiplier: as derived by ``federation.rules.accounting``.
        noise: where noise and sampling draws come from.
        engine: what computes the gradients; by default what is faster for the model.

    Returns:
        float64 [P]: the change of the parameters. It is differentially private, and not yet bounded in norm
        (``clients.privacy.release``).

    Raises:
        PrivacyError: a model that mixes subjects, or arguments that would void the guarantee.
    """
    _check(plan, base, batch, nominal_cohort, noise_multiplier)
    privacy, learning_rate, l2 = plan.privacy, float(plan.training.learning_rate), float(plan.training.l2)
    expected = float(privacy.sampling_rate) * nominal_cohort
    std = noise_std(privacy.clip, len(base), noise_multiplier)
    with _one_thread():
        module = build_module(plan)
        check_module(module, records=batch.x.shape[1], features=batch.x.shape[2])
        gradients = per_subject_gradients(plan, module, engine or faster_engine(plan))
        tensors = [torch.from_numpy(np.ascontiguousarray(part)) for part in (batch.x, batch.y, batch.mask)]
        current = base.copy()
        for _ in range(plan.training.local_steps):
            drawn = noise.coins(len(batch.subjects), Fraction(privacy.sampling_rate))
            total = noise.discrete_gaussian(len(base), std)
            for rows in _chunks(drawn, max(len(base), batch.x.shape[1] * widest(plan.model))):
                found = gradients(torch.from_numpy(current), *(part[rows] for part in tensors))
                total = total + clipped_sum(found, privacy.clip)
            current = current - learning_rate * (from_steps(total, privacy.clip) / expected + l2 * current)
        return current - base


def _chunks(drawn: Bools, numbers: int) -> Sequence[torch.Tensor]:
    """The places of those drawn, in parts that fit into memory at ``numbers`` each; sums of integers do not mind."""
    places = torch.from_numpy(np.flatnonzero(drawn))
    return torch.split(places, min(AT_ONCE, max(1, _NUMBERS_MAX // numbers))) if len(places) else ()


def _check(plan: StudyPlan, base: Floats, batch: SubjectBatch, nominal_cohort: int, noise_multiplier: Decimal) -> None:
    """Refuse what would silently weaken the guarantee."""
    if base.dtype != np.float64 or base.shape != (parameter_count(plan),) or not np.all(np.isfinite(base)):
        raise _unsafe(f"the base model is not a finite float64 vector of {parameter_count(plan)} parameters")
    subjects = len(batch.subjects)
    if subjects > SUBJECTS_MAX:
        raise _unsafe(f"more than {SUBJECTS_MAX} subjects do not fit into one sum")
    shape = (subjects, plan.schema_contract.records)
    if len(set(batch.subjects)) != subjects:
        raise _unsafe("a subject stands in the batch twice, and would be clipped as two")
    if batch.x.shape != (*shape, plan.schema_contract.inputs) or batch.y.shape != shape or batch.mask.shape != shape:
        raise _unsafe("the batch does not have the plan's shape")
    if not np.all((batch.mask == 0) | (batch.mask == 1)):
        raise _unsafe("the batch's mask holds something other than 0 and 1")
    if nominal_cohort < 1 or not noise_multiplier.is_finite() or noise_multiplier <= 0:
        raise _unsafe("the nominal cohort and the noise multiplier must be positive")
    if noise_std(plan.privacy.clip, len(base), noise_multiplier) > STD_MAX:
        raise _unsafe(f"a noise multiplier of {noise_multiplier} is more than the sums can hold")


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
