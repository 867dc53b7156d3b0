"""A node's end of the network: it dials a coordinator and its standby, through the proxy of its settings.

It listens nowhere, unless its settings say that it passes models on to the other nodes of its study.
"""

from typing import TYPE_CHECKING

from clients.folder import NodeFolder
from federation.rules.keys import PublicKey

if TYPE_CHECKING:
    from federation.network.host import Libp2pHost


def host_of(opened: NodeFolder, *peers: PublicKey, serving: bool = False) -> "Libp2pHost":
    """The running host; close it at the end. Only ``peers`` are let in (and guests, where models are passed on).

    Raises:
        OperatorError: the settings' proxy is not understood.
        UnavailableError: it is to listen, and the port is taken.
    """
    from federation.network.host import Libp2pHost  # loads libp2p, which takes a second
    from federation.network.tunnel import proxy_of

    url, listens = opened.settings.proxy, serving and opened.settings.peer_models == "serve"
    return Libp2pHost(
        opened.key,
        listen=opened.settings.listen if listens else None,
        websocket=(opened.settings.websocket or None) if listens else None,
        announce=opened.settings.announce if listens else (),
        allowed=lambda peer: peer in peers,
        proxy=proxy_of(url) if url else None,
    )
