"""Federated averaging on Accord's network, for ``against_flower.py``; started with arguments it is one of the nodes.

Two ways, each over libp2p (TCP, Noise, Yamux) with every node in a process of its own:

- ``grid``: Flower's own FedAvg and the same ClientApp as on stock Flower; only the Grid is Accord's, and a node's
  runtime. The float32 model travels in Flower's messages, so that it must be smaller than they may be (16 MiB).
- ``study``: the way of a study's round (``federation.coordinator.rounds``, ``clients.contribution``): models and
  updates are lattice integers in their shortest form (``federation.rules.byte_planes``), and travel by content address;
  nodes commit to signed updates, then show them; the coordinator's ``Gathering`` fetches from all nodes at once and
  checks hashes, range and norm as updates come, once; the sum is exact; everything is synced to disk.

A plan allows at most 2^20 parameters (4 MB of float32), so that ``study`` drives Grid, strategy, blobs and documents
itself. It leaves out what does not depend on the model's size: log, consents, budget, privacy noise, valuation.
"""

import argparse
import hashlib
import json
import logging
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from clients.flower.runtime import FlowerRuntime, context_for
from clients.update import Provenance, prepare_update
from federation.coordinator.gathering import Gathering
from federation.flower.grid import ExchangeGrid
from federation.flower.messages import TRAIN, answer_content, node_id_of, round_task
from federation.flower.messages import pack as pack_message
from federation.flower.messages import unpack as unpack_message
from federation.flower.strategy import AccordStrategy
from federation.network.blobs import fetch_blob, serve_blobs
from federation.network.exchange import peer_of
from federation.network.host import Libp2pHost
from federation.rules.admission import consent_origin
from federation.rules.aggregation import norm_within
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from federation.rules.documents import Commitment, ConsistencyProof, Update, open_signed
from federation.rules.fixedpoint import Integers, from_fixed, to_fixed
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.terms import Aggregation
from federation.rules.vectors import Encoding, pack_vector, unpack_vector, vector_bytes_max
from federation.storage.blobs import FolderBlobStore

COORDINATOR: Final = PrivateKey(b"c" * 32)
STUDY: Final = "benchmark"
NORM_BOUND: Final = Decimal(1_000_000)
HASH: Final = "0" * 64
ENCODING: Final[Encoding] = "fewest-bytes"
AGGREGATION: Final = Aggregation(rule="weighted-mean", norm_bound=NORM_BOUND, encoding=ENCODING)
POLL_S: Final = 0.02
"""As in ``RoundRunner``."""
START_S_MAX: Final = 120.0
MESSAGE_PARTS: Final = ("pack", "unpack", "train")
NODE_PARTS: Final = ("fetch model", "train", "pack and sign", "store chunks")
PARTS: Final = ("model out, commitments in", "updates in, verified", "aggregate", "pack and store model")

Parts = dict[str, float]


def key_of(number: int) -> PrivateKey:
    """The key of node ``number``."""
    return PrivateKey(hashlib.sha256(b"node %d" % number).digest())


@dataclass
class Rounds:
    """What one way measured: each round's seconds, a round's processor seconds (all processes), the model's growth."""

    seconds: list[float]
    cpu_s: float
    growth: float


def cpu_s() -> float:
    """The processor seconds that this process and all that it started have used so far, ended or not."""
    used = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used += sum(process.cpu_times()[:4])  # user, system, and those of children that have ended
    return used


class Stopwatch:
    """Adds seconds up by the name of what they went to."""

    def __init__(self, names: Sequence[str]) -> None:
        self.spent: Parts = dict.fromkeys(names, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent[name] += time.perf_counter() - began


# The nodes.


def floats_app(factor: float) -> ClientApp:
    """The ClientApp that stock Flower runs as well."""
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        arrays = {name: Array(array.numpy() * np.float32(factor)) for name, array in message.content["arrays"].items()}
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1.0})})
        return Message(content, reply_to=message)

    return app


def study_app(host: Libp2pHost, key: PrivateKey, folder: Path, parameters: int, factor: float) -> ClientApp:
    """The shipped app's answers, with a multiplication instead of a training; notes each round's parts in a file."""
    store = FolderBlobStore(folder / "blobs")
    serve_blobs(host, store)
    checkpoint = sign_checkpoint(Checkpoint(consent_origin(key.public), 0, hashlib.sha256(b"").digest()), key)
    provenance = Provenance(
        event={},
        consent_checkpoint=checkpoint.to_bytes().decode("utf-8"),
        consent_consistency=ConsistencyProof(old_size=0),
        dataset_commitment=HASH,
        code_hash=HASH,
    )
    shown: dict[int, bytes] = {}
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        asked, lap = round_task(message), Stopwatch(NODE_PARTS)
        with lap("fetch model"):
            limits: dict[str, Any] = {"timeout_s": START_S_MAX, "max_bytes": vector_bytes_max(parameters, ENCODING)}
            packed = fetch_blob(host, COORDINATOR.public, asked.base_model, store, **limits)
        with lap("train"):
            base = from_fixed(unpack_vector(packed, ENCODING, length=parameters))
            vector = to_fixed(base * factor - base)
        with lap("pack and sign"):
            prepared = prepare_update(
                vector,
                party=key.public,
                study=STUDY,
                round_number=asked.round,
                base_model=asked.base_model,
                nonce=secrets.token_bytes(32),
                provenance=provenance,
                aggregation=AGGREGATION,
            )
            shown[asked.round] = prepared.update.sign(key).to_bytes()
            commitment = prepared.commitment.sign(key).to_bytes()
        with lap("store chunks"):
            for chunk in prepared.chunks:
                store.put(chunk)
        with (folder / "parts.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(lap.spent) + "\n")
        return Message(answer_content("commitment", commitment), reply_to=message)

    @app.query("reveal")
    def reveal(message: Message, _context: Context) -> Message:
        return Message(answer_content("update", shown[round_task(message).round]), reply_to=message)

    return app


def run_node(way: str, address: str, folder: Path, number: int, parameters: int) -> None:
    """Be a node until standard input ends."""
    key, factor = key_of(number), factor_of(number)
    folder.mkdir()
    with Libp2pHost(key, listen=None) as host:
        app = floats_app(factor) if way == "grid" else study_app(host, key, folder, parameters, factor)
        with FlowerRuntime(host, COORDINATOR.public, app, context_for(host)):
            host.keep_connected(address)
            sys.stdin.read()


def factor_of(number: int) -> float:
    """What node ``number`` multiplies the model by: so every update differs, and none can be sent only once."""
    return 1 + 0.01 * (number + 1)


def first_model(parameters: int) -> NDArray[np.float32]:
    """Random weights; what every way starts from."""
    return np.random.default_rng(1).normal(0, 0.05, parameters).astype(np.float32)


# The coordinator.


@contextmanager
def running_nodes(host: Libp2pHost, way: str, folder: Path, nodes: int, parameters: int) -> Iterator[None]:
    """Start the nodes and wait until all are connected; end them afterwards."""
    address = host.addresses()[0]
    with ExitStack() as stack:
        for number in range(nodes):
            command = [sys.executable, __file__, way, address, str(folder / f"node{number}"), str(number)]
            process = subprocess.Popen([*command, str(parameters)], stdin=subprocess.PIPE)
            stack.callback(process.wait, 20)
            stack.callback(process.kill)
        deadline = time.monotonic() + START_S_MAX
        while len(host.connected()) < nodes:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(host.connected())} of {nodes} nodes are there after {START_S_MAX:g} s")
            time.sleep(POLL_S)
        yield


class GridFedAvg(FedAvg):
    """Flower's FedAvg whose messages are made by the Grid, which names them (Flower's server does that itself)."""

    aggregate_s = 0.0
    """What the last round's aggregation took."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message for every node."""
        content = RecordDict({"arrays": arrays, "config": config})
        return [grid.create_message(content, TRAIN, node, str(server_round)) for node in grid.get_node_ids()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As Flower does it; noting the time."""
        began = time.perf_counter()
        result = super().aggregate_train(server_round, replies)
        self.aggregate_s = time.perf_counter() - began
        return result


def grid_rounds(folder: Path, *, parameters: int, nodes: int, rounds: int) -> tuple[Rounds, Parts]:
    """Flower's FedAvg on Accord's Grid.

    Returns:
        The rounds; and the seconds of one ``pack``, ``unpack``, ``train`` and ``aggregate``.
    """
    stamps: list[tuple[float, float]] = []
    with Libp2pHost(COORDINATOR) as host:
        grid = ExchangeGrid(host, [key_of(number).public for number in range(nodes)])
        with running_nodes(host, "grid", folder, nodes, parameters):
            strategy = GridFedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
            result = strategy.start(
                grid,
                ArrayRecord([first_model(parameters)]),
                num_rounds=rounds,
                evaluate_fn=lambda _round, _arrays: stamps.append((time.perf_counter(), cpu_s())),
            )
        parts = _message_parts(grid, result.arrays) | {"aggregate": strategy.aggregate_s}
    seconds = [after - before for (before, _), (after, _) in pairwise(stamps)]
    used = (stamps[-1][1] - stamps[0][1]) / rounds
    return Rounds(seconds, used, growth(next(iter(result.arrays.values())).numpy(), parameters)), parts


def _message_parts(grid: Grid, arrays: ArrayRecord) -> Parts:
    """What it takes to write one message with the model, to read it, and to train: each by itself, the nodes gone."""
    node = grid.get_node_ids()[0]
    message, lap = grid.create_message(RecordDict({"arrays": arrays}), TRAIN, node, "parts"), Stopwatch(MESSAGE_PARTS)
    with lap("pack"):
        data = pack_message(message)
    with lap("unpack"):
        received = unpack_message(data)
    with lap("train"):
        floats_app(1.0)(received, Context(1, node, {}, RecordDict(), {}))
    return lap.spent


def growth(model: NDArray[Any], parameters: int) -> float:
    """How many times the first model's length ``model`` has."""
    return float(np.linalg.norm(model) / np.linalg.norm(first_model(parameters)))


class StudyRounds:
    """The coordinator of the ``study`` way."""

    def __init__(self, host: Libp2pHost, folder: Path, nodes: int, parameters: int) -> None:
        self._host, self._parameters = host, parameters
        self._parties = [key_of(number).public for number in range(nodes)]
        self._blobs = FolderBlobStore(folder / "coordinator")
        serve_blobs(host, self._blobs)
        self._grid = ExchangeGrid(host, self._parties)
        self._strategy = AccordStrategy(STUDY)
        self.model: Integers = to_fixed(first_model(parameters).astype(np.float64))
        self._name = self._blobs.put(pack_vector(self.model, ENCODING))
        self._gathering = Gathering(host, self._blobs, self._vector)

    def play(self, number: int) -> Parts:
        """One round, and its parts in seconds."""
        lap = Stopwatch(PARTS)
        shown: dict[PublicKey, Update] = {}
        admitted: dict[str, Update] = {}
        with lap("model out, commitments in"):
            config = self._strategy.round_config(
                round_number=number, base_model=self._name, deadline="2030-01-01T00:00:00Z", consent_sizes={}
            )
            asked = self._strategy.configure_train(number, self._strategy.no_arrays(), config, self._grid)
            commitments: dict[PublicKey, str] = {}

            def take(party: PublicKey, data: bytes) -> None:
                commitments[party] = open_signed(Commitment, data, signer=party)[0].commitment

            self._converse(asked, take)

        def take_up(party: PublicKey, data: bytes) -> None:
            update, _ = open_signed(Update, data, signer=party)
            if update.commitment(party).commitment != commitments[party] or update.base_model != self._name:
                raise RuntimeError("the update is not the one that was committed")
            note = update.consent_checkpoint.encode("utf-8")
            open_checkpoint(note, origin=consent_origin(party), signer=party, witnesses=())
            shown[party] = update
            self._gathering.begin(party, data, update)

        def decide() -> None:
            for done in self._gathering.ended():
                if done.error is not None:
                    raise done.error
                admitted[done.party.did] = shown[done.party]

        with lap("updates in, verified"):
            asked = self._strategy.configure_reveal(number, self._grid, map(node_id_of, self._parties))
            self._converse(asked, take_up, decide)
            while len(admitted) < len(self._parties):
                decide()
                time.sleep(POLL_S)
            vectors = self._gathering.take(admitted)
        with lap("aggregate"):
            weights = dict.fromkeys(vectors, 1)
            self.model = self._strategy.aggregate_vectors(self.model, vectors, weights)
        with lap("pack and store model"):
            self._name = self._blobs.put(pack_vector(self.model, ENCODING))
        return lap.spent

    def _vector(self, update: Update, packed: bytes) -> Integers:
        """What ``check_arrays`` checks."""
        if len(packed) != update.update_bytes or sha256_hex(packed) != update.update:
            raise RuntimeError("the arrays are not the ones that were signed")
        vector = unpack_vector(packed, ENCODING, length=self._parameters)
        if not norm_within(vector, NORM_BOUND):
            raise RuntimeError("the update is too long")
        return vector

    def _converse(
        self,
        asked: Sequence[Message],
        take: Callable[[PublicKey, bytes], None],
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Push the messages; handle the answers one by one, as they come."""
        peers = {node_id_of(party): party for party in self._parties}
        waiting = {message.metadata.message_id: peers[message.metadata.dst_node_id] for message in asked}
        self._grid.push_messages(asked)
        deadline = time.monotonic() + START_S_MAX
        while waiting and time.monotonic() < deadline:
            for reply in self._grid.pull_messages(list(waiting)):
                party = waiting.pop(reply.metadata.reply_to_message_id)
                take(party, self._strategy.answer_of(reply)[1])
            on_turn()
            time.sleep(POLL_S)
        if waiting:
            raise RuntimeError(f"{len(waiting)} nodes did not answer")


def study_rounds(folder: Path, *, parameters: int, nodes: int, rounds: int) -> tuple[Rounds, list[Parts], list[Parts]]:
    """The rounds; each one's parts at the coordinator; and at the slowest node."""
    with Libp2pHost(COORDINATOR) as host:
        coordinator = StudyRounds(host, folder, nodes, parameters)
        with running_nodes(host, "study", folder, nodes, parameters):
            before = cpu_s()
            parts = [coordinator.play(number) for number in range(1, rounds + 1)]
            used = (cpu_s() - before) / rounds
    noted = [
        [json.loads(line) for line in (folder / f"node{number}" / "parts.jsonl").read_text().splitlines()]
        for number in range(nodes)
    ]
    slowest = [max(laps, key=lambda lap: sum(lap.values())) for laps in zip(*noted, strict=True)]
    grown = growth(from_fixed(coordinator.model), parameters)
    return Rounds([sum(part.values()) for part in parts], used, grown), parts, slowest


def main() -> None:
    """Be a node."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("way", choices=["grid", "study"])
    options.add_argument("address")
    options.add_argument("folder", type=Path)
    options.add_argument("number", type=int)
    options.add_argument("parameters", type=int)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    peer_of(given.address)
    run_node(given.way, given.address, given.folder, given.number, given.parameters)


if __name__ == "__main__":
    main()
