"""A real Chromium: one for each file, a fresh context (cookies, keys) for each test, and a site for each test.

The context fails its test when a page breaks the content policy, throws, or asks any other site for anything.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from consent_site import Site, make_site, served
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 15_000


@pytest.fixture(scope="module")  # Playwright allows one at a time: other folders start their own
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program is not None, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(make_site(tmp_path)) as running:
        yield running


class Watch:
    """What a context's pages did that they must not do."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.asked: list[str] = []

    def add(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", lambda said: self._console(said.type, said.text))

    def request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _console(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:
            self.problems.append(f"console: {text}")


@pytest.fixture
def new_context(browser: Browser, site: Site) -> Iterator[Callable[..., BrowserContext]]:
    """Makes contexts; all are watched and closed at the end of the test."""
    made: list[tuple[BrowserContext, Watch]] = []

    def make(**options: object) -> BrowserContext:
        usual = {"viewport": {"width": 390, "height": 844}, "locale": "en-GB", "base_url": site.address}
        context = browser.new_context(**{**usual, **options})  # type: ignore[arg-type]  # Playwright's own options
        context.set_default_timeout(PATIENCE_MS)
        watch = Watch()
        context.on("page", watch.add)
        context.on("request", watch.request)
        made.append((context, watch))
        return context

    yield make
    for context, watch in made:
        context.close()
        elsewhere = [url for url in watch.asked if not url.startswith((site.address + "/", "blob:" + site.address))]
        assert elsewhere == [], "a page asked another site"
        assert watch.problems == [], "a page broke its policy or threw"


@pytest.fixture
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    """A phone with a fresh Chromium."""
    return new_context()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
