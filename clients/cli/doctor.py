"""``accord node doctor``: is this machine fit for a study, and if not, what is in the way?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clients.cli.dialling import host_of
from clients.folder import NodeFolder, open_node_folder
from clients.storage import StudyMembership
from federation.cli.output import DirOption, JsonOption, emit, interactive, note
from federation.cli.running import is_running, last_status
from federation.errors import OperatorError, UnavailableError
from federation.rules.keys import PublicKey
from federation.rules.study import StudyPlan, open_agreement, open_plan, plan_from_toml

if TYPE_CHECKING:
    from clients.doctor.findings import Finding

_NOMINAL_COHORT: Final = 300
_SIGNS: Final = {"ok": "ok  ", "warning": "WARN", "failed": "FAIL"}


def doctor(
    folder: DirOption,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="Predict a round of this plan; default: of the study that was joined."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Examine this node's folder, machine and line to the coordinator; every finding comes with its remedy.

    Nobody's data leaves, nothing is charged: what is timed is a round on made-up rows. Ends with 0 where nothing is in
    the way, with 2 where something here must change, with 7 where the network is in the way.

    Example: accord node doctor --dir node
    """
    opened = open_node_folder(folder)
    found = examine(opened, plan_file)
    failed = [finding for finding in found if finding.level == "failed"]
    code = 0 if not failed else max((UnavailableError if each.network else OperatorError).exit_code for each in failed)
    data = {"fit": not failed, "findings": [finding.to_json() for finding in found]}
    emit(data, as_json=as_json, text=_text(data))
    return code


def examine(opened: NodeFolder, plan_file: Path | None) -> "list[Finding]":
    """All findings; what cannot be looked at is said."""
    from clients.doctor import examination
    from clients.doctor.findings import Finding, Level

    membership = _membership(opened)
    plan = _plan(plan_file, membership)
    say = note if interactive() else (lambda _text: None)
    say("looking at the machine")
    found = examination.machine(opened)
    found += examination.data(opened, membership, plan)
    line = None
    if membership is not None and is_running(opened.files):
        there = bool(last_status(opened.files).get("connected"))
        seen = f"The node is running and {'is' if there else 'is not'} connected, so that its line was not measured."
        remedy = "" if there else "Stop it and run the doctor again to see what is in the way."
        found.append(Finding("line", Level.OK if there else Level.WARNING, seen, remedy, network=True))
    elif membership is not None:
        say("measuring the line to the coordinator")
        of_line, line = examination.network(
            opened,
            membership,
            lambda: datetime.now(UTC),
            lambda: host_of(opened, PublicKey.from_did(membership.coordinator)),
        )
        found += of_line
    if plan is not None:
        say("timing a round on made-up rows")
        found.append(examination.round_time(plan, _cohort(membership), line))
    return found


def _membership(opened: NodeFolder) -> StudyMembership | None:
    try:
        return opened.membership()
    except OperatorError:
        return None


def _plan(plan_file: Path | None, membership: StudyMembership | None) -> StudyPlan | None:
    if plan_file is not None:
        try:
            return plan_from_toml(plan_file.read_text("utf-8"), source=str(plan_file))
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{plan_file} cannot be read: {error}.", remedy="Check the path.") from error
    return None if membership is None else open_plan(membership.plan)[0]


def _cohort(membership: StudyMembership | None) -> int:
    if membership is None or not membership.agreement:
        return _NOMINAL_COHORT
    return open_agreement(membership.agreement)[0].nominal_cohort


def _text(data: dict[str, Any]) -> str:
    lines = []
    for finding in data["findings"]:
        lines.append(f"{_SIGNS[finding['level']]}  {finding['check']:<10} {finding['seen']}")
        if finding["remedy"]:
            lines.append(f"{'':<17}what to do: {finding['remedy']}")
    lines += ["", "Nothing is in the way of a study." if data["fit"] else "Something is in the way: see FAIL above."]
    return "\n".join(lines)
