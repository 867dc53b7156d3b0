"""A clock that tests turn, and registries on it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from consent_people import HOSPITAL, NOW, use
from sqlalchemy import Engine

from consent.registry import Registry
from consent.rules.decision import Status
from federation.storage.log import MerkleLog

SIZE = 8


class Clock:
    """The time, as a test says it is."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def again(engine: Engine, clock: Callable[[], datetime], log: MerkleLog, **options: Any) -> Registry:
    """The registry as another process, or the next one, opens it."""
    return Registry(engine, HOSPITAL, consent_log=log, clock=clock, batch_size=SIZE, **options)


def status(registry: Registry, ref: str = "anna", now: datetime = NOW, **changes: Any) -> Status:
    """What one person's decision is in one word."""
    return registry.decide_all(use(**changes), now, [ref])[ref].status
