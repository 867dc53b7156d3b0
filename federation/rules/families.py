"""The families of models that a plan can ask for, and the shape of each one's parameters.

A plan names a family and its sizes; it never carries code. Sizes are bounded, and the plan refuses a model of more than
:data:`PARAMETERS_MAX` numbers, so that a hostile plan cannot exhaust a node's memory.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from federation.rules.wire import Wire

PARAMETERS_MAX: Final = 1 << 20
"""The longest flat vector: 8 MiB of float64, for each subject that a step draws as well."""

STRIDE: Final = 2
"""How many places a convolution moves on."""

NORM_EPSILON: Final = 1e-5
"""What is added to a variance before a transformer divides by its root."""


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


class TransformerModel(Wire):
    """A small transformer encoder (Vaswani et al. 2017), for windows of a sequence of ``length`` places.

    A record's numbers are ``channels`` series of ``length``, one after the other, as a ``cnn`` reads them. Each place
    is embedded in ``width`` numbers, by a linear map of its readings and of which place it is. Each of ``layers`` adds
    attention in ``heads`` heads, then a perceptron of ``hidden`` units; both read their input normalised, without
    parameters (Xiong et al. 2020). The normalised end is averaged over the places and weighed into one logit.
    """

    family: Literal["transformer"]
    channels: Annotated[int, Field(ge=1, le=16)] = 1
    length: Annotated[int, Field(ge=2, le=128)]
    width: Annotated[int, Field(ge=2, le=64)]
    heads: Annotated[int, Field(ge=1, le=8)] = 1
    layers: Annotated[int, Field(ge=1, le=2)] = 1
    hidden: Annotated[int, Field(ge=1, le=256)]
    activation: Literal["tanh", "relu"] = "relu"

    @model_validator(mode="after")
    def _divides(self) -> "TransformerModel":
        if self.width % self.heads:
            raise ValueError("model.width must be a multiple of model.heads")
        return self

    @property
    def inputs(self) -> int:
        """How many numbers a record has."""
        return self.channels * self.length


Model = LogisticModel | MlpModel | CnnModel | TransformerModel
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
    elif isinstance(model, TransformerModel):
        before, hidden = model.width, model.hidden
        result |= {"embed.weight": (before, model.channels + model.length), "embed.bias": (before,)}
        for block in (f"layer{number}" for number in range(1, model.layers + 1)):
            result |= {f"{block}.{part}.weight": (before, before) for part in ("query", "key", "value", "attended")}
            result |= {f"{block}.hidden.weight": (hidden, before), f"{block}.hidden.bias": (hidden,)}
            result |= {f"{block}.back.weight": (before, hidden), f"{block}.back.bias": (before,)}
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
    if isinstance(model, TransformerModel):
        return model.length * max(model.heads * model.length, model.hidden, model.width)
    return max(model.hidden) if isinstance(model, MlpModel) else 1
