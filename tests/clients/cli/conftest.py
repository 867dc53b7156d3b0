"""A registry that takes in whoever has an invitation, and a node that is in its study."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hand_made import make_node, make_registry, put_into_study

from federation.coordinator.folder import open_coordinator
from federation.coordinator.membership import Membership
from federation.coordinator.protocols import JOIN, JOIN_BYTES_MAX
from federation.network.host import Libp2pHost


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator's folder with a published study; nothing runs in it."""
    return make_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def open_registry(registry: Path) -> Iterator[Path]:
    """The same, listening on its port for nodes that join."""
    opened = open_coordinator(registry)
    history = opened.history(None)
    membership = Membership(opened.engine, history, opened.plan(None)[1])
    with Libp2pHost(opened.key, listen=opened.settings.listen, allowed=membership.allowed) as host:
        host.serve(JOIN, membership.join, max_bytes=JOIN_BYTES_MAX, strangers=True)
        yield registry


@pytest.fixture
def node(registry: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A node that has joined the study under a site name of its own, and agreed to nothing."""
    name = f"site-{zlib.crc32(request.node.nodeid.encode()):08x}"
    folder = make_node(tmp_path, name)
    put_into_study(folder, registry)
    return folder
