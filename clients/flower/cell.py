"""The inside of the sandbox: builds walls around this very process, then runs one message through a ClientApp.

``clients.flower.sandbox`` starts this file as a script of its own (``python -I -S``). The walls, all of which must
stand before the app's first line is imported:

- namespaces: no network device, nobody else's processes or shared memory, and a file tree that holds the interpreter,
  the app and its data (all read-only), four devices, and an empty ``/tmp`` of fixed size;
- no privileges: another user (``nobody``) when started by root, no capabilities, none to be gained;
- limits of the kernel on memory, CPU time, file size, threads and open files;
- a filter of system calls (seccomp): no socket, no new process or program, no memory that the limit does not count.

Linux 5.12 or newer, on x86-64 or arm64; elsewhere, and where a wall cannot be built, nothing is run.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, Final

_NOBODY: Final = 65534
_NEW_USER, _NEW_REST = 0x10000000, 0x00020000 | 0x08000000 | 0x20000000 | 0x40000000
"""CLONE_NEWUSER; CLONE_NEWNS, NEWIPC, NEWPID, NEWNET."""
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_MOUNT_SETATTR: Final = 442
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_THREADS_MAX, _FILES_MAX = 64, 256
_WHY_MAX: Final = 2000
_ANSWERS: Final = 3
"""The descriptor that answers are written to; what the app prints goes to standard error."""

_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
_CLONE_THREAD, _CLONE3, _X32, _CALLS_KNOWN_MAX = 0x00010000, 435, 0x40000000, 462
# Of both architectures: pidfd_send_signal, io_uring_*, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
# pidfd_open, pidfd_getfd, mount_setattr, memfd_secret.
_NEW_CALLS: Final = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 442, 447)
# In each: socket; execve, execveat (fork, vfork); ptrace, process_vm_readv, process_vm_writev; mount, umount2,
# pivot_root, chroot, unshare, setns; bpf, perf_event_open, userfaultfd, personality; keyctl, add_key, request_key;
# init_module, finit_module, delete_module, kexec_load; name_to_handle_at, open_by_handle_at; memfd_create, shmget,
# semget, msgget, mq_open.
_DENIED: Final = {
    "x86_64": (
        *(41, 59, 322, 57, 58, 101, 310, 311, 165, 166, 155, 161, 272, 308, 321, 298, 323, 135, 250, 248, 249),
        *(175, 313, 176, 246, 303, 304, 319, 29, 64, 68, 240),
    ),
    "aarch64": (
        *(198, 221, 281, 117, 270, 271, 40, 39, 41, 51, 97, 268, 280, 241, 282, 92, 219, 217, 218),
        *(105, 273, 106, 104, 264, 265, 279, 194, 190, 186, 180),
    ),
}
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}
"""The kernel's name of each (AUDIT_ARCH), and its number of ``clone``."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Read the request from standard input, run it behind walls, write the answer to standard output."""
    data = sys.stdin.buffer.read()
    (length,) = struct.unpack_from(">I", data)
    request: dict[str, Any] = json.loads(data[4 : 4 + length])
    split = 4 + length + request["message_bytes"]
    message, state = data[4 + length : split], data[split:]
    os.dup2(1, _ANSWERS)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.umask(0o022)
    try:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _enclose(request)
    except OSError as error:
        return _answer(b"!", _said(error).encode())
    first = os.fork()
    if first:
        os.close(_ANSWERS)
        return _outcome(first)
    # The first process of the new room: it outlives the app, and everything in the room ends with it.
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    second = os.fork()
    if second:
        os.close(_ANSWERS)
        os._exit(_outcome(second))
    try:
        _bind_hands(request)
    except (OSError, ValueError) as error:
        os._exit(_answer(b"!", _said(error).encode()))
    os._exit(_run(request, message, state))


def _run(request: dict[str, Any], message: bytes, state: bytes) -> int:
    """Load the app and call it (behind the walls)."""
    try:
        sys.path[:] = ["/app", *request["paths"]]
        from flwr.app import Context

        from federation.flower.messages import pack_records, task_identity, unpack, unpack_records

        task_identity(request["run_id"], request["node_id"])
        module, _, name = request["client_app"].partition(":")
        app = getattr(importlib.import_module(module), name)
        context = Context(
            run_id=request["run_id"],
            node_id=request["node_id"],
            node_config=request["node_config"],
            state=unpack_records(state),
            run_config=request["run_config"],
        )
        reply = app(unpack(message), context)
        content = pack_records(reply.content)
        return _answer(b"+", struct.pack(">Q", len(content)) + content + pack_records(context.state))
    except BaseException as error:  # noqa: BLE001 -- the process's boundary: whatever the app raises is told, then it ends
        return _answer(b"-", _said(error).encode("utf-8", "replace"))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_WHY_MAX]


def _answer(kind: bytes, data: bytes) -> int:
    view = memoryview(kind + data)
    while view:
        view = view[os.write(_ANSWERS, view) :]
    return 0


def _outcome(child: int) -> int:
    """Wait for a child; its exit code, or 128 and the signal that ended it."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _enclose(request: dict[str, Any]) -> None:
    """Move into new namespaces, whose file tree holds nothing but what the request names.

    Raises:
        OSError: this system does not allow it.
    """
    if os.geteuid() == 0:
        _call("unshare", _NEW_REST)
    else:
        user, members = os.geteuid(), os.getegid()
        _call("unshare", _NEW_USER | _NEW_REST)
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny", encoding="ascii")
        (own / "uid_map").write_text(f"{_NOBODY} {user} 1", encoding="ascii")
        (own / "gid_map").write_text(f"{_NOBODY} {members} 1", encoding="ascii")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
    root = Path(request["root"])
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    temporary = root / "tmp"
    temporary.mkdir()
    size = f"size={request['disk_bytes']},nr_inodes=4096,mode=1777"
    _mount("tmpfs", temporary, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for link, target in request["links"]:
        _below(root, link).symlink_to(target)
    for source, target in request["visible"]:
        _show(Path(source), _below(root, target), _ATTR_READ_ONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for device in _DEVICES:
        _show(Path(device), _below(root, device), _ATTR_READ_ONLY | _ATTR_NOSUID | _ATTR_NOEXEC)
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    _set_attributes(Path("/"), _ATTR_READ_ONLY, recursive=False)
    os.chdir("/tmp")  # noqa: S108 -- the room's own


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _show(source: Path, target: Path, attributes: int) -> None:
    """Let ``source`` appear at ``target``, with everything below it."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), target, None, _MS_BIND | _MS_REC)
    _set_attributes(target, attributes, recursive=True)


def _bind_hands(request: dict[str, Any]) -> None:
    """Drop every privilege, set the limits, filter the system calls: nothing of it can be taken back.

    Raises:
        OSError: the kernel refuses.
        ValueError: a limit is above what this process may have.
    """
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_long(number), 0, 0, 0):
            break  # past the last capability that this kernel knows
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _call("capset", header, none)
    os.closerange(_ANSWERS + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    seconds: int = request["seconds"]
    for limit, value in (
        (resource.RLIMIT_AS, request["memory_bytes"]),
        (resource.RLIMIT_FSIZE, request["disk_bytes"]),
        (resource.RLIMIT_NPROC, _THREADS_MAX),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = system_call_filter(os.uname().machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", _PR_SET_SECCOMP, 2, head, 0, 0)


def system_call_filter(machine: str) -> bytes:
    """The filter of system calls, as the kernel's BPF.

    Raises:
        OSError: an architecture whose calls are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(f"system calls of {machine} are not known to the sandbox")
    architecture, clone = _ARCHITECTURES[machine]
    load, equal, at_least, above, any_bit, answer = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
    program = [
        (load, 0, 0, 4),  # which architecture
        (equal, 1, 0, architecture),
        (answer, 0, 0, _KILL),
        (load, 0, 0, 0),  # which call
        (at_least, 0, 1, _X32),
        (answer, 0, 0, _KILL),
        (above, 0, 1, _CALLS_KNOWN_MAX),
        (answer, 0, 0, _ENOSYS),
        (equal, 0, 1, _CLONE3),  # its arguments are out of reach; the C library then takes clone
        (answer, 0, 0, _ENOSYS),
    ]
    for number in (*_DENIED[machine], *_NEW_CALLS):
        program += [(equal, 0, 1, number), (answer, 0, 0, _EPERM)]
    program += [
        (equal, 0, 3, clone),
        (load, 0, 0, 16),  # its flags
        (any_bit, 1, 0, _CLONE_THREAD),
        (answer, 0, 0, _EPERM),
        (answer, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, kind, options)]
    try:
        _call("mount", texts[0], os.fsencode(target), texts[1], flags, texts[2])
    except OSError as error:
        error.filename = str(target)
        raise


def _set_attributes(target: Path, attributes: int, *, recursive: bool) -> None:
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, wanted, len(wanted))


def _call(name: str, *arguments: bytes | int | None) -> None:
    """Call the C library.

    Raises:
        OSError: it failed.
    """
    if getattr(_libc, name)(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        sys.exit(main())
