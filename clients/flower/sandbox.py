"""Runs one Flower message through somebody else's ClientApp, in a process of its own behind walls.

Rules:

- The app is a copy of bytes that were hashed (``clients.apps.project``), its data a copy of bytes that were checked.
  Both are read-only, and beside the interpreter and its packages they are all that the process sees of this machine.
- The walls are ``clients.flower.cell``'s: no network, no other process, bounded memory, time and disk, no privilege.
  Where one cannot be built nothing is run.
- What the app sends is read up to a fixed size and taken apart as a stranger's. Its metadata are ours, not the app's.
- Whatever the app says when it fails stays here, in :attr:`AppError.detail`: it may be about the data.

The walls bound what the app can do to this machine. They do not bound what its answer tells: whoever lets an app see
data must be content that the data themselves leave (docs/adr/0020-own-apps-on-released-data.md).
"""

import contextlib
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

from flwr.app import Context, Message

import federation
from clients.apps.project import ConfigValue, Project
from clients.apps.release import Limits
from clients.flower import cell
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.flower.messages import MESSAGE_BYTES_MAX, pack, pack_records, unpack_records

logger = logging.getLogger(__name__)

APP, DATA = "/app", "/data"
"""Where the app finds itself, and its data."""
_STATE_BYTES_MAX: Final = 16 << 20
REPLY_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 4096
"""Of the content; the rest is for the message around it."""
ANSWER_BYTES_MAX: Final = 1 + 8 + REPLY_BYTES_MAX + _STATE_BYTES_MAX
_DETAIL_MAX: Final = 2000
_SIGNALLED: Final = 128
"""Added to the number of the signal that ended the app: its exit code."""
_PRINTED_MAX, _PRINTED_KEPT = 16 << 20, 8192
_PIECE: Final = 1 << 16
_SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
# One thread for each library of numbers: what they reserve for each core counts against the limit of memory.
_ENVIRONMENT: Final = {
    "HOME": "/tmp",  # noqa: S108 -- inside the sandbox: its own, empty and of fixed size
    "TMPDIR": "/tmp",  # noqa: S108 -- as above
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}


class AppError(PeerError):
    """The app did not answer as it should. ``detail`` is for the institution's own operators and never leaves."""

    def __init__(self, message: str, *, detail: str) -> None:
        super().__init__(message, remedy="The institution's log says more; the app's author must mend it.")
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How one institution runs one app.

    Attributes:
        limits: what it may use.
        node_config: Flower's ``node_config``: settings of this institution.
        hidden: folders and files that must not be visible in it (the node's own, and the data's).
        stage: where copies of app and data are while a message runs; None: the system's temporary folder.
    """

    limits: Limits
    node_config: Mapping[str, ConfigValue]
    hidden: tuple[Path, ...] = ()
    stage: Path | None = None

    def run(self, project: Project, data: Mapping[str, bytes], message: Message, context: Context) -> Message:
        """Run one message; the app's reply. ``context.state`` is what the app left there.

        Args:
            project: the app.
            data: names and bytes of the files that it finds below ``/data``.
            message: the message.
            context: run, node and state.

        Raises:
            AppError: the app failed, took or sent too much, or sent something that is no reply.
            OperatorError: the project has no ClientApp, or something hidden lies where the interpreter is.
            UnavailableError: this system cannot build the walls.
        """
        if not project.client_app:
            raise OperatorError("The app has no ClientApp.", remedy="Name it in its pyproject.toml.")
        visible, links, paths = _surroundings()
        _check_hidden(self.hidden, visible)
        body, state = pack(message), pack_records(context.state)
        with tempfile.TemporaryDirectory(prefix="accord-app-", dir=self.stage, ignore_cleanup_errors=True) as name:
            stage = Path(name).resolve()
            project.write_to(stage / "app")
            _write_data(stage / "data", data)
            (stage / "root").mkdir()
            request = {
                "root": str(stage / "root"),
                "visible": [
                    *((path, path) for path in visible),
                    (str(stage / "app"), APP),
                    (str(stage / "data"), DATA),
                ],
                "links": links,
                "paths": paths,
                "memory_bytes": self.limits.memory_mib << 20,
                "disk_bytes": self.limits.disk_mib << 20,
                "seconds": self.limits.seconds,
                "client_app": project.client_app,
                "run_id": context.run_id,
                "node_id": context.node_id,
                "node_config": dict(self.node_config),
                "run_config": dict(project.config),
                "message_bytes": len(body),
            }
            head = json.dumps(request).encode()
            answer = _ask_cell(struct.pack(">I", len(head)) + head + body + state, self.limits)
        content, state = reply_parts(answer)
        reply = Message(unpack_records(content), reply_to=message)
        context.state = unpack_records(state)
        return reply


def _ask_cell(request: bytes, limits: Limits) -> bytes:
    """Start the process, give it the request, take its answer; it never outlives this call."""
    if sys.platform != "linux":
        raise _no_walls(f"it runs {sys.platform}, not Linux")
    expired = threading.Event()
    printed = bytearray()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", cell.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        timer = threading.Timer(limits.seconds, _expire, [process, expired])
        listener = threading.Thread(target=_listen, args=(process.stderr, printed), daemon=True)
        try:
            timer.start()
            listener.start()
            answer = _talk(process, request)
            if len(answer) <= ANSWER_BYTES_MAX:
                process.wait()  # ends with the app, or at the deadline
        finally:
            timer.cancel()
            _kill(process)
            listener.join()
        code = process.wait()
    logger.debug("the app printed last: %r", bytes(printed))
    if expired.is_set():
        raise AppError(f"The app took longer than the {limits.seconds} s that it has.", detail="ended at the deadline")
    if len(answer) > ANSWER_BYTES_MAX:
        raise AppError("The app's reply is too large.", detail=f"more than {ANSWER_BYTES_MAX} bytes")
    return checked_answer(answer, code)


def _talk(process: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    """Write the request, then read until the other side closes or says more than it may."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the sandbox was started without pipes")
    with contextlib.suppress(BrokenPipeError), process.stdin as sent:  # if it ends before, its exit code says why
        view = memoryview(request)
        while view:
            view = view[sent.write(view) :]
    answer = bytearray()
    while len(answer) <= ANSWER_BYTES_MAX and (piece := process.stdout.read(_PIECE)):
        answer += piece
    return bytes(answer)


def _listen(stream: IO[bytes], printed: bytearray) -> None:
    """Keep the end of what the app prints (a thread's body): printing blocks nobody, and printing for ever fails."""
    left = _PRINTED_MAX
    with stream:
        while left > 0 and (piece := stream.read(_PIECE)):
            left -= len(piece)
            printed += piece
            del printed[:-_PRINTED_KEPT]


def _expire(process: "subprocess.Popen[bytes]", expired: threading.Event) -> None:
    expired.set()
    _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the outermost process; the kernel then ends the inner ones (see ``clients.flower.cell``)."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def checked_answer(answer: bytes, code: int) -> bytes:
    """The answer of an app that succeeded.

    Raises:
        AppError: it failed, or was ended by the kernel.
        UnavailableError: the walls could not be built.
    """
    kind, said = answer[:1], answer[1 : 1 + _DETAIL_MAX].decode("utf-8", "replace")
    if kind == b"!":
        raise _no_walls(said)
    if code == _SIGNALLED + signal.SIGXCPU:
        raise AppError("The app used all of the processor's time that it has.", detail="ended by SIGXCPU")
    if code > _SIGNALLED:
        raise AppError("The app was ended by the kernel.", detail=f"signal {code - _SIGNALLED}")
    if kind == b"-":
        raise AppError("The app failed on this message.", detail=said)
    if kind != b"+" or code != 0:
        raise AppError("The app sent something that is no reply.", detail=f"it ended with code {code}")
    return answer[1:]


def reply_parts(answer: bytes) -> tuple[bytes, bytes]:
    """The reply's records and the app's state, in bytes.

    Raises:
        AppError: they are incomplete, or too large.
    """
    size = int.from_bytes(answer[:8], "big")
    content, state = answer[8 : 8 + size], answer[8 + size :]
    if len(content) != size:
        raise AppError("The app sent something that is no reply.", detail=f"{len(content)} of {size} bytes came")
    if len(content) > REPLY_BYTES_MAX or len(state) > _STATE_BYTES_MAX:
        raise AppError("The app's reply is too large.", detail=f"{len(content)} bytes, and {len(state)} of state")
    return content, state


def _no_walls(why: str) -> UnavailableError:
    return UnavailableError(
        f"This system cannot build the sandbox, so the app is not run: {why}.",
        remedy="Use Linux 5.12 or newer where the node's user may make namespaces (docs/reference/own-apps.md).",
    )


def _write_data(folder: Path, data: Mapping[str, bytes]) -> None:
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask is
    for name, content in data.items():
        target = folder / name
        target.write_bytes(content)
        target.chmod(0o444)


@cache
def _surroundings() -> tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """What of this machine is shown: folders and files, symbolic links, and where modules are found.

    The interpreter with its installed packages, Accord's own code, and the system's libraries.
    """
    own = Path(federation.__file__).resolve().parent
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {Path(sysconfig.get_path(name)).resolve() for name in names} | {own}
    places.add(Path(sys.base_prefix).resolve() / "lib")
    links = tuple((name, str(Path(name).readlink())) for name in _SYSTEM if Path(name).is_symlink())
    places |= {Path(name) for name in _SYSTEM if Path(name).exists() and not Path(name).is_symlink()}
    outermost = [place for place in places if not any(place.is_relative_to(other) for other in places - {place})]
    found = [Path(entry).resolve() for entry in sys.path if entry]
    paths = [path for path in found if any(path.is_relative_to(place) for place in outermost)]
    return tuple(sorted(map(str, outermost))), links, (*map(str, dict.fromkeys(paths)), str(own.parent))


def _check_hidden(hidden: tuple[Path, ...], visible: tuple[str, ...]) -> None:
    for path in hidden:
        for place in visible:
            if path.resolve().is_relative_to(place) or Path(place).is_relative_to(path.resolve()):
                raise OperatorError(
                    f"{path} lies where the sandbox would show it ({place}).",
                    remedy="Keep the node's folder and its data apart from the installation of Python.",
                )
