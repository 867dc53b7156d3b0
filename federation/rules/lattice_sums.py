"""Exact arithmetic on vectors of lattice integers: weighted sums, division with ties to even, squared distances.

All results are exact. Sums run in 64 bits where no sum can overflow (the usual case, and fast), in Python's integers
otherwise; which of both is taken changes no bit.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.rules.fixedpoint import Integers

INT64_SAFE: Final = 1 << 62
_FLOAT_SAFE: Final = float(1 << 60)


def magnitude(values: Integers) -> int:
    """The largest magnitude as a Python integer (exact also for -2^63)."""
    return max(abs(int(values.min(initial=0))), abs(int(values.max(initial=0))))


def divide_half_even(numerators: NDArray[Any], denominator: int) -> NDArray[Any]:
    """Integer division, ties to even, elementwise; ``denominator`` positive."""
    quotient = numerators // denominator
    twice = 2 * (numerators - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient % 2 == 1))
    rounded: NDArray[Any] = quotient + up.astype(numerators.dtype)
    return rounded


def weighted_mean(vectors: Integers, weights: Sequence[int], denominator: int) -> Integers:
    """``sum_i w_i v_i / denominator``, rounded once, ties to even.

    Args:
        vectors: int64 [n, P].
        weights: n integers, not negative.
        denominator: positive.

    Returns:
        int64 [P]; the caller knows that it fits (a mean of lattice vectors does).
    """
    fits = 2 * max(denominator, magnitude(vectors) * sum(weights)) < INT64_SAFE
    kind: Any = np.int64 if fits else object
    total = np.array(weights, dtype=kind) @ vectors.astype(kind)
    mean: Integers = divide_half_even(total, denominator).astype(np.int64)
    return mean


def dot(one: Integers, two: Integers) -> int:
    """The inner product of two vectors, exact."""
    # A product of rounded magnitudes is within a few parts in 2^50 of the exact one: far from the limit it decides.
    bound = float(np.abs(one.astype(np.float64)) @ np.abs(two.astype(np.float64)))
    if bound < _FLOAT_SAFE:
        return int((one * two).sum())
    return int((one.astype(object) * two.astype(object)).sum()) if one.size else 0


def squared_distances(vectors: Integers) -> list[list[int]]:
    """``||v_i - v_j||^2`` for every pair, exact; differences of lattice integers fit in 64 bits.

    Args:
        vectors: int64 [n, P], each element strictly between -2^62 and 2^62.

    Returns:
        n lists of n integers.
    """
    count = len(vectors)
    result = [[0] * count for _ in range(count)]
    for one in range(count):
        for two in range(one):
            apart = vectors[one] - vectors[two]
            result[one][two] = result[two][one] = dot(apart, apart)
    return result
