"""Who answers at the coordinator's address: real sockets, real servers of other kinds."""

import contextlib
import datetime as dt
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from web_proxy import web_proxy

from clients.doctor.findings import Level
from clients.doctor.reach import reach
from federation.network.addresses import target_of
from federation.network.host import Libp2pHost
from federation.rules.keys import PrivateKey


@contextmanager
def answering(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server for two connections; its multiaddress."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/whoever"
        thread.join(10)


def last(address: str) -> tuple[str, Level, str, str]:
    found = reach(address, {})[-1]
    return found.check, found.level, found.seen, found.remedy


def test_a_libp2p_peer_is_recognised_by_its_greeting() -> None:
    with Libp2pHost(PrivateKey(bytes(32))) as host:
        found = reach(host.addresses()[0], {})
    assert [(each.check, each.level) for each in found] == [("port", Level.OK), ("greeting", Level.OK)]


def test_a_websocket_is_opened_and_what_is_none_is_told() -> None:
    anywhere = "/ip4/127.0.0.1/tcp/0"
    with Libp2pHost(PrivateKey(bytes(32)), listen=anywhere, websocket=f"{anywhere}/ws") as host:
        tcp, web = host.addresses()
        assert last(web)[:2] == ("websocket", Level.OK)
        check, level, seen, remedy = last(tcp.replace("/p2p/", "/ws/p2p/"))
        assert (check, level) == ("websocket", Level.FAILED)
        assert "No WebSocket is opened" in seen
        assert "web server" in remedy
        with web_proxy() as proxy:
            found = reach(web, {}, proxy=f"http://127.0.0.1:{proxy.port}")
        assert [(each.check, each.level) for each in found] == [("websocket", Level.OK)]


@pytest.mark.parametrize(
    ("place", "check"), [("/dns4/study..example/tcp/1", "name"), ("/ip4/127.0.0.1/tcp/65536", "address")]
)
def test_a_place_that_cannot_be_is_named(place: str, check: str) -> None:
    assert last(f"{place}/p2p/x")[:2] == (check, Level.FAILED)


def test_a_closed_port_says_so_and_whom_to_ask() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    check, level, seen, remedy = last(f"/ip4/127.0.0.1/tcp/{port}/p2p/x")
    assert (check, level) == ("port", Level.FAILED)
    assert "refuses" in seen
    assert "coordinator" in remedy


def test_a_name_that_does_not_exist_is_named() -> None:
    check, level, seen, remedy = last("/dns4/no-such-host.invalid/tcp/4001/p2p/x")
    assert (check, level) == ("name", Level.FAILED)
    assert "no-such-host.invalid" in seen
    assert "getent hosts no-such-host.invalid" in remedy


def test_a_web_server_is_not_taken_for_a_coordinator() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        check, level, seen, _ = last(f"/ip4/127.0.0.1/tcp/{server.server_port}/p2p/x")
        server.shutdown()
        thread.join(10)
    assert (check, level) == ("greeting", Level.FAILED)
    assert "something else" in seen


def test_a_device_that_speaks_tls_is_recognised(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))

    def handshake(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True).recv(1)

    with answering(handshake) as address:
        check, level, seen, remedy = last(address)
    assert (check, level) == ("greeting", Level.FAILED)
    assert "TLS (certificate by CN=middlebox) is heard" in seen
    assert "inspects connections" in remedy


def test_silence_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.doctor.reach._PATIENCE_S", 0.2)
    with answering(lambda connection: threading.Event().wait(0.6) and connection.close()) as address:
        _, level, seen, _ = last(address)
    assert level is Level.FAILED
    assert "nothing is heard" in seen


def test_a_proxy_variable_is_mentioned_and_harmless() -> None:
    with Libp2pHost(PrivateKey(bytes(32))) as host:
        found = reach(host.addresses()[0], {"HTTPS_PROXY": "http://proxy:3128"})
    assert (found[0].check, found[0].level) == ("proxy", Level.OK)


def test_through_a_proxy_the_name_is_its_business_and_its_refusal_is_quoted() -> None:
    with Libp2pHost(PrivateKey(bytes(32))) as host, web_proxy(names={"study.invalid": "127.0.0.1"}) as proxy:
        address = host.addresses()[0].replace("/ip4/127.0.0.1", "/dns4/study.invalid")
        url = f"http://127.0.0.1:{proxy.port}"
        assert [(found.check, found.level) for found in reach(address, {}, proxy=url)] == [
            ("proxy", Level.OK),
            ("greeting", Level.OK),
        ]
        proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        (found,) = reach(address, {}, proxy=url)
        assert (found.check, found.level, found.network) == ("proxy", Level.FAILED, True)
        assert "allow CONNECT to study.invalid" in found.remedy
        proxy.answer = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n"
        assert reach(address, {}, proxy=url)[-1].check == "greeting"
        assert reach(address, {}, proxy=url)[-1].level is Level.FAILED


@pytest.mark.parametrize("address", ["", "/ip4/1.2.3.4/udp/5", "/ip4/1.2.3.4", "x" * 5000])
def test_another_address_than_tcp_is_refused_with_a_remedy(address: str) -> None:
    assert target_of(address) is None
    assert last(address)[1] is Level.FAILED


def certificate(folder: Path) -> Path:
    """A self-signed certificate with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "middlebox")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2099)
    ).sign(key, hashes.SHA256())
    path = folder / "middlebox.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
