"""Where a party keeps evidence of split views, to be shown to anybody later.

One file for each case, named by its SHA-256, so that the same case is kept once. Whoever misbehaves decides how many
cases there are: at most :data:`CASES_MAX` are kept, the first ones.
"""

import os
import threading
from pathlib import Path
from typing import Final, Protocol

from federation.errors import OperatorError
from federation.rules.canonical import sha256_hex
from federation.rules.equivocation import Evidence

CASES_MAX: Final = 1000


class EvidenceStore(Protocol):
    """A place for evidence (port). On disk: :class:`FolderEvidence`; in memory: :class:`MemoryEvidence`."""

    def keep(self, evidence: Evidence) -> str:
        """Keep the evidence durably; where it is, as an operator would name it."""
        ...

    def cases(self) -> list[bytes]:
        """All that is kept: the bytes of each file."""
        ...


class FolderEvidence:
    """``evidence/`` in a party's folder; made when the first case is kept.

    Raises:
        OperatorError: by :meth:`keep`, when the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def keep(self, evidence: Evidence) -> str:
        """See :meth:`EvidenceStore.keep`."""
        data = evidence.to_bytes()
        path = self._path / f"{sha256_hex(data)}.json"
        try:
            with self._lock:
                self._path.mkdir(mode=0o700, exist_ok=True)
                if not path.exists() and len(list(self._path.glob("*.json"))) < CASES_MAX:
                    _write(path, data)
        except OSError as error:
            raise OperatorError(
                f"Evidence cannot be kept in {self._path}: {error.strerror}.",
                remedy="Make room on the disk; what is refused stays refused meanwhile.",
            ) from error
        return str(path)

    def cases(self) -> list[bytes]:
        """See :meth:`EvidenceStore.cases`."""
        return [path.read_bytes() for path in sorted(self._path.glob("*.json"))]


class MemoryEvidence:
    """The twin in memory, for tests and simulation."""

    def __init__(self) -> None:
        self._cases: dict[str, bytes] = {}

    def keep(self, evidence: Evidence) -> str:
        """See :meth:`EvidenceStore.keep`."""
        data = evidence.to_bytes()
        name = sha256_hex(data)
        if len(self._cases) < CASES_MAX:
            self._cases.setdefault(name, data)
        return f"memory/{name}"

    def cases(self) -> list[bytes]:
        """See :meth:`EvidenceStore.cases`."""
        return [self._cases[name] for name in sorted(self._cases)]


def _write(path: Path, data: bytes) -> None:
    """A file that is whole or absent, and durable."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
