"""The families of models that a plan can ask for, and the shape of each one's parameters.

A plan names a family and its sizes; it never carries code. Sizes are bounded, and the plan refuses a model of more than
:data:`PARAMETERS_MAX` numbers, so that a hostile plan cannot exhaust a node's memory.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from federation.rules.wire import Wire

PARAMETERS_MAX: Final = 1 << 20
"""The longest flat vector: 8 MiB of float64, for each subject that a step draws as well."""


class LogisticModel(Wire):
    """One weight per encoded feature and a bias."""

    family: Literal["logistic"]


class MlpModel(Wire):
    """A multilayer perceptron: hidden layers of these sizes, each followed by ``activation``, then one logit."""

    family: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1, max_length=3)]
    activation: Literal["tanh", "relu"] = "tanh"


ModelSpec = Annotated[LogisticModel | MlpModel, Field(discriminator="family")]

LOGISTIC: Final = LogisticModel(family="logistic")


def shapes(model: LogisticModel | MlpModel, inputs: int) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape, in the order of the flat vector (each flattened in C order).

    Args:
        model: the plan's model.
        inputs: F, the number of encoded features.
    """
    if isinstance(model, LogisticModel):
        return {"weight": (inputs,), "bias": (1,)}
    result: dict[str, tuple[int, ...]] = {}
    before = inputs
    for layer, size in enumerate(model.hidden, start=1):
        result |= {f"hidden{layer}.weight": (size, before), f"hidden{layer}.bias": (size,)}
        before = size
    return result | {"output.weight": (1, before), "output.bias": (1,)}


def size(model: LogisticModel | MlpModel, inputs: int) -> int:
    """P, the length of the flat vector."""
    total = 0
    for shape in shapes(model, inputs).values():
        numbers = 1
        for axis in shape:
            numbers *= axis
        total += numbers
    return total
