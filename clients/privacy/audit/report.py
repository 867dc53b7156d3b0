"""The audit's report: one self-contained page in the look of all of Accord's pages."""

from clients.pages.page import render
from clients.pages.pictures import picture
from clients.privacy.audit import pictures
from clients.privacy.audit.auditing import TESTS, AuditReport
from clients.privacy.audit.findings import Verdict

PAGE = "audit.html"
_TAGS = {Verdict.PASSED: "gain", Verdict.FAILED: "loss", Verdict.NOT_JUDGED: "unclear"}


def page(report: AuditReport, *, made_at: str) -> str:
    """The page's HTML.

    Args:
        report: what was found.
        made_at: when, as a wire instant.
    """
    canaries = report.canaries
    charts = {
        "bounds": picture(
            "bounds",
            f"Proven epsilon {canaries.lower:.2f} and, for Gaussian noise, {canaries.lower_gaussian:.2f}; claimed "
            f"{canaries.claimed:.2f}.",
            pictures.bounds(canaries),
            height=1.9,
            narrow_height=2.2,
        ),
        "scores": picture(
            "scores",
            "The adversary's scores of canaries that took part and of those that did not.",
            pictures.scores(canaries),
            height=2.6,
        ),
    }
    if report.memberships:
        charts["roc"] = picture(
            "roc",
            "; ".join(f"{found.title}: AUC {found.auc:.2f}" for found in report.memberships),
            pictures.roc(report.memberships),
            height=3.6,
            narrow_height=4.0,
        )
    if report.inversion is not None:
        charts["panels"] = picture(
            "panels",
            f"A drawn X-ray; without privacy it is read back (correlation "
            f"{report.inversion.correlation_without:.2f}), with privacy it is not "
            f"({report.inversion.correlation_with:.2f}).",
            pictures.panels(report.inversion),
            height=3.0,
            narrow_height=10.0,
        )
    return render(
        "clients.privacy.audit",
        PAGE,
        report=report,
        canaries=canaries,
        charts=charts,
        tags=_TAGS,
        tests=TESTS,
        made_at=made_at,
        headline=headline(report),
    )


def headline(report: AuditReport) -> str:
    """The result in one or two sentences."""
    canaries = report.canaries
    if report.passed:
        return (
            f"Nothing was found: all {len(report.checks)} checks passed, and an adversary who sees everything that "
            f"leaves could prove an epsilon of {max(canaries.lower, canaries.lower_gaussian):.2f} where "
            f"{canaries.claimed:.2f} is charged. An audit can only find faults; it cannot prove that there are none."
        )
    parts = []
    if report.findings:
        checks = f"{len(report.findings)} checks" if len(report.findings) > 1 else "One check"
        parts.append(f"{checks} failed ({', '.join(report.findings)}).")
    if canaries.falsified:
        proven = max(canaries.lower, canaries.lower_gaussian)
        parts.append(
            f"An adversary proved that at least epsilon {proven:.2f} leaks where {canaries.claimed:.2f} is charged."
        )
    return " ".join([*parts, "This node must not train until the cause is mended."])
