"""What people read, in their language: catalogs, sentences, dates and numbers (``consent.language.sentence``)."""

from consent.language.catalogs import LANGUAGES, negotiate, translations
from consent.language.reader import Reader, day, instant, number, purposes, sentence

__all__ = [
    "LANGUAGES",
    "Reader",
    "day",
    "instant",
    "negotiate",
    "number",
    "purposes",
    "sentence",
    "translations",
]
