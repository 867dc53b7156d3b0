"""The page as people see it: in Chromium, on a desk and on a phone, in the light and in the dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from clients.demo.report import write_report

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light"), (320, "dark")])
def test_page_fits_and_is_quiet(
    browser: Browser, report: dict[str, Any], tmp_path: Path, width: int, scheme: Any
) -> None:
    page_path = write_report(report, tmp_path)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator(".chart:visible").count()
    assert shown == page.locator(".chart").count() / 2, "each chart shows the drawing made for this width"
    cut = page.evaluate(
        "[...document.querySelectorAll('.chart svg')].filter((svg) => svg.checkVisibility() && "
        "[...svg.querySelectorAll('text')].some((text) => text.getBoundingClientRect().right > innerWidth)).length"
    )
    assert cut == 0
    context.close()
