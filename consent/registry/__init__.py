"""An institution's consent registry, and the tables that its database needs."""

from consent.registry.consent_log import Inclusion
from consent.registry.health import Health, Withdrawal
from consent.registry.participation import (
    Eligibility,
    ModelVersion,
    Participation,
    PassedOn,
    RoundOf,
    RoundState,
    StudyParticipation,
)
from consent.registry.registry import Registry, open_registry
from consent.registry.tables import LICENCE_REF, LOG_NAME, TABLES

__all__ = [
    "LICENCE_REF",
    "LOG_NAME",
    "TABLES",
    "Eligibility",
    "Health",
    "Inclusion",
    "ModelVersion",
    "Participation",
    "PassedOn",
    "Registry",
    "RoundOf",
    "RoundState",
    "StudyParticipation",
    "Withdrawal",
    "open_registry",
]
