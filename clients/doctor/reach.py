"""Can the coordinator be reached, and who really answers there? Name, port, greeting, key: one step after the other.

The greeting tells most: a libp2p peer says ``/multistream/1.0.0`` first. A web proxy or a device that inspects TLS says
something else or nothing, and no wrong byte of it is ever parsed further than that.
"""

import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final

from cryptography import x509

from clients.doctor.findings import Finding, Level
from federation.errors import AccordError
from federation.network.addresses import Target, target_of

_GREETING: Final = b"\x13/multistream/1.0.0\n"
_GREETED: Final = Finding("greeting", Level.OK, "A libp2p peer answers; nothing between rewrites the connection.")
_PATIENCE_S: Final = 5.0
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def reach(address: str, environ: Mapping[str, str] | None = None, *, proxy: str = "") -> list[Finding]:
    """Look up the name, knock at the port, listen for the greeting; stops at the first step that fails.

    Args:
        address: the coordinator's multiaddress.
        environ: where proxy variables are looked for; None takes the process's own.
        proxy: the web proxy of the settings; empty: none.
    """
    target = target_of(address)
    if target is None:
        return [_failed("address", f"{address[:200]} is not a TCP address.", "Ask the coordinator for an invitation.")]
    if proxy:
        return _web(target, proxy) if target.websocket else _through(proxy, target)
    proxied = _proxy(os.environ if environ is None else environ)
    found = [] if proxied is None else [proxied]
    family = socket.AF_INET6 if target.ipv6 else socket.AF_INET
    began = time.monotonic()
    try:
        places = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter: a label of the name is empty or too long
        why = (error.strerror if isinstance(error, OSError) else None) or error
        remedy = f"Check the name {target.host} and this machine's name server (`getent hosts {target.host}`)."
        return [*found, _failed("name", f"{target.host} is not found: {why}.", remedy)]
    if target.named:
        took_s = time.monotonic() - began
        seen = f"{target.host} is {places[0][4][0]} (found in {took_s * 1000:.0f} ms)."
        found.append(Finding("name", Level.OK, seen, figures={"lookup_s": took_s}))
    if target.websocket:
        return [*found, *_web(target, "")]
    return [*found, *_knock(target, family, (str(places[0][4][0]), target.port))]


def _through(url: str, target: Target) -> list[Finding]:
    """The same by way of a web proxy, which looks the name up and knocks for us."""
    from federation.network.tunnel import greeting_through, proxy_of  # loads the network, which takes a second

    where, began = f"{target.host} port {target.port}", time.monotonic()
    try:
        proxy = proxy_of(url)
        heard = greeting_through(proxy, target.host, target.port, greeting=_GREETING)
    except AccordError as error:
        return [_failed("proxy", error.message, error.remedy)]
    took_s = time.monotonic() - began
    seen = f"The proxy {proxy} lets this node out to {where}, which answers after {took_s * 1000:.0f} ms."
    found = Finding("proxy", Level.OK, seen, figures={"connect_s": took_s})
    if heard == _GREETING:
        return [found, _GREETED]
    remedy = f"The proxy changes what it carries, or another program listens at {where}: ask whoever runs the proxy."
    what = "something else" if heard else "nothing"
    return [found, _failed("greeting", f"At {where} {what} is heard where a libp2p peer would greet.", remedy)]


def _web(target: Target, url: str) -> list[Finding]:
    """Open a WebSocket, by way of TLS and a proxy where they are named."""
    from federation.network.tunnel import proxy_of  # loads the network, which takes a second
    from federation.network.websocket import knock

    began = time.monotonic()
    try:
        proxy = proxy_of(url) if url else None
        knock(target, proxy)
    except AccordError as error:
        return [_failed("websocket", error.message, error.remedy)]
    took_s = time.monotonic() - began
    through = f", through the proxy {proxy}" if proxy else ""
    inside = " inside TLS, whose certificate holds" if target.tls else ""
    seen = f"{target.host} port {target.port} opens a WebSocket{inside}{through}, after {took_s * 1000:.0f} ms."
    return [Finding("websocket", Level.OK, seen, figures={"connect_s": took_s})]


def _knock(target: Target, family: socket.AddressFamily, place: tuple[str, int]) -> list[Finding]:
    where = f"{target.host} port {target.port}"
    began = time.monotonic()
    with socket.socket(family, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(_PATIENCE_S)
        try:
            knocking.connect(place)
        except TimeoutError:
            remedy = f"A firewall swallows it: ask for outgoing TCP to {where}. Nothing needs to come in."
            return [_failed("port", f"{where} does not answer within {_PATIENCE_S:g} s.", remedy)]
        except ConnectionRefusedError:
            remedy = "The coordinator may be down, or a firewall refuses: ask the coordinator whether it runs."
            return [_failed("port", f"{where} refuses the connection.", remedy)]
        except OSError as error:
            remedy = f"Check this machine's network; outgoing TCP to {where} must be possible."
            return [_failed("port", f"{where} cannot be reached: {error.strerror or error}.", remedy)]
        took_s = time.monotonic() - began
        seen = f"{where} answers after {took_s * 1000:.0f} ms."
        found = Finding("port", Level.OK, seen, figures={"connect_s": took_s})
        return [found, _greeting(knocking, where, place)]


def _greeting(knocking: socket.socket, where: str, place: tuple[str, int]) -> Finding:
    heard = _heard(knocking)
    if heard == _GREETING:
        return _GREETED
    issuer = _tls_issuer(place)
    what = f"TLS (certificate by {issuer})" if issuer else ("something else" if heard else "nothing")
    remedy = (
        f"A proxy, or a device that inspects connections, stands between, or another program listens at {where}: ask "
        "for outgoing TCP to pass unchanged (it is encrypted and authenticated by itself)."
    )
    return _failed("greeting", f"At {where} {what} is heard where a libp2p peer would greet.", remedy)


def _heard(knocking: socket.socket) -> bytes:
    """What is said to our greeting, until it is complete, too late, or the line ends."""
    heard = b""
    try:
        knocking.sendall(_GREETING)
        while len(heard) < len(_GREETING):
            piece = knocking.recv(len(_GREETING) - len(heard))
            if not piece:
                return heard
            heard += piece
    except OSError:
        return heard
    return heard


def _tls_issuer(place: tuple[str, int]) -> str:
    """Who issued the certificate that is shown there, if TLS is spoken; else empty. Nothing is sent through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place, timeout=_PATIENCE_S) as knocking,
            context.wrap_socket(knocking, server_hostname=None) as shown,
        ):
            certificate = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return ""
    return certificate.issuer.rfc4514_string()[:200] or "nobody"


def _proxy(environ: Mapping[str, str]) -> Finding | None:
    """Proxy variables are worth a word: they do not carry this connection."""
    name = next((name for name in _PROXY_VARIABLES if environ.get(name)), None)
    if name is None:
        return None
    seen = f"{name} is set; Accord's connection does not go through it, but straight to the coordinator."
    return Finding("proxy", Level.OK, seen, 'If only the proxy is let out: proxy = "http://HOST:PORT" in accord.toml.')


def _failed(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, Level.FAILED, seen, remedy, network=True)
