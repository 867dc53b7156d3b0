"""A person's finding answers exactly the question that it was asked, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from consent_people import DAY, HOSPITAL, NOW, OTHER_HOSPITAL, record, use
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.approval import Approval, open_approval
from consent.rules.decision import NoticePolicy, Status, permits
from consent.rules.duo import MODIFIERS, Declared
from consent.rules.record import Action
from federation.errors import PeerError
from federation.rules.instant import format_instant

PLAN, OTHER_PLAN = "ab" * 32, "cd" * 32
ETHICS, COLLABORATION = "DUO:0000021", "DUO:0000020"


def asked(**changes: Any) -> Any:
    return use(**{"duo": "DUO:0000042", "disease": None, "declared": Declared(study=("study", PLAN)), **changes})


def found(**changes: Any) -> Approval:
    usual: dict[str, Any] = {
        "duo": ETHICS,
        "plan_hash": PLAN,
        "by": "Dr. Ada Okoro",
        "grounds": "Ethics committee, 2026/117",
        "given_at": format_instant(NOW - timedelta(hours=1)),
        "valid_until": format_instant(NOW + 10 * DAY),
    }
    return Approval(**{**usual, **changes})


def consent(*restrictions: str, **changes: Any) -> tuple[bytes, ...]:
    return (record(purposes=("DUO:0000042", *restrictions), **changes),)


def test_a_finding_turns_needs_a_person_into_yes_until_it_ends() -> None:
    assert permits(consent(ETHICS), asked(), NOW).status is Status.NEEDS_PERSON
    decision = permits(consent(ETHICS), asked(), NOW, approvals=[found()])
    assert (decision.permitted, decision.until) == (True, NOW + 10 * DAY)
    assert permits(consent(ETHICS), asked(), NOW + 10 * DAY, approvals=[found()]).status is Status.NEEDS_PERSON
    longer = found(valid_until=format_instant(NOW + 20 * DAY))
    assert permits(consent(ETHICS), asked(), NOW, approvals=[found(), longer]).until == NOW + 20 * DAY


@pytest.mark.parametrize(
    "changed",
    [
        {"plan_hash": OTHER_PLAN},
        {"duo": COLLABORATION},
        {"named": "France"},
        {"given_at": format_instant(NOW + DAY)},
        {"valid_until": format_instant(NOW)},
    ],
)
def test_a_finding_about_something_else_changes_nothing(changed: dict[str, Any]) -> None:
    assert permits(consent(ETHICS), asked(), NOW, approvals=[found(**changed)]).status is Status.NEEDS_PERSON


def test_every_restriction_needs_its_own_finding() -> None:
    both = consent(ETHICS, COLLABORATION)
    assert permits(both, asked(), NOW, approvals=[found()]).status is Status.NEEDS_PERSON
    assert permits(both, asked(), NOW, approvals=[found(), found(duo=COLLABORATION)]).permitted


def test_what_a_restriction_names_belongs_to_the_finding() -> None:
    users = "DUO:0000026"
    history = consent(users, conditions={users: ("Dr. Lee",)})
    assert permits(history, asked(), NOW, approvals=[found(duo=users)]).status is Status.NEEDS_PERSON
    assert permits(history, asked(), NOW, approvals=[found(duo=users, named="Dr. Lee")]).permitted


@given(
    st.lists(st.sampled_from(sorted(MODIFIERS)), unique=True, max_size=4),
    st.lists(st.builds(found, duo=st.sampled_from(sorted(MODIFIERS)), plan_hash=st.sampled_from([PLAN, OTHER_PLAN]))),
    st.sampled_from(["grant", "withdrawn", "expired", "other purpose", "epsilon", "notice"]),
)
def test_a_finding_never_turns_a_no_into_a_yes(restrictions: list[str], findings: list[Approval], case: str) -> None:
    history = consent(*restrictions, **({"valid_until": NOW} if case == "expired" else {}))
    wanted, notices = asked(), None
    if case == "withdrawn":
        history = (*history, record(Action.WITHDRAW, after=history[0]))
    elif case == "other purpose":
        history = (record(purposes=("DUO:0000011", *restrictions)),)
    elif case == "epsilon":
        wanted = asked(epsilon=wanted.epsilon + 1)
    elif case == "notice":
        notices = NoticePolicy(known=frozenset())
    without = permits(history, wanted, NOW, notices=notices)
    with_findings = permits(history, wanted, NOW, notices=notices, approvals=findings)
    if without.status is not Status.NEEDS_PERSON:
        assert (with_findings.permitted, with_findings.status) == (without.permitted, without.status)
    assert case == "grant" or not with_findings.permitted


def test_a_finding_is_believed_only_with_the_institutions_signature() -> None:
    data = found().sign(HOSPITAL).to_bytes()
    assert open_approval(data, institution=HOSPITAL.public) == found()
    with pytest.raises(PeerError):
        open_approval(data, institution=OTHER_HOSPITAL.public)
    with pytest.raises(PeerError):
        open_approval(data.replace(b"signature", b"signaturf"), institution=HOSPITAL.public)
    with pytest.raises(PeerError):
        open_approval(found(valid_until="soon").sign(HOSPITAL).to_bytes(), institution=HOSPITAL.public)
