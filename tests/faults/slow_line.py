"""A bad line on loopback: a TCP proxy that limits the rate, delays, and cuts every connection again and again."""

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

_READ_BYTES = 4096


class SlowLine:
    """Forwards 127.0.0.1:``port`` to 127.0.0.1:``target``.

    Args:
        target: the port behind the line.
        bytes_s: the rate of each direction.
        delay_s: one way.
        cut_every_s: after so long all connections are cut, again and again.
        port: where it listens; 0 for the system's choice.
    """

    def __init__(self, target: int, *, bytes_s: float, delay_s: float, cut_every_s: float, port: int = 0) -> None:
        self._target, self._bytes_s, self._delay_s, self._cut_every_s = target, bytes_s, delay_s, cut_every_s
        self.forwarded = 0
        """Bytes of both directions that left the line, the protocols' own included."""
        self.cuts = 0
        self.port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_READ_BYTES), self._loop
        ).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        self._cutting = asyncio.run_coroutine_threadsafe(self._cut(), self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cutting.cancel()
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._close_all)
        time.sleep(0.1)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(self._cut_every_s)
            self.cuts += bool(self._open)
            self._close_all()

    def _close_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thither = await asyncio.open_connection("127.0.0.1", self._target, limit=_READ_BYTES)
        self._open |= {writer, thither}
        await asyncio.gather(self._forward(reader, thither), self._forward(there, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece leaves when the ones before it have, and ``delay_s`` later; a full line takes no more in."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        leaving = asyncio.ensure_future(self._leave(queue, writer))
        free = time.monotonic()
        try:
            while data := await reader.read(_READ_BYTES):
                now = time.monotonic()
                free = max(free, now) + len(data) / self._bytes_s
                await asyncio.sleep(free - now)
                queue.put_nowait((time.monotonic() + self._delay_s, data))
        except OSError:
            leaving.cancel()
        queue.put_nowait((0, b""))

    async def _leave(self, queue: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            at, data = await queue.get()
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            if not data or writer.transport.is_closing():
                writer.close()
                return
            writer.write(data)
            self.forwarded += len(data)
