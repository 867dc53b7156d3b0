"""What parties bring to a study's log of their own accord: pledges, accusations, proposals, votes.

Each is a signed document; the log's rules decide. An accusation is checked as every witness will check it, with the
blob that it rests on, which is fetched from whoever shows it. The coordinator's own documents take the same way, so
that it is slashed by its own log like anybody else. Then there is what is due by itself once the time has come: an
answer to a case that does not hold, burning what nobody answered, releasing what is free.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from federation.errors import AccordError, PeerError
from federation.learning.evaluation import committed_utility
from federation.network.blobs import fetch_blob
from federation.network.exchange import Exchange
from federation.rules.ballots import Proposal, Vote
from federation.rules.canonical import parse_canonical
from federation.rules.documents import Signed, open_signed
from federation.rules.entries import (
    Body,
    ChangeProposed,
    SlashAppealed,
    StakeBurned,
    StakeDeposited,
    StakeReleased,
    StakeSlashed,
    VoteCast,
)
from federation.rules.evidence import check_false_utility, proof_bytes_max
from federation.rules.keys import PublicKey
from federation.rules.pledges import Accusation, FalseUtility, Pledge, TwoStudies
from federation.rules.stakes import appeal_ends, burnt, free_at, releasable
from federation.rules.state import Slash, StudyState
from federation.storage.blobs import BlobStore, MemoryBlobStore
from federation.storage.outbox import Outbox

from .history import StudyHistory
from .protocols import SUBMISSION_BYTES_MAX

logger = logging.getLogger(__name__)

_FETCH_S: Final = 60.0
Answering = Callable[[StudyState, Slash], TwoStudies | None]


def kind_of(data: bytes) -> type[Signed]:
    """Which document of a party this is; what it says is not verified yet.

    Raises:
        PeerError: it is none that a study's log takes.
    """
    document = parse_canonical(data, max_bytes=SUBMISSION_BYTES_MAX)
    shown = document.get("payloadType") if isinstance(document, dict) else None
    for kind in (Pledge, Accusation, Proposal, Vote):
        if shown == kind.payload_type():
            return kind
    raise PeerError("A study's log takes no such document.", remedy="Both sides need the same version of Accord.")


class Submissions:
    """The door for what parties bring to one study.

    Args:
        history: the study's log.
        blobs: where the proofs that cases rest on are kept, and served from.
        exchange: fetches a proof from whoever shows it; None takes what is in ``blobs``.
    """

    def __init__(self, history: StudyHistory, blobs: BlobStore, exchange: Exchange | None = None) -> None:
        self._history = history
        self._blobs = blobs
        self._exchange = exchange
        self._unanswerable: set[str] = set()

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Log what a party signed; what is logged already is acknowledged again.

        Raises:
            PeerError: signed by another key, or refused by the log's rules.
            UnavailableError: the proof that a case rests on does not arrive.
        """
        kind = kind_of(payload)
        document, envelope = open_signed(kind, payload, signer=peer)
        text = envelope.to_bytes().decode("utf-8")
        if isinstance(document, Accusation):
            self._accuse(peer, document)
        else:
            bodies: Mapping[type[Signed], Body] = {
                Pledge: StakeDeposited(envelope=text),
                Proposal: ChangeProposed(envelope=text),
                Vote: VoteCast(envelope=text),
            }
            self._history.append(bodies[kind], party=peer)
        return b"{}"

    def take_own(self, outbox: Outbox) -> int:
        """Log what the coordinator's own commands have signed; how many documents."""
        count = 0
        for row in outbox.waiting():
            try:
                self.handle(self._history.state.coordinator, row.document)
            except AccordError as error:
                if row.problem != error.message:
                    logger.warning("own %s refused: %s", row.kind, error.message)
                outbox.mark(row.number, problem=error.message)
                continue
            outbox.mark(row.number, taken=True)
            count += 1
        return count

    def due(self, answer: Answering) -> list[Body]:
        """Log what time has brought: answers to cases that do not hold, burns, releases; what was logged.

        Args:
            answer: what the coordinator can say against a case against itself; None: nothing.
        """
        state, now = self._history.state, self._history.now()
        made: list[tuple[Body, str]] = []
        gone = {did for did in state.stakes if burnt(state, did)}
        for name, slash in state.slashes.items():
            if slash.status != "pending" or slash.party in gone:
                continue
            ends = appeal_ends(state, slash)
            said = self._said(name, slash, answer) if now <= ends else None
            if said is not None:
                made.append((SlashAppealed(slash=name, answer=said), slash.party))
            elif now > ends + timedelta(seconds=1):  # an entry's time is cut to whole seconds
                made.append((StakeBurned(slash=name), slash.party))
                gone.add(slash.party)
        free = releasable(state)
        if free and now > free_at(state) + timedelta(seconds=1):
            made += [(StakeReleased(), did) for did in free]
        return [body for body, did in made if self._log(body, did)]

    def _log(self, body: Body, did: str) -> bool:
        """Log what is due; False where a case that was just brought stands against it."""
        try:
            self._history.append(body, party=PublicKey.from_did(did))
        except PeerError as error:
            logger.warning("not due any more: %s", error.message)
            return False
        return True

    def _accuse(self, peer: PublicKey, accusation: Accusation) -> None:
        state, case = self._history.state, accusation.case
        if accusation.study != state.study:
            raise PeerError("The accusation is for another study.", remedy="Name the study that it belongs to.")
        if isinstance(case, FalseUtility):
            if not state.settled or case.round > len(state.closed):
                raise PeerError("No value table of this round is open yet.", remedy="Wait for the settlement.")
            proof = self._proof(peer, case)
            check_false_utility(state, case, proof, committed_utility)
            self._blobs.put(proof)
        self._history.append(StakeSlashed(case=case), party=PublicKey.from_did(accusation.accused))

    def _proof(self, peer: PublicKey, case: FalseUtility) -> bytes:
        """A challenge's bytes; those from elsewhere are kept only once they have proven something."""
        if self._exchange is None or self._blobs.has(case.proof):
            return self._blobs.get(case.proof)
        return fetch_blob(
            self._exchange,
            peer,
            case.proof,
            MemoryBlobStore(),
            timeout_s=_FETCH_S,
            max_bytes=proof_bytes_max(self._history.state.plan, case),
        )

    def _said(self, name: str, slash: Slash, answer: Answering) -> TwoStudies | None:
        """The coordinator's answer to a case against itself; looked for once."""
        state = self._history.state
        if slash.party != state.coordinator.did or name in self._unanswerable:
            return None
        said = answer(state, slash)
        if said is None:
            self._unanswerable.add(name)
        return said
