import socket

import pytest
from multiaddr import Multiaddr

from federation.errors import OperatorError, UnavailableError
from federation.network.transport import check_port_free, listen_address


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/4001", "/ip6/::1/tcp/65535"])
def test_an_address_to_listen_on_is_read(text: str) -> None:
    assert str(listen_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4001",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1/udp/4001",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/::1/tcp/1",
        "/ip6/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/tcp/-1",
        "/dns4/example.org/tcp/1",
        "/ip4/127.0.0.1/tcp/1/p2p/x",
    ],
)
def test_another_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        listen_address(text)
    assert "/ip4/0.0.0.0/tcp/4001" in caught.value.remedy


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_found_even_if_it_would_be_shared(shared: bool) -> None:
    with socket.socket() as taken:
        if shared:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Multiaddr(f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}")
        with pytest.raises(UnavailableError, match="in use") as caught:
            check_port_free(address)
    assert "listen" in caught.value.remedy
    check_port_free(address)


def test_an_address_of_another_machine_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"192\.0\.2\.1"):
        check_port_free(Multiaddr("/ip4/192.0.2.1/tcp/4001"))
