"""A study that was played in memory, as it lies in a coordinator's or a node's folder."""

from pathlib import Path
from typing import Any

from federation.coordinator.tables import PublishedPlan
from federation.settings import PartyFolder, PartySettings, create_settings
from federation.storage.blobs import FolderBlobStore
from federation.storage.database import open_database, write
from federation.storage.log import LOG_TABLES, SqliteLog


def in_folder(
    study: Any, folder: Path, role: Any, *, entries: int | None = None, tables: bool = True, key: Any = None
) -> Path:
    """The study as it lies in a coordinator's or a node's folder, as far as its first ``entries`` entries.

    ``key``: the party's; the coordinator's where none is given.
    """
    create_settings(folder, PartySettings(role=role, name="party"))
    files = PartyFolder(folder)
    files.key.write_text((key or study.key).seed.hex() + "\n")
    files.key.chmod(0o600)
    engine = open_database(files.database, PublishedPlan, *LOG_TABLES)
    if role == "coordinator":
        with write(engine) as session:
            session.add(
                PublishedPlan(
                    study=study.plan.study_id, envelope=study.plan_bytes, commitment=study.plan.validation.commitment
                )
            )
    log = SqliteLog(engine, study.plan.study_id)
    SqliteLog(engine, "consent").append("1", b"another kind of log lives beside it")
    for index, data in enumerate(study.log.entries(0, entries)):
        log.append(str(index), data)
    for size, note in study.log.checkpoints():
        if size <= log.size:
            log.save_checkpoint(note, size)
    blobs = FolderBlobStore(files.blobs)
    blobs.put(study.plan_bytes)
    sealed = {done.value_table for done in study.state.closed}
    for name in study.blobs.names():
        if tables or name not in sealed:
            blobs.put(study.blobs.get(name))
    engine.dispose()
    return folder
