"""The plan's model as a torch module, for training: the same function of the same flat vector as the numpy one.

Modules take flat records and reshape inside; they hold parameters only. No buffers, no batch normalisation, no dropout:
nothing else than what the flat vector holds may leave a site, and one subject's output never depends on another's.
Only code that trains may import this module, as torch takes seconds to load.
"""

import torch
from torch import nn

from federation.rules.families import LogisticModel
from federation.rules.study import StudyPlan


def build_module(plan: StudyPlan) -> nn.Module:
    """The plan's model in float64, [B, k, F] -> [B, k, 1]: logits of each record. Its parameters are all zero.

    B subjects, k records, F inputs. Parameters come in the order of ``models.parameter_shapes``. None is drawn at
    random, so that torch's global generator is neither used nor moved; :func:`load_parameters` sets them.
    """
    inputs, model = plan.schema_contract.inputs, plan.model
    if isinstance(model, LogisticModel):
        module: nn.Module = _linear(inputs, 1)
    else:
        layers: list[nn.Module] = []
        for units in model.hidden:
            layers += [_linear(inputs, units), nn.Tanh() if model.activation == "tanh" else nn.ReLU()]
            inputs = units
        module = nn.Sequential(*layers, _linear(inputs, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def subject_losses(
    plan: StudyPlan,  # noqa: ARG001 - part of the seam: families with other labels have other losses
    outputs: torch.Tensor,
    y: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Each subject's mean log loss (nats) over its own records.

    Args:
        plan: the study's plan.
        outputs: float64 [B, k, 1], logits.
        y: float64 [B, k], 0 or 1.
        mask: float64 [B, k], 1 for a record, 0 for padding.

    Returns:
        float64 [B]; 0 for a subject without a record.
    """
    losses = nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), y, reduction="none")
    return (losses * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)


def flat_parameters(module: nn.Module) -> torch.Tensor:
    """All parameters in order, float64 [P]: a copy, without gradient."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def load_parameters(module: nn.Module, flat: torch.Tensor) -> None:
    """Set all parameters from float64 [P].

    Raises:
        ValueError: the vector has another length than the module has parameters.
    """
    parameters = list(module.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"{tuple(flat.shape)} numbers for a module of {sum(sizes)}")
    with torch.no_grad():
        start = 0
        for parameter, numbers in zip(parameters, sizes, strict=True):
            parameter.copy_(flat[start : start + numbers].reshape(parameter.shape))
            start += numbers


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, dtype=torch.float64, device="meta").to_empty(device="cpu")
