"""What each institution's update was worth: the value table of a round, and the settlement at the end.

Tables are computed at once, when a round closes, and only their hash is logged: published utilities would let sites
climb on the sponsor's set. They are kept sealed, and open at the settlement.
"""

import secrets
from collections.abc import Mapping, Sequence

from federation.learning.evaluation import coalition_utilities, utilities_of
from federation.learning.uncertainty import study_errors
from federation.rules import audit
from federation.rules.aggregation import Rule
from federation.rules.canonical import sha256_hex
from federation.rules.documents import ValueTable
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import StudySettled
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.rules.value_sample import draw, is_sampled, seed_of
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
        scoring = (self._validation, self._plan.valuation.loss_bound, rule, self._plan.model)
        seed = None
        if is_sampled(len(players)):
            seed = seed_of(state.study, state.round.number, state.round.commitments)

            def ask(coalitions: Sequence[int]) -> tuple[int, ...]:
                found = utilities_of(coalitions, base, updates, state.weights, players, *scoring)
                return (self._utility_before(state, found[0]), *found[1:]) if coalitions[0] == 0 else found

            utilities = draw(len(players), ask, self._plan.valuation, seed).utilities
        else:
            utilities = coalition_utilities(base, updates, state.weights, players, *scoring)
            utilities = (self._utility_before(state, utilities[0]), *utilities[1:])
        table = ValueTable(
            study=state.study,
            round=state.round.number,
            players=players,
            utilities=utilities,
            salt=secrets.token_hex(SALT_BYTES),
            seed=seed,
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
            errors = study_errors(state, tables, self._validation, self._blobs.get)
        settled = audit.settlement(state, tables, errors)
        for done in state.closed:
            if self._blobs.put(self._sealed.get(done.value_table)) != done.value_table:
                raise ValueError("a sealed table changed")
        return settled

    def _utility_before(self, state: StudyState, found: int) -> int:
        """The base model's utility as the table before has it: floating point may differ in the last bit."""
        if not state.closed:
            return found
        done = state.closed[-1]
        data = self._sealed.get(done.value_table)
        if sha256_hex(data) != done.value_table:
            raise ValueError("a sealed table changed")
        return audit.open_table(done, state, data).utilities[-1]
