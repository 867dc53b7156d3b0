"""The families of models that a plan can ask for, and the shape of each one's parameters.

A plan names a family and its sizes; it never carries code. Sizes are bounded, and the plan refuses a model of more than
:data:`PARAMETERS_MAX` numbers, so that a hostile plan cannot exhaust a node's memory.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import Field

from federation.rules.wire import Wire

PARAMETERS_MAX: Final = 1 << 20
"""The longest flat vector: 8 MiB of float64, for each subject that a step draws as well."""

STRIDE: Final = 2
"""How many places a convolution moves on."""


class LogisticModel(Wire):
    """One weight per encoded feature and a bias."""

    family: Literal["logistic"]


class MlpModel(Wire):
    """A multilayer perceptron: hidden layers of these sizes, each followed by ``activation``, then one logit."""

    family: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1, max_length=3)]
    activation: Literal["tanh", "relu"] = "tanh"


class CnnModel(Wire):
    """A small convolutional network, for images (``shape`` = height, width) and windows of a sequence (``shape`` = T).

    A record's numbers are ``channels`` grids of ``shape``, one after the other, each row by row. Every layer convolves
    with ``filters`` kernels of ``kernel`` to a side, zeros around, at every second place (a grid of n becomes
    ceil(n / 2)), and applies ``activation``; what is left is weighed into one logit.
    """

    family: Literal["cnn"]
    channels: Annotated[int, Field(ge=1, le=16)] = 1
    shape: Annotated[tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=1, max_length=2)]
    filters: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=3)]
    kernel: Literal[3, 5] = 3
    activation: Literal["tanh", "relu"] = "tanh"

    @property
    def inputs(self) -> int:
        """How many numbers a record has."""
        return self.channels * math.prod(self.shape)

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """The grid before the first layer and after each."""
        result = [self.shape]
        for _ in self.filters:
            result.append(tuple(-(-side // STRIDE) for side in result[-1]))
        return tuple(result)


Model = LogisticModel | MlpModel | CnnModel
ModelSpec = Annotated[Model, Field(discriminator="family")]

LOGISTIC: Final = LogisticModel(family="logistic")


def shapes(model: Model, inputs: int) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape, in the order of the flat vector (each flattened in C order).

    Args:
        model: the plan's model.
        inputs: F, the number of encoded features.
    """
    if isinstance(model, LogisticModel):
        return {"weight": (inputs,), "bias": (1,)}
    result: dict[str, tuple[int, ...]] = {}
    if isinstance(model, CnnModel):
        before = model.channels
        for layer, filters in enumerate(model.filters, start=1):
            kernel = (model.kernel,) * len(model.shape)
            result |= {f"conv{layer}.weight": (filters, before, *kernel), f"conv{layer}.bias": (filters,)}
            before = filters
        before *= math.prod(model.grids[-1])
    else:
        before = inputs
        for layer, units in enumerate(model.hidden, start=1):
            result |= {f"hidden{layer}.weight": (units, before), f"hidden{layer}.bias": (units,)}
            before = units
    return result | {"output.weight": (1, before), "output.bias": (1,)}


def size(model: Model, inputs: int) -> int:
    """P, the length of the flat vector."""
    return sum(math.prod(shape) for shape in shapes(model, inputs).values())


def widest(model: Model) -> int:
    """The most numbers that one record takes in any layer after the inputs: what an evaluation's memory goes by."""
    if isinstance(model, CnnModel):
        return max(count * math.prod(grid) for count, grid in zip(model.filters, model.grids[1:], strict=True))
    return max(model.hidden) if isinstance(model, MlpModel) else 1
