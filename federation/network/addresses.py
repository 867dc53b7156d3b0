"""Multiaddresses as far as they name a host, a TCP port and a WebSocket. Pure: nothing of libp2p is loaded."""

import re
from dataclasses import dataclass
from typing import Final

PORT_MAX: Final = 65_535
_TCP: Final = re.compile(
    r"/(?P<family>ip4|ip6|dns4|dns6)/(?P<host>[A-Za-z0-9.:-]{1,253})/tcp/(?P<port>[0-9]{1,5})"
    r"(?P<web>/ws|/wss|/tls/ws)?(/p2p/.*)?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a party listens, as an invitation says.

    Attributes:
        host: a name, or an address of ``ipv6``'s family.
        port: TCP.
        named: whether ``host`` is a name that must be looked up.
        ipv6: whether IPv6 is meant.
        websocket: whether a WebSocket is spoken there.
        tls: whether it is inside TLS.
    """

    host: str
    port: int
    named: bool
    ipv6: bool
    websocket: bool = False
    tls: bool = False


def target_of(address: str) -> Target | None:
    """The host and port of a multiaddress; None for one that is not TCP, or whose port no machine has."""
    found = _TCP.fullmatch(address)
    if found is None or int(found["port"]) > PORT_MAX:
        return None
    family = found["family"]
    web = found["web"] or ""
    return Target(
        found["host"],
        int(found["port"]),
        named=family.startswith("dns"),
        ipv6=family.endswith("6"),
        websocket=bool(web),
        tls=web in ("/wss", "/tls/ws"),
    )


def is_websocket(address: object) -> bool:
    """Whether a WebSocket is spoken at ``address``."""
    target = target_of(str(address))
    return target is not None and target.websocket
