"""Institutions cosign each other's consent logs, so that none can show two histories of what its people said."""

from consent.cosigning.requester import Cosigning
from consent.cosigning.tables import COSIGNING_TABLES
from consent.cosigning.witness import ConsentLogWitness

__all__ = ["COSIGNING_TABLES", "ConsentLogWitness", "Cosigning"]
