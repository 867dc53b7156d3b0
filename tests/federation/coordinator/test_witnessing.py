"""Collecting cosignatures: from whoever is there, nothing taken on trust, and nobody's absence stops it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from study_in_memory import InMemoryStudy, key_of

from federation.coordinator.protocols import COSIGN, COSIGN_BYTES_MAX, CosignReply
from federation.coordinator.witnessing import Witnessing
from federation.errors import PeerError
from federation.rules.checkpoint import Checkpoint, cosign, cosignature_line
from federation.rules.keys import PublicKey


@pytest.fixture
def study(tmp_path: Path) -> Iterator[InMemoryStudy]:
    """Settled, with cedar's node gone since the first round: the newest checkpoint lacks its cosignature."""
    with InMemoryStudy(tmp_path, sites=4, rounds={"count": 1}) as made:

        def leave(closed: int) -> None:
            if closed == 1:
                made["cedar"].stop()

        made.run(between=leave)
        yield made


def cosigners(study: InMemoryStudy) -> set[str]:
    return {study.state.site(item.witness.did) for item in study.history.checkpoint().cosignatures}


def test_a_quorum_is_enough_and_who_comes_back_is_brought_up_to_date(study: InMemoryStudy) -> None:
    assert study.state.settled
    assert cosigners(study) == {"ash", "birch", "dogwood"}
    witnessing = Witnessing(study.history, study.exchange)
    assert witnessing.final()
    study["cedar"].start()
    assert study["cedar"].parts().replica.size < study.log.size
    assert witnessing.gather() == 4
    assert cosigners(study) == {"ash", "birch", "cedar", "dogwood"}
    assert study["cedar"].parts().replica.entries() == study.log.entries()
    assert witnessing.problems == {}


def lies(study: InMemoryStudy) -> list[tuple[Callable[[PublicKey, bytes], bytes], str]]:
    """What a witness could answer, and why it is not believed."""
    checkpoint, cedar = study.history.checkpoint().checkpoint, key_of("institution cedar")
    other = Checkpoint(checkpoint.origin, checkpoint.size, bytes(32))
    lines = {
        "does not match": cosignature_line(cosign(other, cedar, timestamp=1)),
        "no signature line": cosignature_line(cosign(checkpoint, key_of("institution ash"), timestamp=1)),
    }

    def reply(line: str | None, size: int) -> Callable[[PublicKey, bytes], bytes]:
        return lambda _peer, _payload: CosignReply(size=size, cosignature=line).to_payload()

    def fail(_peer: PublicKey, _payload: bytes) -> bytes:
        raise PeerError("The log is forked.", remedy="Explain it.")

    return [
        *((reply(line, checkpoint.size), because) for because, line in lines.items()),
        (reply(None, 0), "without cosigning"),
        (reply(None, 10**6), "without cosigning"),
        (lambda _peer, _payload: b"garbage", ""),
        (fail, "The log is forked"),
    ]


def test_what_a_witness_says_is_checked_and_its_problem_is_shown(study: InMemoryStudy) -> None:
    cedar = study.network.exchange(study["cedar"].key)
    cedar.keep_connected(study.exchange.addresses()[0])
    for handler, because in lies(study):
        witnessing = Witnessing(study.history, study.exchange)
        cedar.serve(COSIGN, handler, max_bytes=COSIGN_BYTES_MAX)
        assert witnessing.gather() == 3
        assert because in witnessing.problems[study["cedar"].did]
    assert cosigners(study) == {"ash", "birch", "dogwood"}
