"""What every test shares: the folder of published vectors, Hypothesis' profile, and no silent skips under CI."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from postgresql import postgresql_server, postgresql_url

REPOSITORY = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

# Two busy cores make single examples slow now and then: a deadline would find those, not defects.
settings.register_profile("accord", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("accord"), derandomize=True)
settings.load_profile("ci" if CI else "accord")

__all__ = ["postgresql_server", "postgresql_url"]

_skipped: list[str] = []


@pytest.fixture
def shared_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of published vectors and data beside the checkout; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "vectors").is_dir():
        pytest.skip("needs ../shared (published vectors), which is not beside this checkout")
    assert request.node.get_closest_marker("shared"), "a test that uses shared_dir is marked `shared`"
    return folder


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine reaches a test."""
    for name in [name for name in os.environ if name.startswith("ACCORD_")]:
        monkeypatch.delenv(name)
    return


# What shares one long-running set-up stays in one worker; these begin first, as they take longest.
_LONG = ("tests/demo/", "tests/faults/", "tests/docs/test_first_study.py", "tests/federation/coordinator/")

_LONGEST = {"interrupted", "resumed"}
"""Fixtures that run a second whole demo."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses ``shared_dir``, so that its skip is recognised; group and order the tests for two workers."""
    for item in items:
        if "shared_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if _LONGEST & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)
        path = item.path.relative_to(REPOSITORY).as_posix()
        group = next((long for long in _LONG[:2] if path.startswith(long)), path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _rank(item.path.relative_to(REPOSITORY).as_posix()))


def _rank(path: str) -> int:
    return next((rank for rank, long in enumerate(_LONG) if path.startswith(long)), len(_LONG))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and "shared" not in report.keywords:
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if CI and _skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CI and _skipped:
        terminalreporter.section("skipped under CI: a skipped test proves nothing", red=True)
        for name in _skipped:
            terminalreporter.line(name)
