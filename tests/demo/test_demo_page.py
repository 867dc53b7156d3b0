"""The page of a full demo, opened in Chromium as the person who ran the demo would."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from running_demo import FinishedDemo

pytestmark = pytest.mark.processes

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
DESK, PHONE = 1100, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(params=[DESK, PHONE])
def page(browser: Browser, demo: FinishedDemo, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page with everything unfolded; it has complained about nothing and asked nobody."""
    opened = browser.new_page(viewport={"width": request.param, "height": 844})
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: requests.append(asked.url))
    address = (demo.folder / "report.html").as_uri()
    opened.goto(address)
    opened.evaluate("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    yield opened
    assert complaints == []
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    opened.close()


def test_page_fits_its_screen(page: Page) -> None:
    assert page.viewport_size is not None
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_page_shows_the_result_the_ledger_and_how_to_verify(page: Page, report: dict[str, Any]) -> None:
    text = re.sub(r"\s+", " ", page.inner_text("body"))
    assert f"{report['summary']['mean_federated']:.3f}" in text
    assert report["log"]["root"] in text
    assert report["log"]["key"] in text
    assert "accord log verify" in text
    ledger = report["ledger"]
    balances = sum(ledger["balances"].values())
    line = f"Minted {ledger['minted']:,} = balances {balances:,} + escrow 0 + burned {ledger['burned']:,}"
    assert line in text
    for party in report["processes"]:
        assert party["peer_id"] in text
        assert str(party["pid"]) in text


def test_page_names_each_hospital_with_its_patients_privacy_and_reward(page: Page, report: dict[str, Any]) -> None:
    text = re.sub(r"\s+", " ", page.inner_text("body"))
    for title in ("Cleveland", "Hungary", "Switzerland", "VA Long Beach"):
        assert title in text
    for figures in report["sites"].values():
        assert f"{figures['auc_federated']:.3f}" in text
        assert f"{figures['reward_microcredits'] / 10**6:,.2f}" in text
    assert "noise" in text
    assert "10.24432/C52P4X" in text, "whose data it is"


def test_every_picture_has_a_text_for_those_who_do_not_see_it(page: Page) -> None:
    pictures = page.locator("svg, img, canvas")
    assert pictures.count() >= 5
    silent = pictures.evaluate_all(
        "(all) => all.filter((picture) => {"
        "  if (picture.closest('[aria-hidden=true]') || picture.parentElement.closest('svg')) return false;"
        "  const labelled = (picture.getAttribute('aria-labelledby') || '').split(' ')"
        "    .map((id) => document.getElementById(id)?.textContent || '').join('');"
        "  const own = picture.getAttribute('aria-label') || picture.getAttribute('alt') || labelled;"
        "  const around = picture.closest('[role=img][aria-label]');"
        "  return !(own.trim() || around);"
        "}).map((picture) => picture.outerHTML.slice(0, 120))"
    )
    assert silent == []
