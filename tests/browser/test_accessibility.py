"""Nobody is kept out: axe-core finds nothing in any state, everything fits 320 pixels, a keyboard is enough."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from accessibility import VIEWS, check, problems, too_wide
from consent_site import Site, make_site, served
from officer_desk import answer, decision
from playwright.sync_api import Browser, BrowserContext, Page, expect

from consent.registry import RoundOf
from consent.web.officer_coverage import uses_of
from consent.web.officer_publishing import publish
from consent.web.request import ConsentRequest
from consent.web.security import Limits, Rate
from consent.web.starter import STARTER


def opened(page: Page, site: Site, ref: str = "anna") -> None:
    """Open an invitation."""
    page.goto(site.invitation(ref))
    page.get_by_role("button", name="Open my invitation").click()


def choose(page: Page, answer: str) -> None:
    """Answer every question with yes or no, and go on to the review."""
    for group in page.locator("fieldset[data-purpose]").all():
        group.get_by_role("radio", name=answer, exact=True).check()
    page.get_by_role("button", name="Review before signing").click()
    page.get_by_role("button", name="Sign", exact=True).wait_for()


def renew(site: Site) -> None:
    """Publish a version that asks everybody again."""
    asked = site.store.notices(STARTER)[-1].asked
    said = {name: text.model_copy(update={"why": f"For more ({name})."}) for name, text in asked.words.items()}
    changed = ConsentRequest.model_validate(asked.model_copy(update={"words": said}).model_dump())
    publish(site.store, site.registry, STARTER, changed, change="It says more.", material=True)


def test_a_stranger_s_pages_and_the_error_pages(site: Site, page: Page) -> None:
    for path in ("/", "/about", "/invitation", "/return", "/nothing-here", "/officer"):
        page.goto(path)
        check(page, path)
    used = site.invitation("ben")
    for _ in range(2):
        page.context.clear_cookies()
        page.goto(used)
        page.get_by_role("button", name="Open my invitation").click()
    check(page, "a used link")
    page.fill("#code", "0000")
    page.get_by_role("button", name="Open my invitation").click()
    check(page, "an unknown code")
    opened(page, site, "carl")
    page.wait_for_url("**/request/*")
    site.clock.ahead = timedelta(minutes=31)
    page.goto("/mine")
    expect(page.locator("main")).to_contain_text("You have been signed out")
    check(page, "signed out")


def test_a_request_in_every_state(site: Site, page: Page) -> None:
    opened(page, site)
    check(page, "a request, layers closed")
    page.evaluate("document.querySelectorAll('.layers details').forEach(item => item.open = true)")
    check(page, "a request, layers open")
    page.get_by_role("button", name="Review before signing").click()
    check(page, "an answer is missing")
    choose(page, "Yes")
    check(page, "the review")
    page.get_by_text("See the exact text to be signed").click()
    check(page, "the exact text")
    page.context.set_offline(True)
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.locator("#status")).to_contain_text("did not work")
    check(page, "signing did not work")
    page.context.set_offline(False)
    page.get_by_role("button", name="Sign", exact=True).click()
    page.wait_for_url("**/receipt/*")
    check(page, "a receipt of a yes")


def test_what_is_a_person_s_own(site: Site, page: Page) -> None:
    opened(page, site)
    page.goto("/mine")
    check(page, "my consents, empty")
    answer(site, "anna")
    (_, use), *_ = uses_of(site.store.notices(STARTER)[0].asked, site.registry.institution.did)
    for number in (1, 2):
        site.registry.decide_all(use, site.registry.now(), ["anna"], round_use=RoundOf("heart", number))
    site.registry.finish_round(RoundOf("heart", 1), released=True)
    site.registry.note_model(RoundOf("heart", 1), "ab" * 32)
    site.registry.note_study("heart", title="A heart study", plan_bytes=b"", epsilon="1", delta="0.00001")
    site.registry.note_spent("heart", "0.4")
    page.goto("/mine")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    check(page, "my consents")
    page.goto("/withdraw")
    check(page, "withdraw")
    renew(site)
    page.goto("/mine")
    check(page, "asked again")
    page.goto(f"/request/{STARTER}")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    check(page, "what changed")
    page.goto("/withdraw")
    page.get_by_role("button", name="Yes, withdraw").click()
    page.wait_for_url("**/receipt/*")
    check(page, "a receipt of a withdrawal")


def test_pages_that_ask_to_wait_and_that_refuse(tmp_path: Path, browser: Browser) -> None:
    hasty = Limits(opening=Rate(1, 0.001))
    with (
        served(make_site(tmp_path, limits=hasty)) as site,
        browser.new_context(base_url=site.address) as context,
    ):
        page = context.new_page()
        page.goto("/invitation")
        for _ in range(2):
            page.fill("#code", "0000")
            page.get_by_role("button", name="Open my invitation").click()
        expect(page.locator("h1")).to_have_text("Please wait a moment")
        check(page, "429")
        page.goto("about:blank")
        page.set_content(f'<form method="post" action="{site.address}/language"><button>Go</button></form>')
        page.get_by_role("button").click()
        expect(page.locator("h1")).to_have_text("This request did not come from this page")
        check(page, "403")


def test_everything_is_said_in_french_and_portuguese_too(
    site: Site, new_context: Callable[..., BrowserContext]
) -> None:
    """Longer words on the narrowest screen."""
    answer(site, "anna")
    for locale in ("fr-FR", "pt-PT"):
        page = new_context(locale=locale, viewport={"width": 320, "height": 256}).new_page()
        page.goto(site.officer_invitation())
        page.locator("main button").click()
        for path in ("/officer/requests/new", f"/officer/requests/{STARTER}/coverage"):
            page.goto(path)
            assert page.locator("html").get_attribute("lang") == locale[:2]
            assert (problems(page), too_wide(page)) == ([], []), (locale, path)
        page.goto(site.invitation(f"ben-{locale}"))
        page.locator("main button").click()
        page.wait_for_url("**/request/*")
        assert (problems(page), too_wide(page)) == ([], []), locale


def focused(page: Page) -> str:
    """What has the focus, and whether somebody who looks can see that."""
    found: str = page.evaluate(
        """() => { const e = document.activeElement; const s = getComputedStyle(e.matches(".yes-no input") ?
        e.nextElementSibling : e); const seen = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
        return (seen ? "" : "UNSEEN ") + (e.name ? e.name + "=" + e.value : e.textContent.trim().slice(0, 40)); }"""
    )
    return found


def press_until(page: Page, wanted: str, *, key: str = "Tab") -> list[str]:
    """Press a key until the focus is on what is wanted; what was passed."""
    passed: list[str] = []
    for _ in range(80):
        page.keyboard.press(key)
        passed.append(focused(page))
        if wanted in passed[-1]:
            return passed
    raise AssertionError(f"{wanted} cannot be reached with a keyboard: {passed}")


def test_a_keyboard_is_enough_to_grant_and_to_withdraw(site: Site, page: Page) -> None:
    page.goto(site.invitation("anna"))
    passed = press_until(page, "Open my invitation")
    page.keyboard.press("Enter")
    page.wait_for_url("**/request/*")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for purpose in page.locator("fieldset[data-purpose]").all():
        passed += press_until(page, f"{purpose.get_attribute('data-purpose')}=yes")
        page.keyboard.press("Space")
    passed += press_until(page, "Review before signing")
    page.keyboard.press("Enter")
    expect(page.locator("#review h2")).to_be_focused()
    passed += press_until(page, "Sign")
    page.keyboard.press("Enter")
    page.wait_for_url("**/receipt/*")
    assert decision(site, "anna").permitted
    passed += press_until(page, "My consents")
    page.keyboard.press("Enter")
    page.wait_for_url("**/mine")
    passed += press_until(page, "Withdraw")
    page.keyboard.press("Enter")
    page.wait_for_url("**/withdraw")
    passed += press_until(page, "Yes, withdraw")
    page.keyboard.press("Enter")
    page.wait_for_url("**/receipt/*")
    assert not decision(site, "anna").permitted
    assert [name for name in passed if name.startswith("UNSEEN")] == []


def test_nothing_moves_for_who_asked_for_stillness(site: Site, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    opened(page, site)
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(e => { const s = getComputedStyle(e);
        return s.animationName !== "none" || s.transitionDuration.split(",").some(t => parseFloat(t) > 0); }).length"""
    )
    assert moving == 0


def test_a_receipt_prints_without_the_page_s_furniture(site: Site, page: Page) -> None:
    answer(site, "anna")
    opened(page, site)
    page.goto(f"/receipt/{site.registry.heads()['anna'].digest}")
    page.emulate_media(media="print")
    for selector in ("nav", ".languages", ".actions", ".bottom"):
        assert not page.locator(selector).first.is_visible(), selector
    assert page.locator("h1").is_visible()
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    assert VIEWS[1][1] == 320


def test_the_check_finds_what_is_planted(page: Page) -> None:
    page.goto("/invitation")
    page.evaluate(
        "document.querySelector('label').remove(); document.querySelector('h1').style.width = '2000px';"
        "document.querySelector('h1').style.color = '#999'"
    )
    found = {item[0] for item in problems(page)}
    assert {"label", "color-contrast"} <= found
    assert too_wide(page) != []
