"""axe-core and the reflow rule, on one page in one state: both colour schemes, a desktop and the narrowest screen."""

from __future__ import annotations

import json
from typing import Any, Final

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# 1280 x 1024 at 400 %: 320 x 256 (WCAG 2.2, 1.4.10).
VIEWS: Final = (("light", 1280, 900), ("dark", 320, 256))
_RUN: Final = (
    "axe.run(document, %s).then(found => found.violations.map(item => [item.id, item.help,"
    " ...item.nodes.slice(0, 3).map(node => node.target.join(' ') + ' ' + node.html.slice(0, 160))]))"
)


def problems(page: Page) -> list[Any]:
    """What axe-core finds on the page as it is now."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
    found: list[Any] = page.evaluate(_RUN % json.dumps(options))
    return found


def too_wide(page: Page) -> list[str]:
    """What makes a reader scroll sideways; nothing, if the page itself fits."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
        [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .slice(0, 5).map(e => e.outerHTML.slice(0, 160))"""
    )
    return found


def check(page: Page, state: str) -> None:
    """Assert that nobody is kept out of this page in this state."""
    for scheme, width, height in VIEWS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # one of Playwright's own words
        page.set_viewport_size({"width": width, "height": height})
        found = [*problems(page), *too_wide(page)]
        assert not found, f"{state}, {scheme}, {width} pixels: {found}"
