"""How heavy and how fast the consent pages are: the tables of docs/benchmarks.md, "Consent pages".

A real server process (``accord consent serve``, with its own limits) on SQLite and on PostgreSQL (a server of its own,
fsync on). In Chromium: weight and time to interactive of each page. Under load: people, each from an address of its
own, who read, hand in a grant or a withdrawal that was signed beforehand, and read its receipt; every answer must be
the right one, and the registry must hold every record afterwards, or the exit code is 1. Beside it, under the same
load: a bare Starlette that says hello, and one that also writes one row durably.

Run it as ``python tests/benchmarks/consent_web.py [--people N] [--loads N]``; it prints Markdown.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from http_load import Ask, Measured, load
from page_weight import CONDITIONS, Meter, phone, weights
from postgresql import programs, running_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from consent.cli.serve import Institution, open_institution
from consent.registry import RoundOf
from consent.rules.record import sign_record
from consent.web.documents import prepare_answer, prepare_withdrawal, take_back
from consent.web.guardians import Guardians
from consent.web.officer_coverage import uses_of
from consent.web.sessions import Role, Sessions, SignedIn
from consent.web.starter import STARTER
from consent.web.state import SESSION_COOKIE, Web, WebSettings
from consent.web.store import Store
from federation.rules.canonical import sha256_hex
from federation.rules.keys import PrivateKey

READ_S = 6.0
WRITE_S_MAX = 120.0
FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


# --- what is measured, and what stands beside it


@contextlib.contextmanager
def pages_of(folder: Path, database: str | None = None) -> Iterator[str]:
    """The consent pages as their own process; their address."""
    command = [sys.executable, "-m", "federation.cli", "consent", "serve", "--json"]
    command += ["--dir", str(folder), "--port", "0", "--name", "City Hospital", "--contact", "privacy@hospital.example"]
    command += [] if database is None else ["--database", database]
    with stopped(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as process:
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the pages did not start")
            said += line
        address: str = json.loads(said)["address"]
        answered(address)
        yield address


@contextlib.contextmanager
def bare() -> Iterator[str]:
    """The baseline as its own process, under the same server."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "consent_web:hello", "--app-dir", str(FOLDER), "--port", str(port)]
    with stopped(subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT)):
        address = f"http://127.0.0.1:{port}"
        answered(address)
        yield address


@contextlib.contextmanager
def stopped(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[str]]:
    """Stop a process at the end."""
    try:
        yield process  # type: ignore[misc]  # only the process whose output is read was opened as text
    finally:
        process.terminate()
        process.wait(30)


def answered(address: str) -> None:
    """Wait until a server listens."""
    host, _, port = address.removeprefix("http://").partition(":")
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing answers at {address}")
        time.sleep(0.05)


async def _hello(_: Request) -> Response:
    return PlainTextResponse("hello\n")


def _write(_: Request) -> Response:
    with contextlib.closing(sqlite3.connect(FOLDER_OF_ROWS / "rows.db", timeout=30)) as connection, connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("INSERT INTO answered VALUES (?)", (os.urandom(2000),))
    return PlainTextResponse("written\n")


FOLDER_OF_ROWS = Path(os.environ.get("ACCORD_BENCH_ROWS", tempfile.gettempdir()))
hello = Starlette(routes=[Route("/", _hello), Route("/write", _write, methods=["POST"])])


# --- an institution with people


@dataclass(frozen=True, slots=True)
class Visits:
    """What people will do, each with what the registry must hold of them afterwards."""

    asks: list[list[Ask]]
    heads: dict[str, str]


@dataclass(frozen=True, slots=True)
class Desk:
    """The institution beside its server: it invites people and plays their browsers."""

    place: Institution
    web: Web
    sessions: Sessions

    @classmethod
    def at(cls, folder: Path, database: str | None) -> "Desk":
        """Open what the server made."""
        place = open_institution(folder, database=database)

        def now() -> datetime:
            return datetime.now(UTC)

        sessions, store = Sessions(place.engine, clock=now), Store(place.engine, clock=now)
        guardians = Guardians(place.engine, clock=now)
        return cls(place, Web(place.registry, store, sessions, WebSettings("City Hospital"), now, guardians), sessions)

    def sign(self, ref: str, *, withdrawing: bool = False) -> bytes:
        """What a person's browser signs: a yes to everything, or the withdrawal of it; not handed in."""
        key = PrivateKey(hashlib.sha256(ref.encode()).digest())
        who = SignedIn(Role.PERSON, ref, STARTER, self.web.clock())
        notice = self.web.store.open_request(STARTER)
        if notice is None:
            raise SystemExit("the pages ask nothing")
        if withdrawing:
            prepared = prepare_withdrawal(self.web, who, did=key.public.did)
        else:
            choices = {purpose.key: True for purpose in notice.asked.purposes}
            prepared = prepare_answer(self.web, who, did=key.public.did, notice=notice, language="en", choices=choices)
        return sign_record(prepared.document, key, created=self.place.registry.now())

    def answer(self, ref: str) -> None:
        """A person's yes, handed in."""
        take_back(self.web, SignedIn(Role.PERSON, ref, STARTER, self.web.clock()), self.sign(ref))

    def cookie(self, ref: str) -> tuple[tuple[str, str], ...]:
        """The headers of somebody who is signed in."""
        token, _ = self.sessions.begin(Role.PERSON, ref, STARTER)
        return (("Cookie", f"{SESSION_COOKIE}={token}"), ("Sec-Fetch-Site", "same-origin"))

    def visits(self, people: int) -> Visits:
        """Half of the people say yes for the first time; half, who said yes before, withdraw."""
        asks, heads = [], {}
        for number in range(people):
            ref, withdrawing = f"visitor-{number:05}", bool(number % 2)
            if withdrawing:
                self.answer(ref)
            data = self.sign(ref, withdrawing=withdrawing)
            heads[ref] = sha256_hex(data)
            who = self.cookie(ref)
            body = json.dumps({"record": data.decode()}).encode()
            sign = Ask("sign", "POST", "/api/sign", 200, (*who, ("Content-Type", "application/json")), body)
            before = ("/mine", "/withdraw") if withdrawing else (f"/request/{STARTER}",)
            after = (f"/receipt/{heads[ref]}", *(() if withdrawing else ("/mine",)))
            reads = [[Ask("read", "GET", path, headers=who) for path in paths] for paths in (before, after)]
            asks.append([*reads[0], sign, *reads[1]])
        return Visits(asks, heads)

    def at_work(self) -> None:
        """Some people, a study and two rounds, so that no page is empty."""
        people = [f"P-{number:03}" for number in range(30)]
        for ref in people:
            self.answer(ref)
        registry, notice = self.place.registry, self.web.store.notices(STARTER)[0]
        (_, use), *_ = uses_of(notice.asked, registry.institution.did)
        registry.note_study("heart", title="A heart study", plan_bytes=b"", epsilon="3", delta="0.00001")
        for number in (1, 2):
            of = RoundOf("heart", number)
            registry.decide_all(use, registry.now(), people, round_use=of)
            registry.finish_round(of, released=True)
            registry.note_model(of, f"{number:064x}")
        registry.note_spent("heart", "0.4")
        registry.append_batch(registry.now())


# --- the measurements


def weigh(address: str, desk: Desk, loads: int) -> list[list[str]]:
    """The table of weights and times, of everybody's, a person's and the officer's pages."""
    with phone(address) as meter:
        rows = weights(
            meter, {"first page": "/", "open an invitation": "/invitation", "come back": "/return"}, loads=loads
        )
        open_link(meter, address, desk.sessions.invite(Role.PERSON, "P-001", request=STARTER)[0])
        (record,) = desk.place.registry.history("P-001")
        mine = {
            "the request": f"/request/{STARTER}",
            "a receipt": f"/receipt/{sha256_hex(record)}",
            "my consents": "/mine",
            "withdraw": "/withdraw",
        }
        rows += weights(meter, mine, loads=loads)
        open_link(meter, address, desk.sessions.invite(Role.OFFICER)[0])
        officer = {
            "officer: overview": "/officer",
            "officer: coverage": f"/officer/requests/{STARTER}/coverage",
            "officer: write a version": f"/officer/requests/{STARTER}/edit",
            "officer: people": "/officer/people",
        }
        return rows + weights(meter, officer, loads=loads)


def open_link(meter: Meter, address: str, code: str) -> None:
    """Follow a one-time link and press its button."""
    meter.page.goto(f"{address}/invitation#{code}")
    meter.page.locator("main button").click()
    meter.page.wait_for_load_state("load")


def reading(address: str, ask: Ask, at_once: int) -> Measured:
    """Everybody asks for one thing again and again, each 20 times; for some seconds."""
    return load(address, iter(lambda: [ask] * 20, []), at_once=at_once, seconds_max=READ_S)


def line(name: str, measured: Measured, kind: str | None = None) -> list[str]:
    """One row of the table of loads."""
    if measured.errors:
        print(f"{name}: {len(measured.errors)} errors, the first: {measured.errors[0]}", file=sys.stderr)
    count = len(measured.all if kind is None else measured.took[kind])
    figures = [f"{measured.percentile_ms(percent, kind):,.1f} ms" for percent in (50, 99)]
    return [name, f"{count:,}", f"{measured.rate(kind):,.0f}", *figures, str(len(measured.errors))]


def under_load(name: str, address: str, desk: Desk, *, people: int, at_once: int) -> list[list[str]]:
    """The rows of one database."""
    visits = desk.visits(people)
    who = desk.cookie("P-001")
    rows = [
        line(f"{name}: {what}", reading(address, Ask("read", "GET", path, headers=who), at_once))
        for what, path in {"first page": "/", "the request": f"/request/{STARTER}", "my consents": "/mine"}.items()
    ]
    measured = load(address, visits.asks, at_once=at_once, seconds_max=WRITE_S_MAX)
    rows += [
        line(f"{name}: visits, all requests", measured),
        line(f"{name}: visits, signed records taken in", measured, "sign"),
    ]
    heads = desk.place.registry.heads()
    lost = [ref for ref, digest in visits.heads.items() if ref not in heads or heads[ref].digest != digest]
    if lost:
        raise SystemExit(f"{len(lost)} of {people} records are not in the registry")
    return rows


def baseline(at_once: int) -> list[list[str]]:
    """The rows of the bare server."""
    with tempfile.TemporaryDirectory(prefix="accord-bench-") as folder:
        with contextlib.closing(sqlite3.connect(Path(folder) / "rows.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE answered (data BLOB)")
        os.environ["ACCORD_BENCH_ROWS"] = folder
        with bare() as address:
            return [
                line("bare Starlette: hello", reading(address, Ask("read", "GET", "/"), at_once)),
                line("bare Starlette: one row, durable", reading(address, Ask("sign", "POST", "/write"), at_once)),
            ]


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |\n| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=400, help="how many people visit under load (400)")
    parser.add_argument("--at-once", type=int, default=16, help="how many of them at a time (16)")
    parser.add_argument(
        "--loads", type=int, default=3, help="loads of each page under each of the conditions (3); 0: none"
    )
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    with contextlib.ExitStack() as stack:
        found: dict[str, str | None] = {"SQLite": None}
        bin_folder = programs()
        if bin_folder is not None:
            server = stack.enter_context(running_server(bin_folder))
            server.run("CREATE DATABASE bench")
            found["PostgreSQL"] = server.url("bench")
        loads: list[list[str]] = baseline(chosen.at_once)
        for name, database in found.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="accord-bench-")))
            with pages_of(folder, database) as address:
                desk = Desk.at(folder, database)
                desk.at_work()
                if database is None and chosen.loads:
                    pages = weigh(address, desk, chosen.loads)
                    table(["page", "requests", "kB sent", "kB plain", *(each.name for each in CONDITIONS)], pages)
                loads += under_load(name, address, desk, people=chosen.people, at_once=chosen.at_once)
    table(["asked", "answers", "per second", "median", "p99", "errors"], loads)
    return 1 if any(row[-1] != "0" for row in loads) else 0


if __name__ == "__main__":
    sys.exit(main())
