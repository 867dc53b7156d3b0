"""Where the randomness of privacy comes from: the operating system's secure generator, and nothing that has a seed.

A noise source is given as an argument to what needs one. The node passes :class:`SecureNoise`. :class:`NoNoise` exists
for tests within one process; no command, setting or variable leads to it.
"""

import os
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_PARTS: Final = 4
_MANTISSA_BITS: Final = 53


class NoiseSource(Protocol):
    """Independent draws, each used once."""

    def normal(self, shape: tuple[int, ...], std: float) -> Floats:
        """Gaussian noise with mean 0: float64 of ``shape``."""
        ...

    def uniform(self, count: int) -> Floats:
        """Numbers in [0, 1): float64 [count], for the Poisson sampler."""
        ...


class SecureNoise:
    """Noise from ``os.urandom``: it has no state, cannot be seeded and is not shared with any library.

    A Gaussian is the Box-Muller transform of two 53-bit uniforms. Each value that is returned is the sum of four of
    them, halved, with the same distribution (Holohan and Braghin, "Secure random sampling in differential privacy",
    2021, section 5.1; what Opacus calls its secure mode): with a single transform the floating-point result of known
    uniforms can be searched (Mironov 2012), with four the search has 2^159 steps. The release then rounds to the
    lattice 2^-24, far coarser than float64.
    """

    def normal(self, shape: tuple[int, ...], std: float) -> Floats:
        """Gaussian noise with mean 0: float64 of ``shape``.

        Raises:
            ValueError: ``std`` is negative or not finite (a mistake of the caller).
        """
        if not np.isfinite(std) or std < 0:
            raise ValueError(f"a standard deviation cannot be {std}")
        count = int(np.prod(shape, dtype=np.int64))
        radius = np.sqrt(
            -2.0 * np.log1p(-self.uniform(_PARTS * count))
        )  # 1 - u lies in (0, 1]: the logarithm is finite
        angle = (2.0 * np.pi) * self.uniform(_PARTS * count)
        parts = (radius * np.cos(angle)).reshape(_PARTS, count)
        noise: Floats = (parts.sum(axis=0) * (std / np.sqrt(_PARTS))).reshape(shape)
        return noise

    def uniform(self, count: int) -> Floats:
        """Multiples of 2^-53 in [0, 1), each equally likely: float64 [count]."""
        words: NDArray[Any] = np.frombuffer(os.urandom(8 * count), dtype="<u8")
        return (words >> np.uint64(64 - _MANTISSA_BITS)).astype(np.float64) * 2.0**-_MANTISSA_BITS


class NoNoise:
    """No noise, and every subject is drawn: it makes tests within one process repeatable, and protects nobody."""

    def normal(self, shape: tuple[int, ...], std: float) -> Floats:  # noqa: ARG002 -- the port's signature
        """Zeros of ``shape``."""
        return np.zeros(shape, dtype=np.float64)

    def uniform(self, count: int) -> Floats:
        """Zeros, below every sampling rate."""
        return np.zeros(count, dtype=np.float64)
