"""Audits: a coordinator that miscounts, misprices or misplaces a blob is caught by whoever holds log and blobs."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from federation.errors import PeerError, UnavailableError
from federation.rules import audit
from federation.rules.documents import ValueTable
from federation.rules.valuation import shapley

Play = Callable[..., Any]


def altered(study: Any, name: str) -> Callable[[str], bytes]:
    """The study's blobs, with one bit of one blob flipped."""

    def get(wanted: str) -> bytes:
        data: bytes = study.blobs.get(wanted)
        return data if wanted != name else data[:-1] + bytes([data[-1] ^ 1])

    return get


def played(play: Play, **changes: Callable[[Any], Any]) -> Any:
    """Two rounds, the settlement still due."""
    study = play(changes=changes)
    study.start()
    study.play_round(1)
    study.play_round(2, declining="birch")
    return study


def joined(study: Any) -> list[ValueTable]:
    """The tables as an honest coordinator opens them."""
    return [audit.open_table(done, study.state, study.blobs.get(done.value_table)) for done in study.state.closed]


def test_an_honest_study_passes_every_audit(play: Play) -> None:
    study = played(play)
    for done in study.state.closed:
        audit.check_round(done, study.state, study.blobs.get)
    before = study.state
    tables = joined(study)
    body = audit.settlement(before, tables)
    assert audit.check_settlement(before, body, study.blobs.get) == {1: tables[0], 2: tables[1]}


def test_a_false_aggregate_is_caught(play: Play) -> None:
    def nudge(model: Any) -> Any:
        changed = model.copy()
        changed[0] += 1
        return changed

    study = played(play, aggregate=nudge)
    with pytest.raises(PeerError, match=r"Round 1: the logged model .* is not its updates' aggregate") as caught:
        audit.check_round(study.state.closed[0], study.state, study.blobs.get)
    assert "false aggregate" in caught.value.remedy


def test_an_update_left_out_of_the_sum_is_caught(play: Play) -> None:
    study = played(play)
    done = study.state.closed[0]
    fewer = dict(list(done.admitted.items())[:2])
    with pytest.raises(PeerError, match="is not its updates' aggregate"):
        audit.check_round(replace(done, admitted=fewer), study.state, study.blobs.get)


def test_other_weights_than_the_agreements_are_caught(play: Play) -> None:
    study = played(play)
    equal = replace(study.state, weights=dict.fromkeys(study.state.weights, 1))
    with pytest.raises(PeerError, match="is not its updates' aggregate"):
        audit.check_round(study.state.closed[0], equal, study.blobs.get)


def test_an_altered_or_missing_blob_is_named(play: Play) -> None:
    study = played(play)
    done = study.state.closed[0]
    for name in (done.base_model, next(iter(done.admitted.values())).chunks[0]):
        with pytest.raises(PeerError, match=f"The blob {name} does not have the bytes of its name"):
            audit.check_round(done, study.state, altered(study, name))
    del study.blobs._blobs[done.base_model]
    with pytest.raises(UnavailableError, match=done.base_model):
        audit.check_round(done, study.state, study.blobs.get)


def test_another_table_than_the_committed_one_is_caught(play: Play) -> None:
    study = played(play)
    first, second = study.state.closed
    with pytest.raises(PeerError, match="the value table of round 1 is not the one that was committed"):
        audit.open_table(first, study.state, study.blobs.get(second.value_table))
    with pytest.raises(PeerError, match="does not have the bytes of its name"):
        audit.check_settlement(
            study.state, audit.settlement(study.state, joined(study)), altered(study, first.value_table)
        )


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"round": 2}, "belongs to another round or to other players"),
        ({"study": "other-0"}, "belongs to another round or to other players"),
        ({"players": ("nobody",)}, "belongs to another round or to other players"),
        ({"utilities": (0,) * 4}, "does not have one utility for each coalition"),
    ],
)
def test_a_table_that_was_committed_in_a_wrong_form_is_caught(play: Play, change: dict[str, Any], because: str) -> None:
    study = played(play)
    done = study.state.closed[0]
    name = study.blobs.put(study.tables[0].model_copy(update=change).to_payload())
    with pytest.raises(PeerError, match=because):
        audit.open_table(replace(done, value_table=name), study.state, study.blobs.get(name))


def test_players_are_named_in_one_order(play: Play) -> None:
    study = played(play)
    table = study.tables[0]
    name = study.blobs.put(table.model_copy(update={"players": table.players[::-1]}).to_payload())
    with pytest.raises(PeerError, match="other players"):
        audit.open_table(replace(study.state.closed[0], value_table=name), study.state, study.blobs.get(name))


def test_tables_that_do_not_join_are_caught(play: Play) -> None:
    study = played(play, **{"utilities-2": lambda table: [table[0] + 1, *table[1:]]})
    with pytest.raises(PeerError, match="The value tables of rounds 1 and 2 do not join"):
        audit.values(study.state, joined(study))


def test_values_are_the_sums_of_the_rounds_shapley_values_and_telescope(play: Play) -> None:
    study = played(play)
    tables = joined(study)
    worth = audit.values(study.state, tables)
    by_hand = dict.fromkeys(study.state.weights, Fraction(0))
    for table in tables:
        for did, value in zip(table.players, shapley(table.utilities), strict=True):
            by_hand[did] += value / 2**40
    assert worth == by_hand
    v_empty, v_all = tables[0].utilities[0], tables[-1].utilities[-1]
    assert sum(worth.values()) * 2**40 == v_all - v_empty


def test_who_took_no_part_in_a_round_gains_nothing_from_it(play: Play) -> None:
    study = played(play)
    tables = joined(study)
    birch = study.institutions["birch"].public.did
    assert birch not in tables[1].players
    assert audit.values(study.state, tables)[birch] == audit.values(study.state, tables[:1])[birch]


def false_payment(body: Any) -> Any:
    first, second, *rest = body.payments
    moved = 1 if first.reward else -1
    first = first.model_copy(update={"reward": first.reward - moved})
    second = second.model_copy(update={"reward": second.reward + moved})
    return body.model_copy(update={"payments": (first, second, *rest)})


def false_value(body: Any) -> Any:
    first, *rest = body.payments
    return body.model_copy(update={"payments": (first.model_copy(update={"value": "7/3"}), *rest)})


def false_burn(body: Any) -> Any:
    place, payee = next((i, p) for i, p in enumerate(body.payments) if p.reward)
    payments = list(body.payments)
    payments[place] = payee.model_copy(update={"reward": 0})
    return body.model_copy(update={"payments": tuple(payments), "burned": body.burned + payee.reward})


@pytest.mark.parametrize("lie", [false_payment, false_value, false_burn])
def test_a_false_settlement_is_caught_although_its_sums_are_right(play: Play, lie: Callable[[Any], Any]) -> None:
    study = played(play)
    body = audit.settlement(study.state, joined(study))
    wrong = lie(body)
    assert wrong != body
    assert sum(payment.reward for payment in wrong.payments) + wrong.burned == 1_000_000
    with pytest.raises(PeerError, match="do not follow from the value tables") as caught:
        audit.check_settlement(study.state, wrong, study.blobs.get)
    assert "false settlement" in caught.value.remedy
