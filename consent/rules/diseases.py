"""The disease hierarchy that "research on a named disease" is matched with: a reviewed cut of MONDO, as data.

Each disease stands under the broader ones a patient would expect it under; a consent for a broader disease covers a
study of a narrower one, never the other way round. A disease that is not in the table matches only itself.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NAMES: Final[Mapping[str, str]] = MappingProxyType({"MONDO:0005267": "heart disorder"})

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
