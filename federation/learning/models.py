"""Models from a plan, in numpy: how many parameters, what they are called, what they compute.

A model is one flat vector. ``logistic``: one weight per encoded feature in the order of ``feature_names``, then the
bias.
Torch is not needed to evaluate or verify such a model; the node's training builds the same one in torch.
"""

import numpy as np

from federation.errors import PeerError
from federation.rules.canonical import tagged_hash
from federation.rules.encoding import feature_names
from federation.rules.fixedpoint import Floats, Integers
from federation.rules.study import StudyPlan


def parameter_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape, in the order of the flat vector (each flattened in C order)."""
    return {"weight": (len(feature_names(plan.schema_contract)),), "bias": (1,)}


def parameter_count(plan: StudyPlan) -> int:
    """P, the length of the flat vector."""
    return len(feature_names(plan.schema_contract)) + 1


def parameter_names(plan: StudyPlan) -> tuple[str, ...]:
    """A name for each number in the flat vector: the features', then ``bias``."""
    return (*feature_names(plan.schema_contract), "bias")


def initial_model(plan: StudyPlan, seed: int) -> Integers:
    """The first model: small numbers that everybody can recompute from the plan and the seed.

    Each parameter is uniform on the lattice integers of [-2^-10, 2^-10), taken from a hash, so that no version of any
    generator matters. Its utility is that of tossing a coin, about -ln 2.

    Returns:
        int64 [P].
    """
    names = parameter_names(plan)
    spread = 1 << 14
    material = seed.to_bytes(32, "big", signed=True)
    draws = [tagged_hash("initial-model", material, index.to_bytes(8, "big")) for index in range(len(names))]
    return np.array([int.from_bytes(draw[:8], "big") % (2 * spread) - spread for draw in draws], dtype=np.int64)


def batched_logits(models: Floats, x: Floats) -> Floats:
    """The logits of many linear models on many records, each by the same operations in the same order.

    A matrix product may add in another order when its shape changes. Features are added one after the other here, so a
    model's logit is the same to the last bit whether it is evaluated alone or among 2^14: tables of coalition
    utilities then telescope exactly from round to round.

    Args:
        models: float64 [C, P]; weights, then the bias.
        x: float64 [n, F]; F = P - 1.

    Returns:
        float64 [C, n].

    Raises:
        PeerError: the number of parameters does not fit the number of features.
    """
    if models.ndim != 2 or x.ndim != 2 or models.shape[1] != x.shape[1] + 1:  # noqa: PLR2004 - two axes each
        raise PeerError(
            f"Models of shape {models.shape} do not fit records of shape {x.shape}.",
            remedy="The model and the validation set must belong to the same study plan.",
        )
    columns = np.ascontiguousarray(x.T)
    result = np.repeat(models[:, -1:], x.shape[0], axis=1)
    for feature, column in enumerate(columns):
        result += models[:, feature, None] * column
    return result


def logits(params: Floats, x: Floats) -> Floats:
    """The logit of each record: float64 [P] and [..., F] -> [...].

    Raises:
        PeerError: the number of parameters does not fit the number of features.
    """
    flat = batched_logits(params[None, :], x.reshape(-1, x.shape[-1]))[0]
    result: Floats = flat.reshape(x.shape[:-1])
    return result
