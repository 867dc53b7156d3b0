"""Take the pictures of a person's way through the consent pages that the guide shows.

Run it as ``python scripts/screenshot_consent.py docs/images`` with Chromium installed (the pictures in the repository
were taken with the Noto fonts, as Android has them). The institution is made up in a temporary folder; the pages are
the real ones, and what they show was really signed.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from screenshot_report import QUIET

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from consent_site import Site, make_site, served

from consent.registry import RoundOf
from consent.web.officer_coverage import uses_of
from consent.web.starter import STARTER

WIDTH: Final = 360
HEIGHT: Final = 720
GAP: Final = 24
COLOURS: Final = 64
PERSON: Final = "P-017"
STUDY: Final = "heart-2026"
# Pictures of the guide, each of some phones side by side.
SHEETS: Final[Mapping[str, tuple[str, ...]]] = {
    "consent-decide": ("invitation", "request", "protection"),
    "consent-sign": ("choice", "review", "exact"),
    "consent-after": ("receipt", "mine", "rounds"),
    "consent-stop": ("withdraw", "withdrawn", "after"),
    "consent-languages": ("french", "dark", "guardian"),
}


def main() -> None:
    """Walk through the pages as a person does, and lay the pictures out."""
    parser = argparse.ArgumentParser(description="Take the pictures of a person's consent pages.")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is missing: apt-get install chromium")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        served(make_site(Path(place))) as site,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=list(QUIET)) as browser,
    ):
        shots = Path(place) / "shots"
        shots.mkdir()
        walk(site, phone(browser, site), shots)
        others(site, browser, shots)
        for name, parts in SHEETS.items():
            sheet([shots / f"{part}.png" for part in parts], chosen.folder / f"{name}.png")


def phone(browser: Browser, site: Site, *, locale: str = "en-GB", dark: bool = False) -> Page:
    """A page of a phone."""
    return browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        base_url=site.address,
        locale=locale,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        device_scale_factor=1,
    )


def walk(site: Site, page: Page, shots: Path) -> None:
    """Invitation, request, choice, signature, receipt, own page, withdrawal."""
    page.goto(site.invitation(PERSON))
    take(page, shots, "invitation")
    page.locator("main button").click()
    take(page, shots, "request")
    page.locator("#layer-privacy summary").click()
    take(page, shots, "protection", at="#layer-privacy")
    groups = page.locator("fieldset[data-purpose]").all()
    for group, answer in zip(groups, ("yes", "no"), strict=True):
        group.locator(f"input[value={answer}]").check()
    take(page, shots, "choice", at="#decide")
    page.locator("#answers button").last.click()
    page.locator("#review").wait_for()
    take(page, shots, "review", at="#decide")
    page.locator("#exact summary").click()
    take(page, shots, "exact", at="#review")
    page.locator("#sign").click()
    page.wait_for_url("**/receipt/*")
    take(page, shots, "receipt")
    work(site)
    page.goto("/mine")
    take(page, shots, "mine")
    take(page, shots, "rounds", at="#rounds")
    page.goto("/withdraw")
    take(page, shots, "withdraw")
    page.locator("main button").click()
    page.wait_for_url("**/receipt/*")
    take(page, shots, "withdrawn", at="#cannot")
    page.goto("/mine")
    take(page, shots, "after")


def others(site: Site, browser: Browser, shots: Path) -> None:
    """In French, in the dark, and for a child."""
    french = phone(browser, site, locale="fr-FR")
    french.goto(site.invitation("P-018"))
    french.locator("main button").click()
    take(french, shots, "french", at="#read")
    dark = phone(browser, site, dark=True)
    dark.goto(site.invitation("P-019"))
    dark.locator("main button").click()
    take(dark, shots, "dark", at="#decide")
    officer = phone(browser, site)
    officer.goto(site.officer_invitation())
    officer.locator("main button").click()
    officer.goto(f"/officer/requests/{STARTER}/guardian")
    for field, value in (("ref", "P-020"), ("name", "Maria Alves"), ("until", "2031-05-17")):
        officer.fill(f"#{field}", value)
    officer.check("input[value=parent]")
    officer.locator("main form button").click()
    guardian = phone(browser, site)
    guardian.goto(officer.locator(".letter code").inner_text())
    guardian.locator("main button").click()
    take(guardian, shots, "guardian")


def work(site: Site) -> None:
    """Two rounds of a study, and what it passed on."""
    registry = site.registry
    (_, use), *_ = uses_of(site.store.notices(STARTER)[0].asked, registry.institution.did)
    registry.note_study(STUDY, title="Finding heart disease earlier", plan_bytes=b"", epsilon="3", delta="0.00001")
    for number in (1, 2):
        of = RoundOf(STUDY, number)
        registry.decide_all(use, registry.now(), [PERSON], round_use=of)
        registry.finish_round(of, released=True)
        registry.note_model(of, hashlib.sha256(bytes([number])).hexdigest())
    registry.note_spent(STUDY, str(Decimal("0.4")))


def take(page: Page, shots: Path, name: str, *, at: str = "") -> None:
    """What a phone shows, scrolled to a place of the page."""
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    page.evaluate("at => window.scrollTo(0, at ? document.querySelector(at).offsetTop - 16 : 0)", at)
    page.wait_for_timeout(200)
    page.screenshot(path=shots / f"{name}.png")


def sheet(parts: list[Path], picture: Path) -> None:
    """Phones side by side, in few colours: small, and as sharp as they were."""
    shots = [Image.open(part).convert("RGB") for part in parts]
    width = sum(shot.width for shot in shots) + GAP * (len(shots) + 1)
    laid = Image.new("RGB", (width, HEIGHT + 2 * GAP), "#d5dcd9")
    left = GAP
    for shot in shots:
        laid.paste(shot, (left, GAP))
        left += shot.width + GAP
    laid.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
