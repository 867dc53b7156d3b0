"""A guardian decides on the page for a child: invited by the officer, signed with their own key, until the majority."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from accessibility import check
from consent_site import Site
from officer_desk import decision, web_of
from person import Person
from playwright.sync_api import BrowserContext, Page, expect

from consent.rules.record import Action, open_record
from consent.web.starter import STARTER


def invited(site: Site, officer: Page, *, days: int) -> str:
    """The officer's way to a guardian's link."""
    officer.goto(site.officer_invitation())
    officer.get_by_role("button", name="Open my invitation").click()
    officer.goto(f"/officer/requests/{STARTER}/invite")
    officer.get_by_role("link", name="Invite a guardian").click()
    check(officer, "a guardian's form")
    officer.get_by_label("Name of the person, as in the data").fill("child-7")
    officer.get_by_label("Name of the guardian").fill("Maria Alves")
    officer.get_by_label("a parent", exact=True).check()
    officer.get_by_label("Day on which the person comes of age").fill(f"{site.clock() + timedelta(days=days):%Y-%m-%d}")
    officer.get_by_role("button", name="Make the link").click()
    return officer.locator(".letter code").inner_text()


def test_a_parent_allows_withdraws_and_hands_over_to_the_child(
    site: Site, page: Page, new_context: Callable[..., BrowserContext]
) -> None:
    link = invited(site, new_context(viewport={"width": 1000, "height": 800}).new_page(), days=40)
    parent = Person(page, site, "child-7")
    page.goto(link)
    parent.click("Open my invitation")
    expect(page.locator(".ward")).to_contain_text("Maria Alves, you act for child-7 as their parent.")
    check(page, "a guardian's request")
    parent.answer(medical=True, origins=False)
    parent.review()
    expect(page.locator("#review")).to_contain_text("You sign for child-7.")
    check(page, "a guardian's review")
    parent.sign()
    expect(page.locator("main")).to_contain_text("The key of Maria Alves, the guardian")

    first = open_record(site.registry.history("child-7")[0])
    assert first.guardian is not None
    assert first.issuer == first.guardian.did != first.subject
    assert first.terms is not None
    assert first.terms.valid_until == first.guardian.majority < site.clock() + timedelta(days=41)
    assert decision(site, "child-7").permitted

    page.get_by_role("button", name="Log out").click()
    page.goto("/return")
    parent.click("Use my key")
    page.wait_for_url("**/mine")
    parent.withdraw()
    second = open_record(site.registry.history("child-7")[1])
    assert (second.action, second.issuer, second.subject) == (Action.WITHDRAW, first.issuer, first.subject)
    assert not decision(site, "child-7").permitted

    site.clock.ahead = timedelta(days=41)
    page.goto("/mine")
    page.wait_for_url("**/return")  # the session is over, and so is what the parent's key opens
    parent.click("Use my key")
    expect(page.locator("#status")).to_contain_text("not known here any more")
    child = Person(new_context().new_page(), site, "child-7")
    child.decide(medical=True, origins=False)
    third = open_record(site.registry.history("child-7")[2])
    assert third.guardian is None
    assert third.issuer == third.subject != first.subject
    assert web_of(site).guardians.who_signed("child-7", first.issuer) is not None
