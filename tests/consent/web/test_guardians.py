"""Who may speak for somebody else on the pages, and when that is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from consent_site import Site
from officer_desk import Desk, answer, desk_of, key_of, web_of, words

from consent.rules.record import sign_record
from consent.web.documents import Prepared, prepare_answer, take_back
from consent.web.guardians import Guardians, Relation
from consent.web.officer_people import erase, person_id
from consent.web.officer_trail import Act, Trail
from consent.web.sessions import Opened, Role, SignedIn
from consent.web.starter import STARTER
from federation.errors import ConsentError

WARD = "child-7"
PERSON = f"/officer/people/{person_id(WARD)}"
FIELDS = {"name": "Maria Alves", "relation": "parent", "until": "2041-05-17"}


@pytest.fixture
def desk(site: Site) -> Iterator[Desk]:
    made = desk_of(site)
    yield made
    made.client.close()


def appoint(site: Site, *, days: int = 30) -> Guardians:
    until = site.clock() + timedelta(days=days)
    web_of(site).guardians.appoint(WARD, name="Maria Alves", relation=Relation.PARENT, until=until)
    return web_of(site).guardians


def prepared(site: Site, *, ward: bool = True) -> Prepared:
    """The document that a guardian's browser asks for."""
    notice = site.store.open_request(STARTER)
    assert notice is not None
    return prepare_answer(
        web_of(site),
        SignedIn(Role.PERSON, WARD, STARTER, site.clock()),
        did=key_of("guardian").public.did,
        notice=notice,
        language="en",
        choices={purpose.key: True for purpose in notice.asked.purposes},
        ward=key_of("nobody").public.did if ward else None,
    )


def sign(site: Site, document: Prepared) -> None:
    record = sign_record(document.document, key_of("guardian"), created=site.registry.now())
    take_back(web_of(site), SignedIn(Role.PERSON, WARD, STARTER, site.clock()), record)


def test_a_form_that_is_filled_in_wrongly_appoints_nobody(site: Site, desk: Desk) -> None:
    for wrong in ({"name": ""}, {"relation": "aunt"}, {"until": "17 May"}, {"until": "2020-01-01"}, {"ref": "a\nb"}):
        sent = {"ref": WARD, **FIELDS, **wrong}
        shown = desk.post(f"/officer/requests/{STARTER}/guardian", sent, status=422).text
        assert f'id="{next(iter(wrong))}-problem"' in shown
        assert desk.site.store.did_of(WARD) is None
    assert web_of(site).guardians.of(WARD) is None


def test_an_appointment_closes_what_was_open_and_its_end_does_too(site: Site, desk: Desk) -> None:
    before, unused = site.sessions.begin(Role.PERSON, WARD)[0], site.code(WARD)
    shown = words(desk.post(f"{PERSON}/guardian", FIELDS, status=200).text)
    assert "1 invitation" in shown
    assert site.sessions.who(before) is None
    assert site.sessions.open_invitation(unused) is Opened.EXPIRED
    assert "Maria Alves decides for this person, as their parent, until 17 May 2041." in words(desk.get(PERSON))
    during = site.sessions.begin(Role.PERSON, WARD)[0]
    desk.post(f"{PERSON}/guardian/end")
    assert site.sessions.who(during) is None
    assert web_of(site).guardians.of(WARD) is None
    acts = [entry.act for entry in Trail(site.engine, clock=site.clock).entries(newest=2)]
    assert acts == [Act.GUARDIAN, Act.GUARDIAN]


def test_a_guardian_s_link_opens_nothing_from_the_day_of_majority_on(site: Site, client: httpx.Client) -> None:
    appoint(site, days=1)
    code = site.code(WARD)
    site.clock.ahead = timedelta(days=1, seconds=1)
    assert client.post("/invitation", data={"code": code}).status_code == 410
    assert client.post("/invitation", data={"code": site.code(WARD)}).status_code == 303  # the person's own


def test_what_a_guardian_was_given_to_sign_is_not_taken_once_they_are_dismissed(site: Site) -> None:
    guardians = appoint(site)
    document = prepared(site)
    guardians.dismiss(WARD)
    with pytest.raises(ConsentError, match="Who speaks here has changed"):
        sign(site, document)
    assert site.registry.head(WARD) is None


def test_a_guardian_signs_for_the_key_that_already_stands_for_the_person(site: Site) -> None:
    answer(site, WARD)
    site.registry.withdraw(WARD)
    appoint(site)
    document = prepared(site, ward=False)
    sign(site, document)
    assert document.document["credentialSubject"]["id"] == key_of(WARD).public.did
    assert document.document["issuer"] == key_of("guardian").public.did


def test_without_a_key_for_the_person_nothing_is_prepared(site: Site) -> None:
    appoint(site)
    with pytest.raises(ConsentError, match="No key stands for the person"):
        prepared(site, ward=False)


def test_erasing_a_person_erases_who_spoke_for_them(site: Site) -> None:
    guardians = appoint(site)
    sign(site, prepared(site))
    did = key_of("guardian").public.did
    assert guardians.ref_of(did) == WARD
    erase(web_of(site), WARD)
    assert (guardians.of(WARD), guardians.ref_of(did), guardians.who_signed(WARD, did)) == (None, None, None)
