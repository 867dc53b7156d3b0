"""What only the in-memory network can do: misbehave on purpose."""

from collections.abc import Callable

import pytest

from federation.errors import UnavailableError
from federation.network.memory import Delivery, Fate, MemoryExchange, MemoryNetwork
from federation.rules.keys import PrivateKey

HERE = PrivateKey(b"h" * 32)
THERE = PrivateKey(b"t" * 32)


def counted(courier: Callable[[Delivery], Fate]) -> tuple[MemoryExchange, list[bytes]]:
    network = MemoryNetwork(courier)
    here, there = network.exchange(HERE), network.exchange(THERE)
    seen: list[bytes] = []

    def handle(_peer: object, payload: bytes) -> bytes:
        seen.append(payload)
        return b"%d" % len(seen)

    there.serve("/count", handle, max_bytes=10)
    here.connect(there.addresses()[0], timeout_s=1)
    return here, seen


@pytest.mark.parametrize(("fate", "runs"), [(Fate.REQUEST_LOST, 0), (Fate.ANSWER_LOST, 1)])
def test_a_lost_message_is_silence_whether_or_not_the_handler_ran(fate: Fate, runs: int) -> None:
    here, seen = counted(lambda _delivery: fate)
    with pytest.raises(UnavailableError):
        here.request(THERE.public, "/count", b"x", timeout_s=1, max_bytes=10)
    assert len(seen) == runs


def test_a_duplicated_request_runs_twice() -> None:
    here, seen = counted(lambda _delivery: Fate.DUPLICATED)
    assert here.request(THERE.public, "/count", b"x", timeout_s=1, max_bytes=10) == b"2"
    assert seen == [b"x", b"x"]


def test_a_courier_can_reorder() -> None:
    def courier(delivery: Delivery) -> Fate:
        if delivery.payload == b"first":
            here.request(THERE.public, "/count", b"second", timeout_s=1, max_bytes=10)
        return Fate.DELIVERED

    here, seen = counted(courier)
    here.request(THERE.public, "/count", b"first", timeout_s=1, max_bytes=10)
    assert seen == [b"second", b"first"]


def test_a_key_that_starts_anew_replaces_its_old_self() -> None:
    network = MemoryNetwork()
    old = network.exchange(HERE)
    new = network.exchange(HERE)
    assert old.addresses() == ()
    assert new.addresses() != ()
