"""Which files an exported study consists of, and reading them without trust.

``plan.json``, ``manifest.json``, ``agreements/SITE.json``, ``log/000000.json`` (one signed entry each),
``checkpoints/000017.note`` (named by the log's size), ``blobs/SHA256`` and, where the plan discloses the validation
set, ``validation/validation.csv`` and ``validation/salt``. Nothing else may be there: no link, no other folder.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from federation.errors import AccordError, OperatorError, PeerError
from federation.rules.checkpoint import NOTE_BYTES_MAX
from federation.rules.documents import CHUNK_BYTES_MAX, DOCUMENT_BYTES_MAX
from federation.rules.entries import ENTRY_BYTES_MAX
from federation.rules.evidence import proofs_of
from federation.rules.state import StudyState
from federation.rules.study import PLAN_BYTES_MAX
from federation.rules.validation import SALT_BYTES, validation_commitment

PLAN: Final = "plan.json"
MANIFEST: Final = "manifest.json"
AGREEMENTS: Final = "agreements"
LOG: Final = "log"
CHECKPOINTS: Final = "checkpoints"
BLOBS: Final = "blobs"
VALIDATION: Final = "validation"
VALIDATION_ROWS: Final = "validation/validation.csv"
VALIDATION_SALT: Final = "validation/salt"
ROOT: Final = "root"
ROOT_ROWS: Final = "root/root.csv"
ROOT_SALT: Final = "root/salt"
FOLDERS: Final = frozenset({AGREEMENTS, LOG, CHECKPOINTS, BLOBS, VALIDATION, ROOT})

MANIFEST_BYTES_MAX: Final = 256 << 20
FILES_MAX: Final = 1_000_000
BLOB_BYTES_MAX: Final = 256 << 20
_BYTES_MAX: Final[Mapping[str, int]] = {
    PLAN: 2 * PLAN_BYTES_MAX,
    MANIFEST: MANIFEST_BYTES_MAX,
    AGREEMENTS: 2 * DOCUMENT_BYTES_MAX,
    LOG: 2 * ENTRY_BYTES_MAX,
    CHECKPOINTS: NOTE_BYTES_MAX,
    BLOBS: max(BLOB_BYTES_MAX, CHUNK_BYTES_MAX),
    VALIDATION: 256 << 20,
    ROOT: 256 << 20,
}


def agreement_path(site: str) -> str:
    """Where an institution's signed agreement is."""
    return f"{AGREEMENTS}/{site}.json"


def entry_path(index: int) -> str:
    """Where the log entry ``index`` is."""
    return f"{LOG}/{index:06d}.json"


def checkpoint_path(size: int) -> str:
    """Where the note over the first ``size`` entries is."""
    return f"{CHECKPOINTS}/{size:06d}.note"


def blob_path(name: str) -> str:
    """Where the blob ``name`` is."""
    return f"{BLOBS}/{name}"


def needed_blobs(state: StudyState) -> list[str]:
    """The blobs that prove what the log says, sorted.

    Models, admitted updates (and the sponsor's references where the rule is trust-anchored) and, once settled, value
    tables and the proofs that cases against stakes rest on.
    """
    names = {state.first_model} if state.first_model else set()
    for done in state.closed:
        names |= {done.base_model, done.model, *filter(None, [done.reference])}
        names |= {chunk for update in done.admitted.values() for chunk in update.chunks}
        if state.settled:
            names.add(done.value_table)
    names |= set(proofs_of(state))
    return sorted(names)


@contextlib.contextmanager
def placed(path: str) -> Iterator[None]:
    """Whatever is wrong inside is a fault of the export, at ``path``.

    Raises:
        PeerError: in place of any of our errors, with the path in front.
    """
    try:
        yield
    except AccordError as error:
        raise PeerError(f"{path}: {error.message}", remedy=error.remedy) from error


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """The files of an export: relative path -> size in bytes, as found on disk (build it with :func:`list_export`)."""

    root: Path
    sizes: Mapping[str, int]

    def read(self, path: str) -> bytes:
        """One file's bytes.

        Raises:
            PeerError: the export lacks it, it is larger than any such file may be, or it changed while being read.
            OperatorError: the disk refuses.
        """
        size = self.sizes.get(path)
        if size is None:
            raise PeerError(f"{path}: the file is missing.", remedy="Ask for a complete export.")
        kind = path.partition("/")[0]
        if size > _BYTES_MAX[kind]:
            raise PeerError(
                f"{path}: the file has {size} bytes, more than the {_BYTES_MAX[kind]} allowed.",
                remedy="Ask for the export again.",
            )
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(size + 1)
        except OSError as error:
            raise _unreadable(self.root / path, error) from error
        if len(data) != size:
            raise PeerError(
                f"{path}: the file changed while it was read.", remedy="Verify a copy that nobody writes to."
            )
        return data

    def within(self, folder: str) -> list[str]:
        """The paths in one of the export's folders, sorted."""
        return sorted(path for path in self.sizes if path.startswith(f"{folder}/"))


def disclosed_validation(files: ExportFolder, commitment: str) -> tuple[bytes, bytes]:
    """Salt and rows of the validation set that an export discloses, checked against the plan's commitment.

    Raises:
        PeerError: a file is missing or malformed, or these are other rows.
    """
    return disclosed_rows(files, commitment, rows=VALIDATION_ROWS, salt=VALIDATION_SALT)


def disclosed_rows(files: ExportFolder, commitment: str, *, rows: str, salt: str) -> tuple[bytes, bytes]:
    """Salt and rows of a set that an export discloses, by the paths of their files; as :func:`disclosed_validation`."""
    text = files.read(salt)
    try:
        opened = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        opened = b""
    if len(opened) != SALT_BYTES or opened.hex().encode("ascii") + b"\n" != text:
        raise PeerError(f"{salt}: it is not a salt of 32 bytes in hexadecimal.", remedy="Ask for the export again.")
    data = files.read(rows)
    if validation_commitment(opened, data) != commitment:
        raise PeerError(
            f"{rows}: these are not the rows that the plan committed to.",
            remedy=f"Keep the export as evidence: the sponsor exchanged the {rows.partition('/')[0]} set.",
        )
    return opened, data


def list_export(root: Path) -> ExportFolder:
    """List an export, refusing what cannot belong to one.

    Raises:
        OperatorError: there is no such folder, or it cannot be read.
        PeerError: a link, a device, a foreign folder, or too many files.
    """
    if not root.is_dir():
        raise OperatorError(f"There is no folder {root}.", remedy="Give the folder that `accord study export` wrote.")
    sizes: dict[str, int] = {}
    try:
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in FOLDERS:
                    raise _foreign(entry.name, "is a folder that does not belong to an export")
                for inner in os.scandir(entry.path):
                    _add(sizes, f"{entry.name}/{inner.name}", inner)
                if not any(path.startswith(f"{entry.name}/") for path in sizes):
                    raise _foreign(entry.name, "is an empty folder")
            else:
                _add(sizes, entry.name, entry)
    except OSError as error:
        raise _unreadable(root, error) from error
    return ExportFolder(root=root, sizes=sizes)


def _add(sizes: dict[str, int], path: str, entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise _foreign(path, "is not a plain file")
    if path.partition("/")[0] not in _BYTES_MAX or not path.isascii():
        raise _foreign(path, "does not belong to the export")
    if len(sizes) >= FILES_MAX:
        raise _foreign(path, "is one file too many")
    sizes[path] = found.st_size


def _foreign(path: str, why: str) -> PeerError:
    return PeerError(
        f"{ascii(path)[1:-1]}: this {why}.", remedy="Ask for a fresh export; keep this one if you did not change it."
    )


def _unreadable(path: Path, error: OSError) -> OperatorError:
    return OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check the folder's rights and its disk.")
