"""One trio event loop in a thread of its own, and calls into it from ordinary threads.

Why: py-libp2p runs on trio only, while training, databases and the command line are synchronous. The loop's thread is a
daemon, so that a hanging peer never keeps a process alive, and every call into it ends: with its result, its error, or
UnavailableError when the loop is closed.
"""

import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final, TypeVar, TypeVarTuple

import trio

from federation.errors import UnavailableError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_START_S_MAX: Final = 30.0
logger = logging.getLogger(__name__)


class TrioThread:
    """A running trio loop; ``name`` is the thread's."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._pending: set[Future[object]] = set()
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_S_MAX):
            raise UnavailableError("The network's thread did not start.", remedy="Check the machine's load; try again.")

    def run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run ``await function(*args)`` in the loop and wait for its result; not to be called from the loop itself.

        Raises:
            UnavailableError: the loop is closed, or was closed while this waited.
            Exception: whatever ``function`` raised.
        """
        return self._submit(function, *args).result()

    def start(self, function: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Run ``await function(*args)`` in the background until it ends or the loop closes; a failure is logged."""

        def report(future: Future[None]) -> None:
            error = future.exception()
            if error is not None and not isinstance(error, UnavailableError):
                logger.error("A background task of the network failed.", exc_info=error)

        self._submit(function, *args).add_done_callback(report)

    def close(self, timeout_s: float) -> None:
        """Cancel everything and wait up to ``timeout_s`` for the loop's end. Idempotent."""
        with self._lock:
            nursery, token = self._nursery, self._token
        if nursery is not None and token is not None:
            try:
                token.run_sync_soon(nursery.cancel_scope.cancel)
            except trio.RunFinishedError:
                logger.debug("The network's loop had ended already.")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                logger.warning("The network's thread is still busy after %.0f s; it ends with the process.", timeout_s)
        self._fail_pending()

    def _submit(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> "Future[T]":
        future: Future[T] = Future()

        async def drive() -> None:
            try:
                result = await function(*args)
            except trio.Cancelled:
                _settle(future, _closed())
                raise
            except Exception as error:  # noqa: BLE001  # the task boundary: the error is raised in the caller's thread
                _settle(future, error)
            else:
                if not future.done():
                    future.set_result(result)

        def begin() -> None:
            if self._nursery is None:
                _settle(future, _closed())
            else:
                self._nursery.start_soon(drive)

        with self._lock:
            if self._token is None:
                raise _closed()
            self._pending.add(future)  # type: ignore[arg-type]  # Future is invariant; only its end is of interest here
            token = self._token
        future.add_done_callback(self._forget)
        try:
            token.run_sync_soon(begin)
        except trio.RunFinishedError:
            _settle(future, _closed())
        return future

    def _forget(self, future: "Future[T]") -> None:
        with self._lock:
            self._pending.discard(future)

    def _fail_pending(self) -> None:
        with self._lock:
            self._token = None
            pending = list(self._pending)
        for future in pending:
            _settle(future, _closed())

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except Exception:
            logger.exception("The network's loop failed.")
        finally:
            self._ready.set()
            self._fail_pending()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            with self._lock:
                self._nursery = nursery
                self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None


def _settle(future: "Future[T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _closed() -> UnavailableError:
    return UnavailableError("The network of this party is closed.", remedy="Start the command again.")
