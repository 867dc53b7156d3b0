"""An update crosses a line that is slow, far and cut again and again, and little of it is sent twice."""

import os
import time
from pathlib import Path

import pytest
from slow_line import SlowLine

from federation.errors import UnavailableError
from federation.network.blobs import fetch_blob, serve_blobs
from federation.network.host import Libp2pHost
from federation.rules.keys import PrivateKey
from federation.storage.blobs import FolderBlobStore

COORDINATOR, NODE = PrivateKey(b"c" * 32), PrivateKey(b"n" * 32)
SIZE = 1_000_000


@pytest.mark.processes
def test_a_transfer_survives_cuts_and_little_is_sent_twice(tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    theirs, ours = FolderBlobStore(tmp_path / "node"), FolderBlobStore(tmp_path / "coordinator")
    name = theirs.put(data)
    with Libp2pHost(COORDINATOR) as coordinator, Libp2pHost(NODE, listen=None) as node:
        target = int(coordinator.addresses()[0].split("/")[4])
        serve_blobs(node, theirs)
        with SlowLine(target, bytes_s=250_000, delay_s=0.02, cut_every_s=3) as line:
            node.keep_connected(f"/ip4/127.0.0.1/tcp/{line.port}/p2p/{COORDINATOR.public.peer_id}")
            end = time.monotonic() + 60
            while not ours.has(name) and time.monotonic() < end:
                try:
                    fetch_blob(coordinator, NODE.public, name, ours, timeout_s=10, max_bytes=SIZE)
                except UnavailableError:
                    time.sleep(0.05)
            assert ours.get(name) == data
            assert line.cuts >= 1
            assert line.forwarded < 1.35 * SIZE, "at most a piece is sent again for each cut"
