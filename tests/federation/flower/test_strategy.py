from decimal import Decimal
from itertools import permutations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import Strategy

from federation.errors import PeerError
from federation.flower import messages
from federation.flower.grid import ExchangeGrid
from federation.flower.messages import RoundTask
from federation.flower.strategy import AccordStrategy
from federation.network.memory import MemoryNetwork
from federation.rules.aggregation import aggregate, integer_weights
from federation.rules.keys import PrivateKey

COORDINATOR = PrivateKey(b"c" * 32)
NODES = [PrivateKey(bytes([letter]) * 32).public for letter in b"abcd"]
BASE = np.array([100, -200, 300], dtype=np.int64)
WEIGHTS = integer_weights({node.did: 50 * (index + 1) for index, node in enumerate(NODES)}, Decimal("0.4"))
UPDATES = {node.did: np.array([index, -3 * index, 7], dtype=np.int64) << 10 for index, node in enumerate(NODES)}


def strategy() -> AccordStrategy:
    return AccordStrategy("heart-1")


def grid() -> ExchangeGrid:
    return ExchangeGrid(MemoryNetwork().exchange(COORDINATOR), NODES)


def test_it_is_a_strategy_of_flowers() -> None:
    assert isinstance(strategy(), Strategy)


def test_train_messages_carry_the_round_and_no_arrays() -> None:
    ours = strategy()
    config = ours.round_config(
        round_number=2, base_model="cd" * 32, deadline="2026-11-22T00:10:00Z", consent_sizes={NODES[0].did: 512}
    )
    sent = ours.configure_train(2, ours.no_arrays(), config, grid())
    assert [each.metadata.dst_node_id for each in sent] == sorted(messages.node_id_of(node) for node in NODES)
    assert {each.metadata.message_type for each in sent} == {"train"}
    assert {each.metadata.group_id for each in sent} == {"heart-1/2"}
    assert all(not each.content.array_records for each in sent)
    assert messages.round_task(sent[0]) == RoundTask(
        study="heart-1",
        round=2,
        base_model="cd" * 32,
        deadline="2026-11-22T00:10:00Z",
        consent_sizes={NODES[0].did: 512},
    )


def test_reveal_messages_go_only_to_those_who_committed() -> None:
    node_id = messages.node_id_of(NODES[1])
    sent = strategy().configure_reveal(2, grid(), [node_id])
    assert [(each.metadata.message_type, each.metadata.dst_node_id) for each in sent] == [("query.reveal", node_id)]
    assert messages.round_task(sent[0]).round == 2


def test_the_aggregate_is_the_rules_own_whatever_the_order() -> None:
    expected = aggregate(BASE, UPDATES, WEIGHTS)
    for order in permutations(UPDATES):
        result = strategy().aggregate_vectors(BASE, {did: UPDATES[did] for did in order}, WEIGHTS)
        assert result.dtype == np.int64
        assert result.tobytes() == expected.tobytes()


def test_absent_sites_contribute_nothing_and_weights_stay() -> None:
    some = {did: UPDATES[did] for did in list(UPDATES)[:2]}
    assert np.array_equal(strategy().aggregate_vectors(BASE, some, WEIGHTS), aggregate(BASE, some, WEIGHTS))
    assert np.array_equal(strategy().aggregate_vectors(BASE, {}, WEIGHTS), BASE)


def test_flowers_replies_are_aggregated_over_the_base_that_was_configured() -> None:
    ours = strategy()
    ours.configure_train(1, messages.vector_record(BASE), ConfigRecord(), grid())
    ours.begin_round(BASE, WEIGHTS)
    replies = [
        messages.vector_reply(1, "heart-1/1", messages.node_id_of(node), 0, UPDATES[node.did])
        for node in reversed(NODES)
    ]
    arrays, metrics = ours.aggregate_train(1, replies)
    assert arrays is not None
    assert metrics is not None
    assert metrics["updates"] == 4
    assert np.array_equal(messages.vector_of(arrays), aggregate(BASE, UPDATES, WEIGHTS))


def test_an_update_of_a_stranger_or_a_second_one_is_refused() -> None:
    ours = strategy()
    ours.begin_round(BASE, WEIGHTS)
    known = messages.vector_reply(1, "g", messages.node_id_of(NODES[0]), 0, BASE)
    stranger = messages.vector_reply(1, "g", 12345, 0, BASE)
    for replies in ([stranger], [known, known]):
        with pytest.raises(PeerError):
            ours.aggregate_train(1, replies)


def test_aggregating_before_a_round_begins_is_refused() -> None:
    with pytest.raises(PeerError, match="no base model"):
        strategy().aggregate_train(1, [])


def test_nobody_is_asked_to_evaluate() -> None:
    ours = strategy()
    assert ours.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid()) == []
    assert ours.aggregate_evaluate(1, []) is None
    with pytest.raises(PeerError):
        ours.aggregate_evaluate(1, [messages.vector_reply(1, "g", 1, 0, BASE)])
    ours.summary()
