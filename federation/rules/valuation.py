"""What each player's presence was worth: semivalues from a complete table of coalition utilities.

A table is a sequence of 2^N integers; the index is a bitmask, bit ``i`` stands for player ``i``, entry 0 is the empty
coalition. Everything is exact: integers in, fractions out, so that every peer computes the same values from the
committed table. Values have the table's unit (utilities: 2^-40 nats).

One table serves every method: each is a mean of the gains ``v(S + i) - v(S)``, with weights that depend on the size of
S alone. Only Shapley values always add up to what all achieve together. Values of more players than a table can hold
are in ``sampled_values``.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import comb, factorial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import OperatorError, PeerError
from federation.rules.terms import TABLE_PLAYERS_MAX as PLAYERS_MAX

_INT64_SAFE: Final = 1 << 62

Method = Callable[[Sequence[int]], list[Fraction]]


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


def leave_one_out(table: Sequence[int]) -> list[Fraction]:
    """What would be missing without each player: ``v(all) - v(all without i)``.

    Two players who bring the same are both worth nothing here: each is replaceable by the other.

    Args:
        table: 2^N integers, N from 0 to 14.

    Returns:
        N fractions.

    Raises:
        PeerError: as :func:`shapley`.
    """
    count, gains = _gains_by_size(table)
    return [Fraction(row[count - 1]) for row in gains]


def beta_shapley(
    table: Sequence[int], alpha: Fraction | int = Fraction(1), beta: Fraction | int = Fraction(1)
) -> list[Fraction]:
    """The Beta(alpha, beta) Shapley value of each player; Beta(1, 1) is the Shapley value.

    Kwon and Zou (2022), "Beta Shapley: a unified and noise-reduced data valuation framework for machine learning",
    AISTATS, section 4: a coalition S without i, of s out of N - 1 players, has the weight
    ``B(s + beta, N - 1 - s + alpha) / B(beta, alpha)`` with B the beta function. A large ``alpha`` looks at what a
    player brings to few others, a large ``beta`` at what it brings to many.

    Args:
        table: 2^N integers, N from 0 to 14.
        alpha: positive, exact.
        beta: positive, exact.

    Returns:
        N fractions.

    Raises:
        PeerError: as :func:`shapley`.
        OperatorError: alpha or beta is not positive.
    """
    count, gains = _gains_by_size(table)
    weights = beta_weights(count, alpha, beta)
    return [sum((weight * gain for weight, gain in zip(weights, row, strict=True)), Fraction(0)) for row in gains]


def beta_weights(players: int, alpha: Fraction | int, beta: Fraction | int) -> list[Fraction]:
    """The weight of one coalition of each size 0 .. N - 1 in a Beta(alpha, beta) Shapley value.

    With the rising factorial ``x^(n) = x (x + 1) ... (x + n - 1)`` the ratio of beta functions is the rational number
    ``beta^(s) alpha^(N - 1 - s) / (alpha + beta)^(N - 1)``. Over all coalitions the weights add up to 1.

    Raises:
        OperatorError: alpha or beta is not positive.
    """
    alpha, beta = Fraction(alpha), Fraction(beta)
    if alpha <= 0 or beta <= 0:
        raise OperatorError(f"Beta({alpha}, {beta}) is not a distribution.", remedy="Use an alpha and a beta above 0.")
    whole = _rising(alpha + beta, players - 1)
    return [_rising(beta, size) * _rising(alpha, players - 1 - size) / whole for size in range(players)]


def size_shares(method: str, players: int) -> list[Fraction]:
    """How much of a value by ``method`` rests on gains to coalitions of each size 0 .. N - 1; they add up to 1.

    Args:
        method: a key of :data:`METHODS`.
        players: N, at least 1.

    Raises:
        OperatorError: an unknown method.
    """
    method_named(method)
    if method == "leave-one-out":
        return [Fraction(int(size == players - 1)) for size in range(players)]
    if method == "banzhaf":
        return [Fraction(comb(players - 1, size), 1 << (players - 1)) for size in range(players)]
    alpha, beta = BETAS.get(method, (1, 1))
    return [weight * comb(players - 1, size) for size, weight in enumerate(beta_weights(players, alpha, beta))]


BETAS: Final[Mapping[str, tuple[int, int]]] = {
    "beta-16-1": (16, 1),
    "beta-4-1": (4, 1),
    "beta-1-4": (1, 4),
    "beta-1-16": (1, 16),
}
"""The Beta(alpha, beta) that a plan can name: symmetric pairs, from early to late arrival."""


def _of_betas(alpha: int, beta: int) -> Method:
    return lambda table: beta_shapley(table, alpha, beta)


METHODS: Final[Mapping[str, Method]] = {
    "shapley": shapley,
    "banzhaf": banzhaf,
    "leave-one-out": leave_one_out,
    **{name: _of_betas(*parameters) for name, parameters in BETAS.items()},
}
"""What ``valuation.method`` of a plan can be."""


def method_named(name: str) -> Method:
    """The method that a plan names.

    Raises:
        OperatorError: an unknown name.
    """
    if name not in METHODS:
        raise OperatorError(
            f"There is no method of valuation called {name!r}.", remedy=f"Use one of {', '.join(sorted(METHODS))}."
        )
    return METHODS[name]


def named_values(players: Sequence[str], table: Sequence[int], method: str = "shapley") -> dict[str, Fraction]:
    """Values by player's name; bit ``i`` of the table's index is ``players[i]``.

    Raises:
        PeerError: as :func:`shapley`, or the table is not one of these players.
        OperatorError: an unknown method.
    """
    if len(table) != 1 << len(players) or len(set(players)) != len(players):
        raise _refused(f"{len(table)} entries are not the coalitions of {len(players)} different players")
    return dict(zip(players, method_named(method)(table), strict=True))


def _rising(start: Fraction, steps: int) -> Fraction:
    """``start (start + 1) ... (start + steps - 1)``; 1 without a step."""
    result = Fraction(1)
    for step in range(steps):
        result *= start + step
    return result


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
