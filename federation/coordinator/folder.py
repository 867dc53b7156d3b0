"""The coordinator's folder, opened: settings, key, database, logs and blobs."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlmodel import col, select

from federation.errors import OperatorError
from federation.identity import create_key, load_key
from federation.rules.canonical import sha256_hex
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.study import StudyPlan, open_plan
from federation.rules.validation import SALT_BYTES, validation_commitment
from federation.settings import PartyFolder, PartySettings, create_settings, load_settings
from federation.storage.blobs import FolderBlobStore
from federation.storage.database import open_database, read, write
from federation.storage.log import LOG_TABLES, SqliteLog
from federation.storage.outbox import Outbox, OutgoingDocument

from .history import StudyHistory
from .standby import Asked
from .tables import AnnouncedCall, FollowedStudy, IssuedInvitation, PublishedPlan, ReceivedOffer, ValidationSet


@dataclass(frozen=True, slots=True)
class CoordinatorFolder:
    """An opened coordinator. ``blobs`` are served to peers; ``sealed`` holds value tables until settlement."""

    files: PartyFolder
    settings: PartySettings
    key: PrivateKey
    engine: Engine
    blobs: FolderBlobStore
    sealed: FolderBlobStore

    @property
    def address(self) -> str:
        """Where it is dialled: what invitations, and a plan's ``failover``, name."""
        base = self.settings.announce[0] if self.settings.announce else self.settings.listen
        return f"{base}/p2p/{self.key.public.peer_id}"

    def studies(self) -> list[str]:
        """Ids of the published studies, oldest first."""
        with read(self.engine) as session:
            return list(session.exec(select(PublishedPlan.study).order_by(col(PublishedPlan.number))))

    def plan(self, study: str | None) -> tuple[StudyPlan, bytes]:
        """A published plan and its signed bytes; without a name, the only or the newest one.

        Raises:
            OperatorError: no such study; the message lists those that there are.
        """
        names = self.studies()
        wanted = study or (names[-1] if names else None)
        with read(self.engine) as session:
            row = session.exec(select(PublishedPlan).where(PublishedPlan.study == wanted)).first()
        if row is None:
            known = ", ".join(names) if names else "none yet"
            raise OperatorError(
                f"There is no study {wanted or ''} here (studies: {known}).",
                remedy="Name one of those, or publish a plan with `accord study publish`.",
            )
        plan, _ = open_plan(row.envelope, signer=self.coordinator_of(row.study))
        return plan, row.envelope

    def coordinator_of(self, study: str) -> PublicKey:
        """Who signed the plan of a study: this coordinator, or the one that this standby follows."""
        if self.settings.role == "coordinator":
            return self.key.public
        with read(self.engine) as session:
            return PublicKey.from_did(session.get_one(FollowedStudy, study).coordinator)

    def history(self, study: str | None) -> StudyHistory:
        """A study's log, replayed."""
        plan, envelope = self.plan(study)
        return StudyHistory(
            plan=plan,
            plan_blob=sha256_hex(envelope),
            key=self.key,
            log=SqliteLog(self.engine, plan.study_id),
            coordinator=self.coordinator_of(plan.study_id),
        )

    def outbox(self, study: str) -> Outbox:
        """What this coordinator's commands signed for a study's log."""
        return Outbox(self.engine, study)

    def validation(self, commitment: str) -> tuple[bytes, bytes]:
        """Salt and rows (CSV bytes) of a committed validation set.

        Raises:
            OperatorError: it is not here, or not what was committed.
        """
        with read(self.engine) as session:
            row = session.get(ValidationSet, commitment)
        if row is None or validation_commitment(row.salt, row.data) != commitment:
            raise OperatorError(
                f"The validation set {commitment[:12]} is not in this folder.",
                remedy="Commit it: `accord study new --validation FILE` stores it and writes its hash into the plan.",
            )
        return row.salt, row.data


def create_coordinator(path: Path, settings: PartySettings) -> CoordinatorFolder:
    """Make a coordinator in an empty folder.

    Raises:
        OperatorError: a party lives there already.
    """
    create_settings(path, settings)
    create_key(PartyFolder(path).key)
    return open_coordinator(path)


def open_coordinator(path: Path) -> CoordinatorFolder:
    """Open the folder of a coordinator, or of a standby.

    Raises:
        OperatorError: no coordinator lives there, or its files are damaged or open to others.
    """
    files = PartyFolder(path)
    settings = load_settings(path)
    if settings.role not in ("coordinator", "standby"):
        raise OperatorError(f"{path} is the folder of a {settings.role}.", remedy="Give the coordinator's folder.")
    key = load_key(files.key)
    tables = (
        PublishedPlan,
        IssuedInvitation,
        ValidationSet,
        AnnouncedCall,
        ReceivedOffer,
        OutgoingDocument,
        FollowedStudy,
    )
    engine = open_database(files.database, *tables, *LOG_TABLES)
    return CoordinatorFolder(
        files=files,
        settings=settings,
        key=key,
        engine=engine,
        blobs=FolderBlobStore(files.blobs),
        sealed=FolderBlobStore(path / "sealed"),
    )


def commit_validation(folder: CoordinatorFolder, data: bytes) -> str:
    """Store the sponsor's validation rows under a fresh salt; the hash that the plan names.

    The same rows committed again give the same hash: the salt that is stored is used again.
    """
    with write(folder.engine) as session:
        for row in session.exec(select(ValidationSet)):
            if row.data == data:
                return row.commitment
        salt = secrets.token_bytes(SALT_BYTES)
        commitment = validation_commitment(salt, data)
        session.add(ValidationSet(commitment=commitment, salt=salt, data=data))
    return commitment


def publish(folder: CoordinatorFolder, plan: StudyPlan) -> bytes:
    """Sign and store a plan; a plan that is published already comes back as it is.

    Raises:
        OperatorError: its validation set, or its root set, is not in the folder, or the folder is a standby's.
    """
    require_role(folder, "coordinator")
    folder.validation(plan.validation.commitment)
    if plan.aggregation.root is not None:
        folder.validation(plan.aggregation.root)
    with write(folder.engine) as session:
        row = session.exec(select(PublishedPlan).where(PublishedPlan.study == plan.study_id)).first()
        if row is None:
            row = PublishedPlan(
                study=plan.study_id,
                envelope=plan.sign(folder.key).to_bytes(),
                commitment=plan.validation.commitment,
            )
            session.add(row)
        envelope = row.envelope
    folder.blobs.put(envelope)
    return envelope


def require_role(folder: CoordinatorFolder, role: str) -> None:
    """Refuse a command in the other kind of folder.

    Raises:
        OperatorError: a coordinator where a standby is asked for, or the other way round.
    """
    if folder.settings.role != role:
        raise OperatorError(
            f"{folder.files.path} is the folder of a {folder.settings.role}, not of a {role}.",
            remedy="A coordinator runs with `accord coordinator run`, a standby with `accord coordinator standby`.",
        )


def keep_followed(
    folder: CoordinatorFolder,
    *,
    envelope: bytes,
    coordinator: PublicKey,
    address: str,
    validation: tuple[bytes, bytes],
) -> StudyPlan:
    """Store what a standby was given of a study: plan, coordinator, validation set; given again, it changes nothing.

    Raises:
        PeerError: the plan is not the coordinator's.
        OperatorError: the plan names another standby.
    """
    plan, _ = open_plan(envelope, signer=coordinator)
    if plan.failover is None or plan.failover.key != folder.key.public:
        named = "no standby" if plan.failover is None else plan.failover.standby
        raise OperatorError(
            f"The plan of {plan.study_id} names {named}, not {folder.key.public.did}.",
            remedy="The sponsor names this key in the plan's section `failover` before the plan is published.",
        )
    salt, rows = validation
    with write(folder.engine) as session:
        row = session.exec(select(PublishedPlan).where(PublishedPlan.study == plan.study_id)).first()
        if row is None:
            commitment = plan.validation.commitment
            session.add(PublishedPlan(study=plan.study_id, envelope=envelope, commitment=commitment))
            session.merge(ValidationSet(commitment=commitment, salt=salt, data=rows))
        known = session.get(FollowedStudy, plan.study_id)
        asked = known is not None and known.asked
        session.merge(FollowedStudy(study=plan.study_id, coordinator=coordinator.did, address=address, asked=asked))
    folder.blobs.put(envelope)
    return plan


class AskedOnDisk(Asked):
    """Whether a standby's witnesses were asked, in its database.

    Args:
        folder: the standby's.
        study: the study that it follows.
    """

    def __init__(self, folder: CoordinatorFolder, study: str) -> None:
        self._engine, self._study = folder.engine, study

    def load(self) -> bool:
        """See :meth:`Asked.load`."""
        with read(self._engine) as session:
            return session.get_one(FollowedStudy, self._study).asked

    def save(self, asked: bool) -> None:
        """See :meth:`Asked.save`."""
        with write(self._engine) as session:
            session.get_one(FollowedStudy, self._study).asked = asked
