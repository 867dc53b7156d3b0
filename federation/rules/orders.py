"""Where orders of arrival come from when values are sampled: chance, or a hash that everybody can compute again."""

from collections.abc import Sequence
from typing import Protocol

from federation.rules.canonical import tagged_hash


class Orders(Protocol):
    """Where orders of arrival come from; a ``numpy.random.Generator`` is one."""

    def permutation(self, x: int, /) -> Sequence[int]:
        """The numbers 0 .. x - 1 in a random order."""
        ...


class HashedOrders:
    """Orders that everybody can draw again: from SHA-256 over a seed (a log's root, say) and a counter.

    Args:
        seed: any bytes that were settled before the utilities were known.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0
        self._words: list[int] = []

    def permutation(self, x: int, /) -> Sequence[int]:
        """The numbers 0 .. x - 1 in the next order (Fisher and Yates; the bias of the remainder is below 2^-56)."""
        order = list(range(x))
        for last in range(x - 1, 0, -1):
            other = self._word() % (last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def _word(self) -> int:
        """The next 64 bits."""
        if not self._words:
            drawn = tagged_hash("sampled-order", self._seed, self._count.to_bytes(8, "big"))
            self._count += 1
            self._words = [int.from_bytes(drawn[at : at + 8], "big") for at in (24, 16, 8, 0)]
        return self._words.pop()
