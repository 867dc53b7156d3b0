"""The sandbox, with real processes: what an app tries there, and what comes of it."""

import json
import logging
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.apps.project import Project, read_project
from clients.apps.release import Limits
from clients.flower import cell, sandbox
from clients.flower.sandbox import AppError, Sandbox
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.flower import messages

pytestmark = pytest.mark.processes

SAMPLE = Path(__file__).parent / "sample_app"
ROWS = b"day,wind,hour,power\nd1,0.5,0.1,2\nd2,-0.3,0.8,-2\nd3,0.1,-0.9,4\n"

HEAD = """
import ctypes, errno, os, signal, socket, subprocess, sys, threading, time
import numpy as np
from flwr.app import *
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
"""
TAIL = """
    return Message(RecordDict({"told": ConfigRecord({"lines": told})}), reply_to=message)
"""


def project_of(body: str) -> Project:
    """An app whose train function does this; ``told`` is what it answers."""
    source = HEAD + textwrap.indent(textwrap.dedent(body), "    ") + TAIL
    return Project({"bad.py": source.encode()}, client_app="bad:app", server_app="", config={})


def context() -> Context:
    return Context(run_id=5, node_id=7, node_config={}, state=RecordDict(), run_config={})


def message(content: RecordDict | None = None) -> Message:
    content = content or RecordDict({"arrays": ArrayRecord([np.zeros(3)])})
    return messages.task_message(content, run_id=5, group_id="1", message_type="train", src_node_id=3, dst_node_id=7)


def run(body: str, *, seconds: int = 60, disk_mib: int = 64) -> list[str]:
    """What the app tells."""
    limits = Limits(memory_mib=1024, seconds=seconds, disk_mib=disk_mib)
    reply = Sandbox(limits, {}).run(project_of(body), {"wind.csv": ROWS}, message(), context())
    told = reply.content["told"]
    assert isinstance(told, ConfigRecord)
    lines = told["lines"]
    assert isinstance(lines, list)
    return [str(line) for line in lines]


def refused(body: str, *, seconds: int = 60) -> AppError:
    with pytest.raises(AppError) as caught:
        run(body, seconds=seconds)
    return caught.value


@pytest.fixture
def _private_by_default() -> Iterator[None]:
    """As a service with UMask=0077 runs."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_private_by_default")
def test_an_unchanged_app_trains_on_its_data_and_keeps_its_state_here() -> None:
    app = Sandbox(Limits(), {"data-path": "/data/wind.csv"})
    own, task = context(), message()
    for number in (1, 2):
        reply = app.run(read_project(SAMPLE), {"wind.csv": ROWS}, task, own)
        metrics = reply.content["metrics"]
        assert isinstance(metrics, MetricRecord)
        assert (metrics["num-examples"], metrics["messages"]) == (3, number)
    assert own.state["seen"] == MetricRecord({"messages": 2})
    [model] = reply.content.array_records["arrays"].to_numpy_ndarrays()
    assert np.abs(model).max() > 0.5
    assert reply.metadata.reply_to_message_id == task.metadata.message_id
    assert (reply.metadata.src_node_id, reply.metadata.dst_node_id) == (7, 3)


ATTEMPTS = """
    told = []

    def attempt(name, function):
        try:
            told.append(f"{name}: {function()!r}")
        except OSError as error:
            told.append(f"{name}: {errno.errorcode[error.errno]}")
        except BaseException as error:
            told.append(f"{name}: {type(error).__name__}")

    def write_much():
        for number in range(16):
            with open(f"/tmp/{number}", "wb") as file:
                file.write(bytes(16 << 20))

    libc = ctypes.CDLL(None, use_errno=True)
    fork_arguments = bytes(32) + (17).to_bytes(8, "little") + bytes(24)
    attempt("socket", socket.socket)
    attempt("connect", lambda: socket.create_connection(("127.0.0.1", 22)))
    attempt("passwords", lambda: open("/etc/passwd").read())
    attempt("database", lambda: open("{database}", "rb").read())
    attempt("processes", lambda: os.listdir("/proc"))
    attempt("memory", lambda: bytearray(4 << 30))
    attempt("uncounted memory", lambda: os.memfd_create("hidden"))
    attempt("fork", os.fork)
    attempt("new fork", lambda: libc.syscall(435, fork_arguments, 64) or os._exit(0))  # clone3
    attempt("program", lambda: subprocess.run(["/usr/bin/id"]))
    attempt("one large file", lambda: open("/tmp/large", "wb").write(bytes(1 << 27)))
    attempt("many files", write_much)
    attempt("code", lambda: open("/app/bad.py", "a"))
    attempt("data", lambda: open("/data/wind.csv", "a"))
    attempt("folder", lambda: os.mkdir("/mine"))
    attempt("first process", lambda: os.kill(1, signal.SIGKILL))
    attempt("node", lambda: os.kill({node}, 0))
    attempt("namespace", lambda: libc.unshare(0x10000000))
    attempt("root", lambda: os.setuid(0))
    attempt("limits", lambda: __import__("resource").setrlimit(7, (4096, 4096)))
"""


def test_every_way_out_is_closed(tmp_path: Path) -> None:
    database = tmp_path / "accord.db"
    database.write_bytes(b"consents")
    told = run(ATTEMPTS.replace("{database}", str(database)).replace("{node}", str(os.getpid())))
    found = dict(line.split(": ", 1) for line in told)
    # Under a node that is not root's, files appear as the app's own, but on a file system that is read-only; there is
    # no user 0; and a signal to the first process is taken and has no effect.
    assert {found.pop("code"), found.pop("data")} <= {"EACCES", "EROFS"}
    assert found.pop("root") in {"EPERM", "EINVAL"}
    assert found.pop("first process") in {"EPERM", "None"}
    assert found == {
        "socket": "EPERM",
        "connect": "EPERM",
        "passwords": "ENOENT",
        "database": "ENOENT",
        "processes": "ENOENT",
        "memory": "MemoryError",
        "uncounted memory": "EPERM",
        "fork": "EPERM",
        "new fork": "-1",
        "program": "EPERM",
        "one large file": "EFBIG",
        "many files": "ENOSPC",
        "folder": "EROFS",
        "node": "ESRCH",
        "namespace": "-1",
        "limits": "ValueError",
    }


def test_an_app_sees_itself_its_data_and_nothing_of_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the node")
    told = run(
        """
        descriptors = []
        for number in range(256):
            try:
                os.fstat(number)
                descriptors.append(number)
            except OSError:
                pass
        told = [*os.listdir("/app"), *os.listdir("/data"), *map(str, (os.getuid(), os.getgroups(), os.getpid()))]
        told += [str(descriptors), str(os.environ.get("A_SECRET"))]
        """
    )
    assert told[:2] == ["bad.py", "wind.csv"]
    assert told[2] == "65534"
    assert set(json.loads(told[3])) <= {65534}, "no group of the node's that means anything here"
    assert told[4:] == ["2", "[0, 1, 2, 3]", "None"]


def test_an_app_has_no_privilege_and_no_network_even_behind_the_filter_of_calls() -> None:
    told = run(
        """
        import fcntl
        libc = ctypes.CDLL(None)
        capabilities = ctypes.create_string_buffer(24)
        libc.capget((0x20080522).to_bytes(8, "little"), capabilities)
        pair = socket.socketpair()
        flags = fcntl.ioctl(pair[0], 0x8913, b"lo".ljust(40, b"\\0"))  # SIOCGIFFLAGS
        up = int.from_bytes(flags[16:18], "little") & 1
        told = [capabilities.raw.hex(), str(libc.prctl(39, 0, 0, 0, 0)), str(up)]
        """
    )
    no_new_privileges, loopback_up = "1", "0"
    assert told == ["0" * 48, no_new_privileges, loopback_up]


def test_what_an_app_says_when_it_fails_stays_here() -> None:
    error = refused("raise ValueError('the wind of the 3rd of May')")
    assert "May" not in error.message + error.remedy
    assert error.detail == "ValueError: the wind of the 3rd of May"


def test_an_app_that_never_ends_is_ended_whatever_it_does_against_it() -> None:
    error = refused(
        """
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        libc = ctypes.CDLL(None)
        libc.prctl(1, 0, 0, 0, 0)
        os.setsid()
        os.close(3)
        while True:
            pass
        """,
        seconds=1,
    )
    assert "longer than the 1 s" in error.message


def test_an_app_that_kills_itself_is_a_refusal() -> None:
    assert "ended by the kernel" in refused("os.abort()").message


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("os.write(3, b'garbage' * 100); os._exit(0)", "no reply"),
        ("os.write(3, b'+' + bytes(7) + b'\\x09' + b'short'); os._exit(0)", "no reply"),
        ("told = [os.write(3, b'+' + b'x' * (48 << 20))]", "too large"),
        ("told = ['x' * (20 << 20)]", "too large"),
    ],
)
def test_what_is_no_reply_is_refused(body: str, why: str) -> None:
    assert why in refused(body).message


def test_an_array_that_is_not_what_it_says_is_refused() -> None:
    body = """
        array = Array(np.zeros(4))
        array.data = array.data.replace(b"(4,), }     ", b"(400000,), }")
        return Message(RecordDict({"arrays": ArrayRecord({"0": array})}), reply_to=message)
        """
    with pytest.raises(PeerError, match="as many numbers"):
        run(body)


def test_an_app_does_not_outlive_its_node(tmp_path: Path) -> None:
    asked = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_sandbox import run; "
    asked += "run('os.setsid(); time.sleep(120)')"
    node = psutil.Popen([sys.executable, "-c", asked], env={**os.environ, "TMPDIR": str(tmp_path)})
    end = time.monotonic() + 60
    inside: list[psutil.Process] = []
    while len(inside) < 3 and time.monotonic() < end:  # around the walls, the first behind them, the app
        inside = node.children(recursive=True)
        time.sleep(0.02)
    assert len(inside) == 3
    node.kill()
    node.wait()
    _, alive = psutil.wait_procs(inside, timeout=20)
    assert alive == []


def test_printing_without_end_fails() -> None:
    assert refused("while True: print('wind ' * 100_000)").detail.startswith("BrokenPipeError")


def test_printing_much_blocks_nothing_and_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run("print('wind ' * 1_000_000); told = ['done']") == ["done"]
    assert "wind" not in caplog.text


def test_where_a_wall_cannot_be_built_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match=r"cannot build the sandbox.*tmpfs|cannot build the sandbox.*mount"):
        run("told = ['ran']", disk_mib=-1)
    with pytest.raises(OSError, match="not known"):
        cell.system_call_filter("riscv64")
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(UnavailableError, match="not Linux"):
        run("told = ['ran']")


def test_nothing_that_must_stay_hidden_may_lie_beside_the_interpreter() -> None:
    app = Sandbox(Limits(), {}, hidden=(Path("/usr/lib/node"),))
    with pytest.raises(OperatorError, match="would show it"):
        app.run(project_of("told = []"), {}, message(), context())


def test_a_project_without_a_client_app_is_refused() -> None:
    with pytest.raises(OperatorError, match="no ClientApp"):
        Sandbox(Limits(), {}).run(Project({}, "", "x:app", {}), {}, message(), context())
