"""Blobs: bytes named by their SHA-256, so that whoever holds the name can check what it gets.

A store never returns bytes that do not match their name, and a blob that :meth:`BlobStore.put` returned is on disk.
Blobs are public to the study's parties (models, updates, tables); nothing about a single person belongs here.
"""

import contextlib
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

    def _read(self, name: str) -> bytes | None:
        if not self.has(name):
            return None
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OperatorError(
                f"The blob {self._path / name} cannot be read: {error.strerror}.", remedy="Check the file and its disk."
            ) from error


class MemoryBlobStore:
    """The twin in memory, for tests and simulation."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
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
