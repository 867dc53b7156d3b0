"""How often one peer may ask for something: a token bucket for each key."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from federation.errors import UnavailableError
from federation.rules.keys import PublicKey

_PEERS_MAX: Final = 1024


class RateBound:
    """At most ``burst`` requests at once and ``per_s`` a second in the long run, for each key by itself.

    Args:
        per_s: how many requests a second come back.
        burst: how many can be saved up.
        clock: seconds, monotonic.
    """

    def __init__(self, *, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[PublicKey, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, peer: PublicKey) -> None:
        """Count one request of ``peer``.

        Raises:
            UnavailableError: it asks too often.
        """
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(peer, (float(self._burst), now))
            left = min(float(self._burst), left + (now - since) * self._per_s)
            self._buckets[peer] = (max(left - 1, 0.0), now) if left >= 1 else (left, now)
            while len(self._buckets) > _PEERS_MAX:
                self._buckets.popitem(last=False)
        if left < 1:
            raise UnavailableError("This party asks too often.", remedy="Wait a few seconds, then ask again.")
