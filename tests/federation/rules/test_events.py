"""DP events: one text for one event, bounds, and whom they cost what."""

from decimal import Decimal
from typing import Any

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st
from independent_accounting import independent_epsilon

from federation.errors import PeerError
from federation.rules.accounting import epsilon, pld_epsilon
from federation.rules.canonical import canonical_bytes
from federation.rules.events import (
    ComposedEvent,
    DpEvent,
    GaussianEvent,
    PartEvent,
    PoissonEvent,
    RepeatedEvent,
    RestEvent,
    concerning,
    event_bytes,
    event_json,
    mechanisms,
    parse_event,
    part_of_event,
    read_event,
    repeated,
    to_dp_event,
)
from federation.rules.parts import BITS_MAX

DELTA = Decimal("1e-5")


def gaussian(noise: str) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=Decimal(noise))


noises = st.decimals(min_value="0.5", max_value="50", places=3)
gaussians = st.builds(GaussianEvent, noise_multiplier=noises)
poissons = st.builds(PoissonEvent, rate=st.decimals(min_value="0.01", max_value="1", places=2), event=gaussians)
events: st.SearchStrategy[DpEvent] = st.recursive(
    gaussians | poissons,
    lambda inner: (
        st.builds(RepeatedEvent, count=st.integers(1, 5), event=inner)
        | st.builds(ComposedEvent, events=st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


def test_to_dp_event_keeps_the_structure() -> None:
    event = {
        "type": "composed",
        "events": [
            {
                "type": "repeated",
                "count": 3,
                "event": {
                    "type": "poisson",
                    "rate": "0.1",
                    "event": {"type": "gaussian", "noise_multiplier": "5.8"},
                },
            },
            {"type": "gaussian", "noise_multiplier": "20"},
        ],
    }
    assert to_dp_event(event) == dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(5.8)), 3
            ),
            dp_accounting.GaussianDpEvent(20),
        ]
    )


@given(event=events)
def test_an_event_has_one_text(event: DpEvent) -> None:
    data = event_bytes(event)
    assert parse_event(data) == event
    assert (
        event_bytes(parse_event(data)) == data == event_bytes(event_json(event)) == canonical_bytes(event_json(event))
    )
    assert read_event(event) is event


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        "gaussian",
        {"type": "laplace", "noise_multiplier": "5"},
        {"type": "gaussian"},
        {"type": "gaussian", "noise_multiplier": "0"},
        {"type": "gaussian", "noise_multiplier": "-1"},
        {"type": "gaussian", "noise_multiplier": "NaN"},
        {"type": "gaussian", "noise_multiplier": "1e-30"},
        {"type": "gaussian", "noise_multiplier": "5", "extra": "1"},
        {"type": "poisson", "rate": "1.1", "event": {"type": "gaussian", "noise_multiplier": "5"}},
        {"type": "poisson", "rate": "0", "event": {"type": "gaussian", "noise_multiplier": "5"}},
        {"type": "repeated", "count": 0, "event": {"type": "gaussian", "noise_multiplier": "5"}},
        {"type": "repeated", "count": 10**7, "event": {"type": "gaussian", "noise_multiplier": "5"}},
        {"type": "composed", "events": []},
    ],
)
def test_what_is_not_an_event_is_refused(document: Any) -> None:
    with pytest.raises(PeerError):
        read_event(document)


def test_counts_cannot_be_multiplied_without_bound() -> None:
    event: dict[str, Any] = {"type": "gaussian", "noise_multiplier": "5"}
    for _ in range(3):
        event = {"type": "repeated", "count": 1000, "event": event}
    with pytest.raises(PeerError, match="more than"):
        read_event(event)


def test_deep_nesting_and_large_texts_are_refused() -> None:
    deep = b'{"count":1,"event":' * 5000 + b"{}" + b',"type":"repeated"}' * 5000
    with pytest.raises(PeerError):
        parse_event(deep)
    with pytest.raises(PeerError):
        parse_event(b'{"type":"gaussian","noise_multiplier":"5"}')  # not canonical


# Parts of the people

bits = st.text("01", min_size=1, max_size=BITS_MAX)
on_parts = st.builds(PartEvent, part=bits, event=events) | st.builds(RestEvent, part=bits, event=events)
OnPart = PartEvent | RestEvent
SIXTEENTHS = [f"{number:04b}" for number in range(16)]


def lost_by(sixteenth: str, happened: list[DpEvent]) -> list[dict[str, Any]]:
    """What ran on the people of a sixteenth, without its part: by hand, as an auditor would."""
    found = []
    for document in map(event_json, happened):
        if document["type"] not in ("part", "rest"):
            found.append(document)
        elif sixteenth.startswith(document["part"]) == (document["type"] == "part"):
            found.append(document["event"])
    return found


@given(happened=st.lists(events | on_parts, max_size=5))
def test_epsilon_is_that_of_the_person_who_lost_most(happened: list[DpEvent]) -> None:
    each = [independent_epsilon(lost) if lost else 0.0 for lost in (lost_by(part, happened) for part in SIXTEENTHS)]
    assert epsilon(happened, delta=DELTA, order=8) == pytest.approx(max(each), rel=1e-9, abs=1e-9)


@given(event=on_parts, count=st.integers(1, 5))
def test_an_event_on_a_part_has_one_text_and_stays_on_it_when_repeated(event: OnPart, count: int) -> None:
    assert parse_event(event_bytes(event)) == event
    again = repeated(event, count)
    assert part_of_event(again) == part_of_event(event) == "!" * (event.type == "rest") + event.part
    assert mechanisms(again) == mechanisms(*[event] * count)


@given(happened=st.lists(events | on_parts, max_size=5), part=bits)
def test_what_concerns_a_part_is_what_its_people_lost(happened: list[DpEvent], part: str) -> None:
    within = (lost_by(each, happened) for each in SIXTEENTHS if each.startswith(part))
    most = max(independent_epsilon(lost) if lost else 0.0 for lost in within)
    assert epsilon(concerning(part, happened), delta=DELTA, order=8) == pytest.approx(most, rel=1e-9, abs=1e-9)


def test_studies_on_parts_without_common_people_cost_what_one_costs() -> None:
    halves = [PartEvent(part="0", event=gaussian("4")), PartEvent(part="1", event=gaussian("4"))]
    assert epsilon(halves, delta=DELTA, order=8) == epsilon([gaussian("4")], delta=DELTA, order=8)
    assert pld_epsilon(halves, DELTA) == pld_epsilon([gaussian("4")], DELTA)
    nested = [PartEvent(part="0", event=gaussian("4")), PartEvent(part="01", event=gaussian("4"))]
    assert epsilon(nested, delta=DELTA, order=8) == epsilon([gaussian("4")] * 2, delta=DELTA, order=8)


@pytest.mark.parametrize("part", ["", "2", "00000", "0 ", "\uff10", None])
def test_what_is_not_a_part_is_refused(part: Any) -> None:
    with pytest.raises(PeerError, match="DP event"):
        read_event({"type": "part", "part": part, "event": event_json(gaussian("4"))})


def test_a_part_within_a_part_is_refused() -> None:
    inner = {"type": "part", "part": "0", "event": event_json(gaussian("4"))}
    for outer in ({"type": "part", "part": "1", "event": inner}, {"type": "repeated", "count": 2, "event": inner}):
        with pytest.raises(PeerError, match="DP event"):
            read_event(outer)
