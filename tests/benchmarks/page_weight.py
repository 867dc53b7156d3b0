"""How heavy the consent pages are and how soon they can be used, in Chromium: a part of ``consent_web.py``.

Weight: what the network stack received for one page with an empty cache (headers included, as compressed), what that is
uncompressed, and in how many requests. Interactive: from the start of the navigation until it is painted first, the
page's own script has run (``DOMContentLoaded`` waits for it), and no task of more than 50 ms follows within a second.
"""

import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_SETTLE_MS = 1000
_READ = """() => {
  const navigation = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {paint: paint ? paint.startTime : 0, ready: navigation.domContentLoadedEventEnd, long: window.longUntil || 0,
          load: navigation.loadEventEnd};
}"""
_WATCH = """new PerformanceObserver(list => { for (const task of list.getEntries())
  window.longUntil = Math.max(window.longUntil || 0, task.startTime + task.duration);
}).observe({type: "longtask", buffered: true});"""


@dataclass(frozen=True, slots=True)
class Conditions:
    """A processor so many times slower, and a network; the throughput and latency are Chromium's own presets."""

    name: str
    slower: int = 1
    bytes_per_s: int = -1
    latency_ms: float = 0


CONDITIONS = (
    Conditions("as it is"),
    Conditions("4x slower, slow 4G", 4, 180_000, 562.5),  # 1.6 Mbit/s * 0.9, 150 ms * 3.75
    Conditions("4x slower, 3G", 4, 50_000, 2000),  # 500 kbit/s * 0.8, 400 ms * 5
)


@dataclass(frozen=True, slots=True)
class Weight:
    """One page with an empty cache."""

    sent: int
    plain: int
    requests: int


@dataclass
class Meter:
    """A page of Chromium whose network and processor are measured and slowed down."""

    page: Page
    cdp: CDPSession
    sent: int = 0
    plain: int = 0
    requests: int = 0

    def start(self) -> None:
        """Count from now on, with an empty cache at each load."""
        self.cdp.send("Network.enable")
        self.cdp.send("Network.setCacheDisabled", {"cacheDisabled": True})
        self.cdp.on("Network.requestWillBeSent", self._asked)
        self.cdp.on("Network.dataReceived", self._received)
        self.cdp.on("Network.loadingFinished", self._finished)
        self.page.add_init_script(_WATCH)

    def under(self, conditions: Conditions) -> None:
        """Slow processor and network down from now on."""
        network = {"offline": False, "latency": conditions.latency_ms}
        network |= {"downloadThroughput": conditions.bytes_per_s, "uploadThroughput": conditions.bytes_per_s}
        self.cdp.send("Network.emulateNetworkConditions", network)
        self.cdp.send("Emulation.setCPUThrottlingRate", {"rate": conditions.slower})

    def weigh(self, path: str) -> Weight:
        """Load a page once and count."""
        self.sent = self.plain = self.requests = 0
        self.page.goto(path)
        self.page.wait_for_timeout(_SETTLE_MS)
        return Weight(self.sent, self.plain, self.requests)

    def interactive_ms(self, path: str, *, loads: int) -> float:
        """The median time until a page can be used."""
        found = []
        for _ in range(loads):
            self.page.goto(path, timeout=120_000)
            self.page.wait_for_timeout(_SETTLE_MS)
            seen: dict[str, float] = self.page.evaluate(_READ)
            found.append(max(seen["paint"], seen["ready"], seen["long"]))
        return statistics.median(found)

    def _asked(self, _: Any) -> None:
        self.requests += 1

    def _received(self, event: Any) -> None:
        self.plain += event["dataLength"]

    def _finished(self, event: Any) -> None:
        self.sent += int(event["encodedDataLength"])


@contextmanager
def phone(address: str) -> Iterator[Meter]:
    """A page of a fresh Chromium as wide as a phone."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-GB", base_url=address)
        page = context.new_page()
        meter = Meter(page, context.new_cdp_session(page))
        meter.start()
        yield meter
        browser.close()


def weights(meter: Meter, pages: dict[str, str], *, loads: int) -> list[list[str]]:
    """The rows of the table: a page's name, its weight, and when it can be used under each of the conditions."""
    rows = []
    for name, path in pages.items():
        weight = meter.weigh(path)
        row = [name, str(weight.requests), f"{weight.sent / 1000:.1f}", f"{weight.plain / 1000:.1f}"]
        for conditions in CONDITIONS:
            meter.under(conditions)
            row.append(f"{meter.interactive_ms(path, loads=loads):,.0f} ms")
        meter.under(CONDITIONS[0])
        rows.append(row)
    return rows
