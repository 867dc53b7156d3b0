from consent_site import Site
from playwright.sync_api import Page


def test_a_stranger_reads_what_this_is(page: Page) -> None:
    page.goto("/")
    assert page.locator("h1").inner_text() == "Your data, your decision"
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_link_fills_in_its_code_and_opens_by_a_click(site: Site, page: Page) -> None:
    page.goto(site.invitation("anna"))
    assert len(page.locator("#code").input_value()) > 25
    page.get_by_role("button", name="Open my invitation").click()
    cookie = next(cookie for cookie in page.context.cookies() if cookie["name"] == "__Host-accord")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
