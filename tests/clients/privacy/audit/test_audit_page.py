"""The audit's page and figures: complete, self-contained, and true to what was found."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from faulty_training import PlainTraining, Seeded

from clients.privacy.audit.auditing import LEVEL, AuditReport, Effort, audit
from clients.privacy.audit.findings import Verdict
from clients.privacy.audit.inversion import SIDE, drawing
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.report import headline, page

SMALL = Effort(noise_rounds=4, sampler_steps=10, neighbours=4, canary_runs=2, membership_models=16)


def run(fault: str | None = None) -> AuditReport:
    source = Seeded(np.random.default_rng(4))
    path = AuditedPath(noise=lambda: source, train=PlainTraining(fault))
    return audit(path, SMALL, coins=np.random.default_rng(2))


@pytest.fixture(scope="module")
def honest() -> AuditReport:
    return run()


@pytest.fixture(scope="module")
def faulty() -> AuditReport:
    return run("no-noise")


class Links(HTMLParser):
    """Every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]


def test_the_page_says_what_was_found_and_asks_the_network_for_nothing(honest: AuditReport) -> None:
    html = page(honest, made_at="2026-11-25T00:00:00Z")
    links = Links()
    links.feed(html)
    assert all(link.startswith(("#", "data:")) for link in links.found)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert all(f'<th scope="row">{check.name}</th>' in html for check in honest.checks)
    assert html.count("<svg") == 8  # four pictures, each for a wide screen and for a phone
    assert f"{honest.canaries.claimed:.2f}" in html
    assert "<h1>Nothing was found</h1>" in html


def test_a_failed_audit_is_told_on_top(faulty: AuditReport) -> None:
    html = page(faulty, made_at="2026-11-25T00:00:00Z")
    assert "<h1>This node leaks more than it charges</h1>" in html
    assert "One check failed (noise-variance)." in headline(faulty)
    assert "must not train" in headline(faulty)
    assert re.search(r'tag loss">failed', html)
    assert re.search(r'tag unclear">not judged', html)  # the shape of noise that is not there


def test_figures_are_json_and_complete(honest: AuditReport) -> None:
    figures = json.loads(json.dumps(honest.to_json(), allow_nan=False))
    assert figures["passed"] is honest.passed is True
    assert figures["level"] == LEVEL
    assert [check["name"] for check in figures["checks"]] == [check.name for check in honest.checks]
    assert 0 <= figures["canaries"]["epsilon_lower_bound"] <= figures["canaries"]["epsilon_claimed"]
    assert figures["canaries"]["confidence"] == pytest.approx(0.95)


def test_what_fails_makes_what_hangs_on_it_not_judged(faulty: AuditReport) -> None:
    verdicts = {check.name: check.verdict for check in faulty.checks}
    assert verdicts["noise-variance"] is Verdict.FAILED
    assert verdicts["noise-shape"] is Verdict.NOT_JUDGED


def test_membership_and_inversion_succeed_without_privacy_and_fail_with_it(honest: AuditReport) -> None:
    without, with_privacy = honest.memberships
    assert without.auc > 0.8
    assert with_privacy.auc < 0.65
    assert without.tpr_low > 2 * with_privacy.tpr_low
    assert honest.inversion is not None
    assert honest.inversion.correlation_without > 0.999
    assert abs(honest.inversion.correlation_with) < 0.35
    np.testing.assert_allclose(honest.inversion.without, drawing(), atol=1e-5)
    assert drawing().shape == (SIDE, SIDE)


def test_without_noise_the_record_is_read_back(faulty: AuditReport) -> None:
    assert faulty.inversion is not None
    assert faulty.inversion.correlation_with > 0.999


def test_demonstrations_can_be_left_out(honest: AuditReport) -> None:
    html = page(replace(honest, memberships=(), inversion=None), made_at="2026-11-25T00:00:00Z")
    assert "Can one read a record back?" not in html
    assert html.count("<svg") == 4
