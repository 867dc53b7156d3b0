"""What each player's presence was worth: Shapley and Banzhaf values from a complete table of coalition utilities.

A table is a sequence of 2^N integers; the index is a bitmask, bit ``i`` stands for player ``i``, entry 0 is the empty
coalition. Everything is exact: integers in, fractions out, so that every peer computes the same values from the
committed table. Values have the table's unit (utilities: 2^-40 nats).
"""

from collections.abc import Sequence
from fractions import Fraction
from math import factorial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import PeerError

PLAYERS_MAX: Final = 14
_INT64_SAFE: Final = 1 << 62


def shapley(table: Sequence[int]) -> list[Fraction]:
    """The Shapley value of each player.

    ``phi_i = sum over S without i of |S|! (N - |S| - 1)! / N! * (v(S + i) - v(S))``, Shapley (1953), "A value for
    n-person games", Contributions to the Theory of Games II, equation (13) there. The values add up to
    ``v(all) - v(empty)`` exactly.

    Args:
        table: 2^N integers, N from 0 to 14.

    Returns:
        N fractions.

    Raises:
        PeerError: the table's length is not 2^N, or N is above 14.
    """
    count, gains = _gains_by_size(table)
    weights = [factorial(size) * factorial(count - size - 1) for size in range(count)]
    return [
        Fraction(sum(weight * gain for weight, gain in zip(weights, row, strict=True)), factorial(count))
        for row in gains
    ]


def banzhaf(table: Sequence[int]) -> list[Fraction]:
    """The (non-normalised) Banzhaf value of each player: the mean of ``v(S + i) - v(S)`` over all S without i.

    Banzhaf (1965), Rutgers Law Review 19:317; as a value for general games Dubey and Shapley (1979), Mathematics of
    Operations Research 4:99, section 2. The values need not add up to ``v(all) - v(empty)``.

    Args:
        table: 2^N integers, N from 0 to 14.

    Returns:
        N fractions.

    Raises:
        PeerError: as :func:`shapley`.
    """
    count, gains = _gains_by_size(table)
    return [Fraction(sum(row), 1 << (count - 1)) for row in gains]


def named_values(players: Sequence[str], table: Sequence[int]) -> dict[str, Fraction]:
    """Shapley values by player's name; bit ``i`` of the table's index is ``players[i]``.

    Raises:
        PeerError: as :func:`shapley`, or the table is not one of these players.
    """
    if len(table) != 1 << len(players) or len(set(players)) != len(players):
        raise _refused(f"{len(table)} entries are not the coalitions of {len(players)} different players")
    return dict(zip(players, shapley(table), strict=True))


def _gains_by_size(table: Sequence[int]) -> tuple[int, list[list[int]]]:
    """N, and for each player i and size s the exact sum of ``v(S + i) - v(S)`` over all S without i with |S| = s.

    Summing first within a size leaves N^2 big-integer products instead of N 2^(N-1), so N = 14 takes milliseconds.
    """
    length = len(table)
    count = length.bit_length() - 1
    if length != 1 << max(count, 0) or count > PLAYERS_MAX:
        raise _refused(f"it has {length} entries; 2^N are needed, for N up to {PLAYERS_MAX} players")
    largest = max(abs(value) for value in table)
    kind: Any = np.int64 if 2 * largest * length < _INT64_SAFE else object
    values: NDArray[Any] = np.array([int(value) for value in table], dtype=kind)
    masks = np.arange(length)
    sizes = np.array([mask.bit_count() for mask in range(length)])
    gains: list[list[int]] = []
    for player in range(count):
        without = masks[(masks >> player) & 1 == 0]
        gain = values[without | (1 << player)] - values[without]
        gains.append([int(gain[sizes[without] == size].sum()) for size in range(count)])
    return count, gains


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The table of coalition utilities is refused: {why}.",
        remedy="Ask the coordinator for the complete table of this round.",
    )
