"""A node's end of the network: it dials a coordinator and its standby, through its proxy, and listens nowhere."""

from typing import TYPE_CHECKING

from clients.folder import NodeFolder
from federation.rules.keys import PublicKey

if TYPE_CHECKING:
    from federation.network.host import Libp2pHost


def host_of(opened: NodeFolder, *peers: PublicKey) -> "Libp2pHost":
    """The running host; close it at the end. Only ``peers`` are let in: a study's coordinator, and its standby.

    Raises:
        OperatorError: the settings' proxy is not understood.
    """
    from federation.network.host import Libp2pHost  # loads libp2p, which takes a second
    from federation.network.tunnel import proxy_of

    url = opened.settings.proxy
    return Libp2pHost(
        opened.key,
        listen=None,
        allowed=lambda peer: peer in peers,
        proxy=proxy_of(url) if url else None,
    )
