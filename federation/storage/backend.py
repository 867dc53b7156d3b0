"""What a kind of database gives to :mod:`federation.storage.database`, and what all kinds share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine

from federation.errors import AccordError, OperatorError

SCHEMA_VERSION: Final = 1
"""The version of all tables together, in every kind of database."""
BUSY_TIMEOUT_MS: Final = 30_000
"""How long a transaction waits for another one's lock."""
WRITING: Final = "accord_writing"
"""The execution option that tells a transaction's beginning whether it writes."""
POOL_SIZE: Final = 8
POOL_OVERFLOW_MAX: Final = 24


@dataclass(frozen=True, slots=True)
class Backend:
    """One opened database.

    Attributes:
        name: how errors name it (never with a password).
        errors: what its driver raises.
        translate: the driver's error as one of ours; None where it is no failure of the database (a broken constraint).
        check: raises OperatorError where the database is damaged or does not keep its promises.
        claim: inside a transaction that writes: makes an empty database Accord's; raises OperatorError where it is
            another program's, or of another version.
        scrub: see :func:`federation.storage.database.scrub`.
    """

    name: str
    errors: tuple[type[Exception], ...]
    translate: Callable[[Any], AccordError | None]
    check: Callable[[Connection], None]
    claim: Callable[[Connection], None]
    scrub: Callable[[Engine], None]


def other_version(name: str, version: int) -> OperatorError:
    """The error for a database that another version of Accord wrote."""
    return OperatorError(
        f"The database {name} has version {version}, this Accord reads version {SCHEMA_VERSION}.",
        remedy="Use the version of Accord that wrote it, or one that can migrate it.",
    )


def other_program(name: str) -> OperatorError:
    """The error for a database that holds something else."""
    return OperatorError(
        f"{name} is a database of another program.",
        remedy="Give Accord a database of its own.",
    )
