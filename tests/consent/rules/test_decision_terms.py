"""What a decision weighs beyond the newest record's action: the study's word, witnesses, notices, guardians, kinds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, chain, person, record, terms, use
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.rules.decision import Decision, Head, NoticePolicy, Status, objection, permits, use_of
from consent.rules.duo import Declared
from consent.rules.guardian import issue_authority
from consent.rules.record import Action, ConsentRecord, Mechanism, build, next_key_hash, open_record, sign_record
from consent.rules.statement import DataPermit, Notice, Party, Statement
from federation.errors import OperatorError
from federation.rules.canonical import sha256_hex
from federation.rules.study import plan_from_toml

GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW
CODE = "c0de" * 16


def signed(action: Action = GRANT, *, key: Any = ANNA, signer: Any = None, seq: int = 1, **changes: Any) -> bytes:
    """A record with whatever :func:`build` takes."""
    usual: dict[str, Any] = {
        "subject": key.public,
        "institution": HOSPITAL.public,
        "action": action,
        "seq": seq,
        "prev": None,
        "valid_from": NOW - DAY,
        "terms": terms() if action is GRANT else None,
    }
    return sign_record(build(**{**usual, **changes}), signer or key, created=NOW - DAY)


def answer(decision: Decision) -> tuple[Status, tuple[str, ...]]:
    assert decision.permitted is (decision.status is Status.PERMITTED) is (not decision.reasons)
    return decision.status, tuple(given.code for given in decision.reasons)


def test_the_use_carries_what_the_study_declares() -> None:
    consent = record(purposes=("DUO:0000006", "DUO:0000046"))
    assert answer(permits([consent], use(), NOW)) == (Status.NEEDS_PERSON, ("needs_person",))
    assert permits([consent], use(declared=Declared(commercial=False)), NOW).permitted
    decision = permits([consent], use(declared=Declared(commercial=True)), NOW)
    assert answer(decision) == (Status.NOT_COVERED, ("modifier",))
    assert decision.reasons[0].values == {"about": "NCU", "duo": "DUO:0000046"}
    assert decision.sentence == "Not permitted: the consent excludes commercial use."


def test_a_hard_no_beside_a_question_is_a_no() -> None:
    consent = record(purposes=("DUO:0000006", "DUO:0000021"))
    assert answer(permits([consent], use(epsilon=Decimal(8)), NOW)) == (Status.NOT_COVERED, ("needs_person", "epsilon"))


def test_a_time_limit_is_judged_at_the_moment_of_use() -> None:
    consent = record(purposes=("DUO:0000006", "DUO:0000025"), conditions={"DUO:0000025": ("2026-12-01",)})
    assert permits([consent], use(), NOW).until == datetime(2026, 12, 1, tzinfo=UTC)  # before the consent's own end
    assert permits([record()], use(), NOW).until == NOW + 365 * DAY
    assert answer(permits([consent], use(), datetime(2026, 12, 1, tzinfo=UTC)))[1] == ("modifier",)


@pytest.mark.parametrize(
    ("code", "expected"), [((CODE,), True), ((), False), ((CODE, "0" * 64), False), (("0" * 64,), False)]
)
def test_a_consent_to_one_program_allows_no_other(code: tuple[str, ...], expected: bool) -> None:
    assert permits([record(code_hash=CODE)], use(code=code), NOW).permitted is expected
    assert permits([record()], use(code=code), NOW).permitted


@pytest.mark.parametrize(("rounds", "reason"), [(5, None), (6, "rounds"), (None, "rounds_unknown")])
def test_a_limit_on_rounds(rounds: int | None, reason: str | None) -> None:
    decision = permits([record(rounds_max=5)], use(rounds=rounds), NOW)
    assert [given.code for given in decision.reasons] == ([] if reason is None else [reason])


def test_a_grant_waits_for_its_witnesses_and_a_no_never_does() -> None:
    asked: list[str] = []

    def nobody(given_: ConsentRecord) -> bool:
        asked.append(given_.digest)
        return False

    history = chain(GRANT)
    assert answer(permits(history, use(), NOW, binding=nobody)) == (Status.PENDING, ("pending",))
    assert asked == [sha256_hex(history[0])]
    assert permits(history, use(), NOW, binding=lambda _: True).permitted
    for history in (chain(GRANT, WITHDRAW), chain(REFUSE)):
        assert permits(history, use(), NOW, binding=nobody).status in {Status.WITHDRAWN, Status.REFUSED}
    assert len(asked) == 1


def test_a_grant_under_a_notice_that_was_replaced_is_a_no() -> None:
    old = Notice(hash="a" * 64, version="1", language="en")
    consent = signed(statement=Statement.for_institution(HOSPITAL.public.did, notice=old))
    assert permits([consent], use(), NOW, notices=NoticePolicy()).permitted
    assert answer(permits([consent], use(), NOW, notices=NoticePolicy(frozenset({old.hash})))) == (
        Status.EXPIRED,
        ("notice",),
    )
    assert permits([consent], use(), NOW, notices=NoticePolicy(known=frozenset({old.hash}))).permitted
    assert not permits([consent], use(), NOW, notices=NoticePolicy(known=frozenset({"b" * 64}))).permitted


def test_a_guardians_grant_ends_when_the_child_comes_of_age() -> None:
    mother, majority = person("mother"), NOW + 100 * DAY
    authority = issue_authority(
        issuer=HOSPITAL, guardian=mother.public, ward=ANNA.public, valid_from=NOW - 10 * DAY, majority=majority
    )
    consent = signed(signer=mother, guardian=authority, terms=terms(valid_until=majority))
    assert permits([consent], use(), majority - DAY).permitted
    assert answer(permits([consent], use(), majority)) == (Status.EXPIRED, ("majority",))


def test_a_rotated_key_continues_and_a_strangers_does_not() -> None:
    new = person("anna's next key")
    first = signed(next_key_hash=next_key_hash(new.public.did))
    second = signed(key=new, seq=2, prev=sha256_hex(first))
    assert permits([first, second], use(), NOW).permitted
    stranger = signed(key=BEN, seq=2, prev=sha256_hex(first))
    assert answer(permits([first, stranger], use(), NOW)) == (Status.INVALID, ("two_subjects",))


PERMIT = DataPermit(number="FDPA-2026-17", body=Party(name="Health data access body"), user=Party(name="Sponsor"))


def test_a_permit_speaks_for_the_source_and_an_opt_out_for_the_person() -> None:
    permit = signed(mechanism=Mechanism.EHDS_PERMIT, permit=PERMIT)
    assert permits([permit], use(kind=Mechanism.EHDS_PERMIT), NOW).permitted
    assert answer(permits([permit], use(), NOW)) == (Status.INVALID, ("other_mechanism",))

    out = signed(REFUSE, key=BEN, mechanism=Mechanism.EHDS_OPTOUT)
    back = signed(WITHDRAW, key=BEN, mechanism=Mechanism.EHDS_OPTOUT, seq=2, prev=sha256_hex(out))
    where = HOSPITAL.public.did
    stays_out = objection([out], institution=where)
    assert stays_out is not None
    assert answer(stays_out) == (Status.REFUSED, ("opted_out",))
    assert answer(permits([out], use(kind=Mechanism.EHDS_PERMIT), NOW)) == (Status.REFUSED, ("opted_out",))
    assert answer(permits([out], use(), NOW)) == (Status.REFUSED, ("opted_out",))
    assert objection([out, back], institution=where) is None
    assert not permits([out, back], use(), NOW).permitted


def test_whoever_said_no_for_themselves_objects() -> None:
    where = HOSPITAL.public.did
    assert objection((), institution=where) is None
    assert objection(chain(GRANT), institution=where) is None
    for history, status in ((chain(REFUSE), Status.REFUSED), (chain(GRANT, WITHDRAW), Status.WITHDRAWN)):
        found = objection(history, institution=where)
        assert found is not None
        assert found.status is status
    head = Head(2, "0" * 64)
    for history in ((), chain(GRANT), (b"{}",), chain(GRANT, WITHDRAW)[1:]):
        found = objection(history, institution=where, head=head)
        assert found is not None
        assert found.status is Status.INVALID


PLAN = """
name = "small"
title = "A small study"
sponsor = "sponsor"
origin = "accord.test/small"
code_approved = ["CODE"]
model = { family = "logistic" }
privacy = { unit = "subject", epsilon = 2, delta = "1e-6", clip = 1 }
training = { learning_rate = 0.25 }
rounds = { count = 7, participants = 2, quorum = 2, deadline_s = 60 }
cohort = { minimum = 5 }
aggregation = { rule = "weighted-mean", norm_bound = 10 }
valuation = { method = "shapley", utility = "negative-log-loss" }
reward = { pool_microcredits = 0 }
validation = { rule = "made for tests", commitment = "CODE" }
[schema]
subject = "patient"
label = { name = "ill", negative = "no", positive = "yes" }
columns = [{ type = "number", name = "age", low = 0, high = 100 }]
[purpose]
duo = "DUO:0000007"
disease = "MONDO:0005010"
statement = "A test."
""".replace("CODE", CODE)
DECLARATIONS = """
commercial = false
organisation = "not-for-profit"
countries = ["FR", "PT"]
methods_development = false
ancestry = false
genetic = false
clinical_care = true
research_types = ["cardiology"]
institutions = ["Hospital"]
users = ["Dr Silva"]
project = "HEART"
publication_from = "2030-01-01"
approvals = ["CPP 12-34"]
"""


def test_a_plans_declarations_reach_the_decision() -> None:
    silent, plan = (plan_from_toml(text, source="plan.toml") for text in (PLAN, PLAN + DECLARATIONS))
    asked = use_of(plan, HOSPITAL.public.did)
    assert (asked.epsilon, asked.rounds, asked.code) == (Decimal(2), 7, (CODE,))
    assert asked.declared == Declared(
        commercial=False,
        organisation="not-for-profit",
        countries=("FR", "PT"),
        methods_development=False,
        ancestry=False,
        genetic=False,
        clinical_care=True,
        research_types=("cardiology",),
        institutions=("Hospital",),
        users=("Dr Silva",),
        project="HEART",
        publication_from=datetime(2030, 1, 1, tzinfo=UTC),
        approvals=("CPP 12-34",),
        study=(plan.study_id, plan.plan_hash),
    )
    assert use_of(silent, HOSPITAL.public.did).declared == Declared(study=(silent.study_id, silent.plan_hash))
    consent = record(purposes=("DUO:0000006", "DUO:0000022", "DUO:0000043"), conditions={"DUO:0000022": ("FR", "PT")})
    assert permits([consent], asked, NOW).permitted
    assert permits([consent], use_of(silent, HOSPITAL.public.did), NOW).status is Status.NEEDS_PERSON
    own = record(purposes=("DUO:0000006", "DUO:0000027"), conditions={"DUO:0000027": (silent.plan_hash,)})
    assert permits([own], use_of(silent, HOSPITAL.public.did), NOW).permitted


def test_what_a_plan_does_not_declare_is_not_in_its_hash() -> None:
    silent = plan_from_toml(PLAN, source="plan.toml")
    assert b"commercial" not in silent.to_payload()
    assert silent.plan_hash == "43110b3b38d69d5080494713a54bf9918592282b9197208de708b7f091d3b6e9"
    assert plan_from_toml(PLAN + "commercial = false", source="plan.toml").plan_hash != silent.plan_hash


@pytest.mark.parametrize(
    "line",
    [
        'organisation = "charity"',
        'countries = ["France"]',
        "countries = []",
        'publication_from = "2030-02-30"',
        'users = [""]',
        'project = ""',
        'unheard_of = "x"',
        "commercial = 1.5",
    ],
)
def test_a_wrong_declaration_is_named(line: str) -> None:
    with pytest.raises(OperatorError, match=f"purpose.{line.split(maxsplit=1)[0]}"):
        plan_from_toml(PLAN + line, source="plan.toml")


@given(st.data())
@settings(max_examples=60)
def test_no_byte_of_a_permitted_history_can_be_changed(data: st.DataObject) -> None:
    history = list(chain(GRANT, WITHDRAW, GRANT))
    number = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, len(history[number]) - 1))
    flip = data.draw(st.integers(1, 255))
    mutated = bytearray(history[number])
    mutated[place] ^= flip
    history[number] = bytes(mutated)
    assert not permits(history, use(), NOW).permitted


@given(st.lists(st.integers(0, 2), max_size=5))
@settings(max_examples=60)
def test_dropping_reordering_or_repeating_never_stays_permitted(order: list[int]) -> None:
    history = chain(GRANT, WITHDRAW, GRANT)
    told = [history[number] for number in order]
    decision = permits(told, use(), NOW, head=Head(3, sha256_hex(history[-1])))
    assert decision.permitted is (order == [0, 1, 2])
    # Without the acknowledged head only a valid earlier state of the same chain can stand.
    assert not permits(told, use(), NOW).permitted or order in ([0], [0, 1, 2])


def test_two_branches_of_one_chain_never_both_stand() -> None:
    first, withdrawal = chain(GRANT, WITHDRAW)
    other = record(after=first)  # the fork: a grant where the acknowledged chain holds a withdrawal
    head = Head(2, sha256_hex(withdrawal))
    assert answer(permits([first, other], use(), NOW, head=head)) == (Status.INVALID, ("rolled_back",))
    assert answer(permits([first, withdrawal, other], use(), NOW))[0] is Status.INVALID


def test_a_reader_that_remembers_gives_the_same_answer() -> None:
    known = {data: open_record(data) for data in chain(GRANT)}
    assert permits(chain(GRANT), use(), NOW, reader=known.__getitem__) == permits(chain(GRANT), use(), NOW)
    assert replace(use(), epsilon=Decimal(4)) != use()
