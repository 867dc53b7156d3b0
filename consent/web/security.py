"""What stands before every page: a strict content policy, origin checks, bounded bodies, rate limits.

Rules kept: no page runs a script that does not carry its fresh nonce, and none may turn text into script (Trusted
Types, no policy at all); nothing is loaded from, sent to or framed by anybody else; a request that changes something
comes from this site or is refused; a body is counted while it arrives; a client that asks too much is told to wait.
Nothing here knows who is signed in.
"""

import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES_MAX: Final = 64 * 1024
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CLIENTS_MAX: Final = 10_000
_NONCE_BYTES: Final = 16
_HSTS: Final = "max-age=63072000; includeSubDomains"
_PERMISSIONS: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer", "autoplay", "browsing-topics", "camera", "display-capture", "encrypted-media", "fullscreen",
        "geolocation", "gyroscope", "hid", "identity-credentials-get", "idle-detection", "magnetometer", "microphone",
        "midi", "otp-credentials", "payment", "screen-wake-lock", "serial", "usb", "xr-spatial-tracking",
    )
)  # fmt: skip
HEADERS: Final = {
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Permissions-Policy": _PERMISSIONS + ", publickey-credentials-create=(self), publickey-credentials-get=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
    "X-Robots-Tag": "noindex, nofollow",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in a row, and then so many a second."""

    burst: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates for one client and for all together; ``opening``: attempts to open an invitation or to sign in."""

    reading: Rate = Rate(600, 60)
    changing: Rate = Rate(60, 2)
    opening: Rate = Rate(20, 0.2)
    everybody: Rate = Rate(4000, 800)
    body_bytes_max: int = BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request went no further. ``code``: cross-site, too-large, too-many, broken."""

    status: int
    code: str
    retry_after_s: int = 0


class Buckets:
    """Token buckets by name, in memory; the ones that were not used for longest are forgotten first.

    Args:
        clock_s: a clock that only runs forward, in seconds.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._full: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, kind: str, client: str, rate: Rate) -> int:
        """Take one; 0 if there was one, else the whole seconds until there will be."""
        now = self._clock_s()
        with self._lock:
            left, at = self._full.pop((kind, client), (float(rate.burst), now))
            left = min(float(rate.burst), left + (now - at) * rate.per_second)
            wait_s = 0 if left >= 1 else max(1, math.ceil((1 - left) / rate.per_second))
            self._full[kind, client] = (left - 1 if wait_s == 0 else left, now)
            while len(self._full) > _CLIENTS_MAX:
                self._full.popitem(last=False)
        return wait_s


class Guard:
    """The outermost layer of the application.

    Args:
        app: what is guarded.
        limits: rates and sizes.
        refuse: makes the answer to a request that goes no further.
        origin: the public origin (``https://consent.example.org``) behind a reverse proxy; None: as the request says.
        buckets: the counters; a fresh set if None.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        refuse: Callable[[Request, Refusal], Response],
        origin: str | None = None,
        buckets: Buckets | None = None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._refuse = refuse
        self._origin = origin
        self._buckets = buckets or Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        scope.setdefault("state", {})["nonce"] = nonce
        guarded = _with_headers(send, nonce=nonce, https=(self._origin or "").startswith("https://"))
        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is not None:
            await self._refuse(request, refusal)(scope, receive, guarded)
            return
        await self._bounded(scope, request, receive, guarded)

    def _refusal(self, request: Request) -> Refusal | None:
        client = request.client.host if request.client else "unknown"
        path, changing = request.url.path, request.method not in SAFE_METHODS
        wait_s = self._buckets.take("everybody", "", self._limits.everybody)
        if not wait_s:
            wait_s = self._buckets.take("reading", client, self._limits.reading)
        if not wait_s and changing:
            wait_s = self._buckets.take("changing", client, self._limits.changing)
        if not wait_s and changing and path in OPENING_PATHS:
            wait_s = self._buckets.take("opening", client, self._limits.opening)
        if wait_s:
            return Refusal(429, "too-many", wait_s)
        if changing and not same_site(request.headers, origin=self._origin):
            return Refusal(403, "cross-site")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > self._limits.body_bytes_max:
            return Refusal(413, "too-large")
        return None

    async def _bounded(self, scope: Scope, request: Request, receive: Receive, send: Send) -> None:
        """Count the body while it arrives, whatever its length was said to be."""
        arrived = 0
        started = False

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if arrived > self._limits.body_bytes_max:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLargeError:
            if started:
                raise
            await self._refuse(request, Refusal(413, "too-large"))(scope, receive, send)
        except Exception:
            # A defect: whoever asked gets a page like any other, and the server's log gets the error.
            if not started:
                await self._refuse(request, Refusal(500, "broken"))(scope, receive, send)
            raise


class _TooLargeError(Exception):
    """A body went beyond its bound while it arrived."""


# Where guessing would pay: an invitation's code, a challenge's answer.
OPENING_PATHS: Final = frozenset({"/invitation", "/api/challenge", "/api/return"})


def same_site(headers: Headers, *, origin: str | None) -> bool:
    """Whether a request that changes something comes from one of this site's own pages.

    Browsers say so in ``Sec-Fetch-Site``, and in ``Origin`` (which reads "null" for forms of pages without a referrer).
    What says neither is not one of our pages, and is refused.
    """
    sent = headers.get("origin")
    known = sent is not None and sent != "null"
    if known:
        expected = urlsplit(origin).netloc if origin else headers.get("host", "")
        if urlsplit(sent or "").netloc.lower() != expected.lower() or (origin and sent != origin):
            return False
    site = headers.get("sec-fetch-site")
    return known if site is None else site == "same-origin"


def content_policy(nonce: str) -> str:
    """The page's Content-Security-Policy: nothing but our own files, and scripts only with this page's nonce."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _with_headers(send: Send, *, nonce: str, https: bool) -> Callable[[Message], Awaitable[None]]:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if headers.get("content-type", "").startswith("text/html"):
                headers["Content-Security-Policy"] = content_policy(nonce)
            else:
                headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'; sandbox"
            headers.setdefault("Cache-Control", "no-store")
            if https:
                headers["Strict-Transport-Security"] = _HSTS
        await send(message)

    return with_headers


def nonce_of(request: Request) -> str:
    """The nonce of the page that answers this request."""
    state: dict[str, Any] = request.scope.get("state", {})
    return str(state["nonce"])
