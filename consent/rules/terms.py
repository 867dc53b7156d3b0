"""Who speaks for data, what a record does, and what a grant allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Mechanism(StrEnum):
    """Who speaks for the data, and under which law or contract.

    ``consent``, ``hipaa-authorization`` and ``ehds-optout`` are one subject's; ``dpa``, ``licence`` and ``ehds-permit``
    are for a whole source. In an ``ehds-optout`` chain a refusal is the opt-out (Regulation (EU) 2025/327, Article 71)
    and a withdrawal takes it back; nothing in it ever grants.
    """

    CONSENT = "consent"
    DPA = "dpa"
    LICENCE = "licence"
    HIPAA_AUTHORIZATION = "hipaa-authorization"
    EHDS_PERMIT = "ehds-permit"
    EHDS_OPTOUT = "ehds-optout"

    @property
    def whole_source(self) -> bool:
        """Whether one chain speaks for every subject of a source."""
        return self in {Mechanism.DPA, Mechanism.LICENCE, Mechanism.EHDS_PERMIT}


class Action(StrEnum):
    """What a record does."""

    GRANT = "grant"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant allows.

    ``purposes``: GA4GH DUO codes, permissions and modifiers together; ``conditions``: what a modifier is about, by its
    code (institutions, users, projects, countries, research types, dates); ``diseases``: MONDO codes; ``epsilon_max``
    and ``delta_max``: privacy loss per study at most; ``code_hash``: the only training code that may run (SHA-256,
    hexadecimal), None for any that the institution approved; ``rounds_max``: rounds of one study at most.
    """

    purposes: tuple[str, ...]
    epsilon_max: Decimal
    delta_max: Decimal
    valid_until: datetime
    diseases: tuple[str, ...] = ()
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    code_hash: str | None = None
    rounds_max: int | None = None
