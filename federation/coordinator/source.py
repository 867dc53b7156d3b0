"""One study as a folder holds it, whatever the folder is: a coordinator's, a node's, or an exported study.

Nothing is verified here but what finding the study needs; ``export.folding`` verifies the entries.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlmodel import col, select

from federation.errors import OperatorError, UnavailableError
from federation.export.layout import (
    CHECKPOINTS,
    LOG,
    PLAN,
    blob_path,
    checkpoint_path,
    disclosed_validation,
    entry_path,
    list_export,
)
from federation.rules.entries import ENTRY_BYTES_MAX, ENTRY_TYPE, StudyPublished, open_entry
from federation.rules.envelope import open_envelope
from federation.rules.study import open_plan
from federation.settings import PartyFolder, load_settings
from federation.storage.blobs import FolderBlobStore
from federation.storage.database import open_database, read
from federation.storage.log import LOG_TABLES, LogEntry, MerkleLog, SqliteLog

from .folder import open_coordinator

_STUDY_LOG: Final = re.compile(r"[a-z0-9_-]+-[0-9a-f]{12}")  # a study's id; a node's own log of consents has no digits


@dataclass(frozen=True, slots=True)
class StudySource:
    """What a folder holds of one study.

    Attributes:
        plan: the signed plan.
        entries: the log's entries, in order.
        newest: the newest note, with its size.
        blobs: a blob's bytes by its name.
        validation: salt and rows of the validation set by its commitment; raises where the folder lacks it.
    """

    plan: bytes
    entries: list[bytes]
    newest: tuple[int, bytes] | None
    blobs: Callable[[str], bytes]
    validation: Callable[[str], tuple[bytes, bytes]]


def open_source(folder: Path, study: str | None) -> StudySource:
    """Find out what kind of folder it is, and read it.

    Args:
        folder: a coordinator's folder, a node's folder, or an exported study.
        study: which study; None takes the only or the newest one.

    Raises:
        OperatorError: no such folder or study.
        PeerError: a document in it cannot be read.
    """
    if (folder / PLAN).exists():
        return _from_export(folder, study)
    if not PartyFolder(folder).settings.exists():
        raise OperatorError(
            f"{folder} is neither a party's folder nor an exported study.",
            remedy="Give a coordinator's or a node's folder, or what `accord study export` wrote.",
        )
    if load_settings(folder).role == "node":
        return _from_node(folder, study)
    opened = open_coordinator(folder)
    plan, envelope = opened.plan(study)
    log = SqliteLog(opened.engine, plan.study_id)
    return _from_log(envelope, log, opened.blobs.get, opened.validation)


def studies_in(folder: Path) -> list[tuple[Path, str]]:
    """(folder, study id) of every study in a party's folder, an exported study, or a folder of exported studies.

    Raises:
        OperatorError: the folder holds none.
        PeerError: a document in it cannot be read.
    """
    if (folder / PLAN).exists() or not PartyFolder(folder).settings.exists():
        exports = [folder, *sorted(folder.iterdir())] if folder.is_dir() else []
        found = [(path, open_source(path, None).plan) for path in exports if (path / PLAN).exists()]
        studies = [(path, open_plan(plan)[0].study_id) for path, plan in found]
    elif load_settings(folder).role == "node":
        files = PartyFolder(folder)
        followed = _followed(open_database(files.database, *LOG_TABLES), FolderBlobStore(files.blobs))
        studies = [(folder, name) for name, _ in followed]
    else:
        studies = [(folder, name) for name in open_coordinator(folder).studies()]
    if not studies:
        raise OperatorError(
            f"There is no study in {folder}.",
            remedy="Give a coordinator's or a node's folder, an exported study, or a folder of exported studies.",
        )
    return studies


def _from_log(
    plan: bytes, log: MerkleLog, blobs: Callable[[str], bytes], validation: Callable[[str], tuple[bytes, bytes]]
) -> StudySource:
    return StudySource(
        plan=plan, entries=log.entries(), newest=log.latest_checkpoint(), blobs=blobs, validation=validation
    )


def _from_export(folder: Path, study: str | None) -> StudySource:
    files = list_export(folder)
    plan = files.read(PLAN)
    found = open_plan(plan)[0].study_id
    if study not in (None, found):
        raise OperatorError(f"{folder} is the study {found}, not {study}.", remedy="Leave out --study.")
    notes = files.within(CHECKPOINTS)
    size = len(files.within(LOG))
    return StudySource(
        plan=plan,
        entries=[files.read(entry_path(index)) for index in range(size)],
        newest=(size, files.read(checkpoint_path(size))) if notes else None,
        blobs=lambda name: files.read(blob_path(name)),
        validation=lambda commitment: disclosed_validation(files, commitment),
    )


def _from_node(folder: Path, study: str | None) -> StudySource:
    """A node's replica of the log; the plan is the blob that the log's first entry names."""
    files = PartyFolder(folder)
    engine = open_database(files.database, *LOG_TABLES)
    blobs = FolderBlobStore(files.blobs)
    plans = {name: plan for name, plan in _followed(engine, blobs) if study in (None, name)}
    if not plans:
        raise OperatorError(
            f"The node in {folder} has not seen the log of {study or 'any study'} yet.",
            remedy="Run it (`accord node run`) until the study is settled, or check --study.",
        )
    name, plan = list(plans.items())[-1]
    return _from_log(plan, SqliteLog(engine, name), blobs.get, _not_here)


def _not_here(commitment: str) -> tuple[bytes, bytes]:
    raise UnavailableError(
        f"A node's folder does not hold the validation rows {commitment[:12]}.",
        remedy="Give an exported study that discloses them, or the coordinator's folder.",
    )


def _followed(engine: Engine, blobs: FolderBlobStore) -> list[tuple[str, bytes]]:
    """(study id, signed plan) of every study log in a node's database, oldest first."""
    with read(engine) as session:
        firsts = session.exec(select(LogEntry).where(col(LogEntry.position) == 0)).all()
    found = []
    for first in firsts:
        if _STUDY_LOG.fullmatch(first.log):
            envelope = open_envelope(first.data, payload_type=ENTRY_TYPE, max_bytes=2 * ENTRY_BYTES_MAX)
            entry = open_entry(first.data, signer=envelope.signer)
            if isinstance(entry.body, StudyPublished):
                found.append((entry.at, first.log, blobs.get(entry.body.plan)))
    return [(log, plan) for _, log, plan in sorted(found)]
