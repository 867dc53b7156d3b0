"""A party as a long-running process: one per folder, a log file, a status file, a clean end on SIGTERM and Ctrl-C."""

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from federation.errors import OperatorError
from federation.settings import PartyFolder, PartySettings

_STATUS_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class RunningParty:
    """What a running party shows of itself in its folder's ``run/``: ``pid``, ``address``, ``status.json``."""

    files: PartyFolder
    stop: threading.Event = field(default_factory=threading.Event)
    status: dict[str, Any] = field(default_factory=dict)
    _last: str = ""
    _shown_at: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """How long ago the party's loop showed its status."""
        return time.monotonic() - self._shown_at

    def show_address(self, addresses: tuple[str, ...]) -> None:
        """Write where this party can be dialled."""
        _replace(self.files.run / "address", "\n".join(addresses) + "\n")

    def show_status(self, status: dict[str, Any]) -> None:
        """Write the status, if it changed; the loop tells it whenever it goes round."""
        self.status, self._shown_at = status, time.monotonic()
        text = json.dumps(status, indent=1, ensure_ascii=False, default=str)
        if text != self._last:
            _replace(self.files.run / "status.json", text)
            self._last = text


@contextlib.contextmanager
def running(files: PartyFolder, settings: PartySettings) -> Iterator[RunningParty]:
    """Hold the folder for this process while the block runs.

    Raises:
        OperatorError: another process runs this party.
    """
    files.run.mkdir(mode=0o700, exist_ok=True)
    party = RunningParty(files)
    with (files.run / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                f"{files.path} is in use: this party is running already.",
                remedy=f"Stop the process named in {files.run / 'pid'}, or use its `status` command.",
            ) from None
        (files.run / "status.json").unlink(missing_ok=True)  # the last run's, which may have been killed
        _replace(files.run / "pid", f"{os.getpid()}\n")
        handlers = {
            number: signal.signal(number, lambda *_: party.stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
        }
        _log_to(files.log, settings)
        try:
            yield party
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            (files.run / "pid").unlink(missing_ok=True)


def is_running(files: PartyFolder) -> bool:
    """Whether a process holds the folder now."""
    path = files.run / "lock"
    if not path.exists():
        return False
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def last_status(files: PartyFolder) -> dict[str, Any]:
    """The newest status that a running party wrote; empty if there is none."""
    path = files.run / "status.json"
    if not path.exists() or path.stat().st_size > _STATUS_BYTES_MAX:
        return {}
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def free_port(listen: str) -> str:
    """``listen`` with a port that the system chose, where it asks for port 0.

    The port is free now and is written into the settings, so that invitations name an address that lasts.
    """
    head, _, port = listen.rpartition("/tcp/")
    if port != "0":
        return listen
    host = head.rsplit("/", 1)[-1]
    family = socket.AF_INET6 if head.startswith("/ip6/") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return f"{head}/tcp/{probe.getsockname()[1]}"


class _JsonLines(logging.Formatter):
    """One JSON document a line, for a collector of logs."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self._party = party

    def format(self, record: logging.LogRecord) -> str:
        """``at`` (UTC), ``level``, ``logger``, ``party``, ``message``, and ``trace`` after a failure."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document = {"at": at, "level": record.levelname.lower(), "logger": record.name, "party": self._party}
        document["message"] = record.getMessage()
        if record.exc_info:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _log_to(path: Path, settings: PartySettings) -> None:
    handler = logging.FileHandler(path, encoding="utf-8")
    as_text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines(settings.name) if settings.log_format == "json" else as_text)
    path.chmod(0o600)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())


def _replace(path: Path, text: str) -> None:
    """Write a file that readers see whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
