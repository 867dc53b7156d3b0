import threading
import time
from collections.abc import Iterator

import pytest
import trio

from federation.errors import UnavailableError
from federation.network.trio_thread import TrioThread


@pytest.fixture
def loop() -> Iterator[TrioThread]:
    loop = TrioThread("test-loop")
    yield loop
    loop.close(5)


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * number


async def fail() -> None:
    raise KeyError("lost")


def test_results_and_errors_come_back(loop: TrioThread) -> None:
    assert loop.run(double, 21) == 42
    with pytest.raises(KeyError):
        loop.run(fail)
    assert loop.run(double, 4) == 8


def test_closing_ends_whoever_waits(loop: TrioThread) -> None:
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            loop.run(trio.sleep_forever)
        except UnavailableError as error:
            ended.append(error)

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.1)
    loop.close(5)
    for thread in waiting:
        thread.join(5)
    assert len(ended) == 3


def test_a_closed_loop_refuses(loop: TrioThread) -> None:
    loop.close(5)
    loop.close(5)
    with pytest.raises(UnavailableError):
        loop.run(double, 1)


def test_a_failing_background_task_is_logged_and_ends_nothing(
    loop: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    loop.start(fail)
    assert loop.run(double, 3) == 6
    time.sleep(0.1)
    assert "lost" in caplog.text
