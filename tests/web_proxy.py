"""A web proxy as hospitals have them, as far as CONNECT goes: it looks names up its own way, and may refuse."""

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class WebProxy:
    """A running proxy on loopback.

    Attributes:
        port: where it listens.
        names: names that only this proxy knows -> host.
        answer: what it says instead of connecting; None: it connects.
        password: ``user:password`` that it asks for.
    """

    port: int
    names: Mapping[str, str] = field(default_factory=dict)
    answer: bytes | None = None
    password: str = ""
    asked: list[str] = field(default_factory=list)
    carried: bytearray = field(default_factory=bytearray)

    def serve(self, near: socket.socket) -> None:
        """One client."""
        with near:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = near.recv(4096)
                if not piece:
                    return
                head += piece
            lines = head.decode("ascii").split("\r\n")
            place = lines[0].split(" ")[1]
            self.asked.append(place)
            wanted = "Proxy-Authorization: Basic " + base64.b64encode(self.password.encode()).decode()
            if self.answer is not None:
                near.sendall(self.answer)
                return
            if self.password and wanted not in lines:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = place.rpartition(":")
            try:
                far = socket.create_connection((self.names.get(host, host), int(port)), timeout=5)
            except OSError:
                near.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with far:
                far.settimeout(None)
                near.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
                back.start()
                self._carry(near, far)
                back.join(5)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                self.carried += piece
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def web_proxy(**settings: object) -> Iterator[WebProxy]:
    """A proxy that runs while the block does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = WebProxy(listening.getsockname()[1], **settings)  # type: ignore[arg-type] # as the fields
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    near, _ = listening.accept()
                    threading.Thread(target=proxy.serve, args=(near,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", proxy.port), timeout=1).close()
            thread.join(5)
