"""A user's own ClientApp at a node: each message is checked against the release, then run in the sandbox.

The coordinator names in each message which version of the app it speaks for; another version is refused, whatever was
approved. A run that this process has not seen begins with an empty state. What the coordinator is told of a failure is
a fixed sentence; the app's own words stay in the node's log.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Final

from flwr.app import Context, Message, RecordDict

from clients.apps.project import read_project
from clients.apps.release import Limits, Releases
from clients.flower.sandbox import DATA, AppError, Sandbox
from clients.storage import AppRelease
from federation.errors import ConsentError, OperatorError, PeerError, UnavailableError
from federation.flower.messages import app_group_of, for_app, pack_records
from federation.rules.keys import PublicKey

logger = logging.getLogger(__name__)

DATA_PATH: Final = "data-path"
"""The setting of ``node_config`` that tells the app where its file is."""
NOT_RELEASED: Final = "This institution releases no data to this app now."


class OwnApp:
    """One app at one institution; called with a message and a context, like any ClientApp.

    Args:
        folder: the app's project.
        code_hash: the version that is served.
        releases: what the institution released.
        coordinator: whom replies go to.
        home: the node's folder; the sandbox must not show it, and copies of the data stay in it.
    """

    def __init__(self, folder: Path, code_hash: str, releases: Releases, *, coordinator: PublicKey, home: Path) -> None:
        self._folder, self._hash, self._releases = folder, code_hash, releases
        self._coordinator, self._home = coordinator, home.resolve()
        self._stage = self._home / "run" / "apps"
        if self._stage.exists():
            shutil.rmtree(self._stage)  # a process that was killed in the middle of a message left its copies there
        self._stage.mkdir(mode=0o700, parents=True)

    def __call__(self, message: Message, context: Context) -> Message:
        """Run one message.

        Raises:
            PeerError: the message is for another version, or the app failed.
            ConsentError: nothing is released to it (any more).
            UnavailableError: the node cannot run it now.
        """
        code_hash, group = app_group_of(message)
        if code_hash != self._hash:
            raise PeerError(
                f"This node serves the app {self._hash[:12]}, not {code_hash[:12]}.",
                remedy="Both sides need the same version of the app; `accord app hash` tells it.",
            )
        try:
            return self._run(for_app(message, group, message_id=message.metadata.message_id), context)
        except AppError as error:
            logger.warning("%s (%s)", error.message, error.detail)
            raise
        except (OperatorError, UnavailableError) as error:  # its words may name files
            logger.warning("%s %s", error.message, error.remedy)
            raise UnavailableError(
                "The node cannot run the app as it is.", remedy="Its log says what its operator must do."
            ) from error
        except ConsentError as error:  # whose licence ended, when and why is the institution's business
            logger.warning("not released: %s", error.message)
            raise ConsentError(NOT_RELEASED, remedy="Ask its officer; its own log says why.") from error

    def _run(self, message: Message, context: Context) -> Message:
        release = self._releases.standing(self._hash)
        if release.coordinator != self._coordinator.did:
            raise ConsentError(
                "The app was released to another coordinator.", remedy="Ask the institution's officer which one it is."
            )
        data = self._releases.data(release)
        project = read_project(self._folder)
        if project.code_hash != self._hash:
            raise OperatorError(
                f"{self._folder} is not the app that is served any more (its hash is {project.code_hash}).",
                remedy="Restore it, or approve the new version and serve that.",
            )
        if context.run_id != message.metadata.run_id:
            context.run_id, context.state = message.metadata.run_id, RecordDict()
        reply = self._sandbox(release, next(iter(data))).run(project, data, message, context)
        self._releases.note(release, message.metadata.message_type, pack_records(reply.content))
        return reply

    def _sandbox(self, release: AppRelease, file: str) -> Sandbox:
        return Sandbox(
            limits=Limits(memory_mib=release.memory_mib, seconds=release.seconds, disk_mib=release.disk_mib),
            node_config={DATA_PATH: f"{DATA}/{file}", **json.loads(release.settings)},
            hidden=(self._home, *self._releases.files()),
            stage=self._stage,
        )
