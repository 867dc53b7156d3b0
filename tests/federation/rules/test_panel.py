"""Panels: nobody's own table moves its own pay, one liar moves nobody beyond the honest, and shares never exceed 1."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.rules.panel import Scored, capped, lower_median, pay_shares, score, upper_median
from federation.rules.study import StudyPlan, plan_from_toml
from federation.rules.terms import Panel

NATS = 1 << 40
numbers = st.integers(-4 * NATS, 4 * NATS)
extremes = st.one_of(numbers, st.sampled_from([-(1 << 53), 0, 1 << 53]))
bands = st.sampled_from([Decimal(0), Decimal("0.25"), Decimal(100)])

Tables = dict[str, dict[str, int]]


@st.composite
def panels(draw: st.DrawFn, least: int = 4) -> tuple[Tables, dict[str, int]]:
    names = "abcdef"[: draw(st.integers(least, 6))]
    tables = {member: {name: draw(numbers) for name in names} for member in names}
    return tables, {name: draw(st.integers(1, 1000)) for name in names}


def found(tables: Tables, weights: dict[str, int], band: Decimal = Decimal(0)) -> Scored:
    return score(tuple(weights), tables, weights, Panel(held_out="0", clip=Decimal(4), band=band, quorum=3))


@settings(max_examples=20)
@given(panels(), bands, st.data())
def test_a_member_s_own_table_changes_nothing_about_its_own_share(
    panel: tuple[Tables, dict[str, int]], band: Decimal, data: st.DataObject
) -> None:
    tables, weights = panel
    liar = data.draw(st.sampled_from(sorted(tables)))
    other = data.draw(st.sampled_from(sorted(tables)))
    honest = found(tables, weights, band).shares[liar]
    lie = {name: data.draw(extremes) for name in tables}
    assert found(tables | {liar: lie}, weights, band).shares[liar] == honest, "self-scoring"
    assert found(tables | {liar: tables[other]}, weights, band).shares[liar] == honest, "a copy"
    withheld = {member: table for member, table in tables.items() if member != liar}
    assert found(withheld, weights, band).shares[liar] == honest, "showing nothing"


@settings(max_examples=20)
@given(panels(3), bands, st.data())
def test_shares_never_add_up_to_more_than_the_pool(
    panel: tuple[Tables, dict[str, int]], band: Decimal, data: st.DataObject
) -> None:
    tables, weights = panel
    shown = {member: {name: data.draw(extremes) for name in table} for member, table in tables.items()}
    if len(shown) > 3 and data.draw(st.booleans()):
        shown.pop(max(shown))
    shares = found(shown, weights, band).shares
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) <= 1
    paid = pay_shares(shares, 1_000_003, Decimal("0.05"))
    assert paid.pool == 1_000_003
    assert min([paid.burned, *paid.rewards.values()]) >= 0
    assert all(reward == 0 or shares[name] >= Fraction("0.05") for name, reward in paid.rewards.items())


@settings(max_examples=20)
@given(panels(), st.data())
def test_one_liar_moves_no_value_beyond_the_honest_numbers(
    panel: tuple[Tables, dict[str, int]], data: st.DataObject
) -> None:
    tables, weights = panel
    liar = data.draw(st.sampled_from(sorted(tables)))
    lie = {name: data.draw(extremes) for name in tables}
    values = found(tables | {liar: lie}, dict.fromkeys(weights, 1)).values
    raised = found(tables | {liar: lie}, weights).values
    for name in set(tables) - {liar}:
        honest = [Fraction(tables[member][name], NATS) for member in tables if member not in (liar, name)]
        assert min(honest) <= values[name] <= max(honest)
        assert raised[name] <= max(honest), "whatever its weight"


@settings(max_examples=20)
@given(st.lists(numbers, min_size=4, max_size=4), st.lists(st.integers(1, 1000), min_size=4, max_size=4), st.data())
def test_two_of_four_gain_nothing_where_the_honest_agree(
    truth: list[int], sizes: list[int], data: st.DataObject
) -> None:
    names = "abcd"
    weights = dict(zip(names, sizes, strict=True))
    tables = {member: dict(zip(names, truth, strict=True)) for member in names}
    honest = found(tables, weights).shares
    lies = {liar: {name: data.draw(extremes) for name in names} for liar in "ab"}
    shown = found(tables | lies, weights).shares
    assert shown["a"] <= honest["a"]
    assert shown["b"] <= honest["b"]


def test_what_two_of_four_take_from_others_is_burned() -> None:
    truth = {"a": NATS, "b": NATS, "c": NATS, "d": NATS}
    low = {"a": NATS, "b": NATS, "c": -NATS, "d": -NATS}
    shares = found({"a": low, "b": low, "c": truth, "d": truth}, dict.fromkeys(truth, 1)).shares
    assert shares == {"a": Fraction(1, 4), "b": Fraction(1, 4), "c": 0, "d": 0}


@settings(max_examples=20)
@given(panels())
def test_where_all_agree_values_are_what_was_said_and_nothing_is_burned(panel: tuple[Tables, dict[str, int]]) -> None:
    tables, weights = panel
    agreed = tables["a"]
    result = found(dict.fromkeys(tables, agreed), weights)
    assert result.values == {name: Fraction(number, NATS) for name, number in agreed.items()}
    assert sum(result.shares.values()) == (1 if max(agreed.values()) > 0 else 0)


def test_a_vandal_takes_pay_from_others_up_to_the_clip_and_gains_nothing() -> None:
    truth = dict.fromkeys("abcd", NATS)
    tables = {**dict.fromkeys("abc", truth), "d": dict.fromkeys("abcd", 1 << 53)}
    shares = found(tables, dict.fromkeys(truth, 1)).shares
    assert shares == {**dict.fromkeys("abc", Fraction(1, 1 + 4 + 4 + 1)), "d": Fraction(1, 4)}


def test_a_band_lets_more_numbers_count_and_moves_a_value_by_itself_at_most() -> None:
    tables = {"a": {"d": 0}, "b": {"d": NATS}, "c": {"d": 4 * NATS}}
    weights = dict.fromkeys("abcd", 1)
    full = {member: dict.fromkeys("abcd", 0) | table for member, table in tables.items()}
    assert found(full, weights).values["d"] == 1
    assert found(full, weights, Decimal("0.5")).values["d"] == 1
    assert found(full, weights, Decimal(2)).values["d"] == Fraction(0 + 1 + 3, 3)


def test_below_the_quorum_nobody_has_a_share() -> None:
    tables = {"a": {"a": NATS, "b": NATS, "c": NATS}, "b": {"a": NATS, "b": NATS, "c": NATS}}
    result = found(tables, {"a": 1, "b": 1, "c": 1})
    assert set(result.shares.values()) == set(result.values.values()) == {Fraction(0)}
    assert pay_shares(result.shares, 10, Decimal(0)).burned == 10


def test_medians_of_weights() -> None:
    scores = [(3, 1), (1, 1), (2, 2)]
    assert (lower_median(scores), upper_median(scores)) == (2, 2)
    assert (lower_median([(1, 1), (2, 1)]), upper_median([(1, 1), (2, 1)])) == (1, 2)
    assert capped([(1, 10), (2, 1), (3, 2)]) == [(1, 3), (2, 1), (3, 2)]
    assert capped([(1, 10)]) == [(1, 10)]


ANCHORED = {"rule": "trust-anchored", "root": "0" * 64, "root_disclosure": "sealed"}


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ({"quorum": 5}, "quorum cannot be above"),
        ({"method": "banzhaf"}, "needs the method shapley"),
        ({"part": "01"}, "cohort.part do not go together"),
        ({"z": "1"}, "lower-bound"),
        ({"overlap": {"buckets": 64}}, "overlap do not go together"),
        ({"aggregation": ANCHORED}, 'trust-anchored" do not go together'),
        ({"clip": 0}, "clip"),
    ],
)
def test_a_plan_says_what_a_panel_does_not_go_with(plan: StudyPlan, edit: dict[str, Any], why: str) -> None:
    text = plan_text(plan, **edit)
    with pytest.raises(OperatorError, match=why):
        plan_from_toml(text, source="plan.toml")
    assert plan_from_toml(plan_text(plan), source="plan.toml").valuation.panel is not None


@pytest.fixture
def plan(play: Any) -> StudyPlan:
    made: StudyPlan = play().plan
    return made


def plan_text(plan: StudyPlan, **edit: Any) -> str:
    """The plan in TOML, with a panel; ``edit`` are fields of several sections."""
    document = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["valuation"]["panel"] = {"held_out": "00", "clip": edit.get("clip", 1), "quorum": edit.get("quorum", 3)}
    document["valuation"]["method"] = edit.get("method", "shapley")
    if "overlap" in edit:
        document["overlap"] = edit["overlap"]
    document["aggregation"] |= edit.get("aggregation", {})
    if "part" in edit:
        document["cohort"]["part"] = edit["part"]
    if "z" in edit:
        document["reward"] |= {"pay": "lower-bound", "z": edit["z"]}
    return "\n".join(_toml(document))


def _toml(document: dict[str, Any]) -> list[str]:
    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f'"{key}" = {inline(each)}' for key, each in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(inline, value)) + "]"
        if isinstance(value, bool):
            return str(value).lower()
        return str(value) if isinstance(value, int) else f'"{value}"'

    return [f"{key} = {inline(value)}" for key, value in document.items()]
