"""A party on js-libp2p (``foreign/client.mjs``, none of our code) takes part in a study of ours, over real sockets."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy, key_of

from federation.coordinator.membership import Membership
from federation.coordinator.protocols import CHECKPOINT
from federation.coordinator.service import StudyParts, StudyService
from federation.coordinator.witnessing import Witnessing
from federation.network.blobs import BLOB, serve_blobs
from federation.network.host import Libp2pHost
from federation.rules.canonical import sha256_hex
from federation.rules.documents import Update, open_signed
from federation.rules.entries import UpdateAdmitted
from federation.rules.validation import read_validation

PACKAGES = Path(sys.prefix) / "foreign" / "node_modules"
FOREIGN = key_of("institution cedar")
STRANGER = key_of("nobody")
Ask = Callable[..., dict[str, Any]]

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        shutil.which("node") is None or not PACKAGES.is_dir(), reason="needs Node.js and its packages (make setup)"
    ),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    """Settled, with cedar gone since the first round: its key is the foreign party's."""
    with InMemoryStudy(tmp_path_factory.mktemp("study"), rounds={"count": 1}) as made:
        made.run(between=lambda closed: made["cedar"].stop() if closed else None)
        yield made


@pytest.fixture(scope="module")
def coordinator(study: InMemoryStudy) -> Iterator[Libp2pHost]:
    """The study's coordinator with its own gate, on libp2p."""
    membership = Membership(study.engine, study.history, study.envelope)
    with Libp2pHost(study.key, allowed=membership.allowed) as host:
        parts = StudyParts(
            history=study.history,
            membership=membership,
            exchange=host,
            blobs=study.blobs,
            sealed=study.sealed,
            validation=read_validation(study.plan, study.validation),
        )
        StudyService(parts).serve()
        yield host


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copy(Path(__file__).parent / "foreign" / "client.mjs", folder)
    (folder / "node_modules").symlink_to(PACKAGES)
    command = ["node", str(folder / "client.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as node:

        def answer(kind: str, **question: Any) -> dict[str, Any]:
            assert node.stdin is not None
            assert node.stdout is not None
            node.stdin.write(json.dumps({"kind": kind, **question}) + "\n")
            node.stdin.flush()
            told: dict[str, Any] = json.loads(node.stdout.readline())
            return told

        yield answer
        node.communicate(timeout=10)


@pytest.fixture
def member(ask: Ask, coordinator: Libp2pHost) -> Ask:
    connected = ask("connect", address=coordinator.addresses()[0], seed=FOREIGN.seed.hex())
    assert connected.get("ok", connected) == {
        "peer": coordinator.public.peer_id,
        "encryption": "/noise",
        "multiplexer": "/yamux/1.0.0",
    }
    return ask


def test_a_foreign_client_fetches_a_blob_in_pieces_and_finds_its_hash_right(member: Ask, study: InMemoryStudy) -> None:
    name = study.blobs.put(os.urandom((3 << 20) + 5))
    assert member("blob", name=name) == {"ok": (3 << 20) + 5}
    (final,) = study.state.closed
    assert member("blob", name=final.model) == {"ok": len(study.blobs.get(final.model))}


def test_a_foreign_client_puts_an_update_together_from_its_chunks(member: Ask, study: InMemoryStudy) -> None:
    bodies = [entry.body for entry in study.entries() if isinstance(entry.body, UpdateAdmitted)]
    update, _ = open_signed(Update, bodies[0].envelope.encode())
    shown = {"chunks": update.chunks, "update": update.update, "update_bytes": update.update_bytes}
    assert member("update", **shown) == {"ok": update.update_bytes}
    assert "do not make the update" in member("update", **shown | {"update": "0" * 64})["refused"]


def test_a_foreign_client_verifies_the_signed_checkpoint(member: Ask, study: InMemoryStudy) -> None:
    signed = study.history.checkpoint()
    told = member("checkpoint", origin=study.plan.origin)["ok"]
    assert told["size"] == study.log.size
    assert told["root"] in signed.to_bytes().decode()
    assert "not a note of this log" in member("checkpoint", origin="another/log")["refused"]


def test_a_foreign_client_notices_a_lie(member: Ask, coordinator: Libp2pHost, study: InMemoryStudy) -> None:
    name, note = sha256_hex(b"wanted"), study.history.newest_note()
    lines = note.decode().split("\n")
    lines[1] = str(int(lines[1]) + 1)
    coordinator.serve(BLOB, lambda _peer, _payload: (6).to_bytes(8, "big") + b"forged", max_bytes=256)
    coordinator.serve(CHECKPOINT, lambda _peer, _payload: "\n".join(lines).encode(), max_bytes=0)
    try:
        assert "another hash" in member("blob", name=name)["refused"]
        assert "signature does not hold" in member("checkpoint", origin=study.plan.origin)["refused"]
    finally:
        serve_blobs(coordinator, study.blobs)
        coordinator.serve(CHECKPOINT, lambda _peer, _payload: note, max_bytes=0)


def test_a_foreign_witness_cosigns_what_it_has_verified(
    member: Ask, coordinator: Libp2pHost, study: InMemoryStudy
) -> None:
    before = {item.witness for item in study.history.checkpoint().cosignatures}
    assert FOREIGN.public not in before
    assert member("witness", origin=study.plan.origin, did=FOREIGN.public.did, seed=FOREIGN.seed.hex()) == {"ok": True}
    assert member("heartbeat") == {"ok": 0}
    witnessing = Witnessing(study.history, coordinator)
    assert witnessing.gather() == len(before) + 1, witnessing.problems
    assert FOREIGN.public in {item.witness for item in study.history.checkpoint().cosignatures}


def test_a_foreign_client_whose_key_is_unknown_is_refused(
    ask: Ask, coordinator: Libp2pHost, study: InMemoryStudy
) -> None:
    """The connection stands, as a stranger may show an invitation; nothing else is given to it."""
    assert "ok" in ask("connect", address=coordinator.addresses()[0], seed=STRANGER.seed.hex())
    assert "refused" in ask("blob", name=study.blobs.names()[0])
    assert "refused" in ask("checkpoint", origin=study.plan.origin)
    assert ask("heartbeat") == {"ok": 0}
    assert STRANGER.public not in coordinator.connected()
