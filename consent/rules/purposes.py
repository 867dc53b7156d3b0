"""Which uses a consent covers: GA4GH Data Use Ontology (DUO) permissions, and diseases.

DUO's permissions form a short ladder (EBISPOT/DUO, release 2021-02-23): "no restriction" contains "general research
use", which contains "health, medical or biomedical research", which contains "disease-specific research"; general
research also contains "population origins or ancestry", health research does not. Several permissions in one consent
add up. Every other code (modifiers such as "non-commercial use only" narrow a permission) needs a person to read it,
and what needs a person is answered with no.

The disease table is a small, reviewed cut of MONDO, each disease under the broader ones a patient would expect it
under; a disease that is not in the table matches only itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

NO_RESTRICTION: Final = "DUO:0000004"
GENERAL_RESEARCH: Final = "DUO:0000042"
HEALTH_RESEARCH: Final = "DUO:0000006"
DISEASE_RESEARCH: Final = "DUO:0000007"
ANCESTRY_RESEARCH: Final = "DUO:0000011"

LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        NO_RESTRICTION: "any use, without restriction",
        GENERAL_RESEARCH: "general research",
        HEALTH_RESEARCH: "health, medical or biomedical research",
        DISEASE_RESEARCH: "research on a named disease",
        ANCESTRY_RESEARCH: "research on population origins or ancestry",
    }
)

# Permission -> what it contains, itself included.
_CONTAINS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        NO_RESTRICTION: frozenset(LABELS),
        GENERAL_RESEARCH: frozenset({GENERAL_RESEARCH, HEALTH_RESEARCH, DISEASE_RESEARCH, ANCESTRY_RESEARCH}),
        HEALTH_RESEARCH: frozenset({HEALTH_RESEARCH, DISEASE_RESEARCH}),
        DISEASE_RESEARCH: frozenset({DISEASE_RESEARCH}),
        ANCESTRY_RESEARCH: frozenset({ANCESTRY_RESEARCH}),
    }
)

# Disease -> the broader diseases directly above it.
BROADER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "MONDO:0004995": ("MONDO:0000001",),  # cardiovascular disorder -> disease
        "MONDO:0005267": ("MONDO:0004995",),  # heart disorder -> cardiovascular disorder
        "MONDO:0005010": ("MONDO:0005267",),  # coronary artery disorder -> heart disorder
        "MONDO:0005068": ("MONDO:0005267",),  # myocardial infarction -> heart disorder
        "MONDO:0005252": ("MONDO:0005267",),  # heart failure -> heart disorder
        "MONDO:0004994": ("MONDO:0005267",),  # cardiomyopathy -> heart disorder
        "MONDO:0004981": ("MONDO:0005267",),  # atrial fibrillation -> heart disorder
        "MONDO:0005015": ("MONDO:0000001",),  # diabetes mellitus -> disease
        "MONDO:0005147": ("MONDO:0005015",),  # type 1 diabetes -> diabetes mellitus
        "MONDO:0005148": ("MONDO:0005015",),  # type 2 diabetes -> diabetes mellitus
        "MONDO:0004992": ("MONDO:0000001",),  # cancer -> disease
        "MONDO:0007254": ("MONDO:0004992",),  # breast cancer -> cancer
    }
)


@dataclass(frozen=True, slots=True)
class Consented:
    """What a person allows: DUO permissions; for disease-specific research, which diseases (MONDO)."""

    purposes: tuple[str, ...]
    diseases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a study wants to do: one DUO permission; for disease-specific research, the disease (MONDO)."""

    duo: str
    disease: str | None = None


def covers(consented: Consented, wanted: Wanted) -> bool:
    """Whether the consent surely covers the use. Anything unknown is a no (see :func:`needs_person`)."""
    if needs_person(consented, wanted):
        return False
    return any(_permission_covers(purpose, consented.diseases, wanted) for purpose in consented.purposes)


def needs_person(consented: Consented, wanted: Wanted) -> str | None:
    """Why a machine cannot decide this, or None if it can."""
    unknown = sorted({*consented.purposes, wanted.duo} - set(LABELS))
    if unknown:
        return f"{', '.join(unknown)}: a code that Accord does not decide by itself"
    if wanted.duo == DISEASE_RESEARCH and wanted.disease is None:
        return "the study does not name its disease"
    return None


def ancestors(disease: str) -> frozenset[str]:
    """The disease itself and every broader disease that the table knows."""
    found = {disease}
    waiting = [disease]
    while waiting:
        for broader in BROADER.get(waiting.pop(), ()):
            if broader not in found:
                found.add(broader)
                waiting.append(broader)
    return frozenset(found)


def in_words(duo: str, diseases: tuple[str, ...] = ()) -> str:
    """A permission as a reader would say it."""
    label = LABELS.get(duo, duo)
    return f"{label} ({', '.join(diseases)})" if duo == DISEASE_RESEARCH and diseases else label


def _permission_covers(purpose: str, diseases: tuple[str, ...], wanted: Wanted) -> bool:
    if wanted.duo not in _CONTAINS[purpose]:
        return False
    if purpose != DISEASE_RESEARCH or wanted.disease is None:
        return True
    return not ancestors(wanted.disease).isdisjoint(diseases)
