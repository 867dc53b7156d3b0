import os
import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, OTHER_HOSPITAL, chain, record, use
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from registry_parts import SIZE, Clock, again, status
from sqlalchemy import Engine, text

from consent.registry import LICENCE_REF, TABLES, Inclusion, Registry, open_registry
from consent.rules.commitment import commitment, open_batch
from consent.rules.decision import Head, Status
from consent.rules.record import Action, Mechanism
from federation.errors import ConsentError, OperatorError, UnavailableError
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import open_checkpoint
from federation.rules.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from federation.storage.database import memory_database, open_database, write
from federation.storage.log import MemoryLog

GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW
# --- taking records in


def test_a_grant_is_stored_and_permits(registry: Registry) -> None:
    data = record()
    receipt = registry.submit(data, "anna")
    assert (receipt.subject_ref, receipt.seq, receipt.action, receipt.record) == ("anna", 1, GRANT, sha256_hex(data))
    assert receipt.received_at == "2026-11-22T12:00:00Z"
    assert registry.histories() == {"anna": (data,)}
    assert registry.head("anna") == Head(1, sha256_hex(data))
    assert status(registry) is Status.PERMITTED
    assert status(registry, "nobody") is Status.MISSING


def test_the_same_record_again_gives_the_same_receipt(registry: Registry, clock: Clock) -> None:
    data = record()
    first = registry.submit(data, "anna")
    clock.now += DAY
    assert registry.submit(b" " + data, "anna") == first
    assert first.sign(HOSPITAL) == registry.submit(data, "anna").sign(HOSPITAL)
    assert len(registry.histories()["anna"]) == 1


def test_records_that_do_not_belong_are_refused_and_nothing_is_stored(registry: Registry) -> None:
    first, second, third = chain(GRANT, WITHDRAW, GRANT)
    registry.submit(first, "anna")
    refused = [
        ("anna", third),  # a gap
        ("anna", record(subject=BEN)),  # another key under a name that is taken
        ("anna", record(seq=2, prev="0" * 64)),  # another branch
        ("anna", record()[:-2]),  # not a record
        ("anna", record(after=first, institution=OTHER_HOSPITAL)),
        ("second name", first),  # the same record under another name
        ("second name", record(purposes=("DUO:0000004",))),  # the same key under another name
        ("ben", record(subject=BEN, mechanism=Mechanism.LICENCE)),  # a licence under a person's name
        (LICENCE_REF, record(subject=BEN)),  # a person's consent as a licence
        ("", record(subject=BEN)),
        ("b" * 201, record(subject=BEN)),
    ]
    for ref, data in refused:
        with pytest.raises(ConsentError):
            registry.submit(data, ref)
        assert registry.histories() == {"anna": (first,)}
    registry.submit(second, "anna")
    registry.submit(third, "anna")
    assert status(registry) is Status.PERMITTED


def test_several_records_are_all_stored_or_none(registry: Registry) -> None:
    bad = record(seq=2, prev="0" * 64, subject=BEN)
    with pytest.raises(ConsentError):
        registry.submit_all([("anna", record()), ("ben", bad)])
    assert registry.histories() == {}
    assert registry.heads() == {}
    receipts = registry.submit_all([("anna", data) for data in chain(GRANT, WITHDRAW)])
    assert [receipt.seq for receipt in receipts] == [1, 2]


def test_a_new_key_begins_again_only_directly_after_a_withdrawal(registry: Registry) -> None:
    first = record()
    registry.submit(first, "anna")
    with pytest.raises(ConsentError, match="two people"):
        registry.submit(record(after=first, subject=BEN), "anna")
    withdrawn = registry.withdraw("anna")
    with pytest.raises(ConsentError, match="record 3"):
        registry.submit(record(subject=BEN), "anna")
    receipt = registry.submit(record(subject=BEN, seq=3, prev=withdrawn.record), "anna")
    assert receipt.subject == BEN.public.did
    assert status(registry) is Status.PERMITTED
    assert registry.receipt(withdrawn.record) == withdrawn
    with pytest.raises(ConsentError, match="speaks for another name"):  # a key that is done with stays with its name
        registry.submit(record(epsilon_max=Decimal(1)), "somebody else")


# --- withdrawing


def test_a_withdrawal_needs_no_key_and_binds_from_its_receipt(registry: Registry, clock: Clock) -> None:
    registry.submit(record(), "anna")
    clock.now += timedelta(minutes=5)
    receipt = registry.withdraw("anna")
    assert (receipt.action, receipt.seq, receipt.received_at) == (WITHDRAW, 2, "2026-11-22T12:05:00Z")
    assert status(registry, now=clock.now) is Status.WITHDRAWN
    assert registry.withdraw("anna") == receipt


def test_a_person_may_come_back_with_their_own_key(registry: Registry) -> None:
    registry.submit(record(), "anna")
    withdrawn = registry.withdraw("anna")
    registry.submit(record(seq=3, prev=withdrawn.record), "anna")
    assert status(registry) is Status.PERMITTED


def test_withdrawing_for_an_unknown_name_says_so_and_changes_nothing(registry: Registry) -> None:
    registry.submit(record(), "anna")
    with pytest.raises(ConsentError, match="nothing to withdraw"):
        registry.withdraw_all(["anna", "nobody"])
    assert status(registry) is Status.PERMITTED


def test_a_withdrawal_stored_by_another_process_holds_for_this_one(
    engine: Engine, clock: Clock, log: MemoryLog, registry: Registry
) -> None:
    registry.submit(record(), "anna")
    assert status(registry) is Status.PERMITTED
    again(engine, clock, log).withdraw("anna")
    assert status(registry) is Status.WITHDRAWN


# --- licences


def test_one_licence_decides_for_every_name(registry: Registry) -> None:
    registry.submit(record(mechanism=Mechanism.LICENCE), LICENCE_REF)
    decisions = registry.decide_all(use(kind=Mechanism.LICENCE), NOW, ["day-1", "day-2"])
    assert {ref: decision.status for ref, decision in decisions.items()} == dict.fromkeys(
        ["day-1", "day-2"], Status.PERMITTED
    )
    registry.withdraw(LICENCE_REF)
    assert status(registry, "day-1", kind=Mechanism.LICENCE) is Status.WITHDRAWN


def test_a_licence_is_no_persons_consent_and_a_consent_no_licence(registry: Registry) -> None:
    registry.submit(record(mechanism=Mechanism.LICENCE), LICENCE_REF)
    registry.submit(record(subject=BEN), "ben")
    assert status(registry, "anna") is Status.MISSING
    assert status(registry, LICENCE_REF) is Status.INVALID
    registry.withdraw(LICENCE_REF)
    assert status(registry, "ben", kind=Mechanism.LICENCE) is Status.WITHDRAWN


# --- time


def test_time_never_runs_backwards_over_a_restart(engine: Engine, clock: Clock, log: MemoryLog) -> None:
    again(engine, clock, log).submit(record(valid_until=NOW + DAY), "anna")
    assert status(again(engine, clock, log), now=NOW + 2 * DAY) is Status.EXPIRED
    clock.now = NOW - DAY
    restarted = again(engine, clock, log)
    assert status(restarted, now=clock.now) is Status.EXPIRED
    assert restarted.now() == NOW + 2 * DAY
    assert restarted.withdraw("anna").received_at == "2026-11-24T12:00:00Z"


# --- what is damaged or rolled back


def _spelled_for(engine: Engine, damage: str) -> str:
    if engine.dialect.name == "sqlite":
        return damage
    if "replace" in damage:
        changed = "convert_to(replace(convert_from(data, 'UTF8'), 'DUO:0000006', 'DUO:0000004'), 'UTF8')"
        return "UPDATE consent_record SET data = " + changed  # noqa: S608 - ours
    return damage.replace("x'00'", r"'\x00'::bytea")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE consent_record SET data = replace(data, 'DUO:0000006', 'DUO:0000004')",
        "UPDATE consent_record SET data = CAST(replace(data, 'DUO:0000006', 'DUO:0000004') AS BLOB)",
        "DELETE FROM consent_record WHERE seq = 2",
        "DELETE FROM consent_record",
        "UPDATE consent_subject SET seq = 1",
        "UPDATE consent_record SET data = x'00' WHERE seq = 2",
    ],
)
def test_altered_tables_never_permit(engine: Engine, registry: Registry, damage: str) -> None:
    damage = _spelled_for(engine, damage)
    registry.submit_all([("anna", data) for data in chain(GRANT, GRANT)])
    assert status(registry) is Status.PERMITTED
    with write(engine) as session:
        session.connection().execute(text(damage))
    assert status(registry) is Status.INVALID


# --- the log


def test_every_batch_has_the_same_size_whatever_happened(registry: Registry, log: MemoryLog) -> None:
    assert registry.append_batch(NOW) == 0
    registry.submit(record(), "anna")
    registry.submit(record(subject=BEN), "ben")
    assert registry.append_batch(NOW) == 1
    registry.withdraw("anna")
    assert registry.append_batch(NOW + DAY) == 2
    assert registry.append_batch(NOW + DAY) == 3
    entries = log.entries()
    assert {len(entry) for entry in entries} == {len(entries[0])}
    assert {len(open_batch(entry).commitments) for entry in entries} == {SIZE}
    hashes = [value for entry in entries for value in open_batch(entry).commitments]
    assert len(set(hashes)) == len(hashes)


def test_what_does_not_fit_waits_for_the_next_batch(registry: Registry) -> None:
    from consent_people import person

    people = {f"p{number}": record(subject=person(f"p{number}")) for number in range(SIZE + 3)}
    registry.submit_all(list(people.items()))
    assert [registry.append_batch(NOW), registry.append_batch(NOW)] == [0, 1]
    placed = [registry.inclusion(sha256_hex(data)).index for data in people.values()]
    assert sorted(placed) == [0] * SIZE + [1] * 3


def check(registry: Registry, data: bytes, inclusion: Inclusion) -> None:
    """What a third party does offline."""
    seen = open_checkpoint(
        inclusion.checkpoint.to_bytes(), origin=registry.origin, signer=HOSPITAL.public, witnesses=()
    ).checkpoint
    assert commitment(inclusion.salt, data).hex() in open_batch(inclusion.batch).commitments
    leaf = leaf_hash(inclusion.batch)
    verify_inclusion(leaf=leaf, index=inclusion.index, size=seen.size, proof=inclusion.proof, root=seen.root)


def test_a_withdrawal_has_an_inclusion_proof_that_a_third_party_checks(registry: Registry) -> None:
    registry.submit(record(), "anna")
    receipt = registry.withdraw("anna")
    with pytest.raises(UnavailableError):
        registry.inclusion(receipt.record)
    for _ in range(5):
        registry.append_batch(NOW)
    check(registry, registry.histories()["anna"][1], registry.inclusion(receipt.record))
    with pytest.raises(UnavailableError):
        registry.inclusion("0" * 64)


def test_checkpoints_are_signed_kept_and_consistent(registry: Registry, log: MemoryLog) -> None:
    assert registry.checkpoint().checkpoint.size == 0
    registry.append_batch(NOW)
    old = registry.checkpoint().checkpoint
    registry.append_batch(NOW)
    registry.append_batch(NOW)
    new = registry.checkpoint().checkpoint
    proof = registry.consistency(old.size)
    assert old.origin == f"consent/{HOSPITAL.public.did}"
    verify_consistency(old_size=old.size, old_root=old.root, new_size=new.size, new_root=new.root, proof=proof)
    assert new.root == root(log.leaf_hashes())
    assert [size for size, _ in log.checkpoints()] == [0, 1, 3]
    assert registry.consistency(1, 2)


@pytest.mark.parametrize("size", [0, -1, 8193])
def test_an_impossible_batch_size_is_refused_at_the_start(engine: Engine, log: MemoryLog, size: int) -> None:
    with pytest.raises(OperatorError, match="batch"):
        Registry(engine, HOSPITAL, consent_log=log, clock=lambda: NOW, batch_size=size)


class TornLog(MemoryLog):
    """A log whose next append fails: before it is persisted, or after (persisted, but reported as failed)."""

    def __init__(self, *, persisted: bool) -> None:
        super().__init__()
        self._persisted = persisted
        self.torn = True

    def append(self, entry_id: str, data: bytes) -> int:
        if not self.torn:
            return super().append(entry_id, data)
        self.torn = False
        if self._persisted:
            super().append(entry_id, data)
        raise OSError("the disk went away")


@pytest.mark.parametrize("persisted", [False, True])
def test_a_torn_append_is_completed_once_and_nothing_is_lost(engine: Engine, clock: Clock, persisted: bool) -> None:
    log = TornLog(persisted=persisted)
    registry = again(engine, clock, log)
    receipt = registry.submit(record(), "anna")
    with pytest.raises(OSError, match="disk"):
        registry.append_batch(NOW)
    assert registry.withdraw("anna").seq == 2  # a withdrawal never waits for the log
    restarted = again(engine, clock, log)
    assert restarted.append_batch(NOW) == 1
    assert log.size == 2
    inclusion = restarted.inclusion(receipt.record)
    assert inclusion.index == 0
    check(restarted, record(), inclusion)


# --- several processes, and death


def test_two_registries_append_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "accord.db"
    first = open_registry(open_database(path, *TABLES), HOSPITAL, batch_size=SIZE)
    second = open_registry(open_database(path, *TABLES), HOSPITAL, batch_size=SIZE)
    first.submit(record(valid_until=NOW + 10_000 * DAY), "anna")
    assert [first.append_batch(NOW), second.append_batch(NOW), first.append_batch(NOW)] == [0, 1, 2]
    assert second.withdraw("anna").seq == 2
    assert first.checkpoint().checkpoint == second.checkpoint().checkpoint
    assert status(first) is Status.WITHDRAWN


DYING = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from consent_people import HOSPITAL, record
    from consent.registry import TABLES, open_registry, receiving as module
    from consent.rules.record import Action
    from federation.storage.database import open_database

    where = sys.argv[3]
    registry = open_registry(open_database(Path(sys.argv[1]), *TABLES), HOSPITAL, batch_size=8)
    registry.submit(record(), "anna")
    if where == "inside":  # after the rows are written, before the transaction is durable
        original = module.Intake.finish
        def finish(intake):
            original(intake)
            os.kill(os.getpid(), signal.SIGKILL)
        module.Intake.finish = finish
    print(registry.withdraw("anna").record, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.processes
@pytest.mark.parametrize("where", ["inside", "after"])
def test_a_receipt_survives_a_killed_process_and_without_one_nothing_half_remains(tmp_path: Path, where: str) -> None:
    path = tmp_path / "accord.db"
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DYING), str(path), str(Path(__file__).parent.parent), where],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ},
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    registry = open_registry(open_database(path, *TABLES), HOSPITAL, batch_size=SIZE)
    history, receipt = registry.histories()["anna"], process.stdout.strip()
    if where == "inside":
        assert receipt == ""
        assert len(history) == 1
    else:
        assert sha256_hex(history[1]) == receipt
        assert status(registry) is Status.WITHDRAWN
    assert registry.withdraw("anna").seq == 2
    assert registry.append_batch(NOW) == 0


# --- any order of events


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: the newest acknowledged record decides, and only valid ones get in."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = memory_database(*TABLES)
        self.log, self.clock = MemoryLog(), Clock()
        self.registry = again(self.engine, self.clock, self.log)
        self.newest: dict[str, Action] = {}

    @rule(action=st.sampled_from(Action), ref=st.sampled_from(["anna", "ben"]))
    def sign(self, action: Action, ref: str) -> None:
        head = self.registry.head(ref)
        subject = ANNA if ref == "anna" else BEN
        seq, prev = (1, None) if head is None else (head.seq + 1, head.digest)
        self.registry.submit(record(action, subject=subject, seq=seq, prev=prev), ref)
        self.newest[ref] = action

    @rule(ref=st.sampled_from(["anna", "ben"]))
    def attest(self, ref: str) -> None:
        if ref in self.newest:
            self.registry.withdraw(ref)
            self.newest[ref] = WITHDRAW

    @rule(ref=st.sampled_from(["anna", "ben"]), index=st.integers(0, 3))
    def replay(self, ref: str, index: int) -> None:
        history = self.registry.histories().get(ref, ())
        if index < len(history):
            self.registry.submit(history[index], ref)

    @rule(hours=st.integers(-23, 48))
    def move_clock(self, hours: int) -> None:
        self.clock.now = NOW + timedelta(hours=hours)

    @rule()
    def restart(self) -> None:
        self.registry = again(self.engine, self.clock, self.log)

    @rule()
    def append(self) -> None:
        assert self.registry.append_batch(self.clock.now) == self.log.size - 1

    @invariant()
    def the_newest_record_decides(self) -> None:
        decisions = self.registry.decide_all(use(), self.clock.now, ["anna", "ben", "nobody"])
        permitted = {ref for ref, decision in decisions.items() if decision.permitted}
        assert permitted == {ref for ref, action in self.newest.items() if action is GRANT}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=15, stateful_step_count=12)
