"""Whole rounds between real hosts: a Grid, a Strategy and two ClientApps over Noise on loopback."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.flower.runtime import FlowerRuntime, context_for
from federation.flower import messages
from federation.flower.grid import ExchangeGrid
from federation.flower.strategy import AccordStrategy
from federation.network.host import Libp2pHost
from federation.rules.aggregation import aggregate
from federation.rules.keys import PrivateKey, PublicKey

COORDINATOR = PrivateKey(b"c" * 32)
NODES = [PrivateKey(b"1" * 32), PrivateKey(b"2" * 32)]
SIZE = 50_000


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def app_of(step: int) -> ClientApp:
    """Sends its whole update in the reply, as any Flower app may."""
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        number = messages.round_task(message).round
        vector = np.full(SIZE, step * number, dtype=np.int64)
        return Message(RecordDict({"update": messages.vector_record(vector)}), reply_to=message)

    return app


@pytest.fixture
def study() -> Iterator[tuple[ExchangeGrid, list[FlowerRuntime]]]:
    allowed: set[PublicKey] = {key.public for key in NODES}
    with ExitStack() as stack:
        coordinator = stack.enter_context(Libp2pHost(COORDINATOR, allowed=allowed.__contains__))
        grid = ExchangeGrid(coordinator, allowed)
        runtimes = []
        for step, key in enumerate(NODES, start=1):
            node = stack.enter_context(Libp2pHost(key, listen=None, allowed={COORDINATOR.public}.__contains__))
            runtimes.append(
                stack.enter_context(FlowerRuntime(node, COORDINATOR.public, app_of(step), context_for(node)))
            )
            node.keep_connected(coordinator.addresses()[0])
        assert eventually(lambda: len(coordinator.connected()) == len(NODES))
        yield grid, runtimes


def test_three_rounds_end_in_the_exact_aggregate(study: tuple[ExchangeGrid, list[FlowerRuntime]]) -> None:
    grid, _ = study
    strategy = AccordStrategy("heart-1")
    weights = {NODES[0].public.did: 3, NODES[1].public.did: 1}
    model = expected = np.zeros(SIZE, dtype=np.int64)
    for number in (1, 2, 3):
        config = strategy.round_config(round_number=number, base_model="", deadline="", consent_sizes={})
        strategy.begin_round(model, weights)
        asked = strategy.configure_train(number, strategy.no_arrays(), config, grid)
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(asked, timeout=60))
        assert arrays is not None
        model = messages.vector_of(arrays)
        updates = {key.public.did: np.full(SIZE, step * number) for step, key in enumerate(NODES, start=1)}
        expected = aggregate(expected, updates, weights)
    assert model.tobytes() == expected.tobytes()
    assert model.any()


def test_a_dead_node_cannot_hang_a_round(study: tuple[ExchangeGrid, list[FlowerRuntime]]) -> None:
    grid, runtimes = study
    runtimes[0].close()
    strategy = AccordStrategy("heart-1")
    config = strategy.round_config(round_number=1, base_model="", deadline="", consent_sizes={})
    started = time.monotonic()
    replies = grid.send_and_receive(strategy.configure_train(1, strategy.no_arrays(), config, grid), timeout=3)
    assert time.monotonic() - started < 8
    assert [reply.metadata.src_node_id for reply in replies] == [messages.node_id_of(NODES[1].public)]
