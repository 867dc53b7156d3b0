"""Flower's ``Strategy`` for a study's rounds: what is sent to the nodes, and the exact aggregate of what is admitted.

Why our own: Flower's stock strategies trust a node's own count of examples, average floats, and send the model in every
message. Here weights come from the agreements, sums are exact integers (independent of order and machine), and a
message carries a round's description only; models and updates travel by content address.

The coordinator drives it round by round (``configure_train``, then ``configure_reveal``, then the aggregate of what
admission let through), because Flower's ``start`` always begins at round 1 and a restarted coordinator must not.
Nodes are not asked to evaluate: every metric of a node would be a release with a charge of its own; the sponsor
evaluates on the committed validation set.
"""

import logging
from collections.abc import Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from federation.errors import PeerError
from federation.flower import messages
from federation.flower.messages import REVEAL, TRAIN, RoundTask, Vector, node_id_of
from federation.rules.aggregation import WEIGHTED_MEAN, Rule, aggregate
from federation.rules.keys import PublicKey

logger = logging.getLogger(__name__)


class AccordStrategy(Strategy):
    """The strategy of one study; ``study`` is its id, ``rule`` how its plan aggregates."""

    def __init__(self, study: str, rule: Rule = WEIGHTED_MEAN) -> None:
        self._study = study
        self._rule = rule
        self._base: Vector | None = None
        self._weights: dict[int, int] = {}

    def round_config(
        self,
        *,
        round_number: int,
        base_model: str,
        deadline: str,
        consent_sizes: Mapping[str, int],
        updates: Mapping[str, int] | None = None,
    ) -> ConfigRecord:
        """The description of a round: ``base_model`` is a blob's name, ``deadline`` an ISO 8601 instant."""
        return messages.round_config(
            RoundTask(
                study=self._study,
                round=round_number,
                base_model=base_model,
                deadline=deadline,
                consent_sizes=consent_sizes,
                updates=updates or {},
            )
        )

    @staticmethod
    def no_arrays() -> ArrayRecord:
        """The empty record: models travel as blobs."""
        return ArrayRecord()

    def begin_round(self, base: Vector, weights: Mapping[str, int]) -> None:
        """Say what the next aggregate starts from.

        Args:
            base: int64 [P], the round's base model on the lattice.
            weights: did -> positive integer, every site of the study, present or not.
        """
        self._base = base
        self._weights = {node_id_of(PublicKey.from_did(did)): weight for did, weight in weights.items()}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message of type ``train`` for every node of the grid; ``arrays``, if not empty, is noted as the base."""
        if len(arrays):
            self._base = messages.vector_of(arrays)
        return self._to_all(server_round, TRAIN, config, grid, grid.get_node_ids())

    def configure_reveal(self, server_round: int, grid: Grid, node_ids: Iterable[int]) -> list[Message]:
        """One message of type ``query.reveal`` for every node that has committed an update."""
        config = messages.round_config(RoundTask(study=self._study, round=server_round))
        return self._to_all(server_round, REVEAL, config, grid, node_ids)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model from admitted updates (int64 [P] each), after :meth:`begin_round`.

        Raises:
            PeerError: a reply of an unknown node, two of one node, or one without a whole int64 vector.
        """
        if self._base is None or not self._weights:
            raise PeerError("The round has no base model or no weights.", remedy="Begin the round before aggregating.")
        updates: dict[str, Vector] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in self._weights or str(node) in updates:
                raise PeerError(
                    f"Node {node} is not in the study, or has two updates in round {server_round}.",
                    remedy="Admit one update of each site.",
                )
            updates[str(node)] = messages.vector_of_reply(reply)
        weights = {str(node): weight for node, weight in self._weights.items()}
        model = aggregate(self._base, updates, weights, self._rule)
        return messages.vector_record(model), MetricRecord({"updates": len(updates)})

    def aggregate_vectors(
        self, base: Vector, updates: Mapping[str, Vector], weights: Mapping[str, int], rule: Rule | None = None
    ) -> Vector:
        """The next model from updates by did, as :meth:`aggregate_train` gives it, without writing and reading arrays.

        ``rule``: the plan's with this round's reference update, where it needs one.

        Raises:
            PeerError: an update of a party without weight, or of another length.
        """
        return aggregate(base, updates, weights, rule or self._rule)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nobody is asked (see the module)."""
        del server_round, arrays, config, grid
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """There is nothing to aggregate.

        Raises:
            PeerError: a node evaluated without being asked.
        """
        if list(replies):
            raise PeerError(
                f"A node evaluated in round {server_round} without being asked.", remedy="Refuse its reply."
            )
        return None

    def summary(self) -> None:
        """Log what this strategy does."""
        logger.info(
            "study %s: exact %s on the integer lattice, %d sites", self._study, self._rule.name, len(self._weights)
        )

    @staticmethod
    def answer_of(reply: Message) -> tuple[str, bytes]:
        """The named document in a node's reply.

        Raises:
            PeerError: the node reports an error, or the reply holds no such document.
        """
        return messages.answer_of(reply)

    def _group(self, server_round: int) -> str:
        return f"{self._study}/{server_round}"

    def _to_all(
        self, server_round: int, message_type: str, config: ConfigRecord, grid: Grid, node_ids: Iterable[int]
    ) -> list[Message]:
        return [
            grid.create_message(
                content=messages.round_content(config),
                message_type=message_type,
                dst_node_id=node_id,
                group_id=self._group(server_round),
            )
            for node_id in sorted(node_ids)
        ]
