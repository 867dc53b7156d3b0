"""What a person does in the browser, step by step, with its clicks counted."""

from dataclasses import dataclass

from consent_site import Site
from playwright.sync_api import Page, expect


@dataclass
class Person:
    """A person at a browser."""

    page: Page
    site: Site
    ref: str = "anna"
    clicks: int = 0

    def click(self, name: str, role: str = "button") -> None:
        self.page.get_by_role(role, name=name, exact=True).click()  # type: ignore[arg-type]  # a role by its name
        self.clicks += 1

    def open_invitation(self) -> None:
        self.page.goto(self.site.invitation(self.ref))
        self.click("Open my invitation")

    def answer(self, **answers: bool) -> None:
        for purpose, yes in answers.items():
            group = self.page.locator(f"fieldset[data-purpose={purpose}]")
            group.get_by_role("radio", name="Yes" if yes else "No", exact=True).click()
            self.clicks += 1

    def review(self) -> None:
        self.click("Review before signing")
        expect(self.page.locator("#review")).to_be_visible()

    def sign(self) -> None:
        self.click("Sign")
        self.page.wait_for_url("**/receipt/*")

    def decide(self, **answers: bool) -> None:
        self.open_invitation()
        self.answer(**answers)
        self.review()
        self.sign()

    def withdraw(self) -> None:
        self.page.goto("/mine")
        self.click("Withdraw", "link")
        self.page.wait_for_url("**/withdraw")  # with its script: a faster click lets the institution attest
        self.click("Yes, withdraw")
        self.page.wait_for_url("**/receipt/*")
