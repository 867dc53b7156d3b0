"""Blobs: bytes named by their SHA-256, so that whoever holds the name can check what it gets.

A store never returns bytes that do not match their name, and a blob that :meth:`BlobStore.put` returned is on disk.
Blobs are public to the study's parties (models, updates, tables); nothing about a single person belongs here.
"""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

from federation.errors import OperatorError, PeerError, UnavailableError
from federation.rules.canonical import sha256_hex

_NAME: Final = re.compile(r"[0-9a-f]{64}")


class BlobStore(Protocol):
    """Where blobs are kept (port). Twin in memory: :class:`MemoryBlobStore`."""

    def put(self, data: bytes) -> str:
        """Keep ``data`` durably and return its name: SHA-256, 64 lower-case hexadecimal digits. Idempotent."""
        ...

    def get(self, name: str) -> bytes:
        """The bytes named ``name``, hashed again.

        Raises:
            UnavailableError: the store does not have them.
            PeerError: what is stored does not match the name, or the name is not a SHA-256.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether a blob of this name is stored (its bytes are checked by :meth:`get`)."""
        ...

    def names(self) -> list[str]:
        """All names, sorted."""
        ...

    def piece(self, name: str, offset: int, length: int) -> tuple[int, bytes]:
        """(the blob's size, at most ``length`` bytes from ``offset`` on), not hashed: whoever joins the pieces checks.

        Raises:
            UnavailableError: the store does not have it.
            PeerError: the name is not a SHA-256.
        """
        ...

    def begun(self, name: str) -> int:
        """How many bytes of an unfinished blob are here."""
        ...

    def extend(self, name: str, offset: int, data: bytes) -> None:
        """Add what follows to an unfinished blob; it survives the process, and is nothing until :meth:`finish`.

        Raises:
            OperatorError: the disk refuses.
            ValueError: ``offset`` is not where the unfinished blob ends (a mistake of the caller).
        """
        ...

    def finish(self, name: str) -> bool:
        """Make the unfinished blob a blob, durably, if it hashes to ``name``; else forget it. Whether it did."""
        ...

    def forget(self, name: str) -> None:
        """Drop an unfinished blob, and one that is put together."""
        ...

    def place(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes anywhere into a blob that is put together out of order; what lies where is the caller's to check.

        It survives the process, and is nothing until :meth:`complete`.

        Raises:
            OperatorError: the disk refuses.
        """
        ...

    def placed(self, name: str, offset: int, length: int) -> bytes:
        """What lies there of a blob that is put together: zeros where nothing was placed, less at its end."""
        ...

    def complete(self, name: str) -> bool:
        """As :meth:`finish`, for a blob that was put together out of order."""
        ...


class FolderBlobStore:
    """Blobs as files of one folder, each named by its SHA-256. Safe with several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Use ``path``, creating it for its owner only.

        Raises:
            OperatorError: it cannot be created.
        """
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error

    def put(self, data: bytes) -> str:
        """See :meth:`BlobStore.put`: a temporary file, fsync, rename, fsync of the folder.

        Raises:
            OperatorError: the disk refuses.
        """
        name = sha256_hex(data)
        if self.has(name) and self._read(name) == data:
            return name
        temporary = self._path / f".{name[:16]}-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor has no Path
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(self._path / name)
            _sync_folder(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _unwritable(self._path, error) from error
        return name

    def get(self, name: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        _check_name(name)
        data = self._read(name)
        if data is None:
            raise _missing(name)
        return _checked(name, data)

    def has(self, name: str) -> bool:
        """See :meth:`BlobStore.has`."""
        if _NAME.fullmatch(name) is None:
            return False
        try:
            return stat.S_ISREG((self._path / name).lstat().st_mode)
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """See :meth:`BlobStore.names`."""
        return sorted(entry.name for entry in os.scandir(self._path) if self.has(entry.name))

    def piece(self, name: str, offset: int, length: int) -> tuple[int, bytes]:
        """See :meth:`BlobStore.piece`."""
        _check_name(name)
        try:
            with (self._path / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(min(offset, size))
                return size, file.read(length)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError as error:
            raise _unreadable(self._path / name, error) from error

    def begun(self, name: str) -> int:
        """See :meth:`BlobStore.begun`."""
        try:
            return self._unfinished(name).stat().st_size
        except FileNotFoundError:
            return 0

    def extend(self, name: str, offset: int, data: bytes) -> None:
        """See :meth:`BlobStore.extend`. It is not synced: a piece that a crash of the machine eats is fetched again."""
        path = self._unfinished(name)
        try:
            with open(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as file:  # noqa: PTH123 - a Path cannot be opened with a mode
                if file.tell() != offset:
                    raise ValueError(f"{file.tell()} bytes of {name} are here, not {offset}")
                file.write(data)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def finish(self, name: str) -> bool:
        """See :meth:`BlobStore.finish`: hash, fsync, rename, fsync of the folder."""
        return self._made_whole(name, self._unfinished(name))

    def forget(self, name: str) -> None:
        """See :meth:`BlobStore.forget`."""
        self._unfinished(name).unlink(missing_ok=True)
        self._assembly(name).unlink(missing_ok=True)

    def place(self, name: str, offset: int, data: bytes) -> None:
        """See :meth:`BlobStore.place`: a sparse file; not synced, as in :meth:`extend`."""
        try:
            descriptor = os.open(self._assembly(name), os.O_CREAT | os.O_RDWR, 0o600)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], offset + written)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def placed(self, name: str, offset: int, length: int) -> bytes:
        """See :meth:`BlobStore.placed`."""
        try:
            with self._assembly(name).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _unreadable(self._assembly(name), error) from error

    def complete(self, name: str) -> bool:
        """See :meth:`BlobStore.complete`."""
        return self._made_whole(name, self._assembly(name))

    def _made_whole(self, name: str, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").hexdigest() == name
                if right:
                    os.fsync(file.fileno())
            if not right:
                path.unlink()
                return False
            path.rename(self._path / name)
            _sync_folder(self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return True

    def _unfinished(self, name: str) -> Path:
        _check_name(name)
        return self._path / f".unfinished-{name}"

    def _assembly(self, name: str) -> Path:
        _check_name(name)
        return self._path / f".assembly-{name}"

    def _read(self, name: str) -> bytes | None:
        if not self.has(name):
            return None
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._path / name, error) from error


class MemoryBlobStore:
    """The twin in memory, for tests and simulation."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._unfinished: dict[str, bytearray] = {}
        self._assemblies: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """See :meth:`BlobStore.put`."""
        name = sha256_hex(data)
        with self._lock:
            self._blobs[name] = bytes(data)
        return name

    def get(self, name: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        _check_name(name)
        with self._lock:
            data = self._blobs.get(name)
        if data is None:
            raise _missing(name)
        return _checked(name, data)

    def has(self, name: str) -> bool:
        """See :meth:`BlobStore.has`."""
        with self._lock:
            return name in self._blobs

    def names(self) -> list[str]:
        """See :meth:`BlobStore.names`."""
        with self._lock:
            return sorted(self._blobs)

    def piece(self, name: str, offset: int, length: int) -> tuple[int, bytes]:
        """See :meth:`BlobStore.piece`."""
        _check_name(name)
        with self._lock:
            data = self._blobs.get(name)
        if data is None:
            raise _missing(name)
        return len(data), data[offset : offset + length]

    def begun(self, name: str) -> int:
        """See :meth:`BlobStore.begun`."""
        with self._lock:
            return len(self._unfinished.get(name, b""))

    def extend(self, name: str, offset: int, data: bytes) -> None:
        """See :meth:`BlobStore.extend`."""
        with self._lock:
            unfinished = self._unfinished.setdefault(name, bytearray())
            if len(unfinished) != offset:
                raise ValueError(f"{len(unfinished)} bytes of {name} are here, not {offset}")
            unfinished += data

    def finish(self, name: str) -> bool:
        """See :meth:`BlobStore.finish`."""
        with self._lock:
            data = bytes(self._unfinished.pop(name, b""))
        return sha256_hex(data) == name and self.put(data) == name

    def forget(self, name: str) -> None:
        """See :meth:`BlobStore.forget`."""
        with self._lock:
            self._unfinished.pop(name, None)
            self._assemblies.pop(name, None)

    def place(self, name: str, offset: int, data: bytes) -> None:
        """See :meth:`BlobStore.place`."""
        with self._lock:
            assembly = self._assemblies.setdefault(name, bytearray())
            assembly += bytes(max(0, offset + len(data) - len(assembly)))
            assembly[offset : offset + len(data)] = data

    def placed(self, name: str, offset: int, length: int) -> bytes:
        """See :meth:`BlobStore.placed`."""
        with self._lock:
            return bytes(self._assemblies.get(name, b"")[offset : offset + length])

    def complete(self, name: str) -> bool:
        """See :meth:`BlobStore.complete`."""
        with self._lock:
            data = bytes(self._assemblies.pop(name, b""))
        return sha256_hex(data) == name and self.put(data) == name


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise PeerError(
            f"{name[:80]!r} is not the name of a blob.",
            remedy="Name it by its SHA-256: 64 lower-case hex digits.",
        )


def _checked(name: str, data: bytes) -> bytes:
    if sha256_hex(data) != name:
        raise PeerError(f"The blob {name} was altered.", remedy="Delete it and fetch it again from a peer that has it.")
    return data


def _missing(name: str) -> UnavailableError:
    return UnavailableError(f"The blob {name} is not here.", remedy="Fetch it from a peer that has it.")


def _unreadable(path: Path, error: OSError) -> OperatorError:
    return OperatorError(f"The blob {path} cannot be read: {error.strerror}.", remedy="Check the file and its disk.")


def _unwritable(path: Path, error: OSError) -> OperatorError:
    return OperatorError(
        f"The blob folder {path} cannot be written: {error.strerror}.",
        remedy="Check that the folder is yours and that the disk has room.",
    )


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
