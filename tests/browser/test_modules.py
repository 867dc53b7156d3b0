"""A page asks for all of its script's modules at once, so that a slow network is waited for once."""

from consent_site import Site
from playwright.sync_api import Page

SCRIPTED = ("/invitation", "/return", "/request/research", "/withdraw")


def test_a_page_names_every_module_that_the_browser_loads_for_it(site: Site, page: Page) -> None:
    page.goto(site.invitation("anna"))
    page.get_by_role("button", name="Open my invitation").click()
    for group in page.locator("fieldset[data-purpose]").all():
        group.get_by_role("radio", name="Yes", exact=True).check()
    page.get_by_role("button", name="Review before signing").click()
    page.get_by_role("button", name="Sign", exact=True).click()
    page.wait_for_url("**/receipt/*")
    for path in SCRIPTED:
        loaded: list[str] = []
        page.on("request", lambda asked, loaded=loaded: loaded.append(asked.url) if asked.url.endswith(".js") else None)
        page.goto(path, wait_until="networkidle")
        named: list[str] = page.eval_on_selector_all(
            "link[rel=modulepreload], script[src]", "all => all.map(each => each.href || each.src)"
        )
        assert loaded, path
        assert set(named) == set(loaded), path
