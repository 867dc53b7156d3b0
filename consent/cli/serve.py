"""``accord consent serve``, ``invite`` and ``officer``: the consent pages, and the one-time links that lead to them."""

import contextlib
import ipaddress
import os
import signal
import socket
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from sqlalchemy import Engine

from consent.registry import TABLES, Registry, open_registry
from consent.rules.receipt import REF_CHARACTERS_MAX
from federation.cli.output import DirOption, JsonOption, emit, note
from federation.cli.running import is_running
from federation.errors import AccordError, OperatorError, UnavailableError
from federation.identity import create_key, load_key
from federation.settings import PartyFolder, PartySettings, create_settings, load_settings, make_settings
from federation.storage.database import open_database

BATCH_S_DEFAULT: Final = 60.0
_LINK_HOURS: Final = 24
_NOBODY: Final = "-"
_OWN: Final = ("127.0.0.1", "::1")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="postgresql://... instead of the folder's own SQLite file.", show_default=False),
]
OriginOption = Annotated[
    str | None,
    typer.Option("--origin", help="The public address behind a reverse proxy: https://consent.example.org."),
]


AddressOption = Annotated[
    str | None, typer.Option("--address", help="Where the pages are; default: where `serve` served them last.")
]


@dataclass(frozen=True, slots=True)
class Institution:
    """An institution's folder, opened."""

    files: PartyFolder
    settings: PartySettings
    engine: Engine
    registry: Registry


def serve(
    *,
    folder: Annotated[Path, typer.Option("--dir", envvar="ACCORD_DIR", help="The institution's folder.")] = Path(),
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 lets the system choose.")] = 8080,
    database: DatabaseOption = None,
    origin: OriginOption = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--proxy",
            help="With --origin: whose word about clients' addresses counts, an address or a network; "
            "may be repeated. Default: this machine's own.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The institution's name, as people know it.")] = None,
    contact: Annotated[str | None, typer.Option("--contact", help="How to reach its data protection officer.")] = None,
    batch_s: Annotated[
        float, typer.Option("--batch-s", min=1, help="Seconds between two batches of the consent log.")
    ] = BATCH_S_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Serve the consent pages. In an empty folder it first makes an institution: key, settings, database.

    Example: accord consent serve --dir cleveland --port 8080
    """
    from consent.web.sessions import Sessions

    public = None if origin is None else _origin(origin)
    proxies = _proxies(proxy or [], public)
    listening = _listen(host, port)
    with contextlib.closing(listening):
        place = open_institution(folder, database=database, create=True)
        address = public or _address(host, listening.getsockname()[1])
        app = _application(place, address=address, origin=public, name=name, contact=contact)
        link = None if _journalled() else _officer_link(Sessions(place.engine, clock=_now), address)
        shown = (
            "`accord consent officer` prints a link for the data protection officer."
            if link is None
            else f"The data protection officer's link (once, for {_LINK_HOURS} hours):\n  {link}"
        )
        emit(
            {"address": address, "officer_link": link, "dir": str(folder), "did": place.registry.institution.did},
            as_json=as_json,
            text=f"The consent pages are at {address}\n{shown}\n"
            "Invite somebody with `accord consent invite`. Stop with Ctrl-C; nothing is lost.",
        )
        if app.state.web.store.profile().contact == _NOBODY:
            note("People are not told whom to ask: name the data protection officer once with --contact (and --name).")
        if public is None and host not in _LOOPBACK:
            note("Browsers keep people signed in over https only: put a reverse proxy before it, and name --origin.")
        _run(app, listening, place, batch_s=batch_s, proxies=proxies)
    note("The consent pages have stopped; nothing is lost.")


def invite(
    *,
    folder: DirOption,
    subject: Annotated[str, typer.Option("--subject", help="The person's name in the data.", show_default=False)],
    request: Annotated[
        str | None, typer.Option("--request", help="Which request they are asked; default: the newest one.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="For how many days the link opens.")] = 14,
    address: AddressOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a one-time link for one person, also as a QR code.

    Example: accord consent invite --dir cleveland --subject cleveland-0017
    """
    from consent.web.sessions import Role, Sessions
    from consent.web.store import Store

    place = open_institution(folder, database=database)
    if not 1 <= len(subject) <= REF_CHARACTERS_MAX or not subject.isprintable():
        raise OperatorError(f"{subject[:80]!r} cannot be a person's name.", remedy="Use 1 to 200 printable characters.")
    asked = Store(place.engine, clock=_now).open_request(request)
    if asked is None and request is not None:
        raise OperatorError(f"There is no open request {request[:80]!r}.", remedy="The officer's page lists them.")
    code, until = Sessions(place.engine, clock=_now).invite(
        Role.PERSON, subject, request=None if asked is None else asked.request, lasts=timedelta(days=days)
    )
    link = f"{_where(place, address)}/invitation#{code}"
    data = {"subject": subject, "link": link, "code": code, "request": asked and asked.request, "expires": until}
    text = f"For {subject}, once, until {until:%Y-%m-%d %H:%M} UTC:\n\n  {link}\n\n{_terminal_qr(link)}"
    emit(data, as_json=as_json, text=text)


def officer(
    *,
    folder: DirOption,
    address: AddressOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a new one-time link for the data protection officer.

    Example: accord consent officer --dir cleveland
    """
    from consent.web.sessions import Role, Sessions

    place = open_institution(folder, database=database)
    where, lasts = _where(place, address), timedelta(hours=_LINK_HOURS)
    code, until = Sessions(place.engine, clock=_now).invite(Role.OFFICER, lasts=lasts)
    link = f"{where}/invitation#{code}"
    emit(
        {"link": link, "code": code, "expires": until},
        as_json=as_json,
        text=f"Once, for {_LINK_HOURS} hours:\n  {link}",
    )


def register(app: typer.Typer) -> None:
    """Add these commands to ``accord consent``."""
    for command in (serve, invite, officer):
        app.command()(command)


def open_institution(path: Path, *, database: str | None = None, create: bool = False) -> Institution:
    """Open an institution's folder for its pages.

    Args:
        path: the folder.
        database: a URL that wins over the settings'.
        create: make the institution if the folder holds none.

    Raises:
        OperatorError: no institution lives there, or its files are damaged or open to others.
    """
    from consent.web.tables import WEB_TABLES

    files = PartyFolder(path)
    if create and not files.settings.exists():
        create_settings(
            path, make_settings({"role": "node", "name": "institution", "consent_database": database or ""})
        )
    if create and not files.key.exists():
        create_key(files.key)
    settings = load_settings(path)
    if settings.role != "node":
        raise OperatorError(
            f"{path} is a {settings.role}'s folder.", remedy="Consents live in an institution's folder."
        )
    engine = open_database(database or files.consents(settings), *TABLES, *WEB_TABLES)
    registry = open_registry(engine, load_key(files.key), batch_size=settings.consent_batch_size)
    return Institution(files, settings, engine, registry)


def _officer_link(sessions: Any, address: str) -> str:
    from consent.web.sessions import Role

    code, _ = sessions.invite(Role.OFFICER, lasts=timedelta(hours=_LINK_HOURS))
    return f"{address}/invitation#{code}"


def _journalled() -> bool:
    """Whether what is printed goes into the system's journal (systemd says so): no link that opens something does."""
    return "JOURNAL_STREAM" in os.environ


def _application(place: Institution, *, address: str, origin: str | None, name: str | None, contact: str | None) -> Any:
    from consent.web.app import make_app
    from consent.web.starter import STARTER, starter_request
    from consent.web.state import WebSettings
    from consent.web.store import Store

    store = Store(place.engine, clock=_now)
    known = store.profile()
    shown = name or (known.name if known else place.settings.name)
    reached = contact or (known.contact if known else _NOBODY)
    store.present(shown, reached, address)
    if not store.requests():
        store.publish(STARTER, starter_request(shown, reached))
    settings = WebSettings(name=shown, origin=origin, lifetime_epsilon=place.settings.lifetime_epsilon)
    return make_app(place.registry, place.engine, settings)


def _run(app: Any, listening: socket.socket, place: Institution, *, batch_s: float, proxies: list[str] | None) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
        lifespan="off",
    )
    stop = threading.Event()
    batches = threading.Thread(target=_append_batches, args=(place, batch_s, stop), name="consent-batches")
    batches.start()
    previous = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn stops gracefully, then raises it once more
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, previous)
        stop.set()
        batches.join()


def _append_batches(place: Institution, batch_s: float, stop: threading.Event) -> None:
    """Append a batch at multiples of ``batch_s`` on the clock, unless a node runs here and does it."""
    said = ""
    while not stop.wait(batch_s - _now().timestamp() % batch_s):
        if is_running(place.files):
            continue
        try:
            place.registry.append_due(_now(), every_s=batch_s)
            said = ""
        except AccordError as error:  # decisions are stored all the same; they are logged with a later batch
            if error.message != said:
                note(f"The consent log did not grow: {error.message} {error.remedy}")
                said = error.message


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is made: a port in use leaves nothing behind."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise UnavailableError(
            f"Nothing can listen on {host}, port {port}: {error.strerror}.",
            remedy="Choose another with --port (0 lets the system choose), or stop what uses it.",
        ) from error
    return made


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 -- compared, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path not in {"", "/"} or parts.query:
        raise OperatorError(f"{text[:200]!r} is not an address.", remedy="Write it as https://consent.example.org.")
    return f"{parts.scheme}://{parts.netloc}"


def _proxies(named: list[str], origin: str | None) -> list[str] | None:
    """Whose word about clients' addresses counts; None: nobody's, as no proxy stands before the pages."""
    try:
        found = [str(ipaddress.ip_network(each)) for each in (*_OWN, *named)]
    except ValueError as error:
        raise OperatorError(f"--proxy: {error}.", remedy="Write an address, or a network as 10.0.0.0/8.") from error
    if named and origin is None:
        raise OperatorError("--proxy needs --origin.", remedy="Name the public address too: --origin https://...")
    return None if origin is None else found


def _where(place: Institution, address: str | None) -> str:
    """Where links lead: as told, else where the pages were served last."""
    from consent.web.store import Store

    if address is not None:
        return _origin(address)
    known = Store(place.engine, clock=_now).profile()
    if known is None:
        raise OperatorError("Nobody knows yet where the pages are.", remedy="Run `accord consent serve`, or --address.")
    return known.address


def _terminal_qr(link: str) -> str:
    import io

    import segno

    out = io.StringIO()
    segno.make(link, error="m").terminal(out=out, border=2, compact=True)
    return out.getvalue()


def _now() -> datetime:
    return datetime.now(UTC)
