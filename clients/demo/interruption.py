"""Ending a demo in order when somebody asks for it, whatever Python is doing at that moment."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clients.demo.run import OnProgress


@contextmanager
def interruptible(tell: OnProgress) -> Iterator[OnProgress]:
    """Ctrl-C, SIGTERM or a terminal that is closed ends the demo in order, at once or when it next tells its progress.

    Python throws away an exception of a signal handler that runs inside a destructor or a weak reference's callback.
    What was asked is therefore remembered, and asked again at every step and turn of the loop.
    """
    asked = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        raise KeyboardInterrupt

    def told(title: str, closed: int, rounds: int) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        tell(title, closed, rounds)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
