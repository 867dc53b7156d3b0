"""The witness's side: cosign another institution's consent log, and never two trees of it that do not fit.

Rules kept: the checkpoint is signed by the institution whose name the log bears; it extends the one cosigned last; it
is on disk before the cosignature is made, so that a crash can lose a signature but never a memory. At first contact any
size is taken. A witness that is shown a forked tree refuses, keeps the evidence, and says how to show it to others;
it also compares what the institution shows to others, in the studies' logs (:meth:`ConsentLogWitness.compare`).
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, delete, select

from consent.cosigning.protocol import CosigningReply, CosigningRequest
from consent.cosigning.tables import WitnessedCheckpoint
from federation.coordinator.protocols import CONSENT_COSIGN_BYTES_MAX
from federation.coordinator.rate import RateBound
from federation.errors import PeerError
from federation.rules.admission import consent_origin
from federation.rules.checkpoint import SignedCheckpoint, cosign, cosignature_line, open_checkpoint
from federation.rules.equivocation import Evidence, two_roots
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import verify_consistency
from federation.rules.study import read as read_document
from federation.storage.database import read, write
from federation.storage.evidence import EvidenceStore

KEPT_MAX: Final = 4096
"""How many checkpoints of one log are kept to compare with; the newest always are."""
PER_S: Final = 5.0
BURST: Final = 60

logger = logging.getLogger(__name__)


class ConsentLogWitness:
    """One party as a witness of its peers' consent logs.

    Args:
        key: the witness's key.
        engine: its database, opened with :data:`consent.cosigning.COSIGNING_TABLES`.
        party: whether a key is a party of the study, asked at every request.
        evidence: where proofs of split views are kept.
        clock: stamps cosignatures.
        rate: how often one institution may ask.
    """

    def __init__(
        self,
        key: PrivateKey,
        engine: Engine,
        *,
        party: Callable[[PublicKey], bool],
        evidence: EvidenceStore,
        clock: Callable[[], datetime],
        rate: RateBound | None = None,
    ) -> None:
        self._key = key
        self._engine = engine
        self._party = party
        self._evidence = evidence
        self._clock = clock
        self._rate = rate or RateBound(per_s=PER_S, burst=BURST)

    def handle(self, _peer: PublicKey, payload: bytes) -> bytes:
        """Answer one request, whoever carried it: what counts is the institution's signature inside.

        Raises:
            PeerError: malformed, not by a party of the study, not by the log's institution, or a tree that does not
                extend the one cosigned last.
            UnavailableError: this institution asks too often.
        """
        request = read_document(CosigningRequest, payload, max_bytes=CONSENT_COSIGN_BYTES_MAX)
        institution = PublicKey.from_did(request.institution)
        if not self._party(institution) or institution == self._key.public:
            raise PeerError(
                "This witness cosigns the consent logs of the other parties of its study only.",
                remedy="Ask again when your agreement is in the study's log.",
            )
        self._rate.take(institution)
        shown = _open(request.checkpoint, institution)
        old = None if request.old is None else _open(request.old, institution)
        with write(self._engine) as session:
            last = _last(session, institution)
            fork = None if last is None else self._judge(session, last, shown, old)
            extends = last is None or _extends(last, shown, old, request.proof)
            if fork is None and extends:
                _remember(session, shown, request.checkpoint)
        if fork is not None:
            raise self._forked(fork)
        if last is not None and not extends:
            return CosigningReply(size=last.checkpoint.size).to_payload()
        line = cosignature_line(cosign(shown.checkpoint, self._key, timestamp=int(self._clock().timestamp())))
        logger.info("cosigned the consent log of %s at size %d", institution.did, shown.checkpoint.size)
        return CosigningReply(size=shown.checkpoint.size, cosignature=line).to_payload()

    def compare(self, note: str, institution: PublicKey) -> None:
        """Look at a checkpoint that the institution showed to others; a fork is kept as evidence and logged.

        Raises:
            PeerError: the note is not that institution's.
        """
        shown = _open(note, institution)
        with read(self._engine) as session:
            known = _at(session, institution, shown.checkpoint.size)
        fork = None if known is None else two_roots(known, shown)
        if fork is not None:
            self._forked(fork)

    def _judge(
        self, session: Session, last: SignedCheckpoint, shown: SignedCheckpoint, old: SignedCheckpoint | None
    ) -> Evidence | None:
        """Evidence, if what is shown cannot be the log that was cosigned.

        Raises:
            PeerError: it is older than what was cosigned last, and no fork is proven.
        """
        for note in (shown, old):
            known = None if note is None else _at(session, last.signer, note.checkpoint.size)
            fork = None if note is None or known is None else two_roots(known, note)
            if fork is not None:
                return fork
        if shown.checkpoint.size < last.checkpoint.size:
            raise PeerError(
                f"The consent log of {last.signer.did} has shrunk: this witness cosigned size {last.checkpoint.size}, "
                f"and is shown size {shown.checkpoint.size}.",
                remedy="Restore the registry from its newest backup; a log that was cosigned cannot be shortened.",
            )
        return None

    def _forked(self, fork: Evidence) -> PeerError:
        """Keep the evidence, say where it is, and the error for whoever asked."""
        place = self._evidence.keep(fork)
        logger.error(
            "SPLIT VIEW: %s showed two consent logs. Anybody can check the proof: accord log evidence %s --key %s",
            fork.signer,
            place,
            fork.signer,
        )
        return PeerError(
            "The consent log is forked: this witness cosigned another tree of it before.",
            remedy="This witness keeps both signed checkpoints as evidence; restore the registry that made the first.",
        )


def _extends(
    last: SignedCheckpoint, shown: SignedCheckpoint, old: SignedCheckpoint | None, proof: tuple[str, ...]
) -> bool:
    """Whether ``shown`` is proven to extend ``last``; False where the request shows another old size.

    Raises:
        PeerError: the proof does not lead from one to the other.
    """
    if shown.checkpoint == last.checkpoint:
        return True
    if old is None or old.checkpoint != last.checkpoint:
        return False
    verify_consistency(
        old_size=last.checkpoint.size,
        old_root=last.checkpoint.root,
        new_size=shown.checkpoint.size,
        new_root=shown.checkpoint.root,
        proof=tuple(bytes.fromhex(part) for part in proof),
    )
    return True


def _open(note: str, institution: PublicKey) -> SignedCheckpoint:
    return open_checkpoint(note.encode("utf-8"), origin=consent_origin(institution), signer=institution, witnesses=())


def _last(session: Session, institution: PublicKey) -> SignedCheckpoint | None:
    query = select(WitnessedCheckpoint).where(WitnessedCheckpoint.origin == consent_origin(institution))
    row = session.exec(query.order_by(col(WitnessedCheckpoint.size).desc()).limit(1)).first()
    return None if row is None else _open(row.note.decode("utf-8"), institution)


def _at(session: Session, institution: PublicKey, size: int) -> SignedCheckpoint | None:
    row = session.get(WitnessedCheckpoint, (consent_origin(institution), size))
    return None if row is None else _open(row.note.decode("utf-8"), institution)


def _remember(session: Session, shown: SignedCheckpoint, note: str) -> None:
    """Write the checkpoint down, and let go of the oldest of very many."""
    origin, size = shown.checkpoint.origin, shown.checkpoint.size
    session.merge(WitnessedCheckpoint(origin=origin, size=size, note=note.encode("utf-8")))
    query = select(WitnessedCheckpoint.size).where(WitnessedCheckpoint.origin == origin)
    oldest = session.exec(query.order_by(col(WitnessedCheckpoint.size).desc()).offset(KEPT_MAX).limit(1)).first()
    if oldest is not None:
        session.exec(
            delete(WitnessedCheckpoint).where(
                col(WitnessedCheckpoint.origin) == origin, col(WitnessedCheckpoint.size) <= oldest
            )
        )
