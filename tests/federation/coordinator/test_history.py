"""The log with its fold: checked, stored, then moved on; and one thing is one entry."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from study_in_memory import key_of, small_plan

from federation.coordinator.history import StudyHistory
from federation.errors import PeerError, UnavailableError
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import Checkpoint, cosign
from federation.rules.entries import AgreementAdmitted, StudyPublished, open_entry
from federation.rules.study import Agreement
from federation.storage.log import MemoryLog

KEY = key_of("coordinator")
PLAN = small_plan(b"", sites=3)
BLOB = sha256_hex(PLAN.sign(KEY).to_bytes())
PUBLISHED = StudyPublished(plan=BLOB, plan_hash=PLAN.plan_hash, minted=PLAN.reward.pool_microcredits)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Hands:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at


def history(log: MemoryLog, clock: Hands | None = None) -> StudyHistory:
    return StudyHistory(plan=PLAN, plan_blob=BLOB, key=KEY, log=log, clock=clock or Hands())


def agree(site: str) -> AgreementAdmitted:
    agreement = Agreement(
        study=PLAN.study_id, plan_hash=PLAN.plan_hash, site=site, nominal_cohort=1, signed_at="2026-11-22T00:00:00Z"
    )
    return AgreementAdmitted(envelope=agreement.sign(key_of(site)).to_bytes().decode())


def test_what_is_appended_is_in_the_log_and_in_the_fold() -> None:
    log = MemoryLog()
    made = history(log)
    state = made.append(PUBLISHED)
    assert (state.published, state.size, log.size) == (True, 1, 1)
    assert open_entry(log.entry(0), signer=KEY.public).body == PUBLISHED
    assert history(log).state == made.state


def test_the_same_command_again_is_the_same_entry() -> None:
    log, clock = MemoryLog(), Hands()
    made = history(log, clock)
    first = made.append(PUBLISHED)
    clock.at += timedelta(hours=1)
    assert made.append(PUBLISHED) == first
    assert history(log, clock).append(PUBLISHED) == first
    assert log.size == 1


def test_what_breaks_a_rule_is_not_stored() -> None:
    log = MemoryLog()
    made = history(log)
    with pytest.raises(PeerError, match="the study is not published"):
        made.append(agree("ash"), party=key_of("ash").public)
    made.append(PUBLISHED)
    with pytest.raises(PeerError, match="the agreement is by another party"):
        made.append(agree("ash"), party=key_of("birch").public)
    assert (log.size, made.state.size) == (1, 1)


def test_time_in_the_log_never_runs_backwards() -> None:
    log, clock = MemoryLog(), Hands()
    made = history(log, clock)
    made.append(PUBLISHED)
    clock.at = NOON - timedelta(days=1)
    assert made.now() == NOON
    made.append(agree("ash"), party=key_of("ash").public)
    assert history(log, clock).state.last_time == NOON


def test_what_was_stored_although_a_failure_was_reported_is_taken_in() -> None:
    class Treacherous(MemoryLog):
        def append(self, entry_id: str, data: bytes) -> int:
            super().append(entry_id, data)
            raise OSError("reported as failed, and stored")

    log, clock = Treacherous(), Hands()
    made = history(log, clock)
    with pytest.raises(OSError, match="reported as failed"):
        made.append(PUBLISHED)
    assert made.state.size == 0
    clock.at += timedelta(seconds=5)
    assert made.append(PUBLISHED).size == 1
    assert log.size == 1


def test_many_threads_append_one_history() -> None:
    log = MemoryLog()
    made = history(log)
    made.append(PUBLISHED)
    sites = ["ash", "birch", "cedar"] * 4
    threads = [
        threading.Thread(target=made.append, args=(agree(site),), kwargs={"party": key_of(site).public})
        for site in sites
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.size == 4
    assert history(log).state == made.state


def test_a_log_of_another_plan_or_key_is_not_opened() -> None:
    log = MemoryLog()
    history(log).append(PUBLISHED)
    with pytest.raises(PeerError, match="it is signed by"):
        StudyHistory(plan=PLAN, plan_blob=BLOB, key=key_of("other"), log=log)
    other = small_plan(b"", sites=3, title="Another study")
    with pytest.raises(PeerError, match="belongs to the study"):
        StudyHistory(plan=other, plan_blob=BLOB, key=KEY, log=log)


def test_a_checkpoint_is_signed_once_for_each_size() -> None:
    log = MemoryLog()
    made = history(log)
    made.append(PUBLISHED)
    signed = made.checkpoint()
    assert signed.checkpoint == Checkpoint(PLAN.origin, 1, log.root())
    assert made.checkpoint() == history(log).checkpoint() == signed
    assert [size for size, _ in log.checkpoints()] == [1]


def test_cosignatures_gather_under_their_checkpoint() -> None:
    log = MemoryLog()
    made = history(log)
    made.append(PUBLISHED)
    for site in ("ash", "birch"):
        made.append(agree(site), party=key_of(site).public)
    checkpoint = made.checkpoint().checkpoint
    made.append(agree("cedar"), party=key_of("cedar").public)
    for site in ("birch", "ash", "birch"):
        made.add_cosignature(3, cosign(checkpoint, key_of(site), timestamp=1))
    stored = log.checkpoint(3)
    assert stored is not None
    assert {item.witness for item in made.open(stored, 3).cosignatures} == {
        key_of("ash").public,
        key_of("birch").public,
    }
    assert made.checkpoint().cosignatures == ()


def test_a_cosignature_of_another_tree_is_refused() -> None:
    log = MemoryLog()
    made = history(log)
    made.append(PUBLISHED)
    made.append(agree("ash"), party=key_of("ash").public)
    made.checkpoint()
    other = Checkpoint(PLAN.origin, 2, bytes(32))
    with pytest.raises(PeerError, match="does not match"):
        made.add_cosignature(2, cosign(other, key_of("ash"), timestamp=1))
    assert made.checkpoint().cosignatures == ()


def test_the_newest_note_is_the_one_that_was_signed_last_with_its_cosignatures() -> None:
    made = history(MemoryLog())
    with pytest.raises(UnavailableError):
        made.newest_note()
    made.append(PUBLISHED)
    made.append(agree("ash"), party=key_of("ash").public)
    signed = made.checkpoint()
    cosigned = made.add_cosignature(2, cosign(signed.checkpoint, key_of("ash"), timestamp=1))
    made.append(agree("birch"), party=key_of("birch").public)
    assert made.newest_note() == cosigned.to_bytes()
