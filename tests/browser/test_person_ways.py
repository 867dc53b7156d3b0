"""Less usual ways through the pages: other browsers, a screen lock, a keyboard, coming back, old links, lies."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from consent_site import Site
from person import Person
from playwright.sync_api import BrowserContext, Page, expect
from sqlmodel import select

from consent.rules.record import Action, open_record
from consent.web.tables import WebPasskey
from federation.rules.canonical import canonical_bytes, sha256_hex
from federation.storage.database import read

WITHOUT_ED25519 = """
if (crypto.subtle) {
  const generate = crypto.subtle.generateKey.bind(crypto.subtle);
  crypto.subtle.generateKey = (algorithm, ...rest) =>
    (algorithm.name ?? algorithm) === "Ed25519"
      ? Promise.reject(new DOMException("not here", "NotSupportedError"))
      : generate(algorithm, ...rest);
}
"""


def say(person: Person, *, yes: bool = True) -> None:
    """Open the invitation and answer every question, up to the review."""
    person.open_invitation()
    names = [str(each.get_attribute("data-purpose")) for each in person.page.locator("fieldset[data-purpose]").all()]
    person.answer(**dict.fromkeys(names, yes))
    person.review()


def actions(site: Site) -> list[Action]:
    return [open_record(data).action for data in site.registry.history("anna")]


def key_kinds(page: Page) -> list[str]:
    """What kinds of key the browser holds; an exportable private key would be a defect."""
    kinds: list[str] = page.evaluate(
        """() => new Promise((resolve, reject) => {
          const opening = indexedDB.open("accord", 1);
          opening.onerror = () => reject(opening.error);
          opening.onsuccess = () => {
            const all = opening.result.transaction("keys").objectStore("keys").getAll();
            all.onsuccess = () => resolve(all.result.map((each) => {
              const secret = each.privateKey ?? each.wrapping;
              return each.kind + (secret.extractable ? " extractable" : "");
            }));
          };
        })"""
    )
    return kinds


def test_the_key_cannot_be_exported(page: Page, site: Site) -> None:
    person = Person(page, site)
    say(person)
    person.sign()
    assert key_kinds(page) == ["native"]


def test_a_browser_without_ed25519_signs_with_the_vendored_code(context: BrowserContext, site: Site) -> None:
    context.add_init_script(WITHOUT_ED25519)
    person = Person(context.new_page(), site)
    say(person)
    person.sign()
    assert key_kinds(person.page) == ["wrapped"]
    person.withdraw()
    newest = open_record(site.registry.history("anna")[-1])
    assert (newest.action, newest.attested) == (Action.WITHDRAW, False), "the same key withdrew"


def test_a_screen_lock_confirms_the_very_document(context: BrowserContext, page: Page, site: Site) -> None:
    devices = context.new_cdp_session(page)
    devices.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    devices.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    person = Person(page, site)
    say(person)
    page.get_by_label("Also confirm with this device's screen lock").check()
    person.sign()
    record = open_record(site.registry.history("anna")[-1])
    with read(site.engine) as session:
        rows = session.exec(select(WebPasskey).where(WebPasskey.digest == record.digest)).all()
    assert [row.ref for row in rows] == ["anna"]
    assert json.loads(rows[0].evidence or "{}")["response"]["signature"]


def test_a_keyboard_is_enough_to_grant_and_to_withdraw(page: Page, site: Site) -> None:
    def press_on(name: str, key: str = "Enter", role: str = "button") -> None:
        target = page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]  # a role by its name
        for _ in range(120):
            if target.first.evaluate("each => each === document.activeElement"):
                page.keyboard.press(key)
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {name!r}")

    page.goto(site.invitation("anna"))
    press_on("Open my invitation")
    page.wait_for_url("**/request/*")
    for group in page.locator("fieldset[data-purpose]").all():
        yes = group.get_by_role("radio", name="Yes", exact=True)
        for _ in range(120):
            if yes.evaluate("each => each === document.activeElement"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(yes).to_be_checked()
    press_on("Review before signing")
    expect(page.locator("#review")).to_be_visible()
    press_on("Sign")
    page.wait_for_url("**/receipt/*")
    page.goto("/mine")
    press_on("Withdraw", role="link")
    page.wait_for_url("**/withdraw")
    press_on("Yes, withdraw")
    page.wait_for_url("**/receipt/*")
    assert actions(site) == [Action.GRANT, Action.WITHDRAW]


def test_the_key_opens_the_page_again(page: Page, site: Site) -> None:
    person = Person(page, site)
    say(person)
    person.sign()
    page.context.clear_cookies()
    page.goto("/return")
    person.click("Use my key")
    page.wait_for_url("**/mine")


def test_a_browser_that_holds_no_key_is_told_so(page: Page) -> None:
    page.goto("/return")
    expect(page.locator("#status")).to_contain_text("holds no key")


def test_an_expired_link_signs_nobody_in(page: Page, site: Site) -> None:
    link = site.invitation("anna", lasts=timedelta(hours=1))
    site.clock.ahead = timedelta(hours=2)
    page.goto(link)
    page.get_by_role("button", name="Open my invitation").click()
    page.wait_for_load_state()
    assert "/request/" not in page.url
    page.goto("/mine")
    assert "/mine" not in page.url


def test_a_look_at_a_link_does_not_use_it_up(
    page: Page, site: Site, new_context: Callable[..., BrowserContext]
) -> None:
    link = site.invitation("anna")
    new_context().new_page().goto(link)  # as a messenger's preview does
    page.goto(link)
    page.get_by_role("button", name="Open my invitation").click()
    page.wait_for_url("**/request/*")


def altered(prepared: dict[str, object]) -> dict[str, object]:
    """Another document than the one that was handed out, with its own, fitting hash."""
    document = json.loads(json.dumps(prepared["document"]))
    document["credentialSubject"]["epsilonMax"] = "8"
    return {**prepared, "document": document, "hash": sha256_hex(canonical_bytes(document))}


@pytest.mark.parametrize("consistent", [True, False], ids=["its hash altered too", "its hash left alone"])
def test_an_altered_document_is_not_taken(page: Page, site: Site, consistent: bool) -> None:
    def meddle(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]  # Playwright's Route
        told = response.json()
        changed = altered(told)
        if not consistent:
            changed["hash"] = told["hash"]
        route.fulfill(response=response, json=changed)  # type: ignore[attr-defined]  # as above

    page.route("**/api/prepare", meddle)
    person = Person(page, site)
    say(person)
    person.click("Sign")
    expect(page.locator("#status")).to_contain_text("not accepted")
    assert actions(site) == []
