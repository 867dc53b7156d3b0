"""One stream's throughput and the server's sums, beside what the machine can do: in one run,

    python tests/benchmarks/stream_speed.py [--megabytes N] [--updates N] [--parameters N]

- Streams: Accord's host in two processes on loopback, one request with one long answer, one long request, and a blob
  fetched by name; beside a plain TCP socket in Python between two processes whose messages of 65,519 bytes are sealed
  with ChaCha20-Poly1305 by the same library as libp2p's Noise uses. Each figure is the best and the median of several.
- Sums: the exact weighted mean of lattice vectors, and all of a round's arithmetic, beside NumPy's copy and add of
  long arrays. They run in one thread and are measured in its processor time, so that other work counts less.
"""

import argparse
import hashlib
import logging
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from federation.flower.strategy import AccordStrategy
from federation.network.blobs import fetch_blob, serve_blobs
from federation.network.exchange import peer_of
from federation.network.host import Libp2pHost
from federation.rules.aggregation import aggregate, norm_within
from federation.rules.canonical import sha256_hex
from federation.rules.fixedpoint import Integers, to_fixed
from federation.rules.keys import PrivateKey
from federation.rules.lattice_sums import weighted_mean
from federation.rules.vectors import Encoding, pack_vector, unpack_vector
from federation.storage.blobs import FolderBlobStore, MemoryBlobStore

HERE, THERE = PrivateKey(b"c" * 32), PrivateKey(b"n" * 32)
GIVE, TAKE = "/benchmark/give/1", "/benchmark/take/1"
MESSAGE_BYTES: Final = 65_519
NONCE_BYTES, TAG_BYTES, LENGTH_BYTES = 12, 16, 2
REPEATS: Final = 5
PATIENCE_S: Final = 120.0
MEMORY_BYTES: Final = 400_000_000


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """How long each repetition takes."""
    spent = []
    for _ in range(REPEATS):
        began = clock()
        work()
        spent.append(clock() - began)
    return spent


def rates(size: int, spent: list[float]) -> str:
    """Best and median in megabytes (10^6) per second."""
    return f"{size / 1e6 / min(spent):,.0f} | {size / 1e6 / statistics.median(spent):,.0f}"


# Streams.


@contextmanager
def other_process(*arguments: str) -> Iterator[str]:
    """This script as another process; yields the line that it prints first."""
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def be_peer(address: str, size: int) -> None:
    """The other end of Accord's streams."""
    data = os.urandom(size)
    store = MemoryBlobStore()
    name = store.put(data)
    with Libp2pHost(THERE, listen=None) as host:
        serve_blobs(host, store)
        host.serve(GIVE, lambda _peer, _payload: data, max_bytes=0)
        host.serve(TAKE, lambda _peer, _payload: b"", max_bytes=size)
        host.keep_connected(address)
        print(name, flush=True)
        sys.stdin.read()


def be_socket(port: int, key: bytes, size: int) -> None:
    """The other end of the plain socket: sends sealed messages whenever it is asked to."""
    data, cipher = memoryview(os.urandom(size)), ChaCha20Poly1305(key)
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        sent = 0
        while line.recv(1):
            for start in range(0, size, MESSAGE_BYTES):
                nonce = sent.to_bytes(NONCE_BYTES, "little")
                sealed = cipher.encrypt(nonce, data[start : start + MESSAGE_BYTES], None)
                line.sendall(len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed)
                sent += 1


def receive(line: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes."""
    buffer = bytearray(count)
    view, got = memoryview(buffer), 0
    while got < count:
        read = line.recv_into(view[got:])
        if not read:
            raise EOFError(f"{got} of {count} bytes came")
        got += read
    return bytes(buffer)


def sealed_socket(size: int) -> list[float]:
    """The seconds in which ``size`` bytes come over the plain socket and are opened."""
    key = os.urandom(32)
    cipher, opened = ChaCha20Poly1305(key), 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with other_process("--be-socket", str(port), "--key", key.hex(), "--bytes", str(size)):
            line, _ = server.accept()

            def fetch() -> None:
                nonlocal opened
                line.sendall(b"x")
                body = bytearray()
                while len(body) < size:
                    length = int.from_bytes(receive(line, LENGTH_BYTES), "big")
                    nonce = opened.to_bytes(NONCE_BYTES, "little")
                    body += cipher.decrypt(nonce, receive(line, length), None)
                    opened += 1

            with line:
                fetch()
                return seconds(fetch)


def accord_streams(size: int) -> dict[str, list[float]]:
    """The seconds of each way over Accord's host."""
    with Libp2pHost(HERE) as host, other_process("--be-peer", host.addresses()[0], "--bytes", str(size)) as name:
        deadline = time.monotonic() + PATIENCE_S
        while THERE.public not in host.connected():
            if time.monotonic() > deadline:
                raise RuntimeError("the other process did not come")
            time.sleep(0.05)

        def give() -> bytes:
            return host.request(THERE.public, GIVE, b"", timeout_s=PATIENCE_S, max_bytes=size)

        def fetch() -> None:
            with tempfile.TemporaryDirectory() as folder:
                store = FolderBlobStore(Path(folder))
                fetch_blob(host, THERE.public, name, store, timeout_s=PATIENCE_S, max_bytes=size)

        data = give()
        return {
            "one request, a long answer": seconds(give),
            "one long request": seconds(
                lambda: host.request(THERE.public, TAKE, data, timeout_s=PATIENCE_S, max_bytes=0)
            ),
            "a blob by name, in pieces, to disk, hashed": seconds(fetch),
        }


def print_streams(size: int) -> None:
    """The table of streams."""
    baseline = sealed_socket(size)
    print(f"| {size / 1e6:g} MB between two processes | MB/s, best | median | of the baseline's median |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| TCP + ChaCha20-Poly1305 in Python: the baseline | {rates(size, baseline)} | |")
    for way, spent in accord_streams(size).items():
        part = statistics.median(baseline) / statistics.median(spent)
        print(f"| {way} | {rates(size, spent)} | {part:.0%} |", flush=True)


# Sums.


def vectors(count: int, parameters: int) -> list[Integers]:
    """Updates as a plan with a norm bound admits them: small numbers."""
    rng = np.random.default_rng(1)
    return [to_fixed(rng.normal(0, 0.002, parameters)) for _ in range(count)]


def print_sums(count: int, parameters: int) -> None:
    """The table of sums, and what one round costs the server."""
    source = np.ones(MEMORY_BYTES // 8)
    target = np.zeros_like(source)
    copied = seconds(lambda: np.copyto(target, source), time.process_time)
    added = seconds(lambda: np.add(target, source, out=target), time.process_time)
    updates = vectors(count, parameters)
    size = sum(update.nbytes for update in updates)
    names = [PrivateKey(hashlib.sha256(b"%d" % number).digest()).public.did for number in range(count)]
    weights = dict(zip(names, range(50, 50 + count), strict=True))
    by_name = dict(zip(names, updates, strict=True))
    base, total = updates[0].copy(), sum(weights.values())
    summed = seconds(lambda: weighted_mean(updates, weights.values(), total), time.process_time)
    whole = seconds(lambda: aggregate(base, by_name, weights), time.process_time)
    print(f"\n| {count} updates of {parameters / 1e6:g} M parameters, int64 | bytes read per second, best | median |")
    print("| --- | ---: | ---: |")
    for name, amount, spent in (
        ("NumPy copy (reads 8 bytes, writes 8)", source.nbytes, copied),
        ("NumPy add in place (reads 16, writes 8)", 2 * source.nbytes, added),
        ("exact weighted mean", size, summed),
        ("`aggregate`: ranges checked, mean, model", size, whole),
    ):
        print(f"| {name} | {amount / 1e9 / min(spent):.1f} GB/s | {amount / 1e9 / statistics.median(spent):.1f} GB/s |")
    print_server(base, by_name, weights)
    print_server(base, by_name, weights, "fewest-bytes")


def print_server(
    base: Integers, updates: dict[str, Integers], weights: dict[str, int], encoding: Encoding = None
) -> None:
    """What the coordinator does in a round once the updates' bytes are there."""
    packed = {did: pack_vector(update, encoding) for did, update in updates.items()}
    names = {did: sha256_hex(data) for did, data in packed.items()}
    strategy, laps = AccordStrategy("benchmark"), [(time.perf_counter(), time.process_time())]

    def lap() -> None:
        laps.append((time.perf_counter(), time.process_time()))

    checked = {}
    for did, data in packed.items():
        checked[did] = unpack_vector(data, encoding, length=base.size)
        if sha256_hex(data) != names[did] or not norm_within(checked[did], Decimal(1000)):
            raise RuntimeError("an update did not pass")
    lap()
    model = strategy.aggregate_vectors(base, checked, weights)
    lap()
    pack_vector(model, encoding)
    lap()
    each = len(next(iter(packed.values()))) / base.size
    print(f"\n| the server's time for one round of these, {each:.0f} bytes for each number | seconds | processor |")
    print("| --- | ---: | ---: |")
    parts = ("hash, unpack, range and norm of each update", "aggregate, by Flower's strategy", "pack the model")
    for part, (before, after) in zip(parts, pairwise(laps), strict=True):
        print(f"| {part} | {after[0] - before[0]:.2f} s | {after[1] - before[1]:.2f} s |")
    print(f"| **in all** | **{laps[-1][0] - laps[0][0]:.2f} s** | **{laps[-1][1] - laps[0][1]:.2f} s** |")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=64)
    options.add_argument("--updates", type=int, default=100)
    options.add_argument("--parameters", type=int, default=1_000_000)
    options.add_argument("--be-peer", metavar="ADDRESS", help=argparse.SUPPRESS)
    options.add_argument("--be-socket", metavar="PORT", type=int, help=argparse.SUPPRESS)
    options.add_argument("--key", help=argparse.SUPPRESS)
    options.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    if given.be_peer:
        peer_of(given.be_peer)
        be_peer(given.be_peer, given.bytes)
    elif given.be_socket:
        be_socket(given.be_socket, bytes.fromhex(given.key), given.bytes)
    else:
        print_streams(given.megabytes * 1_000_000)
        print_sums(given.updates, given.parameters)
        print(
            f"\nMeasured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {platform.machine()}, "
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}."
        )


if __name__ == "__main__":
    main()
