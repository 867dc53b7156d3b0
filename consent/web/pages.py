"""Pages from templates, in the reader's language. Escaping is always on; nothing marks text as safe."""

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from consent.language import day, instant, negotiate, number, translations
from consent.registry import LICENCE_REF
from consent.rules.message import msg
from consent.web.assets import asset_path, imports_of
from consent.web.guardians import Appointment
from consent.web.security import nonce_of
from consent.web.sessions import Role
from consent.web.state import LANGUAGE_COOKIE, signed_in, web_of

OWNER: Final = msg("the owner of the whole source")
# Each language's name in itself: a reader who is lost finds the own one.
LANGUAGES: Final = {"en": "English", "fr": "Français", "pt": "Português"}


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template for whoever asks."""
    language = language_of(request)
    who = signed_in(request)
    context = {
        "asset": asset_path,
        "imports": imports_of,
        "here": request.url.path,
        "institution": web_of(request).settings.name,
        "language": language,
        "languages": LANGUAGES,
        "nonce": nonce_of(request),
        "now": web_of(request).clock(),
        "ward": ward_of(request),
        "who": who,
    }
    text = environment(language).get_template(template).render(context | values)
    response = HTMLResponse(text, status_code=status)
    response.headers["Content-Language"] = language
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def ward_of(request: Request) -> Appointment | None:
    """The guardian's appointment, where a guardian is reading for somebody; None for everybody else."""
    who = signed_in(request)
    return None if who is None or who.role is not Role.PERSON else web_of(request).guardians.of(who.ref)


def language_of(request: Request) -> str:
    """The reader's language: the one they chose here, else their browser's first that we have, else English."""
    return negotiate(request.headers.get("accept-language"), request.cookies.get(LANGUAGE_COOKIE))


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
    made.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]  # the extension adds it
    made.filters["day"] = lambda value: day(value, language)
    made.filters["instant"] = lambda value: instant(value, language)
    made.filters["called"] = lambda ref: translations(language).gettext(OWNER) if ref == LICENCE_REF else ref
    made.filters["number"] = lambda value: number(value, language)
    return made
