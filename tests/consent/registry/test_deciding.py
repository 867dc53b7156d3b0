"""Decisions that are remembered are those that would be made anew."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, person, record, terms, use
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from registry_parts import Clock, again, status
from sqlalchemy import Engine, event

from consent.registry import LICENCE_REF, TABLES, Registry, deciding
from consent.registry.judging import instants
from consent.rules.decision import Status, Use
from consent.rules.record import Action, Mechanism, build, next_key_hash, open_record, sign_record
from federation.errors import UnavailableError
from federation.rules.checkpoint import cosign
from federation.storage.database import memory_database
from federation.storage.log import MemoryLog

GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW
PEOPLE = {"anna": ANNA, "ben": BEN, "cleo": person("cleo")}
WITNESS = person("witness")
EVERYBODY = [*PEOPLE, "nobody"]


def test_a_permission_begins_and_ends_with_its_day_though_nothing_was_written(registry: Registry) -> None:
    registry.submit(record(valid_from=NOW + DAY, valid_until=NOW + 2 * DAY), "anna")
    found = [status(registry, now=NOW + hours * timedelta(hours=1)) for hours in (0, 23, 24, 47, 48)]
    assert found == [Status.INVALID, Status.INVALID, Status.PERMITTED, Status.PERMITTED, Status.EXPIRED]


def test_a_notice_that_was_replaced_carries_no_grant_until_it_is_named_no_more(registry: Registry) -> None:
    data = record()
    registry.submit(data, "anna")
    statement = open_record(data).statement
    assert statement is not None
    assert status(registry) is Status.PERMITTED
    registry.replace_notices([statement.notice.hash])
    assert status(registry) is Status.EXPIRED
    registry.replace_notices(["0" * 64])
    assert status(registry) is Status.PERMITTED


def test_a_key_that_was_announced_may_take_over(registry: Registry) -> None:
    document = build(
        subject=ANNA.public,
        institution=HOSPITAL.public,
        action=GRANT,
        seq=1,
        prev=None,
        valid_from=NOW - DAY,
        terms=terms(),
        next_key_hash=next_key_hash(BEN.public.did),
    )
    first = sign_record(document, ANNA, created=NOW - DAY)
    registry.submit(first, "anna")
    receipt = registry.submit(record(after=first, subject=BEN), "anna")
    assert receipt.subject == BEN.public.did
    assert status(registry) is Status.PERMITTED


def test_who_objects_is_left_out_of_what_the_holder_of_a_source_allows(registry: Registry) -> None:
    kind = Mechanism.LICENCE
    registry.submit(record(mechanism=kind, subject=person("owner")), LICENCE_REF)
    registry.submit(record(REFUSE), "anna")
    registry.submit(record(REFUSE, subject=BEN, mechanism=Mechanism.EHDS_OPTOUT), "ben")
    asked = registry.decide_all(use(kind=kind), NOW, EVERYBODY)
    assert {ref: decision.status for ref, decision in asked.items()} == {
        "anna": Status.REFUSED,
        "ben": Status.REFUSED,
        "cleo": Status.PERMITTED,
        "nobody": Status.PERMITTED,
    }
    head = registry.heads()["ben"].digest
    registry.submit(record(WITHDRAW, subject=BEN, mechanism=Mechanism.EHDS_OPTOUT, seq=2, prev=head), "ben")
    assert status(registry, "ben", kind=kind) is Status.PERMITTED
    registry.withdraw("ben")  # what the institution attests in such a chain is the opt-out
    assert status(registry, "ben", kind=kind) is Status.REFUSED
    assert registry.withdraw("ben").seq == 3


def test_coverage_counts_every_status(registry: Registry) -> None:
    registry.submit(record(), "anna")
    registry.submit(record(REFUSE, subject=BEN), "ben")
    counts = registry.coverage(use())
    assert {status_: count for status_, count in counts.items() if count} == {Status.PERMITTED: 1, Status.REFUSED: 1}
    assert registry.coverage(use(), EVERYBODY)[Status.MISSING] == 2
    assert set(counts) == set(Status)


def test_a_record_without_an_acknowledged_head_permits_nothing(engine: Engine, registry: Registry) -> None:
    registry.submit(record(), "anna")
    assert status(registry) is Status.PERMITTED
    off = "PRAGMA foreign_keys = OFF" if engine.dialect.name == "sqlite" else "SET session_replication_role = replica"
    on = "PRAGMA foreign_keys = ON" if engine.dialect.name == "sqlite" else "SET session_replication_role = origin"
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        for statement in (off, "DELETE FROM consent_subject", on):
            cursor.execute(statement)
        raw.commit()
    finally:
        raw.close()
    # A server that is told to fire no trigger hides the change from a running process, never from the next one.
    fresh = again(engine, Clock(), MemoryLog())
    assert status(fresh) is Status.INVALID


def test_a_second_answer_reads_no_record(engine: Engine, registry: Registry) -> None:
    for name, key in PEOPLE.items():
        registry.submit(record(subject=key), name)
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    first = registry.decide_all(use(), NOW, EVERYBODY)
    event.listen(engine, "before_cursor_execute", note)
    assert registry.decide_all(use(), NOW, EVERYBODY) == first
    assert not [statement for statement in seen if "consent_record" in statement]
    registry.withdraw("anna")
    seen.clear()
    assert registry.decide_all(use(), NOW, EVERYBODY)["anna"].status is Status.WITHDRAWN
    assert [statement for statement in seen if "consent_record" in statement]


def test_other_uses_have_decisions_of_their_own_and_only_some_uses_are_remembered(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "USES_MAX", 2)
    registry.submit(record(epsilon_max=use().epsilon), "anna")
    for epsilon in (1, 2, 3, 4, 5, 1):
        expected = Status.PERMITTED if epsilon <= 3 else Status.NOT_COVERED
        assert status(registry, epsilon=type(use().epsilon)(epsilon)) is expected
    assert registry.health().decisions == 2


def test_helping_processes_decide_the_same(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.submit(record(), "anna")
    registry.submit(record(REFUSE, subject=BEN), "ben")
    registry.submit(record(subject=PEOPLE["cleo"], valid_until=NOW + DAY), "cleo")
    alone = registry.decide_all(use(), NOW, EVERYBODY)
    monkeypatch.setattr(deciding, "HELPERS_FROM", 0)
    monkeypatch.setattr(deciding, "CHUNK", 2)
    helped = again(registry._engine, Clock(), MemoryLog())
    assert helped.decide_all(use(), NOW, EVERYBODY) == alone
    monkeypatch.undo()
    assert status(helped, "cleo", now=NOW + DAY) is Status.EXPIRED
    assert status(helped, now=NOW + DAY) is Status.PERMITTED


def test_every_instant_in_a_record_that_may_matter_is_watched() -> None:
    conditions = {"DUO:0000025": ("2027-03-01",)}
    data = record(valid_until=NOW + 9 * DAY, purposes=("DUO:0000042", "DUO:0000025"), conditions=conditions)
    found = open_record(data)
    day = datetime.combine(date(2027, 3, 1), datetime.min.time(), UTC)
    assert set(instants(found)) == {found.valid_from, NOW + 9 * DAY, day}
    assert instants(open_record(record(REFUSE))) == ()


class Remembering(RuleBasedStateMachine):
    """Whatever happens, whoever does it and however the clock moves: the registry that remembers and one that has just
    been opened say the same."""

    uses: tuple[Use, ...] = (use(), use(epsilon=use().epsilon - 2), use(kind=Mechanism.LICENCE))

    def __init__(self) -> None:
        super().__init__()
        self.engine = memory_database(*TABLES)
        self.log, self.clock = MemoryLog(), Clock()
        self.remembers = again(self.engine, self.clock, self.log)
        self.writers: tuple[Callable[[], Registry], ...] = (
            lambda: self.remembers,
            lambda: again(self.engine, self.clock, self.log),
        )

    @rule(
        writer=st.integers(0, 1),
        ref=st.sampled_from(list(PEOPLE)),
        action=st.sampled_from([GRANT, GRANT, REFUSE, WITHDRAW]),
        begins=st.integers(-1, 2),
        lasts=st.integers(1, 3),
    )
    def sign(self, writer: int, ref: str, action: Action, begins: int, lasts: int) -> None:
        head = self.remembers.head(ref)
        begin = NOW + begins * DAY
        data = record(
            action,
            subject=PEOPLE[ref],
            seq=1 if head is None else head.seq + 1,
            prev=None if head is None else head.digest,
            valid_from=begin,
            valid_until=begin + lasts * DAY,
        )
        self.writers[writer]().submit(data, ref)

    @rule(writer=st.integers(0, 1), ref=st.sampled_from(list(PEOPLE)))
    def erase(self, writer: int, ref: str) -> None:
        self.writers[writer]().erase(ref)

    @rule(writer=st.integers(0, 1), needed=st.integers(0, 1))
    def witness(self, writer: int, needed: int) -> None:
        self.writers[writer]().set_witnesses([WITNESS.public.did], needed)

    @rule(writer=st.integers(0, 1))
    def batch(self, writer: int) -> None:
        self.writers[writer]().append_batch(self.clock.now)

    @rule(writer=st.integers(0, 1))
    def speak(self, writer: int) -> None:
        registry = self.writers[writer]()
        checkpoint = registry.checkpoint().checkpoint
        if WITNESS.public in registry.witnesses()[0]:
            word = cosign(checkpoint, WITNESS, timestamp=int(self.clock.now.timestamp()))
            registry.add_cosignature(checkpoint.size, word)

    @rule(hours=st.integers(-12, 30))
    def move_clock(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)

    @invariant()
    def both_say_the_same(self) -> None:
        for asked in self.uses:
            fresh = again(self.engine, self.clock, self.log)
            assert self.answer(self.remembers, asked) == self.answer(fresh, asked)

    def answer(self, registry: Registry, asked: Use) -> object:
        """The decisions; the error of a clock that is far behind the witnesses' time, which decides nothing."""
        try:
            return registry.decide_all(asked, self.clock.now, EVERYBODY)
        except UnavailableError as error:
            return error.message


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=15, stateful_step_count=12)
