"""A node's folder: made once, opened by every command and by the running node."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import col, select

from clients.privacy.budget import BudgetLedger
from clients.storage import StudyMembership, open_node
from consent.cosigning import COSIGNING_TABLES
from consent.registry import TABLES as CONSENT_TABLES
from consent.registry import Registry, open_registry
from federation.coordinator.history import system_clock
from federation.errors import OperatorError
from federation.identity import create_key, load_key
from federation.rules.keys import PrivateKey
from federation.settings import PartyFolder, PartySettings, create_settings, load_settings
from federation.storage.blobs import FolderBlobStore
from federation.storage.database import open_database, read, write
from federation.storage.evidence import FolderEvidence
from federation.storage.log import SqliteLog


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """An opened node. ``consent_engine`` is the registry's database: the node's own, or another by URL."""

    files: PartyFolder
    settings: PartySettings
    key: PrivateKey
    engine: Engine
    consent_engine: Engine
    blobs: FolderBlobStore

    @property
    def registry(self) -> Registry:
        """The institution's consents."""
        return open_registry(self.consent_engine, self.key, batch_size=self.settings.consent_batch_size)

    def membership(self, study: str | None = None) -> StudyMembership:
        """The study that this node joined; without a name, the newest.

        Raises:
            OperatorError: none, or none of that name.
        """
        with read(self.engine) as session:
            rows = list(session.exec(select(StudyMembership).order_by(col(StudyMembership.joined_at))))
        chosen = [row for row in rows if study in (None, row.study)]
        if not chosen:
            known = ", ".join(row.study for row in rows) or "none yet"
            raise OperatorError(
                f"This node has not joined {study or 'a study'} (joined: {known}).",
                remedy="Join with the string that the coordinator sent: `accord node join INVITATION --dir DIR`.",
            )
        return chosen[-1]

    def update_membership(self, study: str, **values: Any) -> None:
        """Store fields of a membership durably."""
        with write(self.engine) as session:
            row = session.get(StudyMembership, study)
            if row is None:
                raise OperatorError(f"This node has not joined {study}.", remedy="Join it first.")
            for name, value in values.items():
                setattr(row, name, value)
            session.add(row)

    @property
    def evidence(self) -> FolderEvidence:
        """Proofs that another party showed different histories."""
        return FolderEvidence(self.files.evidence)

    def replica(self, study: str) -> SqliteLog:
        """This node's copy of a study's log."""
        return SqliteLog(self.engine, study)


def create_node(path: Path, settings: PartySettings) -> NodeFolder:
    """Make a node in an empty folder, its lifetime budget fixed.

    Raises:
        OperatorError: a party lives there already.
    """
    create_settings(path, settings)
    create_key(PartyFolder(path).key)
    opened = open_node_folder(path)
    BudgetLedger.create(
        opened.engine,
        epsilon=settings.lifetime_epsilon,
        delta=settings.lifetime_delta,
        order=settings.renyi_order,
        clock=system_clock,
    )
    return opened


def open_node_folder(path: Path) -> NodeFolder:
    """Open a node's folder.

    Raises:
        OperatorError: no node lives there, or its files are damaged or open to others.
    """
    files = PartyFolder(path)
    settings = load_settings(path)
    if settings.role != "node":
        raise OperatorError(f"{path} is the folder of a {settings.role}.", remedy="Give the node's folder.")
    engine = open_node(path, *CONSENT_TABLES, *COSIGNING_TABLES)
    consents = files.consents(settings)
    return NodeFolder(
        files=files,
        settings=settings,
        key=load_key(files.key),
        engine=engine,
        consent_engine=engine if consents == files.database else open_database(consents, *CONSENT_TABLES),
        blobs=FolderBlobStore(files.blobs),
    )
