"""An institution's consent registry, and the tables that its database needs."""

from consent.registry.registry import Inclusion, Registry, open_registry
from consent.registry.tables import LICENCE_REF, LOG_NAME, TABLES

__all__ = ["LICENCE_REF", "LOG_NAME", "TABLES", "Inclusion", "Registry", "open_registry"]
