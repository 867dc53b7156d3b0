from collections.abc import Callable, Iterator

import pytest

from federation.network.exchange import Exchange
from federation.network.host import Libp2pHost
from federation.network.memory import MemoryNetwork
from federation.rules.keys import PrivateKey, PublicKey


@pytest.fixture(params=["memory", "libp2p"])
def party(request: pytest.FixtureRequest) -> Iterator[Callable[..., Exchange]]:
    """Makes parties of one kind of network; each one's gate is a set that the test may change."""
    network = MemoryNetwork()
    made: list[Exchange] = []

    def make(key: PrivateKey, allowed: set[PublicKey], *, listens: bool = True) -> Exchange:
        exchange: Exchange
        if request.param == "memory":
            exchange = network.exchange(key, allowed=allowed.__contains__)
        else:
            listen = "/ip4/127.0.0.1/tcp/0" if listens else None
            exchange = Libp2pHost(key, listen=listen, allowed=allowed.__contains__)
        made.append(exchange)
        return exchange

    yield make
    for exchange in made:
        exchange.close()
