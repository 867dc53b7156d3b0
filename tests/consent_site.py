"""A real consent site for tests: the application on a loopback port, its registry in a temporary folder."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from consent.registry import TABLES, Registry, open_registry
from consent.web.app import make_app
from consent.web.security import Limits, Rate
from consent.web.sessions import Role, Sessions
from consent.web.starter import STARTER, starter_request
from consent.web.state import WebSettings
from consent.web.store import Store
from consent.web.tables import WEB_TABLES
from federation.identity import create_key
from federation.storage.database import open_database

# A test asks faster than any person does.
GENEROUS = Limits(reading=Rate(10**6, 10**6), changing=Rate(10**6, 10**6), opening=Rate(10**6, 10**6))


@dataclass
class TestClock:
    """The machine's clock, moved on at will."""

    __test__ = False
    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Site:
    """One institution's site, running or not."""

    folder: Path
    engine: Engine
    registry: Registry
    store: Store
    sessions: Sessions
    clock: TestClock
    app: FastAPI
    address: str = ""
    invited: list[str] = field(default_factory=list)

    def invitation(self, ref: str, *, lasts: timedelta = timedelta(days=1), request: str | None = STARTER) -> str:
        """A one-time link for a person."""
        code, _ = self.sessions.invite(Role.PERSON, ref, request=request, lasts=lasts)
        return f"{self.address}/invitation#{code}"

    def officer_invitation(self) -> str:
        """A one-time link for the officer."""
        code, _ = self.sessions.invite(Role.OFFICER)
        return f"{self.address}/invitation#{code}"

    def code(self, ref: str = "", role: Role = Role.PERSON, request: str | None = STARTER) -> str:
        """An invitation's code alone."""
        return self.sessions.invite(role, ref, request=request)[0]


def make_site(folder: Path, *, limits: Limits = GENEROUS, name: str = "City Hospital", **settings: object) -> Site:
    """An institution in ``folder`` with the starter request, not yet served."""
    clock = TestClock()
    engine = open_database(folder / "accord.db", *TABLES, *WEB_TABLES)
    registry = open_registry(engine, create_key(folder / "identity.key"), batch_size=16)
    store = Store(engine, clock=clock)
    store.present(name, "privacy@hospital.example", "http://127.0.0.1:8080")
    store.publish(STARTER, starter_request(name, "privacy@hospital.example"))
    sessions = Sessions(engine, clock=clock)
    web = WebSettings(name=name, limits=limits, **settings)  # type: ignore[arg-type]  # what a test passes on
    app = make_app(registry, engine, web, clock=clock, sessions=sessions)
    return Site(folder, engine, registry, store, sessions, clock, app)


@contextlib.contextmanager
def served(site: Site, *, host: str = "localhost") -> Iterator[Site]:
    """Serve a site on a port that the system chooses. ``localhost``: passkeys need a name, not an address."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(site.app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started, "the site did not start"
    site.address = f"http://{host}:{listening.getsockname()[1]}"
    try:
        yield site
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
