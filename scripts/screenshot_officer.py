"""Take the pictures of the officer's pages that the guide shows.

Run it as ``python scripts/screenshot_officer.py docs/images`` with Chromium installed. The institution and its people
are made up in a temporary folder; the pages are the real ones.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright
from screenshot_report import QUIET

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from consent_site import Site, make_site, served
from officer_desk import answer

from consent.registry import RoundOf
from consent.web.officer_coverage import uses_of
from consent.web.officer_publishing import publish
from consent.web.request import ConsentRequest
from consent.web.sessions import Role
from consent.web.starter import STARTER

WIDTH: Final = 1000
HEIGHT: Final = 760
AROUND: Final = 160
PEOPLE: Final = 90
ROUNDS: Final = 3
PICTURES: Final = {
    "officer-overview": "/officer",
    "officer-coverage": f"/officer/requests/{STARTER}/coverage",
    "officer-version": f"/officer/requests/{STARTER}/versions/2",
}


def main() -> None:
    """Make an institution at work, and take a picture of each page."""
    parser = argparse.ArgumentParser(description="Take the pictures of the officer's pages.")
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
        work(site)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, base_url=site.address, locale="en-GB")
        page.goto(site.officer_invitation())
        page.locator("main button").click()
        for name, path in PICTURES.items():
            take(page, path, chosen.folder / f"{name}.png")


def take(page: Page, path: str, picture: Path) -> None:
    """One picture of one page."""
    page.goto(path)
    changed = page.locator(".diff .changed").first.bounding_box() if page.locator(".diff").count() else None
    if changed is None:
        page.screenshot(path=picture)
    else:  # what changed, and a little around it
        around = {"x": 0, "y": changed["y"] - AROUND, "width": WIDTH, "height": changed["height"] + 2 * AROUND}
        page.screenshot(path=picture, full_page=True, clip=around)
    print(f"{picture}: {picture.stat().st_size} bytes")


def work(site: Site) -> None:
    """Some weeks of an institution: answers, a study, withdrawals, a notice that changed."""
    names = [f"P-{number:03d}" for number in range(1, PEOPLE + 1)]
    for place, name in enumerate(names):
        if place % 9 == 0:
            site.sessions.invite(Role.PERSON, name, request=STARTER)
        else:
            answer(site, name, yes=place % 6 != 0, language=("en", "fr", "pt")[place % 3])
    (_, use), *_ = uses_of(site.store.notices(STARTER)[0].asked, site.registry.institution.did)
    for number in range(1, ROUNDS + 1):
        site.registry.decide_all(use, site.registry.now(), names, round_use=RoundOf("heart", number))
        for name in names[number : number + 2]:
            site.registry.withdraw(name)
        if number < ROUNDS:  # the newest is still running
            site.registry.finish_round(RoundOf("heart", number), released=True)
    asked = site.store.notices(STARTER)[0].asked
    said = {
        name: text.model_copy(update={"data": text.data.replace("age, sex", "year of birth, sex")})
        for name, text in asked.words.items()
    }
    changed = ConsentRequest.model_validate(asked.model_copy(update={"words": said}).model_dump())
    publish(site.store, site.registry, STARTER, changed, change="The year of birth is used instead of the age.")
    site.registry.append_batch(site.registry.now())


if __name__ == "__main__":
    main()
