"""Cosigning between real libp2p hosts: nodes only dial, and what one asks another goes through the coordinator."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from consent_people import HOSPITAL, NOW, person, record, use

from consent.cosigning import COSIGNING_TABLES, ConsentLogWitness, Cosigning
from consent.registry import LOG_NAME, TABLES, Registry
from consent.rules.decision import Status
from federation.coordinator import relay
from federation.coordinator.protocols import CONSENT_COSIGN, CONSENT_COSIGN_BYTES_MAX
from federation.coordinator.relay import Relay, ask_through
from federation.errors import UnavailableError
from federation.network.host import Libp2pHost
from federation.rules.keys import PublicKey
from federation.storage.database import open_database
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import SqliteLog

COORDINATOR, BIRCH, STRANGER = (person(name) for name in ("coordinator", "birch", "stranger"))
STUDY = "small-0123456789ab"
PARTIES = frozenset({HOSPITAL.public, BIRCH.public})


@dataclass
class Parties:
    coordinator: Libp2pHost
    hospital: Libp2pHost
    birch: Libp2pHost
    registry: Registry
    cosigning: Cosigning


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    """A hospital whose grants need birch's word; registry and witness on disk."""
    engine = open_database(tmp_path / "hospital.db", *TABLES)
    registry = Registry(engine, HOSPITAL, consent_log=SqliteLog(engine, LOG_NAME), clock=lambda: NOW, batch_size=4)
    registry.set_witnesses([BIRCH.public.did], 1)
    with (
        Libp2pHost(COORDINATOR, allowed=PARTIES.__contains__) as coordinator,
        Libp2pHost(HOSPITAL, listen=None, allowed=lambda peer: peer == COORDINATOR.public) as hospital,
        Libp2pHost(BIRCH, listen=None, allowed=lambda peer: peer == COORDINATOR.public) as birch,
    ):
        Relay(coordinator, STUDY, PARTIES.__contains__).serve()
        witness = ConsentLogWitness(
            BIRCH,
            open_database(tmp_path / "birch.db", *COSIGNING_TABLES),
            party=PARTIES.__contains__,
            evidence=MemoryEvidence(),
            clock=lambda: NOW,
        )
        birch.serve(CONSENT_COSIGN, witness.handle, max_bytes=CONSENT_COSIGN_BYTES_MAX)
        for node in (hospital, birch):
            node.keep_connected(coordinator.addresses()[0])
        end = time.monotonic() + 20
        while coordinator.connected() != PARTIES and time.monotonic() < end:
            time.sleep(0.02)
        ask = ask_through(hospital, lambda: COORDINATOR.public, STUDY, timeout_s=10)
        yield Parties(coordinator, hospital, birch, registry, Cosigning(registry, ask))


def test_a_grant_binds_through_the_coordinator_and_a_withdrawal_needs_nobody(parties: Parties) -> None:
    registry = parties.registry
    registry.submit(record(), "anna")
    registry.append_batch(NOW)
    assert registry.decide_all(use(), NOW, ["anna"])["anna"].status is Status.PENDING
    assert parties.cosigning.gather()
    assert registry.decide_all(use(), NOW, ["anna"])["anna"].status is Status.PERMITTED
    registry.append_batch(NOW)
    assert parties.cosigning.gather(), "and the next tree extends the first"
    signed = registry.cosigned_checkpoint()
    assert signed is not None
    assert [item.witness for item in signed.cosignatures] == [BIRCH.public]
    parties.coordinator.close()
    registry.withdraw("anna")
    assert registry.decide_all(use(), NOW, ["anna"])["anna"].status is Status.WITHDRAWN


def test_a_stranger_reaches_no_witness(parties: Parties) -> None:
    with Libp2pHost(STRANGER, listen=None) as host:
        host.connect(parties.coordinator.addresses()[0], timeout_s=10)
        with pytest.raises(UnavailableError):
            ask_through(host, lambda: COORDINATOR.public, STUDY, timeout_s=5)(BIRCH.public, b"{}")


def test_a_witness_that_hangs_costs_a_bounded_time(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_S_MAX", 0.5)
    over = threading.Event()

    def hang(_peer: PublicKey, _payload: bytes) -> bytes:
        over.wait(20)
        return b""

    parties.birch.serve(CONSENT_COSIGN, hang, max_bytes=CONSENT_COSIGN_BYTES_MAX)
    parties.registry.append_batch(NOW)
    started = time.monotonic()
    assert not parties.cosigning.gather()
    assert time.monotonic() - started < 5
    assert "took longer" in parties.cosigning.problems[BIRCH.public.did]
    over.set()
