"""Grants bind by cosignatures of the study's other parties, through the coordinator; rounds wait a little, not long."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from study_in_memory import InMemoryStudy

from clients.consent_log import ConsentLogKeeping
from consent.cosigning.tables import WitnessedCheckpoint
from consent.rules.decision import Status, use_of
from consent.rules.record import Action
from federation.coordinator.protocols import CONSENT_COSIGN, CONSENT_RELAY
from federation.errors import UnavailableError
from federation.network.memory import Delivery, Fate
from federation.rules.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from federation.rules.equivocation import verify_evidence
from federation.storage.database import write


class Network:
    """Delivers everything but, when it is cut, what one node asks another."""

    def __init__(self) -> None:
        self.cut = False
        self.relayed = 0

    def __call__(self, delivery: Delivery) -> Fate:
        self.relayed += delivery.protocol == CONSENT_COSIGN
        return Fate.REQUEST_LOST if self.cut and delivery.protocol == CONSENT_RELAY else Fate.DELIVERED


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def study(tmp_path: Path, network: Network) -> Iterator[InMemoryStudy]:
    """Three institutions; each needs the word of both others before a yes binds."""
    with InMemoryStudy(tmp_path, courier=network, rounds={"count": 2, "deadline_s": 5}) as made:
        for site, institution in made.institutions.items():
            others = [other.did for name, other in made.institutions.items() if name != site]
            institution.registry.set_witnesses(others, 2)
        yield made


def test_the_first_round_finds_every_grant_bound(study: InMemoryStudy, network: Network) -> None:
    study.run()
    for site in study.institutions.values():
        assert site.used(1) == site.used(2) == site.refs
        health = site.registry.health()
        assert (health.quorum, health.stale) == (2, False)
        assert health.cosigned_size > 0
        signed = site.registry.cosigned_checkpoint()
        assert signed is not None
        others = {other.key.public for other in study.institutions.values()} - {site.key.public}
        assert {item.witness for item in signed.cosignatures} == others
    assert network.relayed > 0, "nodes reach each other only through the coordinator"


def test_a_grant_that_witnesses_do_not_see_waits_and_holds_up_no_round(study: InMemoryStudy, network: Network) -> None:
    ash = study["ash"]
    ash.registry.withdraw_all(["p00", "p01"])
    took = 0.0

    def between(closed: int) -> None:
        nonlocal took
        if closed == 1:
            network.cut = True
            ash.say(Action.GRANT, ["p00"])
            ash.registry.withdraw("p02")
            took = -time.monotonic()

    study.run(between=between)
    took += time.monotonic()
    assert ash.used(1) == ash.refs[2:]
    assert ash.used(2) == ash.refs[3:], "p00's yes waits, p02's no does not"
    assert ash.uses()[2].counts.count('"pending": 1') == 1
    assert 1.0 <= took < 8, "it waited a fifth of the deadline, and went on"
    use = use_of(study.plan, ash.did)
    assert ash.registry.decide_all(use, study.clock(), ["p00"])["p00"].status is Status.PENDING


def test_where_no_grant_waits_nobody_waits(study: InMemoryStudy) -> None:
    def silent(*_: object) -> bytes:
        raise UnavailableError("nobody is there", remedy="Wait.")

    registry = study["ash"].registry
    keeping = ConsentLogKeeping(registry, silent, every_s=60, clock=study.clock)
    use = use_of(study.plan, study["ash"].did)
    started = time.monotonic()
    keeping.await_grants(use, 0.6)
    assert time.monotonic() - started >= 0.6, "grants wait, and nobody cosigns"
    assert len(keeping.problems) == 2
    registry.set_witnesses([], 0)
    started = time.monotonic()
    keeping.await_grants(use, 30)
    assert time.monotonic() - started < 5


def test_after_a_long_stop_the_witnesses_are_asked_before_a_round_begins(study: InMemoryStudy) -> None:
    study.run()
    ash = study["ash"]
    use = use_of(study.plan, ash.did)
    assert ash.registry.decide_all(use, study.clock(), ["p00"])["p00"].permitted
    study.clock.forward(hours=30)
    ash.registry.append_batch(study.clock())
    assert ash.registry.health().stale
    assert not ash.registry.decide_all(use, study.clock(), ["p00"])["p00"].permitted
    assert ash.node is not None
    ash.node._await_grants()
    assert not ash.registry.health().stale
    assert ash.registry.decide_all(use, study.clock(), ["p00"])["p00"].permitted


def test_batches_are_appended_at_fixed_times_of_the_clock(study: InMemoryStudy) -> None:
    registry = study["ash"].registry
    keeping = ConsentLogKeeping(registry, lambda *_: b"", every_s=3600, clock=study.clock)
    keeping.begin()
    size = registry.checkpoint().checkpoint.size
    for _ in range(3):
        keeping.tick(reachable=False)
    assert registry.checkpoint().checkpoint.size in {size, size + 1}  # the hour may just have ended
    size = registry.checkpoint().checkpoint.size
    study.clock.forward(hours=1)
    for _ in range(3):
        keeping.tick(reachable=False)
    assert registry.checkpoint().checkpoint.size == size + 1


def test_a_consent_log_that_others_are_shown_differently_is_found_in_the_study_s_log(study: InMemoryStudy) -> None:
    """birch has cosigned one tree of ash's log; what ash's updates show to everybody is another, signed by ash too."""
    ash, birch = study["ash"], study["birch"]
    study.run()
    assert birch.evidence.cases() == []
    shown = study.state.closed[-1].admitted[ash.did].consent_checkpoint
    origin = ash.registry.origin
    true = open_checkpoint(shown.encode(), origin=origin, signer=ash.key.public, witnesses=()).checkpoint
    other = sign_checkpoint(Checkpoint(origin, true.size, bytes(32)), ash.key).to_bytes()
    with write(birch.engine) as session:
        session.merge(WitnessedCheckpoint(origin=origin, size=true.size, note=other))
    birch.start()
    assert birch.node is not None
    birch.node.tick()
    (case,) = birch.evidence.cases()
    found = verify_evidence(case, signer=ash.key.public)
    assert (found.origin, found.sizes) == (origin, (true.size, true.size))
