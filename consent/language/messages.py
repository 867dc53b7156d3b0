"""Finds every message that a reader can see: in the Python source of ``consent`` and in the pages' templates."""

from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir

# What marks a message: msg("...") in the rules, _("...") and ngettext("...", "...", n) in pages.
KEYWORDS: Final = {"msg": None, "_": None, "gettext": None, "ngettext": (1, 2)}
METHODS: Final = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
CONSENT: Final = Path(__file__).parents[1]


def extract() -> Catalog:
    """Every message of the source, with the files that it stands in."""
    catalog = Catalog(domain="accord")
    found = extract_from_dir(
        CONSENT, METHODS, keywords=KEYWORDS, comment_tags=("translators:",), strip_comment_tags=True
    )
    for filename, _line, message, comments, context in sorted(found, key=lambda item: (item[0], item[1])):
        catalog.add(message, None, [(f"consent/{filename}", 1)], auto_comments=comments, context=context)
    return catalog
