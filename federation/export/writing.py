"""Writing a study as plain files, from the coordinator's log and blobs.

The folder appears complete or not at all: everything is written beside it, verified as any stranger would, and then
renamed. An existing folder is never touched. The export ends at the newest checkpoint, as nothing vouches for later
entries.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from federation.errors import OperatorError
from federation.export.folding import FoldedLog, fold, open_exported_plan
from federation.export.layout import (
    FOLDERS,
    MANIFEST,
    PLAN,
    ROOT_ROWS,
    ROOT_SALT,
    VALIDATION_ROWS,
    VALIDATION_SALT,
    agreement_path,
    blob_path,
    checkpoint_path,
    entry_path,
    needed_blobs,
)
from federation.export.manifest import ExportedFile, exported_file, sign_manifest
from federation.export.references import shows_root
from federation.export.report import VerificationReport
from federation.export.verification import verify_export
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import root
from federation.rules.succession import signers_of
from federation.storage.blobs import BlobStore
from federation.storage.log import MerkleLog


def write_export(
    folder: Path,
    *,
    plan: bytes,
    log: MerkleLog,
    blobs: BlobStore,
    key: PrivateKey,
    validation: tuple[bytes, bytes] | None = None,
    root_set: tuple[bytes, bytes] | None = None,
) -> VerificationReport:
    """Write the study into a new ``folder`` and verify what was written.

    Args:
        folder: must not exist; its parent is made if need be.
        plan: the signed plan's bytes.
        log: the study's log, with its checkpoints.
        blobs: models, updates and opened value tables.
        key: the key of whoever leads the study, which signs the manifest.
        validation: salt and CSV bytes of the validation set; they are written only when the study is settled and its
            plan says ``disclosure = "public"``.
        root_set: the same of a trust-anchored plan's root set, which goes by ``root_disclosure``.

    Raises:
        OperatorError: the folder exists, there is no checkpoint yet, or the disk refuses.
        UnavailableError: a blob is missing.
        PeerError: the study's files do not verify: nothing is written.
    """
    if os.path.lexists(folder):
        raise OperatorError(f"{folder} exists already.", remedy="Name a new folder: an export never overwrites.")
    temporary = folder.parent / f".{folder.name}-{secrets.token_hex(6)}"
    try:
        temporary.mkdir(parents=True)
        _write_files(temporary, plan=plan, log=log, blobs=blobs, key=key, validation=validation, root_set=root_set)
        report = verify_export(temporary, _plan_signer(plan, key.public))
        temporary.rename(folder)
    except OSError as error:
        raise OperatorError(
            f"The export cannot be written to {folder}: {error.strerror}.",
            remedy="Check that the folder's parent is yours and that the disk has room.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write_files(
    folder: Path,
    *,
    plan: bytes,
    log: MerkleLog,
    blobs: BlobStore,
    key: PrivateKey,
    validation: tuple[bytes, bytes] | None,
    root_set: tuple[bytes, bytes] | None = None,
) -> None:
    """Write all files into an empty folder, the manifest last; only the log itself is checked."""
    latest = log.latest_checkpoint()
    if latest is None:
        raise OperatorError(
            "The study's log has no checkpoint yet.", remedy="Run the coordinator until it has signed one, then export."
        )
    size = latest[0]
    signer = _plan_signer(plan, key.public)
    opened, _ = open_exported_plan(plan, signer=signer)
    entries = log.entries(0, size)
    folded = fold(opened, plan, signer, entries)
    files: dict[str, ExportedFile] = {}
    for path, data in _contents(folded, plan, entries, log, blobs, validation, root_set):
        _write(folder / path, data)
        files[path] = exported_file(data)
    manifest = sign_manifest(files, study=folded.state.study, log_size=size, log_root=root(folded.leaves), key=key)
    _write(folder / MANIFEST, manifest)


def _plan_signer(plan: bytes, exporter: PublicKey) -> PublicKey:
    """Whose signature the plan must have: the exporter's own, or anybody's if the plan names it as the standby."""
    opened, envelope = open_exported_plan(plan, signer=None)
    return envelope.signer if exporter in signers_of(opened, envelope.signer) else exporter


def _contents(
    folded: FoldedLog,
    plan: bytes,
    entries: list[bytes],
    log: MerkleLog,
    blobs: BlobStore,
    validation: tuple[bytes, bytes] | None,
    root_set: tuple[bytes, bytes] | None,
) -> Iterator[tuple[str, bytes]]:
    """Every file but the manifest, one at a time: updates can be large."""
    state = folded.state
    yield PLAN, plan
    for did, envelope in folded.agreements.items():
        yield agreement_path(state.site(did)), envelope
    for index, data in enumerate(entries):
        yield entry_path(index), data
    for size, note in log.checkpoints():
        if size <= len(entries):
            yield checkpoint_path(size), note
    for name in needed_blobs(state):
        yield blob_path(name), blobs.get(name)
    if state.settled and state.plan.validation.disclosure == "public":
        yield from _disclosed(validation, "validation", VALIDATION_ROWS, VALIDATION_SALT)
    if shows_root(state):
        yield from _disclosed(root_set, "root", ROOT_ROWS, ROOT_SALT)


def _disclosed(
    found: tuple[bytes, bytes] | None, name: str, rows_path: str, salt_path: str
) -> Iterator[tuple[str, bytes]]:
    if found is None:
        raise OperatorError(
            f"The plan discloses the {name} set, but it is not here.",
            remedy="Export from the coordinator's folder, which holds it.",
        )
    salt, rows = found
    yield salt_path, salt.hex().encode("ascii") + b"\n"
    yield rows_path, rows


def _write(path: Path, data: bytes) -> None:
    if path.parent.name in FOLDERS:
        path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
