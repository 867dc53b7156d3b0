"""The officer's pages in a real browser: every page and state is accessible, and the ways through them work."""

from __future__ import annotations

import re

import pytest
from accessibility import check
from consent_site import Site
from officer_desk import answer, decision
from playwright.sync_api import Page, expect

from consent.registry import RoundOf
from consent.web.officer_coverage import uses_of
from consent.web.officer_people import person_id
from consent.web.starter import STARTER


@pytest.fixture
def desk(site: Site, page: Page) -> Page:
    """An officer who has just signed in."""
    page.goto(site.officer_invitation())
    page.get_by_role("button", name="Open my invitation").click()
    expect(page.locator("h1")).to_have_text("Overview")
    return page


def visit(page: Page, *paths: str) -> None:
    for path in paths:
        page.goto(path)
        page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
        check(page, path)


def test_the_pages_of_a_new_institution(desk: Page) -> None:
    visit(
        desk,
        "/officer",
        f"/officer/requests/{STARTER}/coverage",
        "/officer/people",
        "/officer/withdrawals",
        "/officer/trail",
    )


def test_the_pages_of_an_institution_at_work(site: Site, desk: Page) -> None:
    for number in range(4):
        answer(site, f"P-{number}", yes=number != 2)
    (_, use), *_ = uses_of(site.store.notices(STARTER)[0].asked, site.registry.institution.did)
    names = [f"P-{number}" for number in range(4)]
    site.registry.decide_all(use, site.registry.now(), names, round_use=RoundOf("heart", 1))
    site.registry.withdraw("P-1")
    site.registry.append_batch(site.registry.now())
    desk.goto(f"/officer/requests/{STARTER}/edit")
    desk.get_by_role("button", name="Publish this version").click()
    assert desk.url.endswith("/edit"), "the browser itself asks for what is required"
    for code in ("en", "fr", "pt"):
        desk.locator(f'[name="words.{code}.title"]').fill(f"May scientists learn from your data ({code})?")
    desk.get_by_label("The change, in one or two sentences").fill("A shorter question.")
    desk.get_by_text("Yes. What they agreed to has changed").click()
    desk.get_by_role("button", name="Publish this version").click()
    expect(desk.locator("h1")).to_contain_text("May scientists")
    assert decision(site, "P-0").reasons[0].code == "notice"
    visit(
        desk,
        "/officer",
        "/officer/requests",
        f"/officer/requests/{STARTER}",
        f"/officer/requests/{STARTER}/versions/2",
        f"/officer/requests/{STARTER}/coverage",
        f"/officer/people/{person_id('P-1')}",
        f"/officer/people/{person_id('P-0')}/erase",
        "/officer/withdrawals",
        "/officer/log",
        "/officer/exports",
        "/officer/trail",
    )
    desk.goto(f"/officer/requests/{STARTER}/versions/2")
    styles = desk.evaluate(
        "['del', 'ins'].map(name => getComputedStyle(document.querySelector(name)).textDecorationLine)"
    )
    assert styles == ["line-through", "underline"]


def test_the_forms_say_what_is_wrong_to_everybody(desk: Page) -> None:
    desk.goto("/officer/requests/new")
    desk.locator("#name").fill("heart")
    desk.locator("#contact").fill("privacy@hospital.example")
    desk.locator("#sponsor").fill("Heart Institute")
    desk.get_by_text("People receive no reward.").click()
    desk.get_by_role("button", name="Write the notice").click()
    alert = desk.get_by_role("alert")
    expect(alert).to_contain_text("Please look at these places again")
    check(desk, "an outline with problems")
    alert.get_by_role("link").first.click()
    target = desk.url.partition("#")[2]
    assert desk.locator(f'[id="{target}"]').is_visible()
    for value in ("DUO:0000006", "diagnoses"):
        desk.locator(f'input[value="{value}"]').check()
    desk.locator('input[value="fr"]').uncheck()
    desk.locator('input[value="pt"]').uncheck()
    desk.locator('[name="words.en.title"]').fill("A heart study")
    desk.locator('[name="words.en.why"]').fill("To find heart disease earlier.")
    desk.get_by_role("button", name="Write the notice").click()
    expect(desk.locator("h1")).to_have_text("Words of the notice")
    check(desk, "the words of a notice")
    desk.locator('[name="epsilon_max"]').fill("2")
    desk.get_by_role("button", name="Publish this version").click()
    expect(desk.get_by_role("alert")).to_contain_text("has to name the figure")
    check(desk, "words with a problem")


def test_invitations_are_shown_once_and_print_one_a_page(site: Site, desk: Page) -> None:
    desk.goto(f"/officer/requests/{STARTER}/invite")
    desk.get_by_label("Names of the people").fill("*")
    desk.get_by_role("button", name="Make the links").click()
    check(desk, "names with a problem")
    desk.get_by_label("Names of the people").fill("P-1\nP-2\nP-3")
    desk.get_by_role("button", name="Make the links").click()
    expect(desk.get_by_role("img", name="QR code of the link")).to_have_count(3)
    check(desk, "invitations")
    with desk.expect_download() as download:
        desk.get_by_role("button", name="Save as a table (CSV)").click()
    assert download.value.suggested_filename == "invitations.csv"
    desk.emulate_media(media="print")
    assert not desk.locator("h1").is_visible()
    pages = re.findall(rb"/Type\s*/Page\b", desk.pdf(format="A4"))
    assert len(pages) == 3
    assert site.sessions.pending_invitations("P-2") == 1


def test_erasing_needs_the_name_and_a_keyboard_is_enough(site: Site, desk: Page) -> None:
    answer(site, "anna")
    desk.goto(f"/officer/people/{person_id('anna')}/erase")
    desk.locator("#typed").press_sequentially("ben")
    desk.keyboard.press("Enter")
    expect(desk.get_by_role("alert")).to_contain_text("Nothing was erased.")
    check(desk, "a wrong name")
    desk.locator("#typed").press_sequentially("anna")
    desk.keyboard.press("Enter")
    expect(desk.locator("h1")).to_have_text("The person was erased")
    check(desk, "erased")
    assert site.registry.head("anna") is None
