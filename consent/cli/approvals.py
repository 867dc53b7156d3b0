"""``accord consent approve | approvals | disapprove``: what a person found where a machine cannot decide."""

from datetime import timedelta
from typing import Annotated

import typer
from pydantic import ValidationError

from consent.cli.texts import instant
from consent.registry import Registry
from consent.registry.approving import KeptApproval
from consent.rules.approval import Approval
from consent.rules.duo import MODIFIERS, label_of
from federation.cli.output import DirOption, JsonOption, emit
from federation.errors import OperatorError
from federation.rules.instant import format_instant
from federation.rules.study import open_plan
from federation.rules.wire import describe

_SHORT = 12


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog="Example: accord consent approve --dir cleveland --study heart-disease-0123456789ab"
        " --restriction DUO:0000021 --by 'Dr. Ada Okoro' --grounds 'Ethics committee, 2026/117'"
    )(approve)
    app.command("approvals", epilog="Example: accord consent approvals --dir cleveland")(approvals_)
    app.command(epilog="Example: accord consent disapprove 3f9c --dir cleveland")(disapprove)


def approve(
    *,
    folder: DirOption,
    restriction: Annotated[
        str, typer.Option(help="The DUO code of the restriction, as the decision names it.", show_default=False)
    ],
    by: Annotated[str, typer.Option(help="Who judged it.", show_default=False)],
    grounds: Annotated[str, typer.Option(help="On what grounds: a committee and a number.", show_default=False)],
    study: Annotated[str | None, typer.Option(help="The study's id, once the node has run in it.")] = None,
    plan_hash: Annotated[str | None, typer.Option(help="Or the hash of its plan (`accord agreement review`).")] = None,
    named: Annotated[str, typer.Option(help="What the restriction names, as the decision says it, if anything.")] = "",
    valid_until: Annotated[str | None, typer.Option(help="Until when it counts; a year, if it is left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Record what a person found: that a study keeps to a restriction which a machine cannot judge.

    Only decisions that end in "a person has to judge" change, only for this study's plan, this restriction and what it
    names. A no stays a no, and whoever withdraws or refuses is left out as ever.
    """
    from consent.cli.consent import _registry  # the group, which this command belongs to

    registry, _ = _registry(folder)
    if restriction not in MODIFIERS:
        raise OperatorError(
            f"--restriction: {restriction[:40]!r} is no DUO restriction.",
            remedy=f"Write one of: {', '.join(sorted(MODIFIERS))}.",
        )
    now = registry.now()
    ends = now + timedelta(days=365) if valid_until is None else instant(valid_until, "--valid-until")
    try:
        approval = Approval(
            duo=restriction,
            named=named,
            plan_hash=_plan_hash(registry, study, plan_hash),
            by=by,
            grounds=grounds,
            given_at=format_instant(now),
            valid_until=format_instant(ends),
        )
    except ValidationError as error:
        raise OperatorError(
            f"This is no approval: {describe(error)}.",
            remedy="A plan's hash has 64 digits (0-9, a-f); --by and --grounds take 1 to 2000 characters each.",
        ) from error
    if approval.ends <= now:
        raise OperatorError("The approval would be over already.", remedy="Give a later --valid-until.")
    registry.approve(approval)
    kept = KeptApproval(approval, None)
    emit(_shown(kept), as_json=as_json, text=f"Recorded.\n{_line(kept)}")


def approvals_(*, folder: DirOption, as_json: JsonOption = False) -> None:
    """List what people found, what still counts, and what was taken back."""
    from consent.cli.consent import _registry  # as above

    kept = _registry(folder)[0].approvals()
    text = "\n".join(_line(each) for each in kept) or "Nobody has approved anything."
    emit({"approvals": [_shown(each) for each in kept]}, as_json=as_json, text=text)


def disapprove(
    *,
    identifier: Annotated[str, typer.Argument(help="The beginning of its identifier.", show_default=False)],
    folder: DirOption,
    as_json: JsonOption = False,
) -> None:
    """Take an approval back. It counts for no decision from now on."""
    from consent.cli.consent import _registry  # as above

    registry, _ = _registry(folder)
    kept = registry.disapprove(identifier)
    emit(_shown(kept), as_json=as_json, text=f"Taken back.\n{_line(kept)}")


def _plan_hash(registry: Registry, study: str | None, plan_hash: str | None) -> str:
    """The hash of the plan that is meant.

    Raises:
        OperatorError: none, or both, are named, or the study is not known here.
    """
    if (study is None) == (plan_hash is None):
        raise OperatorError("Which study?", remedy="Give either --study or --plan-hash.")
    if plan_hash is not None:
        return plan_hash
    row = next((row for row in registry.studies() if row.study == study), None)
    if row is None or not row.plan:
        known = ", ".join(row.study for row in registry.studies()) or "none yet"
        raise OperatorError(
            f"The study {str(study)[:100]} is not known here (known: {known}).",
            remedy="Start the node once, or give --plan-hash from `accord agreement review --json`.",
        )
    return open_plan(row.plan)[0].plan_hash


def _shown(kept: KeptApproval) -> dict[str, str | None]:
    approval = kept.approval
    return {
        "identifier": approval.identifier,
        "restriction": approval.duo,
        "named": approval.named,
        "plan_hash": approval.plan_hash,
        "by": approval.by,
        "grounds": approval.grounds,
        "given_at": approval.given_at,
        "valid_until": approval.valid_until,
        "revoked_at": kept.revoked_at,
    }


def _line(kept: KeptApproval) -> str:
    approval = kept.approval
    state = f"taken back {kept.revoked_at}" if kept.revoked_at else f"until {approval.valid_until}"
    named = f" ({approval.named})" if approval.named else ""
    return (
        f"{approval.identifier[:_SHORT]}  {approval.duo} {label_of(approval.duo)}{named}\n"
        f"{'':<{_SHORT}}  plan {approval.plan_hash[:_SHORT]}, {state}\n"
        f"{'':<{_SHORT}}  {approval.by}: {approval.grounds}"
    )
