"""Keeping the institution's consent log while the node runs: batches at fixed times, and their cosignatures.

A grant binds once enough named witnesses have cosigned the batch that holds it, so a round that finds grants waiting
gives them a moment (:meth:`ConsentLogKeeping.await_grants`), and then goes on with what is bound. Withdrawals are in
force from their receipt and wait for none of this.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from consent.cosigning import Cosigning
from consent.cosigning.requester import Ask
from consent.registry import Registry
from consent.rules.decision import Status, Use

_AGAIN_S: Final = 2.0
"""Between two attempts, while a witness is missing."""
_LOOK_S: Final = 30.0
"""Another process (the consent pages) may have appended a batch meanwhile."""
_POLL_S: Final = 0.5


class ConsentLogKeeping:
    """One institution's consent log, kept by its node.

    Args:
        registry: the consents.
        ask: how a witness is reached.
        every_s: seconds between two batches, on the clock; 0 appends one at every tick (simulation).
        clock: the time.
    """

    def __init__(self, registry: Registry, ask: Ask, *, every_s: float, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._cosigning = Cosigning(registry, ask)
        self._every_s = every_s
        self._clock = clock
        self._complete = False
        self._asked_at = float("-inf")

    @property
    def problems(self) -> Mapping[str, str]:
        """Witness (did) -> why it has not cosigned."""
        return dict(self._cosigning.problems)

    def begin(self) -> None:
        """See that there is a first batch: every update shows a checkpoint of this log."""
        if self._registry.checkpoint().checkpoint.size == 0:
            self._registry.append_batch(self._clock())

    def tick(self, *, reachable: bool) -> None:
        """Append the batch that is due, and ask for the cosignatures that are missing, if witnesses can be reached."""
        now = self._clock()
        if self._every_s == 0:
            appended = self._registry.append_batch(now) >= 0
        else:
            appended = self._registry.append_due(now, every_s=self._every_s) is not None
        self._complete = self._complete and not appended
        since_s = time.monotonic() - self._asked_at
        if reachable and (appended or since_s >= (_LOOK_S if self._complete else _AGAIN_S)):
            self._gather()

    def await_grants(self, use: Use, limit_s: float) -> None:
        """Give grants that wait for witnesses at most ``limit_s`` seconds to bind; at once where none waits.

        All of them wait where the witnesses' newest word is too old, as after a long stop of this node.
        """
        if not self._registry.witnesses()[1]:
            return
        end = time.monotonic() + limit_s
        while self._any_waits(use) and time.monotonic() < end:
            self._gather()
            if not self._any_waits(use):
                return
            time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))

    def _any_waits(self, use: Use) -> bool:
        health = self._registry.health()
        if health.stale:
            return True
        if not health.pending and health.cosigned_size >= health.log_size:
            return False  # everything that was received is bound: nobody need be asked about
        return self._registry.coverage(use)[Status.PENDING] > 0

    def _gather(self) -> None:
        self._complete = self._cosigning.gather()
        self._asked_at = time.monotonic()
