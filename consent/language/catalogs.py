"""The message catalogs: English in the source, French and Portuguese as gettext files beside this module.

The committed ``.po`` files are all there is: they are compiled in memory, once a process, so that no build step can be
forgotten and no compiled file can be stale. ``scripts/update_catalogs.py`` writes new messages into them.
"""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations

LANGUAGES: Final = ("en", "fr", "pt")
SOURCE_LANGUAGE: Final = "en"
# Which country's dates and numbers a language is written with.
TERRITORIES: Final = {"en": "en_GB", "fr": "fr_FR", "pt": "pt_PT"}
_HEADER_CHARACTERS_MAX: Final = 1000
_LOCALE: Final = Path(__file__).with_name("locale")


def catalog_file(language: str) -> Path:
    """Where a language's catalog is (English has none: it is the source)."""
    return _LOCALE / language / "LC_MESSAGES" / "accord.po"


@cache
def translations(language: str) -> Translations:
    """The texts of one of :data:`LANGUAGES`, with ``gettext`` and ``ngettext``.

    Raises:
        ValueError: the language is not one of them (a mistake of the caller; see :func:`negotiate`).
    """
    if language not in LANGUAGES:
        raise ValueError(f"{language!r} is none of {', '.join(LANGUAGES)}")
    if language == SOURCE_LANGUAGE:
        return Translations()
    with catalog_file(language).open("rb") as file:
        catalog = read_po(file, locale=language)
    compiled = BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return Translations(compiled)


def negotiate(accept_language: str | None, cookie: str | None = None) -> str:
    """The best of :data:`LANGUAGES` for a reader.

    Args:
        accept_language: the header (RFC 9110, section 12.5.4), or None.
        cookie: the reader's own choice, which wins if it is one of ours.
    """
    if cookie in LANGUAGES:
        return str(cookie)
    best, best_quality = SOURCE_LANGUAGE, 0.0
    for part in (accept_language or "")[:_HEADER_CHARACTERS_MAX].split(","):
        tag, _, parameters = part.strip().partition(";")
        language = tag.strip().lower().split("-")[0]
        quality = _quality(parameters)
        if language in LANGUAGES and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if not parameters.strip():
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
