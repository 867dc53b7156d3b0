"""The kinds of record beside a person's consent, statements, and guardians."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, OTHER_HOSPITAL, person, terms

from consent.rules.guardian import issue_authority
from consent.rules.record import Action, ConsentRecord, Mechanism, build, open_record, sign_record
from consent.rules.refusal import RefusedRecordError
from consent.rules.statement import (
    STANDARD_NOTICE,
    DataPermit,
    HipaaAuthorization,
    Notice,
    Party,
    Statement,
    notice_of,
)
from federation.rules.canonical import sha256_hex
from federation.rules.keys import PrivateKey

PARENT, COURT = person("parent"), person("court")
MAJORITY = NOW + 1000 * DAY
PERMIT = DataPermit(number="HDAB-1", body=Party(name="The body"), user=Party(name="The user", contact="tel:1"))
HIPAA = HipaaAuthorization(
    information="Laboratory values",
    discloser=Party(name="The hospital"),
    recipients=(Party(name="The study"),),
    purpose="Research",
    expiration="The end of the study",
    right_to_revoke="In writing, at any time",
    conditioning="Treatment does not depend on it",
    redisclosure="Recipients may disclose it again",
)


def made(
    action: Action = Action.GRANT, *, key: PrivateKey = ANNA, authorities: tuple[str, ...] = (), **changes: Any
) -> ConsentRecord:
    parts: dict[str, Any] = {
        "subject": ANNA.public,
        "institution": HOSPITAL.public,
        "action": action,
        "seq": 1,
        "prev": None,
        "valid_from": NOW,
        "terms": terms() if action is Action.GRANT else None,
    }
    document = build(**{**parts, **changes})
    return open_record(sign_record(document, key, created=NOW), authorities=authorities)


def reason(**parts: Any) -> str:
    with pytest.raises(RefusedRecordError) as caught:
        made(**parts)
    return caught.value.reason


def held(**changes: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "issuer": HOSPITAL,
        "guardian": PARENT.public,
        "ward": ANNA.public,
        "valid_from": NOW - DAY,
        "majority": MAJORITY,
    }
    return issue_authority(**{**parts, **changes})


def test_terms_and_statement_are_read_as_they_were_built() -> None:
    wanted = terms(
        purposes=("DUO:0000006", "DUO:0000022"),
        conditions={"DUO:0000022": ("FR", "PT")},
        code_hash="ab" * 32,
        rounds_max=7,
    )
    standard = Statement.for_institution(HOSPITAL.public.did)
    statement = replace(
        standard,
        controller=Party(name="Hôpital", contact="mailto:dpo@example.org", id=HOSPITAL.public.did),
        recipients=(Party(name="One"), Party(name="Two", id=OTHER_HOSPITAL.public.did)),
        notice=Notice(hash="cd" * 32, version="7", language="pt-BR"),
    )
    record = made(terms=wanted, statement=statement)
    assert (record.terms, record.statement) == (wanted, statement)
    assert made(Action.REFUSE, statement=statement).statement == statement
    assert made(Action.REFUSE).statement is None


def test_a_grant_without_a_statement_gets_the_standard_one() -> None:
    statement = made().statement
    assert statement is not None
    assert statement == Statement.for_institution(HOSPITAL.public.did)
    assert statement.notice == notice_of(STANDARD_NOTICE, version="1", language="en")
    assert statement.notice.hash == sha256_hex(STANDARD_NOTICE.encode())
    assert None not in statement.to_document()["authority"].values()


def test_conditions_belong_to_purposes() -> None:
    assert reason(terms=terms(conditions={"DUO:0000022": ("FR",)})) == "wrong-terms"
    assert reason(terms=terms(code_hash="any")) == "malformed"
    assert reason(terms=terms(rounds_max=0)) == "malformed"


@pytest.mark.parametrize("mechanism", Mechanism)
def test_who_speaks_for_a_whole_source(mechanism: Mechanism) -> None:
    assert mechanism.whole_source is (mechanism.value in {"dpa", "licence", "ehds-permit"})


@pytest.mark.parametrize("mechanism", [Mechanism.DPA, Mechanism.LICENCE])
def test_an_owners_grant_rests_on_a_contract_and_not_on_consent(mechanism: Mechanism) -> None:
    statement = made(mechanism=mechanism).statement
    assert statement is not None
    assert statement.type == "dpv:DataProcessingRecord"
    assert not any(basis.startswith("eu-gdpr:A6-1-a") for basis in statement.legal_basis)


def test_an_authorization_names_its_elements_and_a_permit_its_number() -> None:
    assert made(mechanism=Mechanism.HIPAA_AUTHORIZATION, hipaa=HIPAA).hipaa == HIPAA
    assert made(mechanism=Mechanism.EHDS_PERMIT, permit=PERMIT).permit == PERMIT
    assert reason(mechanism=Mechanism.HIPAA_AUTHORIZATION) == "missing-terms"
    assert reason(mechanism=Mechanism.EHDS_PERMIT) == "missing-terms"
    assert reason(hipaa=HIPAA) == "missing-terms"
    assert reason(permit=PERMIT) == "missing-terms"
    assert reason(action=Action.REFUSE, mechanism=Mechanism.HIPAA_AUTHORIZATION, hipaa=HIPAA) == "wrong-terms"


def test_an_opt_out_never_grants_and_only_the_person_takes_it_back() -> None:
    optout = {"mechanism": Mechanism.EHDS_OPTOUT}
    assert made(Action.REFUSE, **optout).action is Action.REFUSE
    assert made(Action.REFUSE, key=HOSPITAL, issuer=HOSPITAL.public, **optout).attested
    assert made(Action.WITHDRAW, **optout).action is Action.WITHDRAW
    assert reason(**optout) == "wrong-terms"
    assert reason(action=Action.WITHDRAW, key=HOSPITAL, issuer=HOSPITAL.public, **optout) == "attested-withdraw"


def test_a_guardian_speaks_for_a_minor_until_the_day_of_majority() -> None:
    record = made(key=PARENT, guardian=held())
    assert record.guardian is not None
    assert (record.guardian.did, record.guardian.authority) == (PARENT.public.did, HOSPITAL.public.did)
    assert (record.guardian.majority, record.issuer, record.subject) == (MAJORITY, PARENT.public.did, ANNA.public.did)
    assert not record.attested
    until = terms(valid_until=MAJORITY)
    assert made(key=PARENT, guardian=held(), terms=until).terms == until
    late = terms(valid_until=MAJORITY + timedelta(seconds=1))
    assert reason(key=PARENT, guardian=held(), terms=late) == "beyond-majority"
    assert made(Action.WITHDRAW, key=PARENT, guardian=held()).guardian is not None


def test_an_authority_counts_by_the_institution_or_by_name() -> None:
    by_court = held(issuer=COURT)
    assert reason(key=PARENT, guardian=by_court) == "wrong-authority"
    record = made(key=PARENT, guardian=by_court, authorities=(COURT.public.did,))
    assert record.guardian is not None
    assert record.guardian.authority == COURT.public.did


def test_an_authority_that_is_not_in_force_or_not_for_this_is_refused() -> None:
    assert reason(key=PARENT, guardian=held(valid_from=NOW + DAY)) == "expired-authority"
    assert reason(key=PARENT, guardian=held(ward=BEN.public)) == "wrong-authority"
    assert reason(key=BEN, guardian=held()) == "issuer-not-signer"
    with pytest.raises(RefusedRecordError, match="own guardian"):
        held(guardian=ANNA.public)
    with pytest.raises(RefusedRecordError, match="after it begins"):
        held(valid_from=MAJORITY)


def test_a_record_from_the_future_is_refused_by_a_reader_with_a_clock() -> None:
    data = sign_record(
        build(
            subject=ANNA.public,
            institution=HOSPITAL.public,
            action=Action.WITHDRAW,
            seq=1,
            prev=None,
            valid_from=NOW,
        ),
        ANNA,
        created=NOW,
    )
    assert open_record(data, now=NOW - timedelta(minutes=9)).signed_at == NOW
    with pytest.raises(RefusedRecordError) as caught:
        open_record(data, now=NOW - timedelta(minutes=11))
    assert caught.value.reason == "future-time"
