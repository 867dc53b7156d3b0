"""Flower's ``Grid`` on any :class:`~federation.network.exchange.Exchange`.

The coordinator pushes a message on ``/accord/task/1``; the node acknowledges at once and works on its own time; its
reply comes as a request of its own on ``/accord/reply/1``. So a slow training holds no stream open, a restart of either
side loses nothing that sending again does not repair, and a frozen node costs the coordinator nothing but its absence.

Rules: a reply counts only from the node that was asked, proven by its key; a node that does not answer yields no reply
within the timeout; a node that refuses yields Flower's ``Error``.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Final

from flwr.app import Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from federation.errors import AccordError, PeerError, UnavailableError
from federation.flower.messages import (
    MESSAGE_BYTES_MAX,
    REPLY,
    TASK,
    empty_run,
    error_reply,
    node_id_of,
    pack,
    task_message,
    transfer_s_max,
    unpack,
)
from federation.network.exchange import Exchange
from federation.rules.keys import PublicKey

__all__ = ["ExchangeGrid", "node_id_of"]

_ACK_S_MAX: Final = 10.0
_RESEND_S: Final = 2.0
_REST: Final = 10
"""A message that took long to send is left alone for so many times as long: sending again takes a tenth of the line."""
_RUN_ID: Final = 1

logger = logging.getLogger(__name__)


class ExchangeGrid(Grid):
    """A Grid whose nodes are the peers of ``exchange``. Safe to use from several threads.

    Args:
        exchange: this party's end of the network.
        nodes: the nodes of the run, present or not; None takes whoever is connected.
    """

    def __init__(self, exchange: Exchange, nodes: Iterable[PublicKey] | None = None) -> None:
        self._exchange = exchange
        self._node_id = node_id_of(exchange.public)
        self._run = empty_run(_RUN_ID)
        self._nodes: dict[int, PublicKey] | None = None
        self._asked: dict[str, Metadata] = {}
        self._under_way: set[str] = set()
        self._resting: dict[str, float] = {}
        self._took_s: dict[PublicKey, float] = {}
        self._replies: dict[str, Message] = {}
        self._changed = threading.Condition()
        if nodes is not None:
            self.set_nodes(nodes)
        exchange.serve(REPLY, self._take, max_bytes=MESSAGE_BYTES_MAX)

    def set_nodes(self, nodes: Iterable[PublicKey]) -> None:
        """Say who belongs to the run, present or not."""
        self._nodes = {node_id_of(peer): peer for peer in nodes}

    def request_s(self, peer: PublicKey) -> float | None:
        """How long the last message to ``peer`` took to be acknowledged, in seconds; None: none was."""
        return self._took_s.get(peer)

    def set_run(self, run: Run) -> None:
        """See :class:`flwr.serverapp.Grid`."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message with a deterministic id (run, group, type, node); ``ttl`` is ours (30 days), as deadlines bind."""
        del ttl
        return task_message(
            content,
            run_id=self._run.run_id,
            group_id=group_id,
            message_type=message_type,
            src_node_id=self._node_id,
            dst_node_id=dst_node_id,
        )

    def get_node_ids(self) -> list[int]:
        """The nodes of the run, sorted."""
        return sorted(self._directory())

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send each message, in the background; one under way, or just arrived after a long time, is left alone.

        A node that is away simply does not get it: push again.
        """
        names = []
        for message in messages:
            name = message.metadata.message_id
            names.append(name)
            with self._changed:
                self._asked[name] = message.metadata
                if name in self._under_way or time.monotonic() < self._resting.get(name, 0.0):
                    continue
                self._under_way.add(name)
            threading.Thread(target=self._push, args=(message,), name=f"push-{name[:8]}", daemon=True).start()
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Take the replies to these messages that have come; each is given out once."""
        with self._changed:
            return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, push again to those who come back, and return the replies that came within ``timeout`` seconds."""
        asked = {message.metadata.message_id: message for message in messages}
        end = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while asked:
            self.push_messages(asked.values())
            again = min(end, time.monotonic() + _RESEND_S)
            while asked and time.monotonic() < again:
                with self._changed:
                    self._changed.wait_for(lambda: asked.keys() & self._replies.keys(), again - time.monotonic())
                for reply in self.pull_messages(list(asked)):
                    del asked[reply.metadata.reply_to_message_id]
                    replies.append(reply)
            if time.monotonic() >= end:
                break
        return replies

    def _directory(self) -> dict[int, PublicKey]:
        if self._nodes is not None:
            return self._nodes
        return {node_id_of(peer): peer for peer in self._exchange.connected()}

    def _push(self, message: Message) -> None:
        """Send one message and wait for its acknowledgement (a thread's body)."""
        metadata = message.metadata
        try:
            peer = self._directory().get(metadata.dst_node_id) or self._connected(metadata.dst_node_id)
            if peer is None:
                logger.debug("node %d is away; message %s waits", metadata.dst_node_id, metadata.message_id)
                return
            data, began = pack(message), time.monotonic()
            self._exchange.request(peer, TASK, data, timeout_s=_ACK_S_MAX + transfer_s_max(data), max_bytes=0)
            now = time.monotonic()
            with self._changed:
                self._resting[metadata.message_id] = now + _REST * (now - began)
                self._took_s[peer] = now - began
        except UnavailableError as error:
            logger.debug("%s", error.message)
        except AccordError as error:
            logger.info("node %d refuses a message: %s", metadata.dst_node_id, error.message)
            self._put(error_reply(message, error))
        except Exception:
            logger.exception("A message could not be sent.")
        finally:
            with self._changed:
                self._under_way.discard(metadata.message_id)

    def _connected(self, node_id: int) -> PublicKey | None:
        return next((peer for peer in self._exchange.connected() if node_id_of(peer) == node_id), None)

    def _take(self, peer: PublicKey, payload: bytes) -> bytes:
        """Take a node's reply in (the handler of ``REPLY``)."""
        reply = unpack(payload)
        metadata = reply.metadata
        with self._changed:
            asked = self._asked.get(metadata.reply_to_message_id)
        if asked is None or asked.dst_node_id != node_id_of(peer):
            raise PeerError(
                "The reply answers nothing that this node was asked.", remedy="Wait until the coordinator asks again."
            )
        if metadata.src_node_id != node_id_of(peer) or metadata.message_type != asked.message_type:
            raise PeerError("The reply names another node, or another task.", remedy="Reply to the message itself.")
        self._put(reply)
        return b""

    def _put(self, reply: Message) -> None:
        with self._changed:
            self._replies[reply.metadata.reply_to_message_id] = reply
            self._changed.notify_all()
