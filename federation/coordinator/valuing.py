"""What each institution's update was worth: the value table of a round, and the settlement at the end.

Tables are computed at once, when a round closes, and only their hash is logged: published utilities would let sites
climb on the sponsor's set. They are kept sealed, and open at the settlement.
"""

import secrets
from collections.abc import Mapping

from federation.learning.evaluation import coalition_utilities
from federation.learning.uncertainty import study_errors
from federation.rules import audit
from federation.rules.aggregation import Rule
from federation.rules.canonical import sha256_hex
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import StudySettled
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.storage.blobs import BlobStore

SALT_BYTES = 32


class Valuer:
    """Makes and opens value tables.

    Args:
        plan: the study's plan.
        validation: the sponsor's set.
        blobs: where models and updates are.
        sealed: where tables wait for the settlement.
    """

    def __init__(self, *, plan: StudyPlan, validation: SubjectBatch, blobs: BlobStore, sealed: BlobStore) -> None:
        self._plan = plan
        self._validation = validation
        self._blobs = blobs
        self._sealed = sealed

    def seal(
        self,
        state: StudyState,
        *,
        base: audit.Vector,
        updates: Mapping[str, audit.Vector],
        rule: Rule,
    ) -> str:
        """Compute the table of the round that is about to close; its hash, once it is stored.

        Args:
            state: the study, with the round in progress.
            base: int64 ``[P]``, the model that the round started from.
            updates: did -> int64 ``[P]``, those that count.
            rule: how the round is aggregated.
        """
        if state.round is None:
            raise ValueError("no round is in progress")
        players = tuple(sorted(updates))
        utilities = list(
            coalition_utilities(
                base,
                updates,
                state.weights,
                players,
                self._validation,
                self._plan.valuation.loss_bound,
                rule,
                self._plan.model,
            )
        )
        before = self._utility_before(state)
        if before is not None:
            # One model has one utility: floating point may differ in the last bit between two batches.
            utilities[0] = before
        table = ValueTable(
            study=state.study,
            round=state.round.number,
            players=players,
            utilities=tuple(utilities),
            salt=secrets.token_hex(SALT_BYTES),
        )
        return self._sealed.put(table.to_payload())

    def settlement(self, state: StudyState) -> StudySettled:
        """Values and payments of a complete study; opens the tables (puts them among the blobs)."""
        tables = []
        for done in state.closed:
            data = self._sealed.get(done.value_table)
            tables.append(audit.open_table(done, state, data))
        errors = None
        if self._plan.reward.z is not None:
            errors = study_errors(state, self._validation, self._blobs.get)
        settled = audit.settlement(state, tables, errors)
        for done in state.closed:
            if self._blobs.put(self._sealed.get(done.value_table)) != done.value_table:
                raise ValueError("a sealed table changed")
        return settled

    def _utility_before(self, state: StudyState) -> int | None:
        if not state.closed:
            return None
        done = state.closed[-1]
        data = self._sealed.get(done.value_table)
        if sha256_hex(data) != done.value_table:
            raise ValueError("a sealed table changed")
        return audit.open_table(done, state, data).utilities[-1]
