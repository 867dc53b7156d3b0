"""What counts as in the way: thresholds, and a remedy wherever something must be done."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.doctor import findings
from clients.doctor.findings import Finding, Level
from federation.network.probe import Line

NUMBERS = st.floats(min_value=1e-3, max_value=1e12)
LINES = st.builds(Line, NUMBERS, NUMBERS, NUMBERS, st.floats(min_value=-1e6, max_value=1e6))


def judged(line: Line, free: int, training_s: float) -> Iterator[Finding]:
    yield findings.disk(free, "/srv")
    yield findings.memory(free)
    for address in ("/ip4/127.0.0.1/tcp/0", "/dns4/a.example/tcp/4001"):
        found = findings.passing_on("serve", [address])
        assert found is not None
        yield found
    yield findings.clock(line.clock_ahead_s, line.round_trip_s)
    yield findings.line(line)
    yield findings.round_time(training_s=training_s, model_bytes=1000, measured=line, deadline_s=60)


@given(LINES, st.integers(0, 1 << 45), NUMBERS)
def test_whatever_is_not_well_has_a_remedy_and_whatever_is_well_has_none(line: Line, free: int, took: float) -> None:
    for finding in judged(line, free, took):
        assert bool(finding.remedy) == (finding.level is not Level.OK), finding
        assert finding.seen.endswith(".")


@pytest.mark.parametrize(
    ("off_s", "level"),
    [
        (0, Level.OK),
        (-29, Level.OK),
        (31, Level.WARNING),
        (-599, Level.WARNING),
        (601, Level.FAILED),
        (-7200, Level.FAILED),
    ],
)
def test_a_clock_is_judged_as_the_registry_judges_it(off_s: float, level: Level) -> None:
    assert findings.clock(off_s, 0.0).level is level


def test_a_slow_answer_is_not_taken_for_a_wrong_clock() -> None:
    assert findings.clock(40.0, 100.0).level is Level.OK


@pytest.mark.parametrize(("training_s", "level"), [(10, Level.OK), (31, Level.WARNING), (61, Level.FAILED)])
def test_a_round_is_held_against_its_deadline(training_s: float, level: Level) -> None:
    found = findings.round_time(training_s=training_s, model_bytes=10**6, measured=None, deadline_s=60)
    assert found.level is level
    assert "the line not counted" in found.seen


def test_travel_counts_both_ways() -> None:
    line = Line(round_trip_s=0.0, down_bytes_s=1e5, up_bytes_s=5e4, clock_ahead_s=0.0)
    found = findings.round_time(training_s=0.0, model_bytes=10**6, measured=line, deadline_s=60)
    assert found.figures["travel_s"] == pytest.approx(30.0)


def test_the_worst_finding_decides() -> None:
    well, bad = findings.memory(1 << 40), findings.memory(1)
    assert findings.worst([]) is Level.OK
    assert findings.worst([well, bad]) is Level.FAILED


@pytest.mark.parametrize(
    ("mode", "addresses", "level"),
    [
        ("fetch", ["/ip4/127.0.0.1/tcp/0"], None),
        ("serve", ["/ip4/127.0.0.1/tcp/0"], Level.WARNING),
        ("serve", ["/ip4/0.0.0.0/tcp/4001"], Level.WARNING),
        ("serve", ["/ip4/0.0.0.0/tcp/4001", "/dns4/ash.example/tcp/4001"], Level.OK),
    ],
)
def test_a_node_that_passes_models_on_must_be_found(mode: str, addresses: list[str], level: Level | None) -> None:
    found = findings.passing_on(mode, addresses)
    assert (found and found.level) == level
