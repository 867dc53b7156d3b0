"""How fast the consent registry decides and logs: ``python tests/benchmarks/consent_registry.py [--subjects N]``.

For SQLite and for PostgreSQL (a server of its own, fsync on): N people's signed grants are taken in; a process that has
just opened the registry decides about all of them (cold: every signature is verified), decides again (warm), begins a
round with them, and decides after one person withdrew. Beside it stands the bare verification of the same N Ed25519
signatures in one thread, by libsodium and by OpenSSL, and bare writes with fsync to the same disk. Everything is
measured in this one run.
"""

import argparse
import contextlib
import gc
import hashlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_sign_open

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from postgresql import programs, running_server

from consent.registry import LOG_NAME, TABLES, Registry, RoundOf, open_registry
from consent.rules.decision import Use
from consent.rules.record import Action, Mechanism, Terms, build, sign_record
from federation.rules.keys import PrivateKey
from federation.storage.database import open_database
from federation.storage.log import SqliteLog

HOSPITAL = PrivateKey(hashlib.sha256(b"hospital").digest())
USE = Use(HOSPITAL.public.did, Mechanism.CONSENT, "DUO:0000042", None, Decimal(1), Decimal("0.00001"))
NOW = datetime.now(UTC).replace(microsecond=0)
APPENDS = 300
ROUNDS = 5


def grant(number: int) -> tuple[str, bytes]:
    """One person's name and signed grant; the ends differ, so that no two are alike."""
    key = PrivateKey(hashlib.sha256(b"person %d" % number).digest())
    document = build(
        subject=key.public,
        institution=HOSPITAL.public,
        action=Action.GRANT,
        seq=1,
        prev=None,
        valid_from=NOW - timedelta(days=1),
        terms=Terms(("DUO:0000042",), Decimal(3), Decimal("0.00001"), NOW + timedelta(days=365, minutes=number)),
    )
    return f"person-{number:06}", sign_record(document, key, created=NOW - timedelta(days=1))


def timed(work: Callable[[], object]) -> float:
    """How many seconds some work takes."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bare_verification(count: int) -> dict[str, float]:
    """Seconds for ``count`` bare Ed25519 verifications of 64-byte messages in one thread, by each library."""
    sample = min(count, 20_000)
    keys = [PrivateKey(hashlib.sha256(b"person %d" % number).digest()) for number in range(sample)]
    messages = [hashlib.sha512(b"%d" % number).digest() for number in range(sample)]
    signed = [(key.public.raw, key.sign(message), message) for key, message in zip(keys, messages, strict=True)]

    def sodium() -> None:
        for key, signature, message in signed:
            crypto_sign_open(signature + message, key)

    def openssl() -> None:
        for key, signature, message in signed:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)

    scale = count / sample
    return {"libsodium (PyNaCl)": timed(sodium) * scale, "OpenSSL (cryptography)": timed(openssl) * scale}


def bare_appends(folder: Path, data: bytes) -> float:
    """Appends a second of a plain file, each followed by fsync."""
    with (folder / "bare").open("ab", buffering=0) as file:

        def append() -> None:
            for _ in range(APPENDS):
                file.write(data)
                os.fsync(file.fileno())

        return APPENDS / timed(append)


def opened(target: Path | str) -> Registry:
    """The registry as a process opens it."""
    return open_registry(open_database(target, *TABLES), HOSPITAL)


def measure(target: Path | str, people: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """One database's column of the table."""
    names = [name for name, _ in people]
    chunks = [people[start : start + 1000] for start in range(0, len(people), 1000)]
    intake = timed(lambda registry=opened(target): [registry.submit_all(chunk) for chunk in chunks])
    registry = opened(target)
    now = registry.now()
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    cold = timed(lambda: registry.decide_all(USE, now, names))
    gc.collect()
    memory = process.memory_info().rss - before
    permitted = sum(decision.permitted for decision in registry.decide_all(USE, now, names).values())
    if permitted != len(names):
        raise SystemExit(f"{permitted} of {len(names)} are permitted")
    warm = [timed(lambda: registry.decide_all(USE, now, names)) for _ in range(ROUNDS)]
    first = timed(lambda: registry.decide_all(USE, now, names, round_use=RoundOf("study", 1)))
    rounds = [
        timed(lambda number=number: registry.decide_all(USE, now, names, round_use=RoundOf("study", number)))
        for number in range(2, 2 + ROUNDS)
    ]
    withdrawing = timed(lambda: registry.withdraw(names[0]))
    after = timed(lambda: registry.decide_all(USE, now, names, round_use=RoundOf("study", 99)))
    log = SqliteLog(open_database(target, *TABLES), f"{LOG_NAME}-bench")
    data = os.urandom(4096)
    appends = APPENDS / timed(lambda: [log.append(str(number), data) for number in range(APPENDS)])
    return {
        "taken in, verified and durable (records/s)": f"{len(people) / intake:,.0f}",
        "decide about all, cold (s)": f"{cold:.2f}",
        "decide about all, warm (s)": f"{statistics.median(warm):.3f}",
        "begin the first round with all (s)": f"{first:.2f}",
        "begin another round, nobody changed (s)": f"{statistics.median(rounds):.3f}",
        "one withdrawal, durable (ms)": f"{withdrawing * 1000:.1f}",
        "begin a round after one withdrawal (s)": f"{after:.3f}",
        "memory for what is remembered (MB)": f"{memory / 1e6:,.0f}",
        "log appends, each durable (per s)": f"{appends:,.0f}",
    }


@contextlib.contextmanager
def databases() -> Iterator[dict[str, Path | str]]:
    """What is measured: a file, and a server where its programs are installed."""
    with tempfile.TemporaryDirectory(prefix="accord-bench-") as folder, contextlib.ExitStack() as stack:
        found: dict[str, Path | str] = {"SQLite": Path(folder) / "accord.db"}
        bin_folder = programs()
        if bin_folder is not None:
            server = stack.enter_context(running_server(bin_folder))
            server.run("CREATE DATABASE bench")
            found["PostgreSQL"] = server.url("bench")
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=100_000, help="how many people (100000)")
    count = parser.parse_args().subjects
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        people = list(pool.map(grant, range(count), chunksize=500))
    print(f"{count:,} people, {len(people[0][1])} bytes a record, {os.cpu_count()} cores,", end=" ")
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    for library, seconds in bare_verification(count).items():
        print(f"baseline: {count:,} bare Ed25519 verifications in one thread, {library}: {seconds:.2f} s")
    with databases() as found:
        folder = next(path for path in found.values() if isinstance(path, Path)).parent
        print(f"baseline: bare write of 4 KiB and fsync: {bare_appends(folder, os.urandom(4096)):,.0f} per s\n")
        columns = {name: measure(target, people) for name, target in found.items()}
    print("| | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for line in next(iter(columns.values())):
        print(f"| {line} | " + " | ".join(column[line] for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
