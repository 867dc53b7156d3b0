"""Ctrl-C ends a demo even when it falls into a moment in which Python throws exceptions away."""

import signal

import pytest

from clients.demo.interruption import interruptible


class InterruptedWhileDying:
    """Its destructor gets the signal, and what a destructor raises is thrown away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def told(_title: str, _closed: int, _rounds: int) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_at_once(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)  # a run in the background ignores some of them
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(told):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_throws_away_interrupts_at_the_next_step() -> None:
    with interruptible(told) as tell:
        thing = InterruptedWhileDying()
        del thing
        with pytest.raises(KeyboardInterrupt):
            tell("Training", 1, 2)


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(told) as tell:
        tell("Training", 1, 2)
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
