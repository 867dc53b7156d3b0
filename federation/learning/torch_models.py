"""The plan's model as a torch module, for training: the same function of the same flat vector as the numpy one.

Modules take flat records and reshape inside; they hold parameters only. No buffers, no batch normalisation, no dropout:
nothing else than what the flat vector holds may leave a site, and one subject's output never depends on another's.
Only code that trains may import this module, as torch takes seconds to load.
"""

import math

import torch
from torch import nn

from federation.rules.families import NORM_EPSILON, STRIDE, CnnModel, LogisticModel, MlpModel, TransformerModel
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
    elif isinstance(model, TransformerModel):
        module = _Transformer(model)
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


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64, device="meta").to_empty(device="cpu")


def _activation(model: MlpModel | CnnModel | TransformerModel) -> nn.Module:
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


class _Transformer(nn.Module):
    """A ``TransformerModel``: [B, k, F] -> [B, k, 1], every record by itself. Linear layers hold all parameters."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self._grid = (model.channels, model.length)
        self.embed = _linear(sum(self._grid), model.width)
        self.layers = nn.ModuleList(_TransformerLayer(model) for _ in range(model.layers))
        self.output = _linear(model.width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        readings = x.reshape(-1, *self._grid).transpose(1, 2)
        place = torch.eye(self._grid[1], dtype=x.dtype).expand(len(readings), -1, -1)
        signals = self.embed(torch.cat((readings, place), dim=2))
        for layer in self.layers:
            signals = layer(signals)
        logits: torch.Tensor = self.output(_normalised(signals).mean(dim=1))
        return logits.reshape(*x.shape[:2], 1)


class _TransformerLayer(nn.Module):
    """[N, T, width] -> [N, T, width]."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self._heads = model.heads
        self.query, self.key, self.value, self.attended = (
            _linear(model.width, model.width, bias=False) for _ in range(4)
        )
        self.hidden, self.activation = _linear(model.width, model.hidden), _activation(model)
        self.back = _linear(model.hidden, model.width)

    def forward(self, signals: torch.Tensor) -> torch.Tensor:
        normal = _normalised(signals)
        query, key, value = (
            part(normal).unflatten(2, (self._heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(dim=3)
        signals = signals + self.attended((weights @ value).transpose(1, 2).flatten(2))
        result: torch.Tensor = signals + self.back(self.activation(self.hidden(_normalised(signals))))
        return result


def _normalised(signals: torch.Tensor) -> torch.Tensor:
    """Each place's numbers with mean 0 and variance 1, without parameters."""
    return nn.functional.layer_norm(signals, signals.shape[-1:], eps=NORM_EPSILON)
