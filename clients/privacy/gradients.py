"""One gradient per subject, by two engines that share no code: Opacus' hooks and ``torch.func``.

Both give the same vectors (a test holds one against the other, to 1e-9); a node takes the one that is faster for the
plan's model.
"""

from collections.abc import Callable
from typing import Literal

import torch
from opacus import GradSampleModule
from torch import nn
from torch.func import functional_call, grad, vmap

from federation.learning.torch_models import load_parameters, subject_losses
from federation.rules.families import LogisticModel
from federation.rules.study import StudyPlan

Engine = Literal["opacus", "torch-func"]

PerSubject = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(parameters [P], x [S, k, F], y [S, k], mask [S, k]) -> float64 [S, P], the gradient of each subject's loss."""


def faster_engine(plan: StudyPlan) -> Engine:
    """Opacus for the linear model, ``torch.func`` for the others (measured: ``tests/benchmarks/training_speed.py``)."""
    return "opacus" if isinstance(plan.model, LogisticModel) else "torch-func"


def per_subject_gradients(plan: StudyPlan, module: nn.Module, engine: Engine) -> PerSubject:
    """The function that computes each subject's gradient; rows of subjects are in the order of the batch.

    Args:
        plan: the study's plan.
        module: of ``federation.learning.torch_models.build_module``, and checked
            (``clients.privacy.module_guard``).
        engine: which implementation.
    """
    return _by_opacus(plan, module) if engine == "opacus" else _by_torch_func(plan, module)


def _by_opacus(plan: StudyPlan, module: nn.Module) -> PerSubject:
    """Hooks collect what each layer saw and was sent back; the loss is the sum over subjects."""
    hooked = GradSampleModule(module, batch_first=True, loss_reduction="sum")
    parameters = [parameter for parameter in hooked.parameters() if parameter.requires_grad]

    def gradients(flat: torch.Tensor, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        load_parameters(module, flat)
        hooked.zero_grad()
        outputs = hooked(x.requires_grad_())  # else torch warns at each backward hook
        subject_losses(plan, outputs, y, mask).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return torch.cat([_of_subjects(parameter.grad_sample, len(x)) for parameter in parameters], dim=1)

    return gradients


def _of_subjects(samples: torch.Tensor, subjects: int) -> torch.Tensor:
    """What a hook collected, [B, ...] or (where a module sees records one by one) [B * k, ...], as [B, numbers]."""
    return samples.reshape(subjects, -1, *samples.shape[1:]).sum(dim=1).flatten(start_dim=1)


def _by_torch_func(plan: StudyPlan, module: nn.Module) -> PerSubject:
    """The gradient of one subject's loss, mapped over the batch."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]

    def loss(flat: torch.Tensor, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, sizes)
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        outputs = functional_call(module, named, (x[None],))
        return subject_losses(plan, outputs, y[None], mask[None]).squeeze(0)

    mapped: PerSubject = vmap(grad(loss), in_dims=(None, 0, 0, 0))
    return mapped
