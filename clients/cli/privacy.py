"""``accord privacy``: try to catch this node's own training leaking more than its budget says."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli.output import JsonOption, emit, group, interactive, note, write_out
from federation.errors import PrivacyError
from federation.rules.instant import format_instant

app = group("Audit the node's own privacy; see what attacks could learn.")


@app.callback()
def privacy() -> None:
    """Audit the node's own privacy; see what attacks could learn."""


@app.command("audit")
def audit_command(
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds instead of about half a minute.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a report page with pictures to this file.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Audit the training that is installed here: made-up persons, the node's own code, nobody's data.

    Ends with 0 where nothing was found and with 5 where a check failed or more leaks than is charged. An honest node is
    accused in at most one audit of a hundred; run it again before you believe a single failure.

    Example: accord privacy audit --quick --out audit.html
    """
    from clients.privacy.audit.auditing import FULL, QUICK, audit
    from clients.privacy.audit.path import AuditedPath
    from clients.privacy.audit.report import headline

    show = (lambda what: note(f"auditing: {what}")) if interactive() else (lambda _what: None)
    report = audit(AuditedPath(), QUICK if quick else FULL, on_step=show)
    if out is not None:
        from clients.privacy.audit.report import page

        write_out(out, page(report, made_at=format_instant(datetime.now(UTC))))
    data = report.to_json() | ({} if out is None else {"page": str(out)})
    emit(data, as_json=as_json, text=_text(data, headline(report)))
    sys.stdout.flush()
    return 0 if report.passed else PrivacyError.exit_code


def _text(data: dict[str, Any], headline: str) -> str:
    width = max(len(check["name"]) for check in data["checks"])
    lines = [headline, ""]
    lines += [f"  {check['verdict']:<10}  {check['name']:<{width}}  {check['measured']}" for check in data["checks"]]
    canaries = data["canaries"]
    tried = f"{canaries['trials']} over {canaries['rounds']} rounds, delta {canaries['delta']:g}"
    exact = f"(exact for these rounds: {canaries['epsilon_claimed_pld']:.4f})"
    lines += [
        "",
        f"Canaries ({tried}, {canaries['confidence']:.0%} confidence):",
        f"  epsilon charged  {canaries['epsilon_claimed']:.4f}   {exact}",
        f"  epsilon proven   {canaries['epsilon_lower_bound']:.4f}   whatever the mechanism",
        f"                   {canaries['epsilon_lower_bound_gaussian']:.4f}   for Gaussian noise",
    ]
    for found in data["membership"]:
        lines.append(f"Membership inference {found['title']}: AUC {found['auc']:.3f} (0.5 is a guess)")
    if data["inversion"]:
        lines.append(
            "Gradient inversion: the record is read back with correlation "
            f"{data['inversion']['correlation_without_privacy']:.3f} without privacy, "
            f"{data['inversion']['correlation_with_privacy']:.3f} with it"
        )
    if "page" in data:
        lines.append(f"Page: {data['page']}")
    return "\n".join(lines)
