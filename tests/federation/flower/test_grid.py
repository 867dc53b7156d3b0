"""The grid on the in-memory network, with nodes written by hand."""

import threading
import time
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from federation.errors import PeerError, PrivacyError, UnavailableError
from federation.flower import grid as grid_module
from federation.flower import messages
from federation.flower.grid import ExchangeGrid
from federation.network.memory import Delivery, Fate, MemoryExchange, MemoryNetwork
from federation.rules.keys import PrivateKey, PublicKey

COORDINATOR = PrivateKey(b"c" * 32)
NODE = PrivateKey(b"n" * 32)
OTHER = PrivateKey(b"o" * 32)
NODE_ID = messages.node_id_of(NODE.public)


class Setting:
    """A coordinator with a grid, and a node that answers every task with its own key's name."""

    def __init__(self, courier: Callable[[Delivery], Fate] | None = None) -> None:
        self.network = MemoryNetwork(courier)
        self.coordinator = self.network.exchange(COORDINATOR)
        self.grid = ExchangeGrid(self.coordinator)
        self.node = self.join(NODE)
        self.seen: list[str] = []
        self.node.serve(messages.TASK, self.answer, max_bytes=messages.MESSAGE_BYTES_MAX)

    def join(self, key: PrivateKey) -> MemoryExchange:
        node = self.network.exchange(key)
        node.connect(self.coordinator.addresses()[0], timeout_s=1)
        return node

    def answer(self, _peer: PublicKey, data: bytes) -> bytes:
        task = messages.unpack(data)
        self.seen.append(task.metadata.message_id)
        self.reply(self.node, Message(messages.answer_content("done", b"1"), reply_to=task))
        return b""

    @staticmethod
    def reply(node: MemoryExchange, reply: Message) -> None:
        data = messages.pack(messages.with_reply_id(reply))
        node.request(COORDINATOR.public, messages.REPLY, data, timeout_s=1, max_bytes=0)

    def message(self, group: str = "heart/1") -> Message:
        content = RecordDict({"config": ConfigRecord({"lr": 0.5})})
        return self.grid.create_message(content, "train", NODE_ID, group)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "_RESEND_S", 0.1)


def test_it_is_a_grid_of_flowers() -> None:
    setting = Setting()
    assert isinstance(setting.grid, Grid)
    assert setting.grid.run.run_id == 1
    setting.grid.set_run(messages.empty_run(9))
    assert setting.message().metadata.run_id == 9


def test_nodes_are_whoever_is_connected_unless_they_were_named() -> None:
    setting = Setting()
    other = setting.join(OTHER)
    both = sorted([NODE_ID, messages.node_id_of(OTHER.public)])
    assert setting.grid.get_node_ids() == both
    assert sorted(node.node_id for node in setting.grid.get_nodes()) == both
    other.close()
    assert setting.grid.get_node_ids() == [NODE_ID]
    setting.grid.set_nodes([OTHER.public])
    assert setting.grid.get_node_ids() == [messages.node_id_of(OTHER.public)]


def test_a_reply_comes_back() -> None:
    setting = Setting()
    [reply] = setting.grid.send_and_receive([setting.message()], timeout=5)
    assert messages.answer_of(reply) == ("done", b"1")
    assert reply.metadata.reply_to_message_id == setting.message().metadata.message_id
    assert setting.grid.pull_messages([setting.message().metadata.message_id]) == []


def test_pushing_and_pulling_is_the_same_in_two_steps() -> None:
    setting = Setting()
    ids = setting.grid.push_messages([setting.message()])
    end, replies = time.monotonic() + 5, []
    while not replies and time.monotonic() < end:
        replies = setting.grid.pull_messages(ids)
        time.sleep(0.01)
    assert [reply.metadata.src_node_id for reply in replies] == [NODE_ID]


def test_a_node_that_does_not_answer_yields_nothing_within_the_timeout() -> None:
    setting = Setting()
    setting.node.serve(messages.TASK, lambda _peer, _data: b"", max_bytes=messages.MESSAGE_BYTES_MAX)
    started = time.monotonic()
    assert setting.grid.send_and_receive([setting.message()], timeout=0.5) == []
    assert time.monotonic() - started < 3


def test_a_node_that_hangs_in_the_acknowledgement_hangs_nobody() -> None:
    setting = Setting()
    hang = threading.Event()
    setting.node.serve(messages.TASK, lambda _peer, _data: bytes(hang.wait(20)), max_bytes=messages.MESSAGE_BYTES_MAX)
    started = time.monotonic()
    assert setting.grid.send_and_receive([setting.message()], timeout=0.5) == []
    assert time.monotonic() - started < 3
    hang.set()


def test_a_node_that_is_away_gets_the_message_when_it_comes_back() -> None:
    setting = Setting()
    setting.grid.set_nodes([NODE.public])
    setting.node.disconnect(COORDINATOR.public)
    timer = threading.Timer(0.4, setting.node.connect, [setting.coordinator.addresses()[0]], {"timeout_s": 1})
    timer.start()
    assert len(setting.grid.send_and_receive([setting.message()], timeout=10)) == 1


def test_a_lost_message_is_sent_again_under_the_same_id() -> None:
    losses = iter([True, True])

    def courier(delivery: Delivery) -> Fate:
        lost = delivery.protocol == messages.TASK and next(losses, False)
        return Fate.REQUEST_LOST if lost else Fate.DELIVERED

    setting = Setting(courier)
    assert len(setting.grid.send_and_receive([setting.message()], timeout=10)) == 1
    assert setting.seen == [setting.message().metadata.message_id]


def test_a_message_that_took_long_to_send_is_not_sent_again_at_once() -> None:
    setting, seen = Setting(), []

    def slowly(_peer: PublicKey, data: bytes) -> bytes:
        time.sleep(0.2)
        seen.append(data)
        return b""

    setting.node.serve(messages.TASK, slowly, max_bytes=messages.MESSAGE_BYTES_MAX)
    assert setting.grid.send_and_receive([setting.message()], timeout=1.2) == []
    assert len(seen) == 1


def test_a_long_message_may_take_longer_to_arrive() -> None:
    assert messages.transfer_s_max(b"") == 0
    assert messages.transfer_s_max(bytes(10_000_000)) == 100


def test_a_refusal_of_the_node_becomes_flowers_error() -> None:
    def refuse(_peer: PublicKey, _data: bytes) -> bytes:
        raise PrivacyError("The budget is spent.", remedy="Wait.")

    setting = Setting()
    setting.node.serve(messages.TASK, refuse, max_bytes=messages.MESSAGE_BYTES_MAX)
    [reply] = setting.grid.send_and_receive([setting.message()], timeout=5)
    assert reply.has_error()
    assert "PrivacyError: The budget is spent." in (reply.error.reason or "")


def test_unavailable_is_not_an_answer() -> None:
    def busy(_peer: PublicKey, _data: bytes) -> bytes:
        raise UnavailableError("Busy.", remedy="Later.")

    setting = Setting()
    setting.node.serve(messages.TASK, busy, max_bytes=messages.MESSAGE_BYTES_MAX)
    assert setting.grid.send_and_receive([setting.message()], timeout=0.4) == []


def test_a_reply_that_nobody_asked_for_is_refused() -> None:
    setting = Setting()
    with pytest.raises(PeerError, match="nothing that this node was asked"):
        setting.reply(setting.node, Message(RecordDict(), reply_to=setting.message("heart/9")))


def test_a_reply_in_anothers_name_is_refused() -> None:
    setting = Setting()
    other = setting.join(OTHER)
    setting.node.serve(messages.TASK, lambda _peer, _data: b"", max_bytes=messages.MESSAGE_BYTES_MAX)
    setting.grid.push_messages([setting.message()])
    forged = Message(messages.answer_content("done", b"forged"), reply_to=setting.message())
    with pytest.raises(PeerError):
        setting.reply(other, forged)
    assert setting.grid.pull_messages([setting.message().metadata.message_id]) == []


def test_garbage_for_a_reply_is_refused() -> None:
    setting = Setting()
    with pytest.raises(PeerError):
        setting.node.request(COORDINATOR.public, messages.REPLY, b"garbage", timeout_s=1, max_bytes=0)
