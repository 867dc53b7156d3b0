"""The node's runtime, with a real ClientApp on the in-memory network."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.flower.runtime import FlowerRuntime, context_for
from federation.errors import ConsentError, PeerError, UnavailableError
from federation.flower import grid as grid_module
from federation.flower import messages
from federation.flower.grid import ExchangeGrid
from federation.flower.messages import RoundTask
from federation.network.memory import Delivery, Fate, MemoryExchange, MemoryNetwork
from federation.rules.keys import PrivateKey

COORDINATOR = PrivateKey(b"c" * 32)
NODE = PrivateKey(b"n" * 32)
STRANGER = PrivateKey(b"s" * 32)


class Setting:
    """A coordinator, and a node whose app counts its runs."""

    def __init__(self, courier: Callable[[Delivery], Fate] | None = None) -> None:
        self.network = MemoryNetwork(courier)
        self.coordinator = self.network.exchange(COORDINATOR)
        self.grid = ExchangeGrid(self.coordinator)
        self.exchange: MemoryExchange = self.network.exchange(NODE)
        self.exchange.connect(self.coordinator.addresses()[0], timeout_s=1)
        self.runs: list[int] = []
        self.threads: set[str] = set()
        self.behave: Callable[[RoundTask], bytes] = lambda task: b"%d" % task.round
        app = ClientApp()

        @app.train()
        def train(message: Message, _context: Context) -> Message:
            task = messages.round_task(message)
            self.runs.append(task.round)
            self.threads.add(threading.current_thread().name)
            return Message(messages.answer_content("commitment", self.behave(task)), reply_to=message)

        @app.query("reveal")
        def reveal(message: Message, _context: Context) -> Message:
            return Message(messages.answer_content("update", b"shown"), reply_to=message)

        self.runtime = FlowerRuntime(self.exchange, COORDINATOR.public, app, context_for(self.exchange))

    def message(self, number: int = 1, kind: str = messages.TRAIN) -> Message:
        return self.grid.create_message(
            messages.round_content(messages.round_config(RoundTask(study="heart", round=number))),
            kind,
            messages.node_id_of(NODE.public),
            f"heart/{number}",
        )

    def ask(self, number: int = 1, kind: str = messages.TRAIN, timeout: float = 10) -> list[Message]:
        return self.grid.send_and_receive([self.message(number, kind)], timeout=timeout)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "_RESEND_S", 0.1)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.runtime.close()


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_the_app_is_run_and_its_answer_arrives(setting: Setting) -> None:
    [reply] = setting.ask(3)
    assert messages.answer_of(reply) == ("commitment", b"3")
    [reply] = setting.ask(3, messages.REVEAL)
    assert messages.answer_of(reply) == ("update", b"shown")


def test_a_message_that_was_answered_is_never_run_again(setting: Setting) -> None:
    first, second = setting.ask(1), setting.ask(1)
    assert messages.answer_of(first[0]) == messages.answer_of(second[0])
    assert setting.runs == [1]


def test_a_message_that_is_sent_while_it_runs_is_not_run_twice(setting: Setting) -> None:
    release = threading.Event()
    setting.behave = lambda _task: b"slow" if release.wait(10) else b""
    threading.Timer(0.5, release.set).start()  # several re-sends fall into this time
    assert len(setting.ask(1)) == 1
    assert setting.runs == [1]


def test_only_one_thread_runs_the_app(setting: Setting) -> None:
    setting.grid.send_and_receive([setting.message(number) for number in (1, 2, 3)], timeout=10)
    assert sorted(setting.runs) == [1, 2, 3]
    assert setting.threads == {"client-app"}


def test_an_error_of_ours_arrives_with_its_words_and_may_be_asked_again(setting: Setting) -> None:
    def refuse(_task: RoundTask) -> bytes:
        raise ConsentError("Nobody consented.", remedy="Wait.")

    setting.behave = refuse
    [reply] = setting.ask(1)
    assert reply.has_error()
    assert "ConsentError: Nobody consented." in (reply.error.reason or "")
    setting.behave = lambda _task: b"now"
    [reply] = setting.ask(1)
    assert messages.answer_of(reply) == ("commitment", b"now")


def test_a_defect_of_the_app_is_logged_here_and_arrives_without_details(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_task: RoundTask) -> bytes:
        raise ZeroDivisionError("a patient's name")

    setting.behave = fail
    [reply] = setting.ask(1)
    assert reply.has_error()
    assert "patient" not in (reply.error.reason or "")
    assert "a patient's name" in caplog.text


def test_a_task_that_the_app_does_not_know_is_an_error(setting: Setting) -> None:
    [reply] = setting.ask(1, "query.unknown")
    assert reply.has_error()


def test_nobody_but_the_coordinator_is_listened_to(setting: Setting) -> None:
    stranger = setting.network.exchange(STRANGER)
    stranger.connect(setting.exchange.addresses()[0], timeout_s=1)
    with pytest.raises(PeerError, match="another coordinator"):
        stranger.request(NODE.public, messages.TASK, messages.pack(setting.message()), timeout_s=1, max_bytes=0)
    assert setting.runs == []


@pytest.mark.parametrize("data", [b"", b"garbage"])
def test_garbage_is_refused(setting: Setting, data: bytes) -> None:
    with pytest.raises(PeerError):
        setting.coordinator.request(NODE.public, messages.TASK, data, timeout_s=1, max_bytes=0)


def test_a_message_for_another_node_is_refused(setting: Setting) -> None:
    content = messages.round_content(messages.round_config(RoundTask(study="heart", round=1)))
    other = setting.grid.create_message(content, messages.TRAIN, 7, "heart/1")
    with pytest.raises(PeerError, match="another node"):
        setting.coordinator.request(NODE.public, messages.TASK, messages.pack(other), timeout_s=1, max_bytes=0)


def test_a_reply_is_sent_until_it_arrives() -> None:
    losses = iter([Fate.REQUEST_LOST, Fate.ANSWER_LOST])

    def courier(delivery: Delivery) -> Fate:
        return next(losses, Fate.DELIVERED) if delivery.protocol == messages.REPLY else Fate.DELIVERED

    setting = Setting(courier)
    assert len(setting.ask(1)) == 1
    assert setting.runs == [1]
    setting.runtime.close()


def test_a_restarted_coordinator_gets_the_same_reply_without_a_second_run(setting: Setting) -> None:
    [before] = setting.ask(1)
    setting.coordinator.close()
    setting.coordinator = setting.network.exchange(COORDINATOR)
    setting.grid = ExchangeGrid(setting.coordinator)
    setting.exchange.connect(setting.coordinator.addresses()[0], timeout_s=1)
    [after] = setting.ask(1)
    assert messages.answer_of(before) == messages.answer_of(after)
    assert setting.runs == [1]


def test_an_older_reply_gives_way_to_a_newer_task() -> None:
    blocked = True

    def courier(delivery: Delivery) -> Fate:
        return Fate.REQUEST_LOST if blocked and delivery.protocol == messages.REPLY else Fate.DELIVERED

    setting = Setting(courier)
    setting.grid.push_messages([setting.message(1)])
    assert eventually(lambda: setting.runs == [1])
    setting.grid.push_messages([setting.message(2)])
    assert eventually(lambda: setting.runs == [1, 2])
    blocked = False
    assert len(setting.ask(2)) == 1
    assert setting.grid.pull_messages([setting.message(1).metadata.message_id]) == []
    setting.runtime.close()


def test_handling_in_process_is_the_same_without_a_network(setting: Setting) -> None:
    reply = setting.runtime.handle(setting.message(5))
    assert messages.answer_of(reply) == ("commitment", b"5")
    assert setting.runtime.handle(setting.message(5)) is reply
    assert setting.runs == [5]


def test_a_closed_runtime_takes_nothing_more(setting: Setting) -> None:
    setting.runtime.close()
    setting.runtime.close()
    data = messages.pack(setting.message())
    with pytest.raises(UnavailableError):
        setting.coordinator.request(NODE.public, messages.TASK, data, timeout_s=1, max_bytes=0)
