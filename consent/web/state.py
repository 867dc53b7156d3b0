"""What every page of one institution works with, and who is asking."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from consent.registry import Registry
from consent.web.guardians import Guardians
from consent.web.security import Limits
from consent.web.sessions import Role, Sessions, SignedIn
from consent.web.store import Store

# "__Host-": the browser takes it only over a secure connection, for this host alone, for every path.
SESSION_COOKIE: Final = "__Host-accord"
LANGUAGE_COOKIE: Final = "__Host-accord-language"
_YEAR_S: Final = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How one institution's pages present themselves.

    ``origin`` is the public origin when a reverse proxy stands before the pages; None takes what a request says.
    ``lifetime_epsilon`` is what the institution lets all studies together reveal about one person.
    """

    name: str
    origin: str | None = None
    limits: Limits = field(default_factory=Limits)
    lifetime_epsilon: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Web:
    """The parts that the pages share; ``request.app.state.web`` holds it."""

    registry: Registry
    store: Store
    sessions: Sessions
    settings: WebSettings
    clock: Callable[[], datetime]
    guardians: Guardians


class NotSignedInError(Exception):
    """The page is for somebody who is signed in: as ``role``."""

    def __init__(self, role: Role) -> None:
        super().__init__(role.value)
        self.role = role


def web_of(request: Request) -> Web:
    """The parts, from any request."""
    web: Web = request.app.state.web
    return web


def session_token(request: Request) -> str | None:
    """The session's token in the request's cookie."""
    return request.cookies.get(SESSION_COOKIE)


def signed_in(request: Request) -> SignedIn | None:
    """Who is asking; None for a stranger."""
    if "signed_in" not in request.scope["state"]:
        request.scope["state"]["signed_in"] = web_of(request).sessions.who(session_token(request))
    who: SignedIn | None = request.scope["state"]["signed_in"]
    return who


def person(request: Request) -> SignedIn:
    """The person who is asking (a dependency of pages that are a person's own).

    Raises:
        NotSignedInError: nobody is signed in, or an officer is, or it was a guardian whose time is over.
    """
    web, who = web_of(request), _as(request, Role.PERSON)
    if web.guardians.settle(who.ref, web.sessions):
        raise NotSignedInError(Role.PERSON)
    return who


def officer(request: Request) -> SignedIn:
    """The officer who is asking (a dependency of the officer's pages).

    Raises:
        NotSignedInError: nobody is signed in, or a person is.
    """
    return _as(request, Role.OFFICER)


def remember(response: Response, token: str, who: SignedIn, now: datetime) -> None:
    """Set the session's cookie."""
    set_cookie(response, SESSION_COOKIE, token, lasts_s=max(1, int((who.expires_at - now).total_seconds())))


def forget(response: Response) -> None:
    """Remove the session's cookie."""
    set_cookie(response, SESSION_COOKIE, "", lasts_s=0)


def remember_language(response: Response, language: str) -> None:
    """Set the language's cookie."""
    set_cookie(response, LANGUAGE_COOKIE, language, lasts_s=_YEAR_S)


def set_cookie(response: Response, name: str, value: str, *, lasts_s: int) -> None:
    """A cookie that no script reads and no other site can send."""
    response.set_cookie(name, value, max_age=lasts_s, path="/", secure=True, httponly=True, samesite="strict")


def _as(request: Request, role: Role) -> SignedIn:
    who = signed_in(request)
    if who is None or who.role is not role:
        raise NotSignedInError(role)
    return who


def public_origin(request: Request) -> str:
    """The origin under which people reach these pages, for links and QR codes."""
    configured = web_of(request).settings.origin
    return configured or f"{request.url.scheme}://{request.url.netloc}"
