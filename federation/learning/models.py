"""Models from a plan, in numpy: how many parameters, what they are called, what they compute.

A model is one flat vector. ``logistic``: one weight per encoded feature in the order of ``feature_names``, then the
bias. Others: layer by layer, each its weights (a row per unit or filter), then its biases, if it has any.
Torch is not needed to evaluate or verify such a model; the node's training builds the same one in torch
(``federation.learning.torch_models``).
"""

import functools
import math

import numpy as np

from federation.errors import PeerError
from federation.rules.admission import parameter_count
from federation.rules.canonical import tagged_hash
from federation.rules.encoding import feature_names
from federation.rules.families import (
    LOGISTIC,
    NORM_EPSILON,
    STRIDE,
    CnnModel,
    LogisticModel,
    MlpModel,
    Model,
    TransformerModel,
    shapes,
    size,
)
from federation.rules.fixedpoint import SCALE, Floats, Integers
from federation.rules.study import StudyPlan

__all__ = [
    "batched_logits",
    "initial_model",
    "logits",
    "parameter_count",
    "parameter_names",
    "parameter_shapes",
]


def parameter_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape, in the order of the flat vector (each flattened in C order)."""
    return shapes(plan.model, plan.schema_contract.inputs)


def parameter_names(plan: StudyPlan) -> tuple[str, ...]:
    """A name for each number in the flat vector.

    ``logistic``: the features', then ``bias``. Others: ``LAYER.weight[UNIT, INPUT]`` (for a filter also the place in
    its kernel) and ``LAYER.bias[UNIT]``.
    """
    if isinstance(plan.model, LogisticModel):
        return (*feature_names(plan.schema_contract), "bias")
    return tuple(
        f"{name}[{', '.join(str(place) for place in places)}]"
        for name, shape in parameter_shapes(plan).items()
        for places in np.ndindex(*shape)
    )


def initial_model(plan: StudyPlan, seed: int) -> Integers:
    """The first model: small numbers that everybody can recompute from the plan and the seed.

    Each parameter is uniform on the lattice integers of [-s, s), taken from a hash, so that no version of any generator
    matters. ``logistic``: s = 2^-10, and its utility is that of tossing a coin, about -ln 2. Others: s = 1 / sqrt(n)
    for a layer whose units have n inputs, as LeCun et al. 1998 ("Efficient BackProp", section 4.6) scale it: from a
    hidden layer near zero no gradient comes back.

    Returns:
        int64 [P].
    """
    spreads: list[int] = []
    spread = SCALE >> 10
    for name, shape in parameter_shapes(plan).items():
        if not isinstance(plan.model, LogisticModel) and name.endswith(".weight"):  # its biases take the same
            spread = math.isqrt(SCALE * SCALE // math.prod(shape[1:]))  # in integers: the same everywhere
        spreads += [spread] * math.prod(shape)
    material = seed.to_bytes(32, "big", signed=True)
    draws = (tagged_hash("initial-model", material, index.to_bytes(8, "big")) for index in range(len(spreads)))
    return np.array(
        [int.from_bytes(draw[:8], "big") % (2 * spread) - spread for draw, spread in zip(draws, spreads, strict=True)],
        dtype=np.int64,
    )


def batched_logits(models: Floats, x: Floats, model: Model = LOGISTIC) -> Floats:
    """The logits of many models on many records, each by the same operations in the same order.

    A matrix product may add in another order when its shape changes. Inputs are added one after the other here, so a
    model's logit is the same to the last bit whether it is evaluated alone or among 2^14: tables of coalition
    utilities then telescope exactly from round to round.

    Args:
        models: float64 [C, P].
        x: float64 [n, F].
        model: what the parameters belong to; the plan's.

    Returns:
        float64 [C, n].

    Raises:
        PeerError: the number of parameters does not fit the number of features.
    """
    if models.ndim != 2 or x.ndim != 2 or models.shape[1] != size(model, x.shape[1]):  # noqa: PLR2004 - two axes each
        raise PeerError(
            f"Models of shape {models.shape} do not fit records of shape {x.shape}.",
            remedy="The model and the validation set must belong to the same study plan.",
        )
    columns = np.ascontiguousarray(x.T)
    if isinstance(model, LogisticModel):
        return _weighed(models[:, None, :-1], models[:, -1:], columns[None])[:, 0]
    if isinstance(model, CnnModel):
        return _cnn_logits(models, columns, model)
    if isinstance(model, TransformerModel):
        return _transformer_logits(models, columns, model)
    return _mlp_logits(models, columns, model)


def _mlp_logits(models: Floats, columns: Floats, model: MlpModel) -> Floats:
    """float64 [C, P] and [F, n] -> [C, n]."""
    signals, start = columns[None], 0
    for units in model.hidden:
        inputs = signals.shape[1]
        weights = models[:, start : start + units * inputs].reshape(-1, units, inputs)
        start += units * (inputs + 1)
        signals = _activated(_weighed(weights, models[:, start - units : start], signals), model.activation)
    return _weighed(models[:, None, start:-1], models[:, -1:], signals)[:, 0]


def _cnn_logits(models: Floats, columns: Floats, model: CnnModel) -> Floats:
    """float64 [C, P] and [F, n] -> [C, n]: a layer adds up its inputs' channels and its kernels' places one by one."""
    axes, half = len(model.shape), model.kernel // 2
    signals, start = columns.reshape(1, model.channels, *model.shape, -1), 0
    for filters, grid in zip(model.filters, model.grids[1:], strict=True):
        channels = signals.shape[1]
        weights = models[:, start : start + filters * channels * model.kernel**axes]
        weights = weights.reshape(-1, filters, channels, *(model.kernel,) * axes)
        start += weights[0].size + filters
        biases = models[:, start - filters : start].reshape(-1, filters, *(1,) * axes, 1)
        padded = np.pad(signals, [(0, 0), (0, 0), *[(half, half)] * axes, (0, 0)])
        outputs = np.repeat(np.broadcast_to(biases, (len(models), filters, *grid, 1)), columns.shape[1], axis=-1)
        for channel in range(channels):
            for place in np.ndindex(*(model.kernel,) * axes):
                seen = tuple(slice(at, at + STRIDE * side, STRIDE) for at, side in zip(place, grid, strict=True))
                kernel = weights[:, :, channel, *place].reshape(-1, filters, *(1,) * axes, 1)
                outputs += kernel * padded[:, channel, None, *seen]
        signals = _activated(outputs, model.activation)
    flat = signals.reshape(len(signals), -1, columns.shape[1])
    return _weighed(models[:, None, start:-1], models[:, -1:], flat)[:, 0]


def _transformer_logits(models: Floats, columns: Floats, model: TransformerModel) -> Floats:
    """float64 [C, P] and [F, n] -> [C, n]; signals are [C, numbers, T * n], all places of all records side by side."""
    length, count = model.length, columns.shape[1]
    named: dict[str, Floats] = {}
    start = 0
    for name, shape in shapes(model, len(columns)).items():
        named[name] = models[:, start : start + math.prod(shape)].reshape(-1, *shape)
        start += math.prod(shape)
    no_bias = np.zeros((len(models), model.width))
    readings, places = np.split(named["embed.weight"], [model.channels], axis=2)
    signals = _weighed(readings, named["embed.bias"], columns.reshape(1, model.channels, -1))
    signals = (signals.reshape(*signals.shape[:2], length, -1) + places[..., None]).reshape(signals.shape)
    for layer in (f"layer{number}" for number in range(1, model.layers + 1)):
        normal = _normalised(signals)
        query, key, value = (
            _weighed(named[f"{layer}.{part}.weight"], no_bias, normal).reshape(
                len(models), model.heads, -1, length, count
            )
            for part in ("query", "key", "value")
        )
        attended = _attended(query, key, value).reshape(signals.shape)
        signals = signals + _weighed(named[f"{layer}.attended.weight"], no_bias, attended)
        hidden = _weighed(named[f"{layer}.hidden.weight"], named[f"{layer}.hidden.bias"], _normalised(signals))
        hidden = _activated(hidden, model.activation)
        signals = signals + _weighed(named[f"{layer}.back.weight"], named[f"{layer}.back.bias"], hidden)
    ended = _normalised(signals).reshape(len(models), model.width, length, count)
    averages = functools.reduce(np.add, (ended[:, :, place] for place in range(length))) / length
    return _weighed(named["output.weight"], named["output.bias"], averages)[:, 0]


def _normalised(signals: Floats) -> Floats:
    """Mean 0 and variance 1 over a place's numbers (axis 1), which are added one after the other."""
    numbers = range(signals.shape[1])
    centred = signals - (functools.reduce(np.add, (signals[:, at] for at in numbers)) / len(numbers))[:, None]
    variance = functools.reduce(np.add, (centred[:, at] * centred[:, at] for at in numbers)) / len(numbers)
    result: Floats = centred / np.sqrt(variance + NORM_EPSILON)[:, None]
    return result


def _attended(query: Floats, key: Floats, value: Floats) -> Floats:
    """Scaled dot-product attention: float64 [C, heads, e, T, n] each -> [C, heads, e, T, n]."""
    width, length = query.shape[2:4]
    products = (query[:, :, at, :, None] * key[:, :, at, None] for at in range(width))
    scores = functools.reduce(np.add, products) / math.sqrt(width)  # [C, heads, T asking, T asked, n]
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    total = functools.reduce(np.add, (weights[:, :, :, at] for at in range(length)))
    heard = (weights[:, :, None, :, at] * value[:, :, :, None, at] for at in range(length))
    result: Floats = functools.reduce(np.add, heard) / total[:, :, None]
    return result


def _weighed(weights: Floats, biases: Floats, signals: Floats) -> Floats:
    """A layer of units: float64 [C, U, I], [C, U] and [C or 1, I, n] -> [C, U, n], inputs added one after the other."""
    outputs = np.repeat(biases[:, :, None], signals.shape[2], axis=2)
    for place in range(signals.shape[1]):
        outputs += weights[:, :, place, None] * signals[:, None, place, :]
    return outputs


def _activated(outputs: Floats, activation: str) -> Floats:
    return np.tanh(outputs) if activation == "tanh" else np.maximum(outputs, 0.0)


def logits(params: Floats, x: Floats, model: Model = LOGISTIC) -> Floats:
    """The logit of each record: float64 [P] and [..., F] -> [...].

    Raises:
        PeerError: the number of parameters does not fit the number of features.
    """
    flat = batched_logits(params[None, :], x.reshape(-1, x.shape[-1]), model)[0]
    result: Floats = flat.reshape(x.shape[:-1])
    return result
