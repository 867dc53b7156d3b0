"""Exact arithmetic on vectors of lattice integers: weighted sums, division with ties to even, squared distances.

All results are exact. Sums run in 64 bits where no sum can overflow (the usual case, and fast), in Python's integers
otherwise; which of both is taken changes no bit.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.rules.fixedpoint import Integers

INT64_SAFE: Final = 1 << 62
_FLOAT_SAFE: Final = float(1 << 60)
_BLOCK: Final = 1 << 15
"""Elements summed at a time: 256 KiB, which a core's own cache holds."""


def magnitude(values: Integers) -> int:
    """The largest magnitude as a Python integer (exact also for -2^63)."""
    return max(abs(int(values.min(initial=0))), abs(int(values.max(initial=0))))


def divide_half_even(numerators: NDArray[Any], denominator: int) -> NDArray[Any]:
    """Integer division, ties to even, elementwise; ``denominator`` positive."""
    quotient = numerators // denominator
    twice = 2 * (numerators - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient & 1 == 1))
    rounded: NDArray[Any] = quotient + up.astype(numerators.dtype)
    return rounded


def weighted_mean(vectors: Iterable[Integers], weights: Iterable[int], denominator: int) -> Integers:
    """``sum_i w_i v_i / denominator``, rounded once, ties to even.

    Block by block over all vectors, so that each is read from memory once, and what the work needs beyond the vectors
    and the result does not grow with their number.

    Args:
        vectors: int64 [P] each, at least one (the rows of a matrix, too).
        weights: as many integers, not negative.
        denominator: positive.

    Returns:
        int64 [P]; the caller knows that it fits (a mean of lattice vectors does).
    """
    summands = list(zip(vectors, weights, strict=True))
    heaviest = max(denominator, sum(weight for _, weight in summands))
    mean = np.empty(summands[0][0].shape, dtype=np.int64)
    for start in range(0, mean.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        total = _weighted_sum([(vector[block], weight) for vector, weight in summands], heaviest)
        mean[block] = divide_half_even(total, denominator)
    return mean


def _weighted_sum(summands: Sequence[tuple[Integers, int]], heaviest: int) -> NDArray[Any]:
    """``sum_i w_i v_i``: int64 where neither it nor twice ``heaviest`` can overflow, Python's integers otherwise."""
    total = np.zeros(summands[0][0].shape, dtype=np.int64)
    bound = 0
    for vector, weight in summands:
        bound += weight * magnitude(vector)
        if 2 * max(heaviest, bound) >= INT64_SAFE:
            wide = np.zeros(total.shape, dtype=object)
            for each, factor in summands:
                wide += each.astype(object) * factor
            return wide
        total += vector * weight
    return total


def dot(one: Integers, two: Integers) -> int:
    """The inner product of two vectors, exact."""
    # A product of rounded magnitudes is within a few parts in 2^50 of the exact one: far from the limit it decides.
    bound = float(np.abs(one.astype(np.float64)) @ np.abs(two.astype(np.float64)))
    if bound < _FLOAT_SAFE:
        return int((one * two).sum())
    return int((one.astype(object) * two.astype(object)).sum()) if one.size else 0


def inner_products(vectors: Integers, vector: Integers) -> list[int]:
    """The inner product of each row with a vector, exact: int64 [n, P] and [P] -> n integers."""
    if magnitude(vectors) * magnitude(vector) * vector.size < INT64_SAFE:
        products: list[int] = (vectors @ vector).tolist()
        return products
    return [dot(each, vector) for each in vectors]


def squared_length(vector: Integers) -> int:
    """``||v||^2``, exact."""
    largest = magnitude(vector)
    if largest * largest * min(vector.size, _BLOCK) < INT64_SAFE:  # block by block: no second vector in memory
        blocks = (vector[start : start + _BLOCK] for start in range(0, vector.size, _BLOCK))
        return sum(int((block * block).sum()) for block in blocks)
    if largest * largest < INT64_SAFE:  # each square fits; their upper and lower halves add up apart
        squares = vector * vector
        return (int((squares >> 32).sum()) << 32) + int((squares & 0xFFFFFFFF).sum())
    wide = vector.astype(object)
    return int((wide * wide).sum())


def squared_distances(vectors: Integers) -> list[list[int]]:
    """``||v_i - v_j||^2`` for every pair, exact; differences of lattice integers fit in 64 bits.

    Args:
        vectors: int64 [n, P], each element strictly between -2^62 and 2^62.

    Returns:
        n lists of n integers.
    """
    count = len(vectors)
    if 4 * magnitude(vectors) ** 2 * vectors.shape[1] < INT64_SAFE:
        products = vectors @ vectors.T
        squares = np.diagonal(products)
        result: list[list[int]] = (squares[:, None] + squares[None, :] - 2 * products).tolist()
        return result
    result = [[0] * count for _ in range(count)]
    for one in range(count):
        for two in range(one):
            apart = vectors[one] - vectors[two]
            result[one][two] = result[two][one] = dot(apart, apart)
    return result
