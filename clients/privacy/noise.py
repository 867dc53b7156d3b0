"""Where the randomness of privacy comes from: the operating system's secure generator, and nothing that has a seed.

A noise source is given as an argument to what needs one. The node passes :class:`SecureNoise`. :class:`NoNoise` exists
for tests within one process; no command, setting or variable leads to it.
"""

import os
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import count as counting
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from federation.rules.fixedpoint import Integers

Bools: TypeAlias = NDArray[np.bool_]
Words: TypeAlias = NDArray[np.uint64]

STD_MAX: Final = 1 << 54
"""The largest standard deviation: sums with a noise of this size stay far within 64 bits."""

_WORD_BITS: Final = 64
_LIMITS: Final = np.array(
    [int(Decimal(-power).exp() * (1 << _WORD_BITS)) for power in range(44, 0, -1)], dtype=np.uint64
)
"""exp(-44) to exp(-1), as 64 bits, rounded down (28 digits are enough for that)."""

_CANDIDATES: Final = 2.6
"""How many candidates are drawn for each number that is wanted: a little more than one in 2.4 is accepted."""


class NoiseSource(Protocol):
    """Independent draws, each used once."""

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        """Discrete Gaussian noise with mean 0 and parameter ``std``: int64 [count]."""
        ...

    def coins(self, count: int, rate: Fraction) -> Bools:
        """True with probability ``rate``, each on its own: bool [count], for the Poisson sampler."""
        ...


class SecureNoise:
    """Noise from ``os.urandom``: it has no state, cannot be seeded and is not shared with any library.

    Both draws are exact, not approximations in floating point, whose gaps betray what noise was added to (Mironov
    2012). The discrete Gaussian is rejection from a discrete Laplace (Canonne, Kamath and Steinke, "The discrete
    Gaussian for differential privacy", 2020, algorithms 1 to 3), many at a time: a comparison of a 64-bit uniform with
    a probability is made in floating point where its error cannot matter, and with as many digits as it takes in the
    one case in 2^38 where it might.
    """

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
        """Integers x with probability in proportion to exp(-x^2 / (2 std^2)): int64 [count].

        Raises:
            ValueError: ``std`` is not positive or above :data:`STD_MAX` (a mistake of the caller).
        """
        if not 0 < std <= STD_MAX:
            raise ValueError(f"a standard deviation cannot be {std}")
        found: list[Integers] = []
        missing = count
        while missing > 0:
            found.append(self._accepted(int(missing * _CANDIDATES) + 16, std)[:missing])
            missing -= len(found[-1])
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def coins(self, count: int, rate: Fraction) -> Bools:
        """True with probability ``rate``: bool [count].

        The rate is taken as a multiple of 2^-64, rounded down: nobody is drawn more often than is accounted for.
        """
        if rate >= 1:
            return np.ones(count, dtype=np.bool_)
        drawn: Bools = _words(count) < np.uint64(int(rate * (1 << _WORD_BITS)))
        return drawn

    def _accepted(self, candidates: int, std: Fraction) -> Integers:
        """As many discrete Gaussians as come of so many candidates: each is a discrete Laplace that is kept or not."""
        magnitude, negative, scale = self._laplace(candidates, std)
        variance = std * std
        peak = variance / scale
        gamma = np.square(magnitude - float(peak), dtype=np.float64) / (2 * float(variance))

        def exact(place: int) -> Fraction:
            return (int(magnitude[place]) - peak) ** 2 / (2 * variance)

        kept = self._below_exponential(gamma, exact)
        return np.where(negative, -magnitude, magnitude)[kept]

    def _laplace(self, candidates: int, std: Fraction) -> tuple[Integers, Bools, int]:
        """Magnitudes and signs of discrete Laplace draws, and their scale: the power of two next to ``std``.

        The magnitude is u + scale * v: u uniform below the scale and kept with probability exp(-u / scale), v the
        number of successes before the first failure of coins with probability 1/e. One of the two zeros is refused.
        """
        bits = max(0, round(float(np.log2(float(std)))))
        scale = 1 << bits
        words = _words(candidates)
        low = (words & np.uint64(scale - 1)).astype(np.int64)
        kept = self._below_exponential(low.astype(np.float64) / scale, lambda place: Fraction(int(low[place]), scale))
        low, negative = low[kept], (words[kept] >> np.uint64(_WORD_BITS - 1)).astype(np.bool_)
        magnitude = low + (_successes(len(low)) << bits)
        one_zero = ~(negative & (magnitude == 0))
        return magnitude[one_zero], negative[one_zero], scale

    @staticmethod
    def _below_exponential(gamma: NDArray[np.float64], exact: Callable[[int], Fraction]) -> Bools:
        """True with probability exp(-gamma), each on its own.

        Args:
            gamma: float64 [n], at least 0, with an error below (1 + gamma) * 2^-42.
            exact: the exact gamma of a place.
        """
        words = _words(len(gamma))
        uniform, limit = words.astype(np.float64), np.exp(-gamma) * 2.0**_WORD_BITS
        result: Bools = uniform < limit
        for place in np.flatnonzero(np.abs(uniform - limit) <= limit * (1 + gamma) * 2.0**-40 + 2):
            result[place] = below_exponential(int(words[place]), exact(int(place)))
        return result


class NoNoise:
    """No noise, and every subject is drawn: it makes tests within one process repeatable, and protects nobody."""

    def discrete_gaussian(self, count: int, std: Fraction) -> Integers:  # noqa: ARG002 -- the port's signature
        """Zeros."""
        return np.zeros(count, dtype=np.int64)

    def coins(self, count: int, rate: Fraction) -> Bools:  # noqa: ARG002 -- as above
        """Everybody."""
        return np.ones(count, dtype=np.bool_)


def below_exponential(word: int, gamma: Fraction, more: Callable[[], int] | None = None) -> bool:
    """Whether a uniform of [0, 1) is below exp(-gamma), decided with as many digits as it takes.

    Args:
        word: the uniform's first 64 bits.
        gamma: at least 0.
        more: gives the uniform's next 64 bits; by default from the system's generator.
    """
    more = more or (lambda: int(_words(1)[0]))
    bits = _WORD_BITS
    while True:
        with localcontext() as context:
            context.prec = bits  # decimal digits: more than three times what these bits can tell
            power = (-Decimal(gamma.numerator) / Decimal(gamma.denominator)).exp()
            slack = Fraction(power) * (gamma + 1) / 10 ** (bits - 8)
        if Fraction(word + 1, 1 << bits) <= Fraction(power) - slack:
            return True
        if Fraction(word, 1 << bits) >= Fraction(power) + slack:
            return False
        word = (word << _WORD_BITS) | more()
        bits += _WORD_BITS


def successes(word: int, more: Callable[[], int] | None = None) -> int:
    """How many coins of probability 1/e fall before the first that does not: the j with u < exp(-j), of one uniform u.

    Args:
        word: the uniform's first 64 bits.
        more: gives the uniform's next 64 bits, each time; by default from the system's generator.
    """
    more = more or (lambda: int(_words(1)[0]))
    further: list[int] = []  # the uniform is one number: every comparison sees the same digits

    def digits() -> Iterator[int]:
        for place in counting():
            if place == len(further):
                further.append(more())
            yield further[place]

    result = 0
    while below_exponential(word, Fraction(result + 1), digits().__next__):
        result += 1
    return result


def _successes(number: int) -> Integers:
    """:func:`successes` of fresh uniforms, many at a time: int64 [number]."""
    words = _words(number)
    above = np.searchsorted(_LIMITS, words, side="right")
    result: Integers = (len(_LIMITS) - above).astype(np.int64)
    for place in np.flatnonzero((_LIMITS[np.maximum(above, 1) - 1] == words) | (words < _LIMITS[0])):
        result[place] = successes(int(words[place]))
    return result


def _words(count: int) -> Words:
    """Uniform 64-bit integers: uint64 [count]."""
    words: NDArray[Any] = np.frombuffer(os.urandom(8 * count), dtype="<u8")
    return words.astype(np.uint64)
