"""The witnesses that the registry names, their cosignatures, and how far grants bind.

A cosignature is verified when it arrives and again by every process that relies on it: what the table says is only
remembered, never believed.
"""

import threading
from collections.abc import Collection

from sqlalchemy import Engine
from sqlmodel import Session, col, delete, select

from consent.registry.tables import ConsentCosignature, ConsentNotice, ConsentState, ConsentWitness
from consent.rules.binding import Quorum, Witnesses, named, newest_quorum
from federation.errors import AccordError, OperatorError, PeerError
from federation.rules.checkpoint import Checkpoint, Cosignature, verify_cosignature
from federation.rules.keys import PublicKey
from federation.storage.database import database_name, read
from federation.storage.log import MerkleLog


class Binding:
    """How far grants bind.

    Args:
        engine: the registry's database.
        log: the consent log.
        origin: its name in checkpoints.
    """

    def __init__(self, engine: Engine, log: MerkleLog, origin: str) -> None:
        self._engine = engine
        self._log = log
        self._origin = origin
        self._verified: set[tuple[int, str, int, bytes]] = set()
        self._lock = threading.Lock()

    def quorum(self) -> tuple[Witnesses, Quorum]:
        """The witnesses, and their newest word.

        Raises:
            OperatorError: they have cosigned a log that is longer than this one: it was rolled back.
        """
        with read(self._engine) as session:
            witnesses = witnesses_of(session)
            rows = session.exec(select(ConsentCosignature)).all() if witnesses.quorum else []
        size = self._log.size if rows else 0
        for row in rows:
            if row.size > size:
                raise OperatorError(
                    f"Witnesses have cosigned {row.size} entries of the consent log in {database_name(self._engine)},"
                    f" and it has {size}: it was rolled back.",
                    remedy="Restore the newest backup; nothing is permitted until the log is whole.",
                )
        keys = {key.did: key for key in witnesses.keys}
        counted = [(row.size, item) for row in rows if (item := self._counted(row, keys)) is not None]
        return witnesses, newest_quorum(counted, witnesses)

    def add(self, session: Session, size: int, cosignature: Cosignature) -> None:
        """Store a verified cosignature over the first ``size`` entries; of two by one witness, the later counts.

        Raises:
            PeerError: it is not by a named witness, or not over this log.
            UnavailableError: the log is shorter than ``size``.
        """
        witnesses = witnesses_of(session)
        if cosignature.witness not in witnesses.keys:
            raise PeerError(
                f"{cosignature.witness.did} is not a witness of this consent log.",
                remedy="Name it among the registry's witnesses first, if its word should count.",
            )
        verify_cosignature(self._checkpoint(size), cosignature)
        did = cosignature.witness.did
        row = session.get(ConsentCosignature, (size, did))
        if row is None:
            row = ConsentCosignature(size=size, witness=did, cosigned_at=0, signature=b"")
        if row.cosigned_at < cosignature.timestamp:
            row.cosigned_at, row.signature = cosignature.timestamp, cosignature.signature
            session.add(row)
        session.flush()
        self._prune(session, witnesses)

    def cosignatures(self, size: int) -> list[Cosignature]:
        """The named witnesses' cosignatures over exactly ``size`` entries, verified."""
        with read(self._engine) as session:
            keys = {key.did: key for key in witnesses_of(session).keys}
            rows = session.exec(select(ConsentCosignature).where(ConsentCosignature.size == size)).all()
        return [item for row in rows if (item := self._counted(row, keys)) is not None]

    def _prune(self, session: Session, witnesses: Witnesses) -> None:
        """Forget what newer words of the same witnesses have made needless: sizes below the newest with a quorum."""
        query = select(ConsentCosignature)
        keys = {key.did: key for key in witnesses.keys}
        counted = [(row.size, item) for row in session.exec(query) if (item := self._counted(row, keys)) is not None]
        newest = newest_quorum(counted, witnesses)
        session.exec(delete(ConsentCosignature).where(col(ConsentCosignature.size) < newest.size))

    def _counted(self, row: ConsentCosignature, keys: dict[str, PublicKey]) -> Cosignature | None:
        """The cosignature of a row, or None where it is not a named witness's or does not verify."""
        witness = keys.get(row.witness)
        if witness is None:
            return None
        item = Cosignature(witness=witness, timestamp=row.cosigned_at, signature=row.signature)
        known = (row.size, row.witness, row.cosigned_at, row.signature)
        with self._lock:
            if known in self._verified:
                return item
        try:
            verify_cosignature(self._checkpoint(row.size), item)
        except AccordError:
            return None
        with self._lock:
            self._verified.add(known)
        return item

    def _checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(origin=self._origin, size=size, root=self._log.root(size))


def witnesses_of(session: Session) -> Witnesses:
    """The witnesses that are named now."""
    return named(session.exec(select(ConsentWitness.did)).all(), session.get_one(ConsentState, 1).quorum)


def set_witnesses(session: Session, dids: Collection[str], quorum: int) -> None:
    """Name the witnesses, and how many must cosign; what was decided so far is decided again.

    Raises:
        PeerError: one of them is not the did:key of an Ed25519 key.
        OperatorError: more are needed than are named.
    """
    wanted = named(dids, quorum)
    if wanted == witnesses_of(session):
        return
    session.exec(delete(ConsentWitness))
    for key in wanted.keys:
        session.add(ConsentWitness(did=key.did))
    state = session.get_one(ConsentState, 1)
    state.quorum, state.rules = quorum, state.rules + 1
    session.add(state)


def set_notices(session: Session, replaced: Collection[str]) -> None:
    """Name the notices that no longer carry a grant; what was decided so far is decided again."""
    before = set(session.exec(select(ConsentNotice.sha256)))
    if before == set(replaced):
        return
    session.exec(delete(ConsentNotice))
    for sha256 in sorted(set(replaced)):
        session.add(ConsentNotice(sha256=sha256))
    state = session.get_one(ConsentState, 1)
    state.rules += 1
    session.add(state)
