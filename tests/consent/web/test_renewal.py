"""Whoever answered an earlier version is shown what changed, and told whether their yes still counts."""

from __future__ import annotations

import httpx
import pytest
from consent_site import Site
from officer_desk import answer, web_of, words

from consent.web.officer_publishing import publish
from consent.web.renewal import renewal
from consent.web.request import ConsentRequest
from consent.web.sessions import Role
from consent.web.starter import STARTER


def new_version(site: Site, why: str, *, material: bool) -> None:
    asked = site.store.notices(STARTER)[-1].asked
    said = {name: text.model_copy(update={"why": f"{why} ({name})"}) for name, text in asked.words.items()}
    changed = ConsentRequest.model_validate(asked.model_copy(update={"words": said}).model_dump())
    publish(site.store, site.registry, STARTER, changed, change=f"Now it says {why}.", material=material)


@pytest.fixture
def page(site: Site, client: httpx.Client) -> httpx.Client:
    answer(site, "anna")
    token, _ = site.sessions.begin(Role.PERSON, "anna", STARTER)
    client.headers["Cookie"] = f"__Host-accord={token}"
    return client


def test_who_read_the_newest_version_is_told_nothing(site: Site, page: httpx.Client) -> None:
    assert renewal(web_of(site), "anna", "en") is None
    assert "What has changed" not in page.get(f"/request/{STARTER}").text


@pytest.mark.parametrize("material", [False, True])
def test_what_changed_is_shown_with_what_it_means(site: Site, page: httpx.Client, *, material: bool) -> None:
    new_version(site, "something else", material=material)
    new_version(site, "one more thing", material=False)
    found = renewal(web_of(site), "anna", "en")
    assert found is not None
    assert (found.stopped, found.changed) == (material, ("Now it says something else.", "Now it says one more thing."))
    shown = page.get(f"/request/{STARTER}").text
    assert ("Your earlier yes counts no longer" in shown) == material
    assert ("Your earlier answer still counts" in shown) != material
    assert "one more thing" in shown.partition("<ins>")[2]
    assert ("Please answer again" in words(page.get("/mine").text)) == material
    answer(site, "anna")
    assert renewal(web_of(site), "anna", "en") is None


def test_a_no_to_an_earlier_version_is_not_stopped_by_a_new_one(site: Site) -> None:
    answer(site, "ben", yes=False)
    new_version(site, "something else", material=True)
    found = renewal(web_of(site), "ben", "en")
    assert found is not None
    assert not found.stopped


def test_after_a_withdrawal_there_is_nothing_to_renew(site: Site) -> None:
    answer(site, "anna")
    site.registry.withdraw("anna")
    new_version(site, "something else", material=True)
    assert renewal(web_of(site), "anna", "en") is None
