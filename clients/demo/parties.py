"""The demo's parties as operating-system processes: commands that end, and processes that run until the settlement.

Everything goes through the public command line, as an operator would type it; the demo has no other way in. Each
process gets a session of its own, so that a Ctrl-C reaches the demo alone and the demo ends them in order.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from federation.errors import OperatorError, UnavailableError

_COMMAND_S_MAX: Final = 300
_STOP_S_MAX: Final = 20
_TAIL_CHARACTERS: Final = 1500


class PartyFailedError(UnavailableError):
    """A party of the demo failed; the message says which, and where its log is."""


def accord(*arguments: str | Path) -> dict[str, Any]:
    """Run one ``accord`` command with ``--json`` and return what it printed.

    Raises:
        AccordError: the command refused; message and remedy are its own.
        PartyFailedError: it ended without an answer.
    """
    line = [sys.executable, "-m", "federation.cli", *map(str, arguments), "--json"]
    shown = " ".join(["accord", *map(str, arguments)])
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_COMMAND_S_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise PartyFailedError(
            f"`{shown}` did not end within {_COMMAND_S_MAX} s.",
            remedy="Run the demo again with the same --out to resume.",
        ) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise PartyFailedError(
            f"`{shown}` ended with exit code {done.returncode}: {done.stderr[-_TAIL_CHARACTERS:].strip()}",
            remedy="Read the lines above; then run the demo again with the same --out to resume.",
        )
    if done.returncode != 0:
        error = answer.get("error", {})
        raise OperatorError(
            f"`{shown}` refused: {error.get('message', 'no reason')}", remedy=str(error.get("remedy", "See above."))
        )
    return answer


@dataclass(slots=True)
class Party:
    """A running process of one party."""

    role: str
    name: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> Path:
        """What the party wrote."""
        return self.folder / "party.log"

    def check(self) -> None:
        """Complain if the process ended with an error.

        Raises:
            PartyFailedError: it did.
        """
        code = self.process.poll()
        if code not in (None, 0):
            raise PartyFailedError(
                f"The {self.role} {self.name} ended with exit code {code}.",
                remedy=f"Its log is {self.log}, its last words are in {self.folder / 'output.txt'}.",
            )


@dataclass(slots=True)
class Parties:
    """All processes of one demo."""

    running: list[Party] = field(default_factory=list)
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, role: str, name: str, folder: Path, *arguments: str) -> Party:
        """Start ``accord ROLE run`` in ``folder``.

        Raises:
            PartyFailedError: all have been stopped, and nothing starts any more.
        """
        line = [sys.executable, "-m", "federation.cli", role, "run", "--dir", str(folder), *arguments]
        with self._lock, (folder / "output.txt").open("ab") as output:
            if self._stopped:
                raise PartyFailedError(f"The {role} {name} does not start: the demo is stopping.", remedy="Resume it.")
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            party = Party(role, name, folder, process)
            self.running.append(party)
        return party

    def ended(self) -> Party | None:
        """A party whose process has ended, whatever its exit code."""
        return next((party for party in self.running if party.process.poll() is not None), None)

    def check(self) -> None:
        """Complain if any process failed.

        Raises:
            PartyFailedError: the first that did.
        """
        for party in self.running:
            party.check()

    def wait(self, seconds: float) -> None:
        """Wait until every process has ended by itself.

        Raises:
            PartyFailedError: one failed, or did not end in time.
        """
        end = time.monotonic() + seconds
        for party in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                party.process.wait(max(0.1, end - time.monotonic()))
            party.check()
            if party.process.poll() is None:
                raise PartyFailedError(
                    f"The {party.role} {party.name} did not end after the settlement.",
                    remedy=f"Look into its log, {party.log}.",
                )

    def stop(self) -> None:
        """End every process: ask first, then insist."""
        with self._lock:
            self._stopped = True
        alive = [party.process for party in self.running if party.process.poll() is None]
        for process in alive:
            process.terminate()
        end = time.monotonic() + _STOP_S_MAX
        for process in alive:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def parties() -> Iterator[Parties]:
    """The demo's processes; none is left behind, however the block ends.

    Call it in the main thread: while the processes are being ended, which takes a bounded time, signals are ignored, so
    that an impatient second Ctrl-C leaves nothing running either.
    """
    group = Parties()
    try:
        yield group
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            group.stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def wait_for(path: Path, party: Party, seconds: float = 60.0) -> str:
    """The text of a file that a starting party writes.

    Raises:
        PartyFailedError: the party failed, or the file did not come in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        party.check()
        if path.exists():
            return path.read_text("utf-8").strip()
        time.sleep(0.1)
    raise PartyFailedError(f"The {party.role} {party.name} did not start.", remedy=f"Look into its log, {party.log}.")
