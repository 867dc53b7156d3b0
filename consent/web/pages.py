"""Pages from templates, in the reader's language. Escaping is always on; nothing marks text as safe."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from gettext import NullTranslations
from typing import Any, Final

from babel.dates import format_date, format_datetime
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from consent import language as catalogs
from consent.web.assets import asset_path
from consent.web.security import nonce_of
from consent.web.state import LANGUAGE_COOKIE, signed_in, web_of

# Each language's name in itself: a reader who is lost finds the own one.
LANGUAGES: Final = {"en": "English", "fr": "Français", "pt": "Português"}
LANGUAGE_DEFAULT: Final = "en"
_ACCEPT_CHARACTERS_MAX: Final = 200


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template for whoever asks."""
    language = language_of(request)
    who = signed_in(request)
    context = {
        "asset": asset_path,
        "here": request.url.path,
        "institution": web_of(request).settings.name,
        "language": language,
        "languages": LANGUAGES,
        "nonce": nonce_of(request),
        "now": web_of(request).clock(),
        "who": who,
    }
    text = environment(language).get_template(template).render(context | values)
    response = HTMLResponse(text, status_code=status)
    response.headers["Content-Language"] = language
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def language_of(request: Request) -> str:
    """The reader's language: the one they chose here, else their browser's first that we have, else English."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        return chosen
    return preferred(request.headers.get("accept-language", ""))


def preferred(accepted: str) -> str:
    """The best of our languages for an ``Accept-Language`` header (RFC 9110, section 12.5.4)."""
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:_ACCEPT_CHARACTERS_MAX].split(",")):
        tag, _, parameters = part.strip().partition(";")
        try:
            quality = float(parameters.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        name = tag.partition("-")[0].lower()
        if name in LANGUAGES and quality > 0:
            wanted.append((-quality, place, name))
    return min(wanted)[2] if wanted else LANGUAGE_DEFAULT


@cache
def environment(language: str) -> Environment:
    """The templates of one language."""
    made = Environment(
        loader=PackageLoader("consent.web", "templates"),
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["ext.i18n.trimmed"] = True
    made.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]  # the extension adds it
    made.filters["day"] = lambda value: day(value, language)
    made.filters["instant"] = lambda value: instant(value, language)
    made.filters["number"] = lambda value: number(value, language)
    return made


def translations(language: str) -> NullTranslations:
    """The catalog of a language; for code that makes texts outside of templates."""
    known = getattr(catalogs, "translations", None)
    found: NullTranslations = NullTranslations() if known is None else known(language)
    return found


def day(value: datetime, language: str) -> str:
    """A day as people of this language write it."""
    return str(format_date(value, "long", locale=language))


def instant(value: datetime, language: str) -> str:
    """A day and a time as people of this language write them, in UTC."""
    return str(format_datetime(value, "long", tzinfo=UTC, locale=language))


def number(value: int | Decimal, language: str) -> str:
    """A number as people of this language write it."""
    return str(format_decimal(value, locale=language, decimal_quantization=False))
