"""Institutions cosign each other's consent logs: a yes binds by it, and nobody gets two histories signed."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from consent_people import BEN, HOSPITAL, NOW, chain, person, record, use
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from consent.cosigning import COSIGNING_TABLES, ConsentLogWitness, Cosigning
from consent.cosigning import witness as witness_module
from consent.cosigning.protocol import CosigningReply, CosigningRequest
from consent.registry import TABLES, Registry
from consent.rules.decision import Status
from consent.rules.record import Action
from federation.cli.main import main
from federation.coordinator.rate import RateBound
from federation.errors import PeerError, UnavailableError
from federation.rules.checkpoint import (
    Checkpoint,
    open_checkpoint,
    parse_cosignature_line,
    sign_checkpoint,
    verify_cosignature,
)
from federation.rules.equivocation import verify_evidence
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.merkle import consistency_proof, leaf_hash, root, verify_consistency
from federation.rules.study import read
from federation.storage.database import memory_database
from federation.storage.evidence import FolderEvidence, MemoryEvidence
from federation.storage.log import MemoryLog

BIRCH, CEDAR, DOGWOOD = (person(name) for name in ("birch", "cedar", "dogwood"))
SIZE = 4
FAST = RateBound(per_s=1e9, burst=10**9)


def new_witness(key: PrivateKey, engine: Engine | None = None, **changes: Any) -> ConsentLogWitness:
    values: dict[str, Any] = {
        "party": lambda _key: True,
        "evidence": MemoryEvidence(),
        "clock": lambda: NOW,
        "rate": FAST,
    }
    return ConsentLogWitness(key, engine or memory_database(*COSIGNING_TABLES), **{**values, **changes})


class Consortium:
    """A hospital with its registry, three witnesses, and a network that a test can break."""

    def __init__(self, quorum: int = 2) -> None:
        self.registry = Registry(
            memory_database(*TABLES), HOSPITAL, consent_log=MemoryLog(), clock=lambda: NOW, batch_size=SIZE
        )
        self.evidence = {key.public: MemoryEvidence() for key in (BIRCH, CEDAR, DOGWOOD)}
        self.engines = {key.public: memory_database(*COSIGNING_TABLES) for key in (BIRCH, CEDAR, DOGWOOD)}
        self.witnesses: dict[PublicKey, ConsentLogWitness] = {}
        for key in (BIRCH, CEDAR, DOGWOOD):
            self.start(key)
        self.registry.set_witnesses([key.did for key in self.witnesses], quorum)
        self.away: set[PublicKey] = set()
        self.answers_lost = False
        self.asked: list[PublicKey] = []
        self.cosigning = Cosigning(self.registry, self.ask)

    def start(self, key: PrivateKey) -> None:
        """A witness (again), as a new process would, on what its database holds."""
        self.witnesses[key.public] = new_witness(key, self.engines[key.public], evidence=self.evidence[key.public])

    def ask(self, witness: PublicKey, request: bytes) -> bytes:
        self.asked.append(witness)
        if witness in self.away:
            raise UnavailableError("It is away.", remedy="Wait.")
        answer = self.witnesses[witness].handle(HOSPITAL.public, request)
        if self.answers_lost:
            raise UnavailableError("The answer was lost.", remedy="Ask again.")
        return answer

    def batches(self, count: int = 1) -> None:
        for _ in range(count):
            self.registry.append_batch(NOW)

    def status(self, ref: str) -> Status:
        return self.registry.decide_all(use(), NOW, [ref])[ref].status


@pytest.fixture
def world() -> Consortium:
    return Consortium()


def fork_of(leaves: list[bytes]) -> Callable[[int, int | None], CosigningRequest]:
    """A hospital that rewrote its log: ``request(size, old_size)`` shows the other tree, all duly signed."""

    def note(size: int) -> str:
        checkpoint = Checkpoint(f"consent/{HOSPITAL.public.did}", size, root(leaves[:size]))
        return sign_checkpoint(checkpoint, HOSPITAL).to_bytes().decode()

    def request(size: int, old: int | None = None) -> CosigningRequest:
        proof = () if old is None else tuple(part.hex() for part in consistency_proof(leaves[:size], old))
        return CosigningRequest(
            institution=HOSPITAL.public.did,
            checkpoint=note(size),
            old=None if old is None else note(old),
            proof=proof,
        )

    return request


def leaves(text: str) -> list[bytes]:
    return [leaf_hash(letter.encode()) for letter in text]


# A yes binds


def test_a_grant_binds_once_a_quorum_has_cosigned_the_log_that_holds_it(world: Consortium) -> None:
    world.registry.submit(record(), "anna")
    assert world.status("anna") is Status.PENDING
    world.batches()
    assert world.status("anna") is Status.PENDING, "logged, and nobody has cosigned"
    world.away = {CEDAR.public, DOGWOOD.public}
    assert not world.cosigning.gather()
    assert world.status("anna") is Status.PENDING, "one of the two that are needed"
    assert set(world.cosigning.problems) == {CEDAR.public.did, DOGWOOD.public.did}
    world.away = {CEDAR.public}
    assert not world.cosigning.gather()
    assert world.status("anna") is Status.PERMITTED
    world.away = set()
    assert world.cosigning.gather()
    assert world.cosigning.problems == {}


def test_a_later_grant_waits_for_the_next_cosigned_batch(world: Consortium) -> None:
    world.registry.submit(record(), "anna")
    world.batches()
    world.cosigning.gather()
    world.registry.submit(record(subject=BEN), "ben")
    world.cosigning.gather()
    world.batches()
    assert (world.status("anna"), world.status("ben")) == (Status.PERMITTED, Status.PENDING)
    world.cosigning.gather()
    assert world.status("ben") is Status.PERMITTED


def test_a_withdrawal_waits_for_nobody(world: Consortium) -> None:
    world.registry.submit(record(), "anna")
    world.batches()
    world.cosigning.gather()
    world.away = set(world.witnesses)
    world.registry.withdraw("anna")
    assert world.status("anna") is Status.WITHDRAWN


def test_without_a_quorum_a_grant_binds_from_its_receipt() -> None:
    world = Consortium(quorum=0)
    world.registry.submit(record(), "anna")
    assert world.status("anna") is Status.PERMITTED


# What is signed


def test_a_cosignature_is_the_witness_s_timestamped_word_about_exactly_this_tree(world: Consortium) -> None:
    world.batches(3)
    before = int(datetime.now(UTC).timestamp())
    world.witnesses[BIRCH.public] = new_witness(BIRCH, clock=lambda: datetime.now(UTC))
    signed = world.registry.checkpoint()
    request = CosigningRequest(
        institution=HOSPITAL.public.did, checkpoint=signed.to_bytes().decode("utf-8")
    ).to_payload()
    reply = read(CosigningReply, world.ask(BIRCH.public, request))
    assert reply.size == 3
    assert reply.cosignature is not None
    cosignature = parse_cosignature_line(reply.cosignature, BIRCH.public)
    verify_cosignature(signed.checkpoint, cosignature)
    assert before <= cosignature.timestamp <= int(datetime.now(UTC).timestamp())


def test_first_contact_takes_any_size_and_later_ones_must_extend_it(world: Consortium) -> None:
    world.batches(5)
    assert world.cosigning.gather()
    asked = sorted(world.asked, key=lambda key: key.did)  # they are asked side by side
    assert asked == sorted(world.witnesses, key=lambda key: key.did), "one request each"
    for _ in range(3):
        world.batches(2)
        assert world.cosigning.gather()
    assert len(world.asked) == 12, "what a witness saw last is known: one request each, every time"
    assert world.cosigning.gather()
    assert len(world.asked) == 12, "nothing new, nobody is asked"


def test_a_restarted_institution_learns_what_the_witness_saw(world: Consortium) -> None:
    world.batches(3)
    world.cosigning.gather()
    world.batches(4)
    again = Cosigning(world.registry, world.ask)
    assert again.gather()
    assert again.problems == {}


def test_what_was_persisted_and_not_answered_is_signed_when_it_is_asked_again(world: Consortium) -> None:
    """The witness is bound from before the signature on: a lost answer changes nothing."""
    world.batches(2)
    world.answers_lost = True
    assert not world.cosigning.gather()
    world.answers_lost = False
    world.start(BIRCH)
    assert world.cosigning.gather()


class CountingKey(PrivateKey):
    """A key that tells what it was used for."""

    signed: ClassVar[list[bytes]] = []

    def sign(self, message: bytes) -> bytes:
        self.signed.append(message)
        return super().sign(message)


def test_nothing_is_signed_that_could_not_be_persisted(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    key = CountingKey(BIRCH.seed)
    monkeypatch.setattr(witness_module, "_remember", full)
    with pytest.raises(OSError, match="full"):
        new_witness(key).handle(HOSPITAL.public, fork_of(leaves("ab"))(2, None).to_payload())
    assert key.signed == []


# Split views


def test_a_rewritten_log_is_refused_and_the_evidence_convinces_anybody(world: Consortium) -> None:
    """A registry is restored from an old backup, goes on, and shows its new log to those who saw the old one."""
    world.batches(6)
    assert world.cosigning.gather()
    restored = Registry(memory_database(*TABLES), HOSPITAL, consent_log=MemoryLog(), clock=lambda: NOW, batch_size=SIZE)
    restored.set_witnesses([key.did for key in world.witnesses], 2)
    restored.submit(record(), "anna")
    for _ in range(9):
        restored.append_batch(NOW)
    forked = Cosigning(restored, world.ask)
    assert not forked.gather()
    assert all("forked" in problem for problem in forked.problems.values())
    assert len(forked.problems) == 3
    assert restored.decide_all(use(), NOW, ["anna"])["anna"].status is Status.PENDING, "it never binds"
    for store in world.evidence.values():
        (case,) = store.cases()
        found = verify_evidence(case, signer=HOSPITAL.public)
        assert (found.kind, found.sizes) == ("two-roots", (6, 6))
        assert found.origin == f"consent/{HOSPITAL.public.did}"
    world.batches()
    assert world.cosigning.gather(), "the log that they know goes on"


def test_the_evidence_is_a_file_and_the_log_says_how_to_show_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    witness = new_witness(BIRCH, evidence=FolderEvidence(tmp_path / "evidence"))
    witness.handle(HOSPITAL.public, fork_of(leaves("abcd"))(4, None).to_payload())
    with pytest.raises(PeerError, match="forked"):
        witness.handle(HOSPITAL.public, fork_of(leaves("abXdef"))(6, 4).to_payload())
    (file,) = (tmp_path / "evidence").iterdir()
    command = f"accord log evidence {file} --key {HOSPITAL.public.did}"
    assert command in caplog.text
    assert main(command.split()[1:]) == 0
    assert f"{HOSPITAL.public.did} signed two different trees of 4 entries" in capsys.readouterr().out


def test_a_witness_that_is_no_longer_named_is_no_problem(world: Consortium) -> None:
    world.batches()
    world.away = {CEDAR.public}
    assert not world.cosigning.gather()
    world.registry.set_witnesses([BIRCH.public.did, DOGWOOD.public.did], 2)
    assert world.cosigning.gather()
    assert world.cosigning.problems == {}


def test_a_shorter_log_is_refused(world: Consortium) -> None:
    world.batches(5)
    world.cosigning.gather()
    old = world.registry.checkpoint(3).to_bytes().decode("utf-8")
    request = CosigningRequest(institution=HOSPITAL.public.did, checkpoint=old).to_payload()
    with pytest.raises(PeerError, match="shrunk"):
        world.ask(BIRCH.public, request)
    assert world.evidence[BIRCH.public].cases() == [], "old, and true"


def test_an_institution_whose_log_is_shorter_than_the_witness_remembers_hears_why(world: Consortium) -> None:
    ask = fork_of(leaves("abcdefg"))
    world.witnesses[BIRCH.public].handle(HOSPITAL.public, ask(7, None).to_payload())
    world.batches(2)
    world.registry.set_witnesses([BIRCH.public.did], 1)
    assert not world.cosigning.gather()
    assert "shrunk" in world.cosigning.problems[BIRCH.public.did]


def test_a_false_proof_gets_nothing_and_proves_nothing(world: Consortium) -> None:
    """The old checkpoint is the true one, but the new tree does not extend it."""
    true, false = fork_of(leaves("abcd")), fork_of(leaves("abcX" + "efgh"))
    witness = world.witnesses[BIRCH.public]
    witness.handle(HOSPITAL.public, true(4, None).to_payload())
    lie = false(8, 4).model_copy(update={"old": true(4, None).checkpoint})
    with pytest.raises(PeerError, match="consistency proof is refused"):
        witness.handle(HOSPITAL.public, lie.to_payload())
    assert world.evidence[BIRCH.public].cases() == []
    size = read(CosigningReply, witness.handle(HOSPITAL.public, fork_of(leaves("abcdefgh"))(8, 4).to_payload())).size
    assert size == 8


def test_the_coordinator_that_carries_requests_can_forge_none(world: Consortium) -> None:
    """Any change of a request is noticed by the witness, any change of an answer by the institution."""
    world.batches(3)
    world.cosigning.gather()
    world.batches(2)
    other = fork_of(leaves("abcdefgh"))(8, None)
    forged = other.model_copy(update={"institution": CEDAR.public.did})
    with pytest.raises(PeerError):
        world.ask(BIRCH.public, forged.to_payload())
    stale = CosigningReply(size=5, cosignature=world_line(world, size=3)).to_payload()
    lying = Cosigning(world.registry, lambda _witness, _request: stale)
    assert not lying.gather()
    assert world.status("nobody") is Status.MISSING
    assert all("cosignature" in problem or "line" in problem for problem in lying.problems.values())


def world_line(world: Consortium, *, size: int) -> str:
    """A true cosignature line by birch, of another size than is asked for."""
    request = CosigningRequest(
        institution=HOSPITAL.public.did, checkpoint=world.registry.checkpoint(size).to_bytes().decode("utf-8")
    )
    answer = new_witness(BIRCH).handle(HOSPITAL.public, request.to_payload())
    line = read(CosigningReply, answer).cosignature
    assert line is not None
    return line


def test_what_the_institution_shows_to_others_is_compared(world: Consortium) -> None:
    world.batches(3)
    world.cosigning.gather()
    witness, store = world.witnesses[BIRCH.public], world.evidence[BIRCH.public]
    witness.compare(world.registry.checkpoint().to_bytes().decode("utf-8"), HOSPITAL.public)
    witness.compare(fork_of(leaves("abcdefg"))(7, None).checkpoint, HOSPITAL.public)
    assert store.cases() == [], "the same, and a size that was never seen"
    witness.compare(fork_of(leaves("abcdefg"))(3, None).checkpoint, HOSPITAL.public)
    (case,) = store.cases()
    assert verify_evidence(case, signer=HOSPITAL.public).sizes == (3, 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=12))
@settings(max_examples=40)
def test_a_witness_never_signs_two_trees_that_do_not_fit(shown: list[tuple[bool, int]]) -> None:
    """Two logs that part after four entries are shown in any order; whatever is signed is of one growing tree."""
    texts = {True: "abcdefghi", False: "abcdWXYZi"}
    asks = {which: fork_of(leaves(text)) for which, text in texts.items()}
    witness = new_witness(BIRCH)
    last, signed = 0, []
    for which, size in shown:
        try:
            answer = witness.handle(HOSPITAL.public, asks[which](size, last if 0 < last < size else None).to_payload())
        except PeerError:
            continue
        reply = read(CosigningReply, answer)
        if reply.cosignature is not None:
            signed.append(texts[which][:size])
            last = size
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(signed))
    if shown:
        assert signed, "the first one is taken"


# Who is answered


def test_only_parties_of_the_study_are_cosigned_and_never_oneself() -> None:
    request = fork_of(leaves("ab"))(2, None).to_payload()
    with pytest.raises(PeerError, match="other parties of its study only"):
        new_witness(BIRCH, party=lambda key: key == CEDAR.public).handle(HOSPITAL.public, request)
    with pytest.raises(PeerError, match="other parties of its study only"):
        new_witness(HOSPITAL).handle(HOSPITAL.public, request)


def test_a_checkpoint_by_another_key_or_of_another_log_is_refused() -> None:
    witness = new_witness(BIRCH)
    for origin, key in ((f"consent/{CEDAR.public.did}", HOSPITAL), (f"consent/{HOSPITAL.public.did}", CEDAR)):
        note = sign_checkpoint(Checkpoint(origin, 1, root(leaves("a"))), key).to_bytes().decode()
        with pytest.raises(PeerError):
            witness.handle(
                HOSPITAL.public, CosigningRequest(institution=HOSPITAL.public.did, checkpoint=note).to_payload()
            )


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b"x" * 100_000, b'{"institution":"x"}'])
def test_garbage_is_a_peer_s_error(payload: bytes) -> None:
    with pytest.raises(PeerError):
        new_witness(BIRCH).handle(HOSPITAL.public, payload)


def test_who_asks_too_often_waits() -> None:
    witness = new_witness(BIRCH, rate=RateBound(per_s=0.001, burst=2))
    request = fork_of(leaves("ab"))(2, None).to_payload()
    witness.handle(HOSPITAL.public, request)
    witness.handle(HOSPITAL.public, request)
    with pytest.raises(UnavailableError, match="too often"):
        witness.handle(HOSPITAL.public, request)


def test_the_newest_checkpoints_are_kept_and_the_oldest_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_module, "KEPT_MAX", 3)
    store = MemoryEvidence()
    witness = new_witness(BIRCH, evidence=store)
    ask = fork_of(leaves("abcdefgh"))
    for size in range(1, 9):
        witness.handle(HOSPITAL.public, ask(size, size - 1 or None).to_payload())
    for size in range(1, 9):
        witness.compare(fork_of(leaves("ABCDEFGH"))(size, None).checkpoint, HOSPITAL.public)
    assert sorted(verify_evidence(case).sizes[0] for case in store.cases()) == [6, 7, 8]


def test_history_of_several_people_and_batches_stays_consistent(world: Consortium) -> None:
    """Each witness's newest checkpoint extends the one before, by the institution's own proof."""
    sizes = []
    for name in ("anna", "ben", "carol"):
        world.registry.submit(chain(Action.GRANT, subject=person(name))[0], name)
        world.batches(2)
        world.cosigning.gather()
        sizes.append(world.registry.checkpoint().checkpoint)
    for old, new in itertools.pairwise(sizes):
        verify_consistency(
            old_size=old.size,
            old_root=old.root,
            new_size=new.size,
            new_root=new.root,
            proof=world.registry.consistency(old.size, new.size),
        )
    note = world.registry.checkpoint().to_bytes()
    assert open_checkpoint(note, origin=world.registry.origin, signer=HOSPITAL.public, witnesses=()).cosignatures == ()
