"""A lean client for load: many people at once over HTTP/1.1, each with a connection and a loopback address of its own.

It sends prepared bytes and reads answers with a ``Content-Length``; nothing is parsed that need not be, so that on two
cores the server is what is measured. Linux answers on all of 127.0.0.0/8, so each person really is another client to
the server's rate limits, as they are in life.
"""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

_ADDRESSES = itertools.count(1)
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its kind (for the table), its line and headers and body, and the status that is right."""

    kind: str
    method: str
    path: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def data(self, host: str) -> bytes:
        """The request as it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", "Accept-Encoding: gzip"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*lines, "", "")).encode() + self.body


@dataclass
class Measured:
    """What a load came to: how long each answer took, by kind, and what went wrong."""

    seconds: float = 0.0
    took: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """How long each answer took, of every kind."""
        return [each for times in self.took.values() for each in times]

    def rate(self, kind: str | None = None) -> float:
        """Answers a second, of one kind or of all."""
        return len(self.all if kind is None else self.took[kind]) / self.seconds

    def percentile_ms(self, percent: int, kind: str | None = None) -> float:
        """A percentile of how long an answer took, in milliseconds."""
        return 1000 * statistics.quantiles(self.all if kind is None else self.took[kind], n=100)[percent - 1]


def load(address: str, visits: Iterable[Iterable[Ask]], *, at_once: int, seconds_max: float) -> Measured:
    """Let people visit, ``at_once`` at any moment, until all have or the time is over.

    Args:
        address: ``http://127.0.0.1:8080``.
        visits: the requests of one person after the other; a visit that has begun is ended.
        at_once: how many people at a time; each waits for an answer before asking again, and thinks for no time.
        seconds_max: after this long nobody begins.
    """
    return asyncio.run(_load(address, iter(visits), at_once=at_once, seconds_max=seconds_max))


async def _load(address: str, visits: Iterator[Iterable[Ask]], *, at_once: int, seconds_max: float) -> Measured:
    host, _, port = address.removeprefix("http://").partition(":")
    measured = Measured()
    started = time.perf_counter()

    async def visit() -> None:
        while time.perf_counter() < started + seconds_max:
            asked = next(visits, None)
            if asked is None:
                return
            await _visit(host, int(port), asked, measured)

    await asyncio.gather(*(visit() for _ in range(at_once)))
    measured.seconds = time.perf_counter() - started
    return measured


async def _visit(host: str, port: int, asked: Iterable[Ask], measured: Measured) -> None:
    async with _connected(host, port) as (reader, writer):
        for ask in asked:
            begun = time.perf_counter()
            writer.write(ask.data(f"{host}:{port}"))
            async with asyncio.timeout(_PATIENCE_S):
                status = await _answer(reader)
            measured.took.setdefault(ask.kind, []).append(time.perf_counter() - begun)
            if status != ask.status:
                measured.errors.append(f"{ask.kind}: {status} instead of {ask.status}")


@contextlib.asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    number = next(_ADDRESSES)
    local = f"127.{64 + number // 62500 % 64}.{number // 250 % 250}.{1 + number % 250}"
    reader, writer = await asyncio.open_connection(host, port, local_addr=(local, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
    await reader.readexactly(int(length))
    return status
