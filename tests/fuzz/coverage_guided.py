"""A million hostile inputs: ``python tests/fuzz/coverage_guided.py [--inputs N] [--only NAME]`` (``make fuzz``).

Atheris (libFuzzer) searches each parser of ``parsers.py`` in a process of its own, led by the coverage of our code,
with the mutations of ``mutations.py`` beside its own. A finding is any exception that the parser does not announce, an
input that takes more than ten seconds, or memory that grows. Ends with an error if there is one.
"""

import argparse
import json
import logging
import os
import platform
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (2, 1)]

with atheris.instrument_imports(include=["federation", "consent", "clients"], enable_loader_override=False):
    from mutations import mutated
    from parsers import Parser, parsers

WARM_UP = 0.3
"""The part of the inputs after which memory is measured first: caches have a bound, and have reached it by then."""
GROWTH_MIB_MAX = 48
SECONDS_MAX = 10
LIBFUZZER = ["-verbosity=0", "-seed=1", f"-timeout={SECONDS_MAX}", "-rss_limit_mb=4096"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--only", default="")
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    started, inputs, findings, growth = time.monotonic(), 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder, parsers(Path(folder)) as table:
        chosen = {name: parser for name, parser in table.items() if given.only in name}
        shares = shared(chosen, given.inputs)
        for name, parser in chosen.items():
            told = searched(name, parser, shares[name], Path(folder))
            inputs, findings = inputs + told["inputs"], findings + len(told["findings"])
            grown = told["rss_after"] - told["rss_before"]
            growth = max(growth, grown)
            findings += grown > GROWTH_MIB_MAX
            print(
                f"{name:28} {told['inputs']:>7,} inputs, {told['accepted']:>6,} read, {told['seconds']:>5.0f} s, RSS "
                f"{told['rss_before']:.0f} -> {told['rss_after']:.0f} MiB",
                flush=True,
            )
            for found in told["findings"]:
                print(f"  FINDING {found}", flush=True)
    print(f"{inputs:,} inputs into {len(chosen)} parsers in {time.monotonic() - started:.0f} s: {findings} findings.")
    print(f"Memory grew by {growth:.0f} MiB at most. Python {platform.python_version()}, {platform.machine()}.")
    sys.exit(findings > 0)


def shared(table: dict[str, Parser], inputs: int) -> dict[str, int]:
    """How many inputs each parser gets: one that takes four times as long gets half as many."""
    quickness = {}
    for name, parser in table.items():
        for _ in range(2):  # what is loaded at first use is loaded by the first turn
            started = time.perf_counter()
            for seed in parser.seeds:
                parser.read(seed)
        quickness[name] = (len(parser.seeds) / max(time.perf_counter() - started, 1e-6)) ** 0.5
    return {name: 1 + int(inputs * each / sum(quickness.values())) for name, each in quickness.items()}


def searched(name: str, parser: Parser, inputs: int, folder: Path) -> dict[str, Any]:
    """Run one parser in a child process; what it tells at its end."""
    started = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _search(parser, inputs, folder, writer)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    ended = f"{name}: the process ended with status {status}: too slow, too large, or dead"
    nothing = {"inputs": 0, "accepted": 0, "rss_before": 0, "rss_after": 0, "findings": [ended]}
    return {**(json.loads(text) if text else nothing), "seconds": time.monotonic() - started}


def _search(parser: Parser, inputs: int, folder: Path, writer: int) -> None:
    """The child: search, tell, end."""
    done = accepted = 0
    before = 0.0
    findings: dict[str, str] = {}

    def one(data: bytes) -> None:
        nonlocal done, accepted, before
        try:
            parser.read(data)
            accepted += 1
        except parser.raises:
            accepted += 0
        except BaseException as error:  # noqa: BLE001 - whatever else comes out is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            place = next((each for each in reversed(frames) if "/tests/" not in each.filename), frames[-1])
            findings.setdefault(
                f"{type(error).__name__} at {place.filename}:{place.lineno}", f"{str(error)[:120]!r} for {data[:200]!r}"
            )
        done += 1
        if done == int(inputs * WARM_UP):
            before = _rss_mib()
        if done >= inputs:
            told = [f"{where}: {what}" for where, what in findings.items()]
            figures = {"inputs": done, "accepted": accepted, "rss_before": before, "rss_after": _rss_mib()}
            os.write(writer, json.dumps({**figures, "findings": told}).encode())
            os._exit(0)

    def change(data: bytes, size_max: int, seed: int) -> bytes:
        rng = Random(seed)
        changed = mutated(data, rng) if rng.random() < 1 / 2 else atheris.Mutate(data, size_max)
        return changed[:size_max]

    corpus = folder / "corpus" / str(os.getpid())
    corpus.mkdir(parents=True)
    for number, seed in enumerate(parser.seeds):
        (corpus / str(number)).write_bytes(seed)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    options = [*LIBFUZZER, f"-max_len={64 + 2 * max(map(len, parser.seeds))}", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


def _rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
