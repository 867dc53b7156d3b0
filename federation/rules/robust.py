"""Where a set of updates lies when some of them may be hostile: by position, by direction, by a trusted anchor.

Each rule gives one lattice vector for a set of lattice vectors, the same one on any machine and in any order of
arrival: vectors are put in order of their content first, distances are exact integers, and every division rounds once,
ties to even. The geometric median and the trust scores need square roots: they take integer roots of integers with 30
bits and more to spare. No float takes part.

``aligned-trimmed-mean`` is a composition of ours: positions do not tell a small step backwards, hidden inside the
spread of honest updates (Xie, Koyejo and Gupta 2020, UAI, "inner product manipulation"), from an honest one, but
directions do. Its steps are concentration steps as of least trimmed squares (Rousseeuw and Van Driessen 1999).

Every vector counts as one voice: weights are the business of ``aggregation``. How many may be hostile is a share of
those present, so that it means the same for a coalition as for all.

Sources: trimmed mean: Yin, Chen, Kannan and Bartlett (2018), ICML, definition 2. Multi-Krum: Blanchard, El Mhamdi,
Guerraoui and Stainer (2017), NeurIPS, section 4. Geometric median: Pillutla, Kakade and Harchaoui (2022), IEEE TSP 70,
algorithm 2 (smoothed Weiszfeld). NNM: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan (2023), AISTATS,
algorithm 2. Trust: Cao, Fang, Liu and Gong (2021), NDSS, FLTrust, algorithm 2.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import PeerError
from federation.rules.fixedpoint import Integers
from federation.rules.lattice_sums import (
    INT64_SAFE,
    divide_half_even,
    dot,
    inner_products,
    magnitude,
    squared_distances,
    weighted_mean,
)

COEFFICIENT_BITS: Final = 30
_UNIT: Final = 1 << COEFFICIENT_BITS
_MEDIAN_STEPS: Final = 64
_ALIGNING_STEPS: Final = 7


class Gathered:
    """Updates of one round, ready to be located for every coalition.

    Args:
        vectors: int64 [n, P], lattice integers, in any order; row ``i`` is what ``members`` calls ``i``.
        tolerated: the share of those present that may be hostile, at least 0 and below 1/2.
    """

    def __init__(self, vectors: Integers, tolerated: Decimal | Fraction) -> None:
        content = sorted(range(len(vectors)), key=lambda row: vectors[row].astype("<i8").tobytes())
        self._place = {row: place for place, row in enumerate(content)}
        self._vectors = vectors[content] if content else vectors
        self._tolerated = Fraction(tolerated)
        self._apart: list[list[int]] | None = None

    def chosen(self, members: Sequence[int]) -> list[int]:
        """The members' places in the order of content."""
        return sorted(self._place[member] for member in members)

    def faulty(self, present: int) -> int:
        """How many of ``present`` updates may be hostile."""
        return int(self._tolerated * present)

    @property
    def apart(self) -> list[list[int]]:
        """Squared distances, by place."""
        if self._apart is None:
            self._apart = squared_distances(self._vectors)
        return self._apart

    def trimmed_mean(self, members: Sequence[int]) -> Integers:
        """In each coordinate the mean without the f smallest and the f largest.

        Args:
            members: rows, at least one.

        Returns:
            int64 [P].
        """
        chosen = self._vectors[self.chosen(members)]
        return _trimmed(chosen, self.faulty(len(chosen)), 1)

    def multi_krum(self, members: Sequence[int]) -> Integers:
        """The mean of the n - f vectors whose n - f - 2 nearest others are nearest (ties: the first by content).

        Args:
            members: rows, at least one.

        Returns:
            int64 [P].
        """
        places = self.chosen(members)
        kept = len(places) - self.faulty(len(places))
        near = max(1, kept - 2)
        scores = {
            place: sum(sorted(self.apart[place][other] for other in places if other != place)[:near])
            for place in places
        }
        best = sorted(sorted(places, key=lambda place: (scores[place], place))[:kept])
        return weighted_mean(self._vectors[best], [1] * kept, kept)

    def mixed_trimmed_mean(self, members: Sequence[int]) -> Integers:
        """NNM: each vector becomes the mean of the n - f nearest (itself among them); then the trimmed mean.

        Args:
            members: rows, at least one.

        Returns:
            int64 [P].
        """
        places = self.chosen(members)
        faulty = self.faulty(len(places))
        kept = len(places) - faulty
        mixing = np.zeros((len(places), len(places)), dtype=np.int64)
        for row, place in enumerate(places):
            nearest = sorted(range(len(places)), key=lambda at: (self.apart[place][places[at]], at))[:kept]
            mixing[row, nearest] = 1
        chosen = self._vectors[places]
        kind: Any = np.int64 if magnitude(chosen) * len(places) ** 2 * 2 < INT64_SAFE else object
        return _trimmed(mixing.astype(kind) @ chosen.astype(kind), faulty, kept)

    def aligned_trimmed_mean(self, members: Sequence[int]) -> Integers:
        """The trimmed mean, at equal length, of the n - f that point most nearly where their own mean does.

        Each vector is scaled to the median length (of an even number the lower; zero stays zero). From the place of
        NNM and the trimmed mean on, the n - f whose inner products with the place are largest (ties: the first by
        content) make the next place, their mean, until the same are kept or :data:`_ALIGNING_STEPS` are done. What is
        left is trimmed by f more on either side, or as much as leaves something.

        Args:
            members: rows, at least one.

        Returns:
            int64 [P].
        """
        places = self.chosen(members)
        faulty = self.faulty(len(places))
        kept = len(places) - faulty
        equal = _of_median_length(self._vectors[places])
        place = Gathered(equal, self._tolerated).mixed_trimmed_mean(range(len(places)))
        chosen: list[int] = []
        for _ in range(_ALIGNING_STEPS):
            before, along = chosen, [-product for product in inner_products(equal, place)]
            chosen = sorted(at for _, at in sorted(zip(along, range(len(places)), strict=True))[:kept])
            if chosen == before:
                break
            place = weighted_mean(equal[chosen], [1] * kept, kept)
        return _trimmed(equal[chosen], min(faulty, (kept - 1) // 2), 1)

    def geometric_median(self, members: Sequence[int]) -> Integers:
        """The point whose distances to all vectors add up to the least; tolerates nearly half, whatever ``tolerated``.

        To within a quarter of a percent of that sum, as 64 steps leave it.

        Args:
            members: rows, at least one.

        Returns:
            int64 [P].
        """
        places = self.chosen(members)
        coefficients = median_coefficients([[self.apart[one][two] for two in places] for one in places])
        return weighted_mean(self._vectors[places], coefficients, sum(coefficients))


Location = Callable[[Gathered, Sequence[int]], Integers]

LOCATIONS: Final[Mapping[str, Location]] = {
    "trimmed-mean": Gathered.trimmed_mean,
    "multi-krum": Gathered.multi_krum,
    "geometric-median": Gathered.geometric_median,
    "nnm-trimmed-mean": Gathered.mixed_trimmed_mean,
    "aligned-trimmed-mean": Gathered.aligned_trimmed_mean,
}
"""The rules that a plan can name beside the weighted mean. None of them is linear."""


def median_coefficients(apart: Sequence[Sequence[int]]) -> list[int]:
    """The weights, in multiples of 2^-30, with which the geometric median is a mean of its points.

    The iterate of Weiszfeld's algorithm is always a mean ``z = sum_j s_j x_j / S``, and its squared distance from
    ``x_i`` times ``2 S^2`` is ``2 S sum_j s_j D_ij - sum_jk s_j s_k D_jk``: the points themselves are not needed, only
    their distances, and all of it stays in integers. A distance below one lattice step counts as one step.

    Args:
        apart: squared distances, n rows of n.

    Returns:
        n integers, not negative; their sum is 2^30 to within n.
    """
    count = len(apart)
    shares = [_UNIT // count] * count
    for _ in range(_MEDIAN_STEPS):
        total = sum(shares)
        towards = [sum(map(operator.mul, shares, row)) for row in apart]
        spread = sum(map(operator.mul, shares, towards))
        # sqrt(2) S times the distance.
        far = [max(total, math.isqrt(2 * total * each - spread)) for each in towards]
        numerator = max(far) << (2 * COEFFICIENT_BITS)
        pulls = [numerator // each for each in far]
        whole = sum(pulls)
        before, shares = shares, [(2 * pull * _UNIT + whole) // (2 * whole) for pull in pulls]
        if shares == before:
            break
    return shares


def trust_anchored(vectors: Integers, anchor: Integers) -> Integers:
    """FLTrust: each update scaled to the anchor's length and weighted by its cosine with the anchor, where positive.

    The anchor is the update that the sponsor computed on a small set of its own. Whatever points away from it, or
    across it (a cosine below 2^-30), counts for nothing; how many are hostile does not matter as long as the anchor is
    sound.

    Args:
        vectors: int64 [n, P], lattice integers; any order.
        anchor: int64 [P].

    Returns:
        int64 [P]; zero where the anchor is zero or nothing points its way.

    Raises:
        PeerError: the anchor has another length.
    """
    if anchor.ndim != 1 or vectors.ndim != 2 or vectors.shape[1] != anchor.size:  # noqa: PLR2004 - a matrix has two axes
        raise PeerError(
            f"An anchor of {anchor.size} numbers does not fit updates of shape {vectors.shape}.",
            remedy="Anchor and updates must belong to the same study plan.",
        )
    length = dot(anchor, anchor)
    scaled: list[NDArray[Any]] = []
    trusts: list[int] = []
    for vector in vectors:
        along, own = dot(vector, anchor), dot(vector, vector)
        if along > 0:  # then neither is zero
            trusts.append(math.isqrt(along * along * _UNIT * _UNIT // (own * length)))
            scaled.append(_scaled(vector, math.isqrt(length * _UNIT * _UNIT // own)))
    if not sum(trusts):
        return np.zeros_like(anchor)
    return weighted_mean(np.stack(scaled), trusts, sum(trusts))


def _of_median_length(vectors: Integers) -> Integers:
    """Each vector scaled to the median length: [n, P] integers -> int64 [n, P], each element rounded once."""
    squares = [dot(vector, vector) for vector in vectors]
    middle = min(sorted(squares)[(len(squares) - 1) // 2], INT64_SAFE**2)
    scaled = np.zeros_like(vectors)
    for at, own in enumerate(squares):
        if own:
            scaled[at] = _scaled(vectors[at], math.isqrt(middle * _UNIT * _UNIT // own))
    return scaled


def _scaled(vector: Integers, scale: int) -> Integers:
    """``vector`` times ``scale / 2^30``, ties to even."""
    kind: Any = np.int64 if 2 * magnitude(vector) * scale < INT64_SAFE else object
    result: Integers = divide_half_even(vector.astype(kind) * scale, _UNIT).astype(np.int64)
    return result


def _trimmed(vectors: NDArray[Any], faulty: int, divisor: int) -> Integers:
    """The mean of each column's middle, over ``divisor``: [n, P] integers -> int64 [P], rounded once."""
    middle = len(vectors) - 2 * faulty
    ordered = np.sort(vectors, axis=0)[faulty : faulty + middle]
    kind: Any = np.int64 if vectors.dtype != object and magnitude(ordered) * middle * 2 < INT64_SAFE else object
    mean: Integers = divide_half_even(ordered.astype(kind).sum(axis=0), middle * divisor).astype(np.int64)
    return mean
