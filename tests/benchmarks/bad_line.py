"""A 20 MB update over a bad line: 1 Mbit/s, 200 ms each way, cut every 10 s. How long, and how much is sent twice?

    python tests/benchmarks/bad_line.py [--bytes N] [--cut-every SECONDS]

Two libp2p hosts and a proxy between them on loopback; the coordinator fetches from the node, which dials again after
each cut.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))
from slow_line import SlowLine

from federation.errors import UnavailableError
from federation.network.blobs import fetch_blob, serve_blobs
from federation.network.host import Libp2pHost
from federation.rules.keys import PrivateKey
from federation.storage.blobs import FolderBlobStore

COORDINATOR, NODE = PrivateKey(b"c" * 32), PrivateKey(b"n" * 32)
BYTES_S = 125_000
DELAY_S = 0.2
PATIENCE_S = 30.0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--bytes", type=int, default=20_000_000)
    options.add_argument("--cut-every", type=float, default=10.0)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        seconds, line = transfer(Path(folder), given.bytes, given.cut_every)
    alone_s = given.bytes / BYTES_S
    print(f"{given.bytes / 1e6:g} MB over {BYTES_S * 8 / 1e6:g} Mbit/s, {DELAY_S * 1e3:g} ms each way.\n")
    print("| | |\n| --- | ---: |")
    print(f"| cuts | {line.cuts} |")
    print(f"| arrived after | {seconds:.0f} s |")
    print(f"| the same bytes at full rate, never cut | {alone_s:.0f} s |")
    print(f"| crossed the line beyond the update itself | {line.forwarded / given.bytes - 1:.1%} |")


def transfer(folder: Path, size: int, cut_every_s: float) -> tuple[float, SlowLine]:
    """Fetch, whatever is cut, until it is there."""
    theirs, ours = FolderBlobStore(folder / "node"), FolderBlobStore(folder / "coordinator")
    name = theirs.put(os.urandom(size))
    with Libp2pHost(COORDINATOR) as coordinator, Libp2pHost(NODE, listen=None) as node:
        serve_blobs(node, theirs)
        target = int(coordinator.addresses()[0].split("/")[4])
        with SlowLine(target, bytes_s=BYTES_S, delay_s=DELAY_S, cut_every_s=cut_every_s) as line:
            began = time.monotonic()
            node.keep_connected(f"/ip4/127.0.0.1/tcp/{line.port}/p2p/{COORDINATOR.public.peer_id}")
            while not ours.has(name):
                try:
                    fetch_blob(coordinator, NODE.public, name, ours, timeout_s=PATIENCE_S, max_bytes=size)
                except UnavailableError:
                    time.sleep(0.1)
            return time.monotonic() - began, line


if __name__ == "__main__":
    main()
