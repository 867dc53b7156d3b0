"""The owner of devices gives one licence for the whole source on the page, and takes it back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from consent_site import Site
from officer_desk import Desk, answer, desk_of, fields, words
from test_officer import OUTLINE

from consent.registry import LICENCE_REF
from consent.rules.decision import Status
from consent.rules.record import Mechanism, open_record
from consent.web.officer_coverage import uses_of
from consent.web.officer_people import person_id

REQUEST = "heart-2027"
STATION = {
    "mechanism": "licence",
    "purposes": ["DUO:0000042"],
    "diseases": "",
    "data": ["device"],
    "words.en.disease": "",
    "words.fr.disease": "",
}


@pytest.fixture
def desk(site: Site) -> Iterator[Desk]:
    made = desk_of(site)
    yield made
    made.client.close()


def test_an_owner_is_asked_once_for_the_whole_source(site: Site, desk: Desk) -> None:
    draft = desk.post("/officer/requests/draft", {**OUTLINE, **STATION}, status=200).text
    assert "the readings of your devices" in words(draft)
    desk.post(f"/officer/requests/{REQUEST}/publish", fields(draft))
    assert "One person decides here for the whole source" in words(desk.get(f"/officer/requests/{REQUEST}/invite"))
    sheet = words(desk.post(f"/officer/requests/{REQUEST}/invite", status=200).text)
    assert "1 invitation" in sheet
    assert "the owner of the whole source" in sheet

    answer(site, LICENCE_REF, request=REQUEST)
    record = open_record(site.registry.history(LICENCE_REF)[0])
    assert record.mechanism is Mechanism.LICENCE
    assert record.statement is not None
    assert record.statement.legal_basis == ("dpv:Contract",)
    notice = site.store.open_request(REQUEST)
    assert notice is not None
    (_, use), *_ = uses_of(notice.asked, site.registry.institution.did)
    assert site.registry.decide_all(use, site.registry.now(), ["2026-05-17"])["2026-05-17"].permitted
    assert "Yes, may be used 1" in words(desk.get(f"/officer/requests/{REQUEST}/coverage"))

    desk.post(f"/officer/people/{person_id(LICENCE_REF)}/withdraw")
    decided = site.registry.decide_all(use, site.registry.now(), ["2026-05-17"])["2026-05-17"]
    assert decided.status is Status.WITHDRAWN
    assert "the owner of the whole source" in words(desk.get("/officer/withdrawals"))
