"""Reports to render: figures of two rehearsals within one process, by the shipped training and comparisons."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.demo.report import render

HERE = Path(__file__).resolve().parent


@pytest.fixture(params=["heart", "weather"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_example(request.param)


@pytest.fixture(scope="session", params=["heart", "weather"])
def page_text(request: pytest.FixtureRequest) -> str:
    """The page of an example, rendered once for all tests that only read it."""
    return render(read_example(request.param))


@pytest.fixture
def heart() -> dict[str, Any]:
    return read_example("heart")


@pytest.fixture
def weather() -> dict[str, Any]:
    return read_example("weather")


def read_example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HERE / f"example_{name}.json").read_text(encoding="utf-8"))
    return document
