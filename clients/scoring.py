"""An institution's part in a panel: it scores every institution, once, on the people whom it held back.

The order is that of a round (``clients.contribution``): models and updates are fetched first, then the charge is
reserved and started, then consent is asked for each held-out person, then data is read; what leaves is stored together
with the charge. A repeated request is answered with what is stored. Whoever cannot score is absent: the log shows that
it did not commit, and not why.
"""

import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import Engine

from clients.data.check import check_data
from clients.data.dataset import find_dataset, load_dataset
from clients.participation import Participation, scores_round
from clients.privacy.budget import BudgetLedger, State
from clients.privacy.noise import NoiseSource
from clients.privacy.release import release_scores
from clients.selection import round_use, select
from clients.storage import StoredScores
from consent.registry import Registry, RoundOf
from consent.rules.decision import use_of
from federation.coordinator.protocols import SCORES, SCORES_COMMITMENT
from federation.errors import AccordError, PrivacyError
from federation.learning.uncertainty import subject_gains
from federation.rules import audit
from federation.rules.accounting import derive_scores_noise, scores_event
from federation.rules.clusters import quotient
from federation.rules.documents import Scores, ScoresCommitment, open_signed
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.state import StudyState
from federation.rules.study import Agreement, StudyPlan
from federation.storage.code import code_hash
from federation.storage.database import read

logger = logging.getLogger(__name__)

NONCE_BYTES: Final = 32
_AGAIN_S: Final = 10


class Scoring:
    """One institution on one study's panel.

    Args:
        plan: the study's plan.
        agreement: what this institution signed.
        key: the institution's key.
        engine: the node's database.
        registry: the consents.
        participation: tells the registry what became of it.
        fetch: fetches a blob by its name.
        noise: where privacy noise comes from.
        clock: the time.
        dataset: the registered data set's name; None takes the only one.
        agreed: whether the agreement still stands; where it does not, nothing is brought.
        await_grants: gives grants that wait for witnesses a bounded time.
        bring: sends the coordinator a document by a protocol.
    """

    def __init__(
        self,
        *,
        plan: StudyPlan,
        agreement: Agreement,
        key: PrivateKey,
        engine: Engine,
        registry: Registry,
        participation: Participation,
        fetch: Callable[[str], bytes],
        noise: NoiseSource,
        clock: Callable[[], datetime],
        dataset: str | None = None,
        agreed: Callable[[], bool] = lambda: True,
        await_grants: Callable[[], None] = lambda: None,
        bring: Callable[[str, bytes], None] = lambda _protocol, _document: None,
    ) -> None:
        self._plan = plan
        self._agreement = agreement
        self._key = key
        self._engine = engine
        self._registry = registry
        self._participation = participation
        self._fetch = fetch
        self._noise = noise
        self._clock = clock
        self._dataset = dataset
        self._agreed = agreed
        self._await_grants = await_grants
        self._bring = bring
        self._brought: tuple[bool, datetime] | None = None
        self._budget = BudgetLedger(engine, clock=clock)

    def bring_due(self, state: StudyState) -> None:
        """Bring the panel what it waits for; what does not arrive is brought again after a while."""
        panel, now = state.panel, self._clock()
        if panel is None:
            return
        closed, at = self._brought or (None, now)
        if (closed == panel.closed and (now - at).total_seconds() < _AGAIN_S) or not self._agreed():
            return
        try:
            due = self.due(state)
            if due is None:
                return
            shown, document = due
            self._bring(SCORES if shown else SCORES_COMMITMENT, document)
        except AccordError as error:
            logger.warning("this node does not score: %s", error.message)
        self._brought = panel.closed, now

    def due(self, state: StudyState) -> tuple[bool, bytes] | None:
        """What the panel waits for from here: (whether it is the scores themselves, signed document), or nothing.

        Scores that are not made yet are made now; they are shown only if the log holds this very commitment.

        Raises:
            AccordError: the data, the consents, the budget or a blob do not allow to score now.
        """
        own, panel = self._key.public.did, state.panel
        if panel is None or state.settled or own not in panel.awaited:
            return None
        stored = self._stored()
        if not panel.closed:
            return False, stored.commitment if stored else self._made(state)
        if stored is None:
            return None
        commitment, _ = open_signed(ScoresCommitment, stored.commitment, signer=self._key.public)
        return (True, stored.envelope) if commitment.commitment == panel.commitments[own] else None

    def _made(self, state: StudyState) -> bytes:
        """Score, store, charge; the signed commitment."""
        plan, number = self._plan, scores_round(self._plan)
        panel = plan.valuation.panel
        if panel is None or code_hash() not in plan.code_approved:
            raise PrivacyError("This node does not score for this plan.", remedy="Run the code that the plan approves.")
        players = tuple(sorted(state.weights))
        rounds = [audit.round_vectors(done, state, self._fetch) for done in state.closed]
        entry = find_dataset(self._engine, self._dataset)
        self._await_grants()
        self._charge(number)
        checked = check_data(load_dataset(entry), plan.schema_contract, subject_column=entry.subject_column)
        data = checked.of_part(panel.held_out)
        decided_at = self._clock()
        use, of = use_of(plan, self._key.public.did), RoundOf(plan.study_id, number)
        selection = select(data, self._registry.decide_all(use, decided_at, data.subjects, round_use=of))
        from clients.privacy.scoring import noisy_scores  # torch: only here, where it is needed

        steps = noisy_scores(
            study_gains(rounds, state, players, selection.batch),
            clip=panel.clip,
            noise_multiplier=derive_scores_noise(plan),
            noise=self._noise,
        )
        scores = Scores(
            study=plan.study_id,
            model=state.model or "",
            players=players,
            values=release_scores(steps, plan, players=len(players), nominal_cohort=self._agreement.nominal_cohort),
            event=scores_event(plan),
            nonce=secrets.token_hex(NONCE_BYTES),
            code_hash=code_hash(),
        )
        stored = StoredScores(
            study=plan.study_id,
            commitment=scores.commitment(self._key.public).sign(self._key).to_bytes(),
            envelope=scores.sign(self._key).to_bytes(),
            created_at=format_instant(self._clock()),
        )
        commitment = stored.commitment
        used = round_use(
            selection,
            study=self._plan.study_id,
            number=number,
            dataset_sha256=data.sha256,
            decided_at=decided_at,
        )
        self._budget.commit(plan.study_id, number, together_with=[stored, used])
        self._participation.finish(number, released=True)
        logger.info("scores committed")
        return commitment

    def _charge(self, number: int) -> None:
        """Reserve and start the release's charge.

        Raises:
            PrivacyError: it does not fit, or it was started before and nothing was stored: that is not repeated.
        """
        study = self._plan.study_id
        charge = self._budget.charge(study, number)
        if charge is not None and charge.state in (State.STARTED, State.COMMITTED):
            raise PrivacyError("Scoring was interrupted, stays charged and is not repeated.", remedy="Nothing to do.")
        self._budget.reserve(study, number, scores_event(self._plan))
        self._budget.start(study, number)

    def _stored(self) -> StoredScores | None:
        with read(self._engine) as session:
            return session.get(StoredScores, self._plan.study_id)


def study_gains(
    rounds: list[tuple[audit.Vector, dict[str, audit.Vector]]],
    state: StudyState,
    players: tuple[str, ...],
    batch: SubjectBatch,
) -> Floats:
    """What each player's updates gained for each person over all rounds: float64 [N, S], nats; S may be 0."""
    gained: Floats = np.zeros((len(players), len(batch.subjects)))
    for base, updates in rounds:
        there = sorted(updates)
        if there and batch.subjects:
            places = [players.index(did) for did in there]
            alone = quotient(there, (), state.weights)  # a plan with a panel compares nobody: there are no clusters
            gained[places] += subject_gains(base, updates, state.weights, alone, batch, state.plan)
    return gained
