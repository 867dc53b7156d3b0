"""The plan's model as a torch module, for training: the same function of the same flat vector as the numpy one.

Modules take flat records and reshape inside; they hold parameters only. No buffers, no batch normalisation, no dropout:
nothing else than what the flat vector holds may leave a site, and one subject's output never depends on another's.
Only code that trains may import this module, as torch takes seconds to load.
"""

import math

import torch
from torch import nn

from federation.rules.families import STRIDE, CnnModel, LogisticModel, MlpModel
from federation.rules.study import StudyPlan


def build_module(plan: StudyPlan) -> nn.Module:
    """The plan's model in float64, [B, k, F] -> [B, k, 1]: logits of each record. Its parameters are all zero.

    B subjects, k records, F inputs. Parameters come in the order of ``models.parameter_shapes``. None is drawn at
    random, so that torch's global generator is neither used nor moved; :func:`load_parameters` sets them.
    """
    inputs, model = plan.schema_contract.inputs, plan.model
    if isinstance(model, LogisticModel):
        module: nn.Module = _linear(inputs, 1)
    elif isinstance(model, CnnModel):
        module = _Convolutions(model)
    else:
        layers: list[nn.Module] = []
        for units in model.hidden:
            layers += [_linear(inputs, units), _activation(model)]
            inputs = units
        module = nn.Sequential(*layers, _linear(inputs, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def subject_losses(
    plan: StudyPlan,
    outputs: torch.Tensor,
    y: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Each subject's mean log loss (nats) over its own records.

    With a survival label it is the sum over the intervals that the subject counts in, divided by all intervals: minus
    the log likelihood of its time, up to that constant.

    Args:
        plan: the study's plan.
        outputs: float64 [B, k, 1], logits.
        y: float64 [B, k], 0 or 1.
        mask: float64 [B, k], 1 for a record, 0 for padding.

    Returns:
        float64 [B]; 0 for a subject without a record.
    """
    losses = nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), y, reduction="none")
    intervals = plan.schema_contract.intervals
    return (losses * mask).sum(dim=1) / (intervals or mask.sum(dim=1).clamp(min=1.0))


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


def _activation(model: MlpModel | CnnModel) -> nn.Module:
    return nn.Tanh() if model.activation == "tanh" else nn.ReLU()


class _Convolutions(nn.Module):
    """A ``CnnModel``: [B, k, F] -> [B, k, 1], every record by itself."""

    def __init__(self, model: CnnModel) -> None:
        super().__init__()
        self._grid = (model.channels, *model.shape)
        convolution = nn.Conv1d if len(model.shape) == 1 else nn.Conv2d
        layers: list[nn.Module] = []
        before = model.channels
        for filters in model.filters:
            layer = convolution(
                before, filters, model.kernel, STRIDE, model.kernel // 2, dtype=torch.float64, device="meta"
            )
            layers += [layer.to_empty(device="cpu"), _activation(model)]
            before = filters
        self.layers = nn.Sequential(*layers)
        self.output = _linear(before * math.prod(model.grids[-1]), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        records = x.reshape(-1, *self._grid)
        logits: torch.Tensor = self.output(self.layers(records).flatten(start_dim=1))
        return logits.reshape(*x.shape[:2], 1)
