"""A registry with a published plan, made once."""

from pathlib import Path

import pytest
from hand_made import copied, make_registry


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry's folder; tests that change it take ``registry``."""
    return make_registry(tmp_path_factory.mktemp("published"))


@pytest.fixture
def registry(published: Path, tmp_path: Path) -> Path:
    """A copy of the registry with its plan.toml and validation.csv beside it."""
    return copied(published, tmp_path / "first")
