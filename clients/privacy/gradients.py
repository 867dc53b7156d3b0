"""One gradient per subject, by two engines that share no code: Opacus' hooks and ``torch.func``.

Both give the same vectors (a test holds one against the other, to 1e-9); a node takes the faster one.
"""

from collections.abc import Callable
from typing import Final, Literal

import torch
from opacus import GradSampleModule
from torch import nn
from torch.func import functional_call, grad, vmap

from federation.learning.torch_models import load_parameters, subject_losses
from federation.rules.study import StudyPlan

Engine = Literal["opacus", "torch-func"]
DEFAULT_ENGINE: Final[Engine] = "torch-func"

PerSubject = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(parameters [P], x [S, k, F], y [S, k], mask [S, k]) -> float64 [S, P], the gradient of each subject's loss."""


def per_subject_gradients(plan: StudyPlan, module: nn.Module, engine: Engine = DEFAULT_ENGINE) -> PerSubject:
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
        return torch.cat([parameter.grad_sample.flatten(start_dim=1) for parameter in parameters], dim=1)

    return gradients


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
