"""A witness signs what it has checked itself, and one history only."""

import copy
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from study_in_memory import InMemoryStudy

from clients.witness import Witness
from federation.coordinator.protocols import CosignReply, CosignRequest
from federation.errors import PeerError, UnavailableError
from federation.rules.checkpoint import (
    Checkpoint,
    cosign,
    parse_cosignature_line,
    sign_checkpoint,
    verify_cosignature,
)
from federation.rules.entries import Entry, RoundClosed, StudySettled, make_entry
from federation.rules.equivocation import verify_evidence
from federation.rules.keys import PrivateKey
from federation.rules.study import read
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import MemoryLog


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InMemoryStudy]:
    with InMemoryStudy(tmp_path_factory.mktemp("witnessed"), rounds={"count": 1}) as study:
        study.run()
        yield study


class Shown:
    """A fresh witness of the settled study, and what a coordinator may show it."""

    def __init__(self, study: InMemoryStudy) -> None:
        self.study = study
        self.log = MemoryLog("replica")
        self.evidence = MemoryEvidence()
        self.key = study["ash"].key
        self.coordinator: PrivateKey = study.key
        self.blobs: Callable[[str], bytes] = study.blobs.get
        self.start()

    def start(self) -> None:
        """As a new process on the same replica."""
        self.witness = Witness(
            plan=self.study.plan,
            plan_blob=self.study.state.plan_blob,
            coordinator=self.study.key.public,
            key=self.key,
            log=self.log,
            blobs=lambda name: self.blobs(name),  # noqa: PLW0108 - tests exchange ``blobs`` later
            evidence=self.evidence,
            clock=self.study.clock,
        )

    @property
    def entries(self) -> list[bytes]:
        return self.study.log.entries()

    def note(self, size: int, root: bytes | None = None, signer: PrivateKey | None = None) -> str:
        checkpoint = Checkpoint(self.study.plan.origin, size, root or self.study.log.root(size))
        return sign_checkpoint(checkpoint, signer or self.study.key).to_bytes().decode()

    def show(self, entries: list[bytes], *, first: int = 0, note: str | None = None, study: str = "") -> CosignReply:
        request = CosignRequest(
            study=study or self.study.plan.study_id,
            first=first,
            entries=tuple(data.decode() for data in entries),
            checkpoint=note,
        )
        return read(CosignReply, self.witness.handle(self.coordinator.public, request.to_payload()))

    def refuses(self, because: str, entries: list[bytes], **more: Any) -> None:
        """It refuses, and its replica ends before the entry in question."""
        with pytest.raises(PeerError, match=because):
            self.show(entries, **more)
        assert self.witness.state.size == self.log.size < len(self.entries)

    def rewritten(self, index: int, change: Callable[[Any], Any]) -> list[bytes]:
        """The entries up to ``index``, the last one saying something else under a true signature."""
        opened: Entry = self.study.entries()[index]
        party = None
        assert opened.party is None
        other = make_entry(
            change(opened.body), study=opened.study, now=opened.at, round_number=opened.round, party=party
        )
        return [*self.entries[:index], other.sign(self.study.key).to_bytes()]

    def place(self, kind: type) -> int:
        return next(place for place, entry in enumerate(self.study.entries()) if isinstance(entry.body, kind))


@pytest.fixture
def shown(settled: InMemoryStudy) -> Shown:
    return Shown(settled)


def test_it_cosigns_a_history_that_it_has_replayed(shown: Shown) -> None:
    size = len(shown.entries)
    reply = shown.show(shown.entries, note=shown.note(size))
    assert reply.size == size
    assert reply.cosignature is not None
    cosignature = parse_cosignature_line(reply.cosignature, shown.key.public)
    verify_cosignature(Checkpoint(shown.study.plan.origin, size, shown.study.log.root()), cosignature)
    assert shown.log.entries() == shown.entries
    assert shown.witness.state == shown.study.state


def test_history_may_come_in_pieces_that_overlap(shown: Shown) -> None:
    for first, stop in ((0, 3), (1, 5), (5, 5), (4, len(shown.entries))):
        assert shown.show(shown.entries[first:stop], first=first).size == max(stop, shown.log.size)
    assert shown.show([], first=shown.log.size, note=shown.note(shown.log.size)).cosignature is not None


def test_a_gap_is_answered_with_where_to_begin_and_nothing_is_signed(shown: Shown) -> None:
    shown.show(shown.entries[:2])
    reply = shown.show(shown.entries[4:], first=4, note=shown.note(len(shown.entries)))
    assert (reply.size, reply.cosignature) == (2, None)


def test_a_restarted_witness_knows_what_it_knew(shown: Shown) -> None:
    shown.show(shown.entries[:6], note=shown.note(6))
    shown.start()
    assert shown.witness.state.size == 6
    with pytest.raises(PeerError, match="older than the one cosigned last"):
        shown.show([], first=6, note=shown.note(5))
    assert shown.show(shown.entries[6:], first=6, note=shown.note(len(shown.entries))).cosignature is not None


def test_an_entry_shown_before_cannot_be_exchanged(shown: Shown) -> None:
    shown.show(shown.entries[:6])
    later = shown.study.entries()[5]
    moved = later.model_copy(update={"time": later.time.replace("2026", "2027")}).sign(shown.study.key).to_bytes()
    shown.refuses("Entry 5 is not the one that this witness was shown before: the log is forked", [moved], first=5)


def test_two_trees_of_one_size_are_not_both_signed(shown: Shown) -> None:
    shown.show(shown.entries[:6], note=shown.note(6))
    with pytest.raises(PeerError, match="is not the tree that this witness was shown") as refused:
        shown.show([], first=6, note=shown.note(6, root=bytes(32)))
    assert "evidence" in refused.value.remedy


def test_two_trees_of_one_size_are_kept_as_evidence(shown: Shown) -> None:
    shown.show(shown.entries[:6], note=shown.note(6))
    with pytest.raises(PeerError):
        shown.show([], first=6, note=shown.note(6, root=bytes(32)))
    (case,) = shown.evidence.cases()
    found = verify_evidence(case, signer=shown.study.key.public)
    assert (found.kind, found.sizes, found.origin) == ("two-roots", (6, 6), shown.study.plan.origin)


def test_a_log_that_was_rewritten_and_signed_again_is_kept_as_evidence(shown: Shown) -> None:
    """The coordinator really makes another log (each entry and the checkpoint are its own) and shows it as the one."""
    shown.show(shown.entries[:6], note=shown.note(6))
    fork = MemoryLog("fork")
    later = shown.study.entries()[4]
    moved = later.model_copy(update={"time": later.time.replace("2026", "2027")}).sign(shown.study.key).to_bytes()
    for number, data in enumerate([*shown.entries[:4], moved, *shown.entries[5:9]]):
        fork.append(str(number), data)
    note = shown.note(9, root=fork.root())
    with pytest.raises(PeerError, match="the log is forked"):
        shown.show(fork.entries(2), first=2, note=note)
    (case,) = shown.evidence.cases()
    found = verify_evidence(case, signer=shown.study.key.public)
    assert (found.kind, sorted(found.sizes), found.index) == ("two-leaves", [6, 9], 4)
    assert shown.log.entries() == shown.entries[:6]


def test_other_entries_without_a_signed_tree_over_them_are_refused_and_prove_nothing(shown: Shown) -> None:
    shown.show(shown.entries[:6], note=shown.note(6))
    later = shown.study.entries()[5]
    moved = later.model_copy(update={"time": later.time.replace("2026", "2027")}).sign(shown.study.key).to_bytes()
    shown.refuses("the log is forked", [moved], first=5)
    assert shown.evidence.cases() == []


def test_a_checkpoint_by_another_key_or_of_another_log_is_refused(shown: Shown) -> None:
    shown.show(shown.entries[:6])
    with pytest.raises(PeerError):
        shown.show([], first=6, note=shown.note(6, signer=shown.key))
    other = sign_checkpoint(Checkpoint("other.example/log", 6, shown.study.log.root(6)), shown.study.key)
    with pytest.raises(PeerError, match="of the log"):
        shown.show([], first=6, note=other.to_bytes().decode())


def test_a_checkpoint_may_carry_what_others_cosigned(shown: Shown) -> None:
    birch = shown.study["birch"].key
    signed = sign_checkpoint(Checkpoint(shown.study.plan.origin, 6, shown.study.log.root(6)), shown.study.key)
    note = signed.with_cosignatures([cosign(signed.checkpoint, birch, timestamp=1)]).to_bytes().decode()
    assert shown.show(shown.entries[:6], note=note).cosignature is not None


def test_only_the_study_s_coordinator_is_answered(shown: Shown) -> None:
    with pytest.raises(PeerError, match="follows another study"):
        shown.show(shown.entries[:2], study="other-0")
    shown.coordinator = shown.study["birch"].key
    shown.refuses("follows another study", shown.entries[:2])
    assert shown.log.size == 0


def test_entries_by_another_key_are_refused(shown: Shown) -> None:
    forged = shown.study.entries()[0].sign(shown.key).to_bytes()
    shown.refuses("it is signed by", [forged])


def test_an_entry_that_breaks_a_rule_stops_the_replica_before_it(shown: Shown) -> None:
    shown.refuses("breaks a rule", [*shown.entries[:5], *shown.entries[6:]])
    assert shown.log.entries() == shown.entries[:5]


def test_a_false_aggregate_is_not_cosigned(shown: Shown) -> None:
    place = shown.place(RoundClosed)
    entries = shown.rewritten(place, lambda body: body.model_copy(update={"model": body.value_table}))
    shown.refuses("Round 1: the logged model", entries)
    assert shown.log.size == place


def test_a_false_settlement_is_not_cosigned(shown: Shown) -> None:
    place = shown.place(StudySettled)

    def rob(body: StudySettled) -> StudySettled:
        payments = [payment.model_copy(update={"reward": 0}) for payment in body.payments]
        return body.model_copy(update={"payments": tuple(payments), "burned": 1_000_003})

    shown.refuses("do not follow from the value tables", shown.rewritten(place, rob))
    assert shown.log.size == place


def test_without_the_blobs_nothing_is_cosigned_and_the_replica_waits(shown: Shown) -> None:
    def away(name: str) -> bytes:
        raise UnavailableError(f"{name} is away", remedy="Wait.")

    shown.blobs = away
    place = shown.place(RoundClosed)
    with pytest.raises(UnavailableError):
        shown.show(shown.entries, note=shown.note(len(shown.entries)))
    assert shown.log.size == shown.witness.state.size == place
    shown.blobs = shown.study.blobs.get
    assert shown.show(shown.entries, note=shown.note(len(shown.entries))).cosignature is not None


def test_an_altered_blob_is_not_cosigned(shown: Shown) -> None:
    model = shown.study.state.closed[0].base_model
    shown.blobs = lambda name: bytes(40) if name == model else shown.study.blobs.get(name)
    shown.refuses("does not have the bytes of its name", shown.entries)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b'{"study":"x"}'])
def test_garbage_is_a_peer_s_error(shown: Shown, payload: bytes) -> None:
    with pytest.raises(PeerError):
        shown.witness.handle(shown.study.key.public, payload)


def test_a_damaged_replica_is_not_opened(shown: Shown) -> None:
    shown.show(shown.entries)
    damaged = copy.deepcopy([*shown.entries[:3], *shown.entries[4:]])
    shown.log = MemoryLog("damaged")
    for number, data in enumerate(damaged):
        shown.log.append(str(number), data)
    with pytest.raises(PeerError, match="breaks a rule"):
        shown.start()


def test_cosignatures_carry_the_witness_s_own_time(shown: Shown) -> None:
    before = shown.study.clock() - timedelta(seconds=1)
    reply = shown.show(shown.entries[:1], note=shown.note(1))
    assert reply.cosignature is not None
    stamped = parse_cosignature_line(reply.cosignature, shown.key.public).timestamp
    assert before.timestamp() <= stamped <= shown.study.clock().timestamp()
