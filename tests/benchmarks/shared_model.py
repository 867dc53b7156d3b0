"""How much leaves the coordinator when many nodes fetch one model: straight, and passing it on to each other.

    python tests/benchmarks/shared_model.py [--bytes N] [--nodes N] [--givers N]

The coordinator is a process of its own, all nodes share another one; libp2p hosts on loopback, models on disk. Counted
is what the coordinator's process sends, framing included. All nodes ask at the same moment: the worst case, as nobody
has anything yet.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from federation.coordinator.sources import Sources
from federation.network.blobs import serve_blobs
from federation.network.host import Libp2pHost
from federation.network.sharing import Gates, Sharing
from federation.network.traffic import TRAFFIC
from federation.rules.keys import PrivateKey
from federation.storage.blobs import FolderBlobStore

COORDINATOR = PrivateKey(b"c" * 32)
STUDY = "benchmark-0123456789ab"
PATIENCE_S = 900.0


def keys(count: int) -> list[PrivateKey]:
    return [PrivateKey(bytes([number + 1]) * 32) for number in range(count)]


def coordinate(folder: Path, size: int, nodes: int) -> None:
    """The coordinator's process: an address and a name first, then, for each line that comes, what was sent so far."""
    parties = {key.public for key in keys(nodes)}
    store = FolderBlobStore(folder)
    name = store.put(os.urandom(size))
    with Libp2pHost(COORDINATOR, allowed=parties.__contains__) as host:
        serve_blobs(host, store)
        Sources(host, store, STUDY, party=parties.__contains__, named=name.__eq__).serve()
        print(host.addresses()[0], name, flush=True)
        for _ in sys.stdin:
            print(TRAFFIC.sent, flush=True)


def run(folder: Path, size: int, nodes: int, givers: int) -> tuple[int, float]:
    """(bytes that left the coordinator, seconds until the last node had the model)."""
    command = [sys.executable, __file__, "--coordinate", str(folder / "coordinator")]
    command += ["--bytes", str(size), "--nodes", str(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, name = process.stdout.readline().split()
        parties = {key.public for key in keys(nodes)}
        hosts = [
            Libp2pHost(key, listen="/ip4/127.0.0.1/tcp/0", allowed=lambda peer: peer == COORDINATOR.public)
            for key in keys(nodes)
        ]
        try:
            sharings = []
            for number, host in enumerate(hosts):
                host.keep_connected(address)
                gates = Gates(party=parties.__contains__, named=name.__eq__)
                store = FolderBlobStore(folder / f"node-{number}")
                sharing = Sharing(host, COORDINATOR.public, STUDY, store, gates=gates, gives=number < givers)
                sharing.serve()
                sharings.append(sharing)
            while any(COORDINATOR.public not in host.connected() for host in hosts):
                time.sleep(0.05)
            together = threading.Barrier(nodes)

            def fetch(sharing: Sharing) -> None:
                together.wait()
                assert len(sharing.fetch(name, timeout_s=PATIENCE_S, max_bytes=size)) == size

            began = time.monotonic()
            with ThreadPoolExecutor(nodes) as pool:
                list(pool.map(fetch, sharings))
            took_s = time.monotonic() - began
            process.stdin.write("\n")
            process.stdin.flush()
            sent = int(process.stdout.readline())
        finally:
            for host in hosts:
                host.close()
            process.stdin.close()
    return sent, took_s


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--bytes", type=int, default=20_000_000)
    options.add_argument("--nodes", type=int, default=10)
    options.add_argument("--givers", type=int, nargs="*", help="how many nodes pass it on; default: none, half, all")
    options.add_argument("--coordinate", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    if given.coordinate is not None:
        coordinate(given.coordinate, given.bytes, given.nodes)
        return
    print(f"A model of {given.bytes / 1e6:g} MB to {given.nodes} nodes that ask at once, loopback.\n")
    print(
        "| nodes that pass it on | left the coordinator | in models | last node after |\n| ---: | ---: | ---: | ---: |"
    )
    for givers in given.givers or (0, given.nodes // 2, given.nodes):
        with tempfile.TemporaryDirectory() as folder:
            sent, took_s = run(Path(folder), given.bytes, given.nodes, givers)
        print(f"| {givers} | {sent / 1e6:.1f} MB | {sent / given.bytes:.2f} | {took_s:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
