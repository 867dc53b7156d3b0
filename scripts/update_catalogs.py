"""Write new messages into the catalogs of ``consent/language/locale`` and drop those that are gone.

What is translated stays; what is new stands there empty, and is listed. A test fails until it is translated.
"""

import sys
from datetime import UTC, datetime

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from consent.language.catalogs import LANGUAGES, SOURCE_LANGUAGE, catalog_file
from consent.language.messages import extract


def main() -> int:
    """Update every catalog; 1 if something is not translated."""
    messages, missing = extract(), 0
    for language in LANGUAGES:
        if language == SOURCE_LANGUAGE:
            continue
        path = catalog_file(language)
        if path.exists():
            with path.open("rb") as file:
                catalog = read_po(file, locale=language, domain="accord")
        else:
            catalog = Catalog(locale=language, domain="accord")
        catalog.update(messages, no_fuzzy_matching=True, update_creation_date=False)
        _plain_header(catalog, language)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            write_po(file, catalog, width=120, sort_output=True, include_lineno=False, ignore_obsolete=True)
        fresh.replace(path)
        empty = [message for message in catalog if message.id and not _translated(message.string)]
        missing += len(empty)
        for message in empty:
            print(f"{language}: {message.id!r} is not translated")
    return 1 if missing else 0


def _plain_header(catalog: Catalog, language: str) -> None:
    """A header that says what is needed and never changes by itself."""
    catalog.project, catalog.version, catalog.fuzzy = "Accord", "1", False
    catalog.header_comment = f"# What people read of Accord's consent, in {catalog.locale.english_name} ({language})."
    catalog.creation_date = catalog.revision_date = datetime(2026, 11, 1, tzinfo=UTC)
    catalog.msgid_bugs_address = catalog.last_translator = catalog.language_team = "The Accord maintainers"


def _translated(text: str | tuple[str, ...] | list[str]) -> bool:
    return bool(text) if isinstance(text, str) else bool(text) and all(text)


if __name__ == "__main__":
    sys.exit(main())
