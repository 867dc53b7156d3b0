"""What parties bring to a study's log, in whole studies in memory: pledges, votes, and a lie that costs a stake."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import SALT, InMemoryStudy

from clients.witness import Witness
from federation.coordinator.protocols import CosignRequest
from federation.coordinator.submissions import Submissions
from federation.errors import PeerError
from federation.rules.audit import UTILITY_UNIT
from federation.rules.ballots import Change, Proposal, Vote
from federation.rules.canonical import canonical_bytes, parse, sha256_hex
from federation.rules.challenge import make_challenge
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.entries import StakeReleased, StudyPublished, make_entry
from federation.rules.equivocation import two_roots
from federation.rules.instant import format_instant
from federation.rules.pledges import Accusation, FalseUtility, SplitView
from federation.storage.blobs import MemoryBlobStore
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import MemoryLog

STAKES = {
    "stake": {
        "coordinator_microcredits": 500,
        "institution_microcredits": 300,
        "challenge_s": 86_400,
        "appeal_s": 3600,
        "unbonding_s": 200_000,
    },
    "voting": {"open_s": 3600},
}
COORDINATOR = "stake:coordinator/sponsor"
MASK = 5


class FalseTables(MemoryBlobStore):
    """The sealed store of a coordinator that lies about one coalition in every table."""

    def put(self, data: bytes) -> str:
        table = parse(data)
        table["utilities"][MASK] += UTILITY_UNIT // 16
        return super().put(canonical_bytes(table))


def case_of(study: InMemoryStudy, mask: int) -> tuple[FalseUtility, bytes]:
    """A challenge of round 1, put together from what the parties have."""
    kinds, done, entries = study.kinds(), study.state.closed[0], study.log.entries()
    table = study.tables()[0]
    members = [did for at, did in enumerate(table.players) if mask >> at & 1]
    data = make_challenge(
        plan=study.envelope,
        signed=study.history.checkpoint(),
        entries=entries,
        places=(
            kinds.index("study-published"),
            kinds.index("study-started"),
            kinds.index("round-opened"),
            done.entry_index,
        ),
        table=study.blobs.get(done.value_table),
        validation=(SALT, study.validation),
        base=study.blobs.get(done.base_model),
        updates={did: b"".join(study.blobs.get(name) for name in done.admitted[did].chunks) for did in members},
    ).to_bytes()
    return FalseUtility(round=1, coalition=tuple(sorted(members)), proof=sha256_hex(data)), data


def accuse(study: InMemoryStudy, case: FalseUtility | SplitView) -> Accusation:
    now = format_instant(study.clock())
    return Accusation(study=study.plan.study_id, accused=study.key.public.did, case=case, signed_at=now)


def step(study: InMemoryStudy) -> None:
    """One turn of every node and of the coordinator."""
    study._seen = 99
    study._step({})
    study.service._step()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    """A settled study of one round whose coordinator lied."""
    made = InMemoryStudy(
        tmp_path_factory.mktemp("false"),
        rounds={"count": 1},
        validation={"disclosure": "public"},
        sealed=FalseTables(),
        **STAKES,
    )
    with made as study:
        study.run()
        yield study


def test_a_false_table_entry_costs_the_scorer_its_stake(played: InMemoryStudy) -> None:
    study, ash = played, played["ash"]
    assert study.kinds().count("stake-deposited") == 4
    honest, truth = case_of(study, MASK - 1)
    ash.blobs.put(truth)
    with pytest.raises(PeerError, match="the logged utility holds"):
        submit(study, accuse(study, honest).sign(ash.key).to_bytes())
    case, proof = case_of(study, MASK)
    ash.blobs.put(proof)
    ash.submit("accusation", accuse(study, case))
    step(study)
    assert study.kinds()[-1] == "stake-slashed"
    assert study.state.ledger.held == {COORDINATOR: 500}
    study.service._cosign(again_s=0)
    size = study.log.size
    for institution in study.institutions.values():
        assert institution.parts().replica.size == size, "every witness has checked the proof itself"
    assert len(study.history.checkpoint().cosignatures) == 3
    study.clock.forward(seconds=3700)
    step(study)
    assert study.kinds()[-1] == "stake-burned"
    study.clock.forward(seconds=200_000)
    step(study)
    assert study.kinds()[-3:] == ["stake-released"] * 3
    ledger = study.state.ledger
    assert (ledger.balance("burned:slashed"), ledger.stakes, ledger.pledged) == (500, 0, 500)
    assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted


def submit(study: InMemoryStudy, document: bytes) -> None:
    Submissions(study.history, study.blobs, study.exchange).handle(study["ash"].key.public, document)


def test_documents_that_are_none_or_another_s_are_refused(played: InMemoryStudy) -> None:
    birch = played["birch"].key
    for data, why in (
        (b"{}", "takes no such document"),
        (played.envelope, "takes no such document"),
        (played.pledge(300).sign(birch).to_bytes(), "signed by"),
        (accuse(played, case_of(played, MASK)[0].model_copy(update={"round": 9})), "No value table"),
        (accuse(played, case_of(played, MASK)[0]).model_copy(update={"study": "other"}), "another study"),
    ):
        document = data if isinstance(data, bytes) else data.sign(played["ash"].key).to_bytes()
        with pytest.raises(PeerError, match=why):
            submit(played, document)


def test_a_witness_signs_no_release_over_a_case_that_it_brought_in_time(played: InMemoryStudy) -> None:
    """The coordinator of this log did not take the case and releases its own stake; time has passed for all."""
    entries = played.log.entries()
    settled = played.kinds().index("study-settled")
    log = MemoryLog("replica")
    view = SplitView(evidence=_fork(played))
    accusations: list[Accusation] = []
    witness = Witness(
        plan=played.plan,
        plan_blob=played.state.plan_blob,
        coordinator=played.key.public,
        key=played["ash"].key,
        log=log,
        blobs=played.blobs.get,
        evidence=MemoryEvidence(),
        clock=played.clock,
        accusations=lambda: accusations,
    )

    def shown(datas: list[bytes]) -> None:
        request = CosignRequest(
            study=played.plan.study_id, first=log.size, entries=tuple(data.decode() for data in datas)
        )
        witness.handle(played.key.public, request.to_payload())

    shown(entries[: settled + 1])
    at = witness.state.settled_at
    assert at is not None
    accusations.append(accuse(played, view).model_copy(update={"signed_at": format_instant(at)}))
    played.clock.forward(seconds=210_000)
    release = _release(played)
    with pytest.raises(PeerError, match="brought a case against it in time"):
        shown([release])
    accusations[0] = accusations[0].model_copy(update={"signed_at": "2099-01-01T00:00:00Z"})
    played.clock.forward(seconds=-250_000)
    with pytest.raises(PeerError, match="ahead of this witness's clock"):
        shown([release])
    played.clock.forward(seconds=250_000)
    shown([release])
    assert played.key.public.did in witness.state.released


def _fork(study: InMemoryStudy) -> str:
    trees = (Checkpoint(study.plan.origin, 9, bytes([number]) * 32) for number in (1, 2))
    evidence = two_roots(*(sign_checkpoint(tree, study.key) for tree in trees))
    assert evidence is not None
    return evidence.to_bytes().decode()


def _release(study: InMemoryStudy) -> bytes:
    entry = make_entry(StakeReleased(), study=study.plan.study_id, now=study.clock(), party=study.key.public)
    return entry.sign(study.key).to_bytes()


def test_votes_travel_from_the_nodes_and_end_the_study_early(tmp_path: Path) -> None:
    def between(study: InMemoryStudy) -> Callable[[int], None]:
        def act(closed: int) -> None:
            if closed == 0:
                change = Change(parameter="count", value=1)
                proposal = Proposal(
                    study=study.plan.study_id, plan_hash=study.plan.plan_hash, change=change, signed_at="now"
                )
                study["birch"].submit("proposal", proposal)
                tick(study)
                name = next(iter(study.state.ballots))
                for site in ("ash", "cedar"):
                    study[site].submit("vote", Vote(study=study.plan.study_id, proposal=name, choice="yes"))
                tick(study)

        return act

    with InMemoryStudy(tmp_path, rounds={"count": 3}, **STAKES) as study:
        state = study.run(between=between(study))
    assert (len(state.closed), state.rounds.count, state.plan.rounds.count) == (1, 1, 3)
    assert state.settled
    kinds = study.kinds()
    assert kinds.count("vote-cast") == 2
    assert kinds.index("vote-cast") < kinds.index("round-opened")


def tick(study: InMemoryStudy) -> None:
    for institution in study.institutions.values():
        assert institution.node is not None
        institution.node.tick()


def test_a_stake_that_is_missing_is_awaited(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, rounds={"count": 1}, **STAKES) as study:
        for row in study.outbox.waiting():
            study.outbox.mark(row.number, taken=True)  # as if the coordinator had signed nothing
        step_until_agreed(study)
        awaited: list[dict[str, Any]] = study.service.status()["awaited"]
        assert [item["site"] for item in awaited] == ["coordinator"]
        assert "accord stake deposit" in awaited[0]["for"]
        assert not study.state.weights


def step_until_agreed(study: InMemoryStudy) -> None:
    study._seen = 99
    study.history.append(_published(study))
    for _ in range(3):
        study._step({})
        study.service._step()


def _published(study: InMemoryStudy) -> Any:
    plan = study.plan
    return StudyPublished(plan=study.state.plan_blob, plan_hash=plan.plan_hash, minted=plan.reward.minted)
