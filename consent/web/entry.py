"""The pages for everybody: the first page, opening an invitation, language, logging out, what protects the reader."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from consent.web.assets import serve_asset
from consent.web.pages import LANGUAGES, render
from consent.web.sessions import Opened, Role
from consent.web.state import forget, remember, remember_language, session_token, web_of

router = APIRouter(include_in_schema=False)
_STATUS: Final = {Opened.UNKNOWN: 404, Opened.USED: 410, Opened.EXPIRED: 410}
_CODE_CHARACTERS_MAX: Final = 120


@router.get("/")
def home(request: Request) -> Response:
    """What this is, for a stranger."""
    registry = web_of(request).registry
    return render(request, "home.html", did=registry.institution.did, origin=registry.origin)


@router.get("/about")
def about(request: Request) -> Response:
    """How the page protects its reader."""
    return render(request, "about.html")


@router.get("/invitation")
def invitation(request: Request) -> Response:
    """Where an invitation's link leads: reading it uses nothing up."""
    return render(request, "invitation.html", problem=None)


@router.post("/invitation")
def open_invitation(request: Request, code: Annotated[str, Form(max_length=_CODE_CHARACTERS_MAX)] = "") -> Response:
    """Use an invitation up: a session begins."""
    web = web_of(request)
    web.guardians.settle(web.sessions.invited(code), web.sessions)
    opened = web.sessions.open_invitation(code)
    if isinstance(opened, Opened):
        return render(request, "invitation.html", status=_STATUS[opened], problem=opened.value)
    web.sessions.end(session_token(request))
    token, who = opened
    response = RedirectResponse(_first_page(request, who.role, who.request), status_code=303)
    remember(response, token, who, web.clock())
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session here; the key stays in the browser."""
    web_of(request).sessions.end(session_token(request))
    response = RedirectResponse("/", status_code=303)
    forget(response)
    return response


@router.post("/language")
def choose_language(
    language: Annotated[str, Form(max_length=2)] = "en",
    back: Annotated[str, Form(max_length=300)] = "/",
) -> Response:
    """Remember the reader's language and go back."""
    response = RedirectResponse(local_path(back), status_code=303)
    if language in LANGUAGES:
        remember_language(response, language)
    return response


@router.get("/healthz")
def health(request: Request) -> Response:
    """For whoever watches the service: 200 while the database answers."""
    web_of(request).registry.head("")
    return PlainTextResponse("ok\n")


@router.get("/robots.txt")
def robots() -> Response:
    """Nothing here is for search engines."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


@router.get("/static/{fingerprint}/{name:path}")
def static(request: Request, fingerprint: str, name: str) -> Response:
    """Styles, scripts and pictures."""
    return serve_asset(fingerprint, name, compressed="gzip" in request.headers.get("accept-encoding", ""))


def local_path(text: str) -> str:
    """A path on this site, or the first page: nobody is sent elsewhere from here."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if safe else "/"


def _first_page(request: Request, role: Role, asked: str | None) -> str:
    if role is Role.OFFICER:
        return "/officer"
    notice = web_of(request).store.open_request(asked)
    return "/mine" if notice is None else f"/request/{notice.request}"
