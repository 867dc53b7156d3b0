"""Who is there: a peer is alive if it was heard from within the last seconds.

A TCP connection to a frozen or unplugged machine stays open for minutes, so a connection alone proves nothing. The side
that dialled sends a heartbeat every second; both sides note what they hear.
"""

import threading
from typing import Final

from federation.rules.keys import PublicKey

HEARTBEAT: Final = "/accord/heartbeat/1"
BEAT_S: Final = 1.0
BEAT_S_MAX: Final = 3.0
"""How long one heartbeat may take."""
ALIVE_S: Final = 5.0
"""After so long in silence a peer counts as gone."""
SEVER_S: Final = 15.0
"""After so long in silence whoever dialled dials again; longer, as importing torch can stall a process for seconds."""


class Liveness:
    """When each peer was last heard from; ``now`` is in seconds on any one monotonic clock."""

    def __init__(self) -> None:
        self._heard: dict[PublicKey, float] = {}
        self._lock = threading.Lock()

    def heard(self, peer: PublicKey, now: float) -> None:
        """Note that something authentic came from ``peer``."""
        with self._lock:
            self._heard[peer] = max(now, self._heard.get(peer, now))

    def forget(self, peer: PublicKey) -> None:
        """Count ``peer`` as gone."""
        with self._lock:
            self._heard.pop(peer, None)

    def silence_s(self, peer: PublicKey, now: float) -> float:
        """For how long ``peer`` has been silent; infinite if it was never heard."""
        with self._lock:
            heard = self._heard.get(peer)
        return float("inf") if heard is None else now - heard

    def alive(self, now: float) -> frozenset[PublicKey]:
        """The peers that were heard within ``ALIVE_S``."""
        with self._lock:
            return frozenset(peer for peer, heard in self._heard.items() if now - heard <= ALIVE_S)
