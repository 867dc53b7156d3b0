"""Take the picture of a report that README shows.

Run it as ``python scripts/screenshot_report.py DIR/report.html docs/images/report.png`` with Chromium installed.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

WIDTH: Final = 1100
HEIGHT: Final = 900
MARGIN: Final = 24
QUIET: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Open the page, save it down to the comparison."""
    parser = argparse.ArgumentParser(description="Take the picture of a report.")
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    chosen = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is missing: apt-get install chromium")
    chosen.picture.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(chosen.page.resolve().as_uri())
        chart = page.locator("#comparison .chart.wide").first.bounding_box()
        if chart is None:
            sys.exit(f"{chosen.page} is not a report: it has no comparison.")
        height = chart["y"] + chart["height"] + MARGIN
        page.screenshot(path=chosen.picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()
    print(f"{chosen.picture}: {chosen.picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
