"""WebSocket beneath Noise: the same host, the same keys, other bytes on the line; and what a hostile client gets."""

import contextlib
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from web_proxy import web_proxy

from federation.errors import UnavailableError
from federation.network import websocket
from federation.network.host import Libp2pHost
from federation.network.tunnel import proxy_of
from federation.network.websocket import HEAD_BYTES_MAX
from federation.rules.keys import PrivateKey

COORDINATOR, NODE, OTHER = (PrivateKey(letter * 32) for letter in (b"c", b"n", b"o"))
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
FRAMES = (
    b"\x81\x84\0\0\0\0text",  # text
    b"\x82\x04data",  # a client that does not mask
    b"\xc2\x84\0\0\0\0data",  # a reserved bit: an extension that was not agreed on
    b"\x83\x84\0\0\0\0data",  # an opcode that there is not
    b"\x89\xfe\x01\0\0\0\0\0" + bytes(256),  # a ping longer than a ping may be
    b"\x82\xff" + b"\xff" * 8 + bytes(4),  # a length beyond 63 bits
)
ANYWHERE = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture
def coordinator() -> Iterator[Libp2pHost]:
    with Libp2pHost(COORDINATOR, listen=ANYWHERE, websocket=f"{ANYWHERE}/ws") as host:
        host.serve("/echo", lambda _peer, data: data, max_bytes=1 << 26)
        yield host


def web_port(host: Libp2pHost) -> int:
    address = next(each for each in host.addresses() if "/ws/" in each)
    return int(address.split("/")[4])


def at(address: str, key: PrivateKey = COORDINATOR) -> str:
    return f"{address}/p2p/{key.public.peer_id}"


def test_megabytes_travel_both_ways_and_tcp_is_there_as_before(coordinator: Libp2pHost) -> None:
    payload = os.urandom(3 << 20)
    tcp, web = coordinator.addresses()
    assert ("/ws/" in tcp, "/ws/" in web) == (False, True)
    for address in (web, tcp):
        with Libp2pHost(NODE, listen=None) as node:
            assert node.connect(address, timeout_s=10) == COORDINATOR.public
            assert node.request(COORDINATOR.public, "/echo", payload, timeout_s=30, max_bytes=1 << 26) == payload
            node.serve("/echo", lambda _peer, data: data, max_bytes=1 << 26)
            assert coordinator.request(NODE.public, "/echo", payload, timeout_s=30, max_bytes=1 << 26) == payload


def test_a_websocket_of_somebody_else_is_not_the_coordinator(coordinator: Libp2pHost) -> None:
    with Libp2pHost(NODE, listen=None) as node, pytest.raises(UnavailableError, match="this key"):
        node.connect(at(f"/ip4/127.0.0.1/tcp/{web_port(coordinator)}/ws", OTHER), timeout_s=10)


def test_a_web_proxy_carries_it_and_says_why_not(coordinator: Libp2pHost) -> None:
    port = web_port(coordinator)
    address = at(f"/dns4/study.example/tcp/{port}/ws")
    with web_proxy(names={"study.example": "127.0.0.1"}) as proxy:
        with Libp2pHost(NODE, listen=None, proxy=proxy_of(f"http://127.0.0.1:{proxy.port}")) as node:
            node.connect(address, timeout_s=10)
            assert node.request(COORDINATOR.public, "/echo", b"hello", timeout_s=10, max_bytes=10) == b"hello"
        assert proxy.asked == [f"study.example:{port}"]
        assert b"Upgrade: WebSocket".lower() in bytes(proxy.carried).lower()
    with (
        web_proxy(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy,
        Libp2pHost(NODE, listen=None, proxy=proxy_of(f"http://127.0.0.1:{proxy.port}")) as node,
        pytest.raises(UnavailableError, match="forbids CONNECT"),
    ):
        node.connect(address, timeout_s=10)


class TestHostile:
    """Straight on the socket."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(websocket, "HANDSHAKE_S_MAX", 1.0)

    @pytest.fixture
    def line(self, coordinator: Libp2pHost) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", web_port(coordinator)), timeout=20) as line:
            yield line

    @staticmethod
    def until_closed(line: socket.socket) -> bytes:
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := line.recv(65_536):
                heard += piece
        return heard

    def opened(self, line: socket.socket) -> None:
        line.sendall(REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += line.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"deflate" not in head  # nothing is ever decompressed

    def test_half_a_request_is_closed_in_time(self, line: socket.socket) -> None:
        line.sendall(REQUEST)
        assert self.until_closed(line) == b""

    def test_a_request_without_end_is_closed(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            line.sendall(REQUEST + b"X: " + b"x" * HEAD_BYTES_MAX)
        assert b"101" not in self.until_closed(line)

    @pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x13/multistream/1.0.0\n\r\n\r\n"])
    def test_what_is_no_websocket_is_not_let_in(self, line: socket.socket, request_: bytes) -> None:
        line.sendall(request_)
        assert b"101" not in self.until_closed(line)

    def test_a_frame_that_breaks_the_protocol_ends_its_connection_and_no_other(self, coordinator: Libp2pHost) -> None:
        with Libp2pHost(NODE, listen=None) as node:
            node.connect(coordinator.addresses()[1], timeout_s=10)
            for frame in FRAMES:
                with socket.create_connection(("127.0.0.1", web_port(coordinator)), timeout=20) as line:
                    self.opened(line)
                    line.sendall(frame)
                    self.until_closed(line)
            assert node.request(COORDINATOR.public, "/echo", b"x", timeout_s=10, max_bytes=10) == b"x"

    def test_a_frame_that_announces_more_than_there_is_memory_takes_none(self, line: socket.socket) -> None:
        self.opened(line)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.suppress(OSError):  # what comes is no libp2p, and the line is closed meanwhile
            line.sendall(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4))
            for _ in range(64):
                line.sendall(bytes(1 << 20))
        self.until_closed(line)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


class TestWithTls:
    """A web server in front that ends TLS, as far as that goes: it hands bytes on."""

    @pytest.fixture(scope="class")
    def certificate(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = tmp_path_factory.mktemp("tls") / "server.pem"
        path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
        return path

    def test_wss_is_dialled_where_the_certificate_holds_and_nowhere_else(
        self, coordinator: Libp2pHost, certificate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ending_tls(certificate, web_port(coordinator)) as port:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            for address in (f"/ip4/127.0.0.1/tcp/{port}/wss", f"/ip4/127.0.0.1/tcp/{port}/tls/ws"):
                with Libp2pHost(NODE, listen=None) as node:
                    node.connect(at(address), timeout_s=10)
                    payload = os.urandom(1 << 20)
                    assert (
                        node.request(COORDINATOR.public, "/echo", payload, timeout_s=30, max_bytes=1 << 26) == payload
                    )
            monkeypatch.delenv("SSL_CERT_FILE")
            with Libp2pHost(NODE, listen=None) as node, pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY"):
                node.connect(at(address), timeout_s=10)


@contextlib.contextmanager
def ending_tls(certificate: Path, target: int) -> Iterator[int]:
    """A port that ends TLS and hands on to ``target``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := source.recv(65_536):
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(near: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(near, server_side=True) as inner,
            socket.create_connection(("127.0.0.1", target)) as far,
        ):
            back = threading.Thread(target=carry, args=(far, inner), daemon=True)
            back.start()
            carry(inner, far)
            back.join(5)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
