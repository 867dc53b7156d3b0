"""The application: every part put together, and every error turned into a page or a JSON document.

:func:`make_app` takes a registry and the tables beside it; it opens nothing and reads no settings of its own.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from consent.language import translations
from consent.registry import Registry
from consent.web import api, entry, officer, patient
from consent.web.guardians import Guardians
from consent.web.pages import language_of, render
from consent.web.security import Guard, Refusal
from consent.web.sessions import Role, Sessions
from consent.web.state import NotSignedInError, Web, WebSettings
from consent.web.store import Store
from federation.errors import AccordError, ConsentError, OperatorError, PeerError, UnavailableError

_STATUS: Final[dict[type[AccordError], int]] = {
    ConsentError: 409,
    OperatorError: 400,
    PeerError: 400,
    UnavailableError: 404,
}


def make_app(
    registry: Registry,
    engine: Engine,
    settings: WebSettings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    sessions: Sessions | None = None,
) -> FastAPI:
    """The pages of one institution.

    Args:
        registry: its registry.
        engine: the registry's database, opened with ``WEB_TABLES`` too.
        settings: name, origin, limits.
        clock: the machine's clock, aware.
        sessions: who is signed in; None makes the usual one.
    """
    guard = Middleware(Guard, limits=settings.limits, refuse=refuse, origin=settings.origin)
    app = FastAPI(
        title="Accord consent",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        middleware=[guard],
    )
    app.state.web = Web(
        registry=registry,
        store=Store(engine, clock=clock),
        sessions=sessions or Sessions(engine, clock=clock),
        settings=settings,
        clock=clock,
        guardians=Guardians(engine, clock=clock),
    )
    for router in (entry.router, patient.router, api.router, officer.router):
        app.include_router(router)
    app.add_exception_handler(NotSignedInError, _not_signed_in)
    app.add_exception_handler(AccordError, _accord_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def refuse(request: Request, refusal: Refusal) -> Response:
    """The answer to a request that the guard refused."""
    _ = translations(language_of(request)).gettext
    heading, text = {
        "cross-site": (
            _("This request did not come from this page"),
            _("Another website may have tried to act in your name. Nothing was changed."),
        ),
        "too-large": (_("This is too large"), _("Nothing was changed.")),
        "too-many": (_("Please wait a moment"), _("There were too many requests in a short time. Nothing is lost.")),
        "broken": (_("Something went wrong here"), _("This is our fault, not yours. Please tell the institution.")),
    }[refusal.code]
    response = _answer(request, refusal.status, refusal.code, heading, text, "")
    if refusal.retry_after_s:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    return response


def _not_signed_in(request: Request, error: Exception) -> Response:
    if _wants_json(request):
        return _answer(request, 401, "not-signed-in", str(error), "", "")
    if isinstance(error, NotSignedInError) and error.role is Role.OFFICER:
        _ = translations(language_of(request)).gettext
        return _answer(
            request,
            403,
            "not-signed-in",
            _("These pages are for the data protection officer"),
            _("They open with a link that works once. A session ends when nobody clicks for half an hour."),
            _("Whoever runs this page makes a new link with the command: accord consent officer"),
        )
    return RedirectResponse("/return", status_code=303)


def _accord_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AccordError):
        raise error
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    _ = translations(language_of(request)).gettext
    return _answer(request, status, error.code, _("That did not work"), error.message, error.remedy)


def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    _ = translations(language_of(request)).gettext
    if error.status_code == HTTPStatus.NOT_FOUND:
        heading, text = _("There is no such page"), _("The address may have been copied in part.")
    else:
        heading, text = _("That did not work"), _("The page cannot be used in this way.")
    response = _answer(request, error.status_code, "http", heading, text, "")
    response.headers.update(error.headers or {})
    return response


def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    _ = translations(language_of(request)).gettext
    fields = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors()[:8])
    return _answer(request, 422, "invalid", _("Something is missing"), fields, "")


def _answer(request: Request, status: int, code: str, heading: str, text: str, remedy: str) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": {"code": code, "message": text or heading, "remedy": remedy}}, status_code=status)
    return render(request, "message.html", status=status, heading=heading, text=text, remedy=remedy)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/")
