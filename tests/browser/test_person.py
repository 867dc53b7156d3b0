"""A person's whole way through the pages in a real browser: enrol, decide, sign, read the receipt, withdraw."""

from consent_site import Site
from person import Person
from playwright.sync_api import Page, expect

from consent.rules.record import Action, open_record


def actions(site: Site, ref: str) -> list[Action]:
    return [open_record(data).action for data in site.registry.history(ref)]


def purposes_of(page: Page) -> list[str]:
    return [str(each.get_attribute("data-purpose")) for each in page.locator("fieldset[data-purpose]").all()]


def test_a_person_grants_and_withdraws_in_no_more_clicks(page: Page, site: Site) -> None:
    person = Person(page, site)
    person.open_invitation()
    assert page.locator("input[type=radio]:checked").count() == 0
    person.answer(**dict.fromkeys(purposes_of(page), True))
    person.review()
    person.sign()
    granting = person.clicks
    assert actions(site, "anna") == [Action.GRANT]
    person.clicks = 0
    person.withdraw()
    assert person.clicks <= granting
    assert actions(site, "anna") == [Action.GRANT, Action.WITHDRAW]


def test_a_no_to_everything_is_signed_as_a_refusal(page: Page, site: Site) -> None:
    person = Person(page, site)
    person.open_invitation()
    person.answer(**dict.fromkeys(purposes_of(page), False))
    person.review()
    person.sign()
    assert actions(site, "anna") == [Action.REFUSE]


def test_a_used_invitation_says_so(page: Page, site: Site) -> None:
    person = Person(page, site)
    link = site.invitation("anna")
    page.goto(link)
    person.click("Open my invitation")
    page.context.clear_cookies()
    page.goto("/")
    page.goto(link)
    person.click("Open my invitation")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert "/request/" not in page.url


def test_withdrawing_needs_no_key(page: Page, site: Site) -> None:
    person = Person(page, site)
    person.open_invitation()
    person.answer(**dict.fromkeys(purposes_of(page), True))
    person.review()
    person.sign()
    page.evaluate(
        "async () => { for (const each of await indexedDB.databases()) indexedDB.deleteDatabase(each.name); }"
    )
    person.withdraw()
    record = open_record(site.registry.history("anna")[-1])
    assert record.action is Action.WITHDRAW
