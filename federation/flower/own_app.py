"""A user's own, unchanged ServerApp on our Grid.

``AppGrid`` does what Flower's server does for messages that an app makes itself: it names them. Each carries the hash
of the app that speaks, so that a node runs no other version. Names hold the run's number, which is drawn anew in every
run: no node answers from an earlier one. Replies are a stranger's: an array that is not what it says is an error reply.
"""

import importlib
import itertools
import logging
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import ServerApp

from federation.errors import AccordError, OperatorError, PeerError
from federation.flower.arrays import check_arrays
from federation.flower.grid import ExchangeGrid
from federation.flower.messages import (
    app_group,
    empty_run,
    for_app,
    message_id,
    refused_reply,
    task_identity,
)
from federation.network.exchange import Exchange

logger = logging.getLogger(__name__)


class AppGrid(ExchangeGrid):
    """The Grid of one run of an app, for whoever is connected.

    Args:
        exchange: the coordinator's end of the network.
        code_hash: the app's hash.
    """

    def __init__(self, exchange: Exchange, code_hash: str) -> None:
        self._code_hash = code_hash
        self._numbers = itertools.count()
        super().__init__(exchange)
        self.set_run(empty_run(secrets.randbits(62) | 1))

    @property
    def node_id(self) -> int:
        """The coordinator's own number."""
        return self._node_id

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message as the app would make it itself."""
        del ttl
        return Message(content, dst_node_id, message_type, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """See :class:`ExchangeGrid`; a message without a name gets one."""
        return super().push_messages([self._named(message) for message in messages])

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """See :class:`ExchangeGrid`."""
        named = [self._named(message) for message in messages]
        try:
            return super().send_and_receive(named, timeout=timeout)
        finally:
            self._forget(message.metadata.message_id for message in named)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """See :class:`ExchangeGrid`; what was answered is forgotten, as models are large."""
        replies = []
        for reply in super().pull_messages(message_ids):
            try:
                if reply.has_content():
                    check_arrays(reply.content)
                replies.append(reply)
            except PeerError as error:
                replies.append(refused_reply(reply, error))
            self._forget([reply.metadata.reply_to_message_id])
        return replies

    def _named(self, message: Message) -> Message:
        metadata = message.metadata
        if metadata.message_id:
            return message
        group = app_group(self._code_hash, metadata.group_id)
        parts = (str(self.run.run_id), str(next(self._numbers)), metadata.message_type, str(metadata.dst_node_id))
        return for_app(message, group, message_id=message_id(*parts))

    def _forget(self, names: Iterable[str]) -> None:
        with self._changed:
            for name in names:
                self._asked.pop(name, None)
                self._resting.pop(name, None)


def run_server_app(folder: Path, reference: str, grid: AppGrid, config: Mapping[str, bool | int | float | str]) -> None:
    """Run the ServerApp of a project in this process until it ends. It is the coordinator's own code: not confined.

    Args:
        folder: the project.
        reference: where the app is, ``package.module:name``.
        grid: the Grid of this run.
        config: Flower's ``run_config``.

    Raises:
        OperatorError: there is no such ServerApp, or it failed.
    """
    task_identity(grid.run.run_id, grid.node_id)
    sys.path.insert(0, str(folder.resolve()))
    module, _, name = reference.partition(":")
    try:
        app = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OperatorError(
            f"{reference} cannot be loaded: {error}.", remedy="Mend the app's pyproject.toml."
        ) from error
    if not isinstance(app, ServerApp):
        raise OperatorError(f"{reference} is no ServerApp.", remedy="Mend the app's pyproject.toml.")
    context = Context(
        run_id=grid.run.run_id, node_id=grid.node_id, node_config={}, state=RecordDict(), run_config=dict(config)
    )
    try:
        app(grid, context)
    except AccordError:
        raise
    except Exception as error:
        logger.exception("The ServerApp failed.")
        raise OperatorError(
            f"The ServerApp failed: {type(error).__name__}: {error}.",
            remedy="What the nodes answered is above; the coordinator's log has the whole trace.",
        ) from error
