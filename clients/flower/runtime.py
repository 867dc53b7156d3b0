"""Runs a Flower ``ClientApp`` at a node: takes the coordinator's messages, runs the app, sends the replies.

Rules:

- Only the coordinator's key is listened to. A message is acknowledged at once and queued; one thread runs the app, one
  message at a time, so training never stalls the network and never runs twice at once.
- A message that was answered is never run again: the same reply is sent. (The node's budget ledger and stored updates
  give the same guarantee across restarts; this is the cheap first line.) A reply that is an error is not kept: the
  coordinator may ask again.
- A reply is sent until the coordinator acknowledges it, refuses it, or asks for something newer of the same type.
"""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from flwr.app import Context, Message, RecordDict

from federation.errors import AccordError, PeerError, UnavailableError
from federation.flower.messages import (
    MESSAGE_BYTES_MAX,
    REPLY,
    TASK,
    error_reply,
    node_id_of,
    pack,
    transfer_s_max,
    unpack,
    with_reply_id,
)
from federation.network.exchange import Exchange
from federation.rules.keys import PublicKey

_QUEUE_MAX: Final = 64
_REPLIES_MAX: Final = 256
_ACK_S_MAX: Final = 20.0
_PAUSE_S: Final = 0.2
_PAUSE_S_MAX: Final = 2.0
_CLOSE_S_MAX: Final = 2.0

logger = logging.getLogger(__name__)


def context_for(exchange: Exchange) -> Context:
    """A Flower context for this node, with nothing configured."""
    return Context(run_id=1, node_id=node_id_of(exchange.public), node_config={}, state=RecordDict(), run_config={})


class FlowerRuntime:
    """A node's running ClientApp, from construction to :meth:`close`.

    Args:
        exchange: this node's end of the network.
        coordinator: the only key whose messages are run.
        leader: where a standby may take over, whose messages are run now; None: always the coordinator's.
        app: the app: a ``ClientApp``, or whatever is called like one.
        context: Flower's context, kept from message to message.
        replies_max: how many answered messages are remembered.
    """

    def __init__(
        self,
        exchange: Exchange,
        coordinator: PublicKey,
        app: Callable[[Message, Context], Message],
        context: Context,
        *,
        replies_max: int = _REPLIES_MAX,
        leader: Callable[[], PublicKey] | None = None,
    ) -> None:
        self._exchange, self._app, self._context = exchange, app, context
        self._leader = leader or (lambda: coordinator)
        self._node_id = node_id_of(exchange.public)
        self._replies_max = replies_max
        self._replies: OrderedDict[str, Message] = OrderedDict()
        self._waiting: set[str] = set()
        self._outbox: OrderedDict[str, Message] = OrderedDict()
        self._changed = threading.Condition()
        self._running = threading.Lock()
        self._closed = False
        self._tasks: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="client-app", daemon=True),
            threading.Thread(target=self._deliver, name="client-app-replies", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        exchange.serve(TASK, self._take, max_bytes=MESSAGE_BYTES_MAX)

    def handle(self, message: Message) -> Message:
        """Run one message now, in this thread (after the one that is running), and return the reply.

        Never raises for what the app does: an error becomes Flower's ``Error`` in the reply.
        """
        name = message.metadata.message_id
        with self._running:
            with self._changed:
                known = self._replies.get(name)
            if known is not None:
                return known
            reply = self._run(message)
            if not reply.has_error():
                with self._changed:
                    self._replies[name] = reply
                    while len(self._replies) > self._replies_max:
                        self._replies.popitem(last=False)
            return reply

    def busy(self, *, sending: bool) -> bool:
        """Whether a message is being worked on; with ``sending``, also whether a reply is still to be sent."""
        with self._changed:
            return bool(self._waiting) or (sending and bool(self._outbox))

    def close(self) -> None:
        """Take no more messages, send no more replies; a training that is running ends with its own transaction."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_CLOSE_S_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, peer: PublicKey, payload: bytes) -> bytes:
        """Acknowledge a message and queue it (the handler of ``TASK``)."""
        if peer != self._leader():
            raise PeerError("This node works for another coordinator.", remedy="Join the study with an invitation.")
        message = unpack(payload)
        name, kind = message.metadata.message_id, message.metadata.message_type
        if message.metadata.dst_node_id != self._node_id or not message.has_content():
            raise PeerError("The message is for another node, or empty.", remedy="Address it by the node's own key.")
        with self._changed:
            if self._closed or len(self._waiting) >= _QUEUE_MAX:
                raise UnavailableError("The node takes no more messages now.", remedy="Send it again later.")
            for older in [each for each, reply in self._outbox.items() if reply.metadata.message_type == kind]:
                if older != name:
                    del self._outbox[older]
            if name in self._replies:
                self._outbox[name] = self._replies[name]
                self._changed.notify_all()
            elif name not in self._waiting:
                self._waiting.add(name)
                self._tasks.put(message)
        return b""

    def _work(self) -> None:
        """Run queued messages, one at a time (the body of a thread)."""
        while (message := self._tasks.get()) is not None:
            reply = self.handle(message)
            with self._changed:
                self._waiting.discard(message.metadata.message_id)
                if self._closed:
                    return
                self._outbox[message.metadata.message_id] = reply
                self._changed.notify_all()

    def _run(self, message: Message) -> Message:
        try:
            reply = self._app(message, self._context)
            return with_reply_id(reply)
        except AccordError as error:
            logger.warning("%s: %s", message.metadata.message_type, error.message)
            return error_reply(message, error)
        except Exception:
            logger.exception("The ClientApp failed on a message of type %s.", message.metadata.message_type)
            failure = PeerError("The node met an internal error.", remedy="Its log says what happened.")
            return error_reply(message, failure)

    def _deliver(self) -> None:
        """Send replies, oldest first, each until it is acknowledged (the body of a thread)."""
        pause_s = _PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._outbox)
                if self._closed:
                    return
                name, reply = next(iter(self._outbox.items()))
            if self._send(reply):
                pause_s = _PAUSE_S
                with self._changed:
                    if self._outbox.get(name) is reply:
                        del self._outbox[name]
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause_s)
                if name in self._outbox:  # not superseded meanwhile: the next reply has its turn
                    self._outbox.move_to_end(name)
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    def _send(self, reply: Message) -> bool:
        """Whether the matter is settled: acknowledged, or refused for good."""
        try:
            data = pack(reply)
            timeout_s = _ACK_S_MAX + transfer_s_max(data)
            self._exchange.request(self._leader(), REPLY, data, timeout_s=timeout_s, max_bytes=0)
        except UnavailableError as error:
            logger.debug("A reply waits: %s", error.message)
            return False
        except AccordError as error:
            logger.info("The coordinator does not take a reply: %s", error.message)
        except Exception:
            logger.exception("A reply could not be sent.")
        return True
