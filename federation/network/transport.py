"""A libp2p host as Accord wants it: Noise alone, Yamux alone, TCP and WebSocket, our key, no own dialling, quiet logs.

py-libp2p 0.8.1 needs to be told a lot (each point was met or measured):

- Without ``sec_opt`` it also accepts peers that offer plaintext or SECIO only.
- Its listener sets SO_REUSEPORT, so that a second process on the same port starts without an error and steals
  connections: the port is probed first.
- It keeps a failed peer on a list for 60 s, and dials every address that a peer ever named until a watermark is
  reached: dialling is ours (``dial_addr``), and its own is switched off.
- One slot of its inbound limiter is lost with every connection that ends: the limit is set out of reach, and idle
  connections are ended by the host.
- Some of its modules log through the root logger.
"""

import logging
import os
import re
import socket
from typing import Final, cast

from libp2p import new_host
from libp2p.abc import IHost
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.rcmgr.manager import ResourceLimits, ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from federation.errors import OperatorError, UnavailableError
from federation.network.addresses import PORT_MAX
from federation.network.quick import QuickNoise
from federation.network.tunnel import Proxy
from federation.network.websocket import WebSocketTransport
from federation.rules.keys import PrivateKey

_OUT_OF_REACH: Final = 1_000_000
_LISTEN: Final = re.compile(r"/(?P<family>ip4|ip6)/(?P<address>[0-9a-fA-F.:]+)/tcp/(?P<port>[0-9]{1,5})(?P<web>/ws)?")

logger = logging.getLogger(__name__)


def noise_host(key: PrivateKey, *, proxy: Proxy | None = None) -> IHost:
    """A host, not yet running, whose peer id is ``key``'s; its WebSockets go out through ``proxy``."""
    pair = create_new_key_pair(key.seed)
    host = new_host(
        key_pair=pair,
        sec_opt={NOISE: QuickNoise(pair, noise_privkey=create_noise_key_pair().private_key)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        transports=[TCP(), WebSocketTransport(proxy=proxy)],
        disable_identify_address_discovery=True,
        connection_config=ConnectionConfig(
            max_connections=_OUT_OF_REACH,
            min_connections=0,
            low_watermark=0,
            high_watermark=_OUT_OF_REACH,
            max_connections_per_peer=8,
        ),
        resource_manager=ResourceManager(
            limits=ResourceLimits(max_connections=_OUT_OF_REACH, max_streams=_OUT_OF_REACH),
            enable_metrics=False,
            enable_circuit_breaker=False,
            enable_graceful_degradation=False,
        ),
    )
    swarm = cast("Swarm", host.get_network())
    swarm.retry_config = RetryConfig(max_retries=0)
    swarm.auto_connector = _NoAutoConnector(swarm)
    return host


class _NoAutoConnector(AutoConnector):
    """Dials nobody."""

    async def maybe_connect(self) -> None:
        """Leave every peer alone."""


def listen_address(text: str) -> Multiaddr:
    """Read ``/ip4/ADDRESS/tcp/PORT`` (or ip6), ``/ws`` behind it for a WebSocket; port 0 lets the system choose.

    Raises:
        OperatorError: anything else.
    """
    found = _LISTEN.fullmatch(text)
    if found is not None and int(found["port"]) <= PORT_MAX:
        try:
            socket.inet_pton(socket.AF_INET6 if found["family"] == "ip6" else socket.AF_INET, found["address"])
            return Multiaddr(text)
        except (ValueError, OSError):
            logger.debug("%r is not an address of its family.", text)
    raise OperatorError(
        f"{text[:200]!r} is not an address to listen on.",
        remedy="Write /ip4/ADDRESS/tcp/PORT, for instance /ip4/0.0.0.0/tcp/4001.",
    )


def check_port_free(listen: Multiaddr) -> None:
    """Refuse a port that somebody listens on (SO_REUSEPORT would let us share it unnoticed).

    Raises:
        UnavailableError: the port is in use, needs privileges, or the address is not this machine's.
    """
    _, family, address, _, port, *_ = str(listen).split("/")
    with socket.socket(socket.AF_INET6 if family == "ip6" else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
            probe.listen(1)
        except OSError as error:
            raise UnavailableError(
                f"Cannot listen on {listen}: {error.strerror or error}.",
                remedy="End the process that uses the port, or set another one (`listen` in accord.toml; 0 lets the "
                "system choose).",
            ) from error


def quiet_libp2p_logs() -> None:
    """Keep libp2p's logs off the terminal, unless LIBP2P_DEBUG asks for them. Idempotent."""
    if os.environ.get("LIBP2P_DEBUG"):
        return
    library = logging.getLogger("libp2p")
    library.propagate = False
    if not library.handlers:
        library.addHandler(logging.NullHandler())
    root = logging.getLogger()
    if _not_from_libp2p not in root.filters:
        root.addFilter(_not_from_libp2p)


def _not_from_libp2p(record: logging.LogRecord) -> bool:
    """Drop what libp2p's modules log through the root logger itself (filters of a logger see no child's records)."""
    return f"{os.sep}libp2p{os.sep}" not in record.pathname
