"""``accord study``: write a plan, check it, publish it, invite institutions, follow it, export it."""

import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli.coordinator import address_of, status_text, study_status
from federation.cli.output import DirOption, JsonOption, emit, group
from federation.cli.running import is_running
from federation.cli.votes import propose, vote, votes
from federation.coordinator.folder import commit_validation, open_coordinator, publish
from federation.coordinator.membership import invite as make_invitation
from federation.errors import OperatorError
from federation.rules.explain import explain
from federation.rules.study import PLAN_BYTES_MAX, StudyPlan, plan_from_toml
from federation.rules.validation import read_validation
from federation.storage.code import code_hash

app = group("Write, check, publish, follow and export a study.")

PlanArgument = Annotated[Path, typer.Argument(help="The plan, a TOML file.")]
StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest.")]

VALIDATION_BYTES_MAX = 64 * 1024 * 1024


@app.command()
def new(
    out: Annotated[Path, typer.Argument(help="Where to write the plan.")],
    folder: DirOption,
    validation: Annotated[
        Path, typer.Option("--validation", help="The sponsor's validation rows (CSV); their hash goes into the plan.")
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", help="The sponsor's root set (CSV): the plan's rule becomes trust-anchored, by it."),
    ] = None,
    template: Annotated[
        Path | None, typer.Option("--from", help="Start from this plan instead of the built-in example.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a plan to start from, with the validation set committed and this version's code approved.

    Example: accord study new plan.toml --dir coordinator --validation validation.csv
    """
    opened = open_coordinator(folder)
    text = read_text(template) if template else _built_in_template()
    commitment = commit_validation(opened, read_bytes(validation, max_bytes=VALIDATION_BYTES_MAX))
    text = _fill(text, "commitment", f'"{commitment}"')
    if root is not None:
        text = _anchored(text, commit_validation(opened, read_bytes(root, max_bytes=VALIDATION_BYTES_MAX)))
    text = _fill(text, "code_approved", f'["{code_hash()}"]')
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OperatorError(f"{out} exists, and nothing is overwritten.", remedy="Choose another name.") from None
    except OSError as error:
        raise OperatorError(f"{out} cannot be written: {error.strerror}.", remedy="Choose another folder.") from error
    emit(
        {"plan": str(out), "validation_commitment": commitment, "code": code_hash()},
        as_json=as_json,
        text=f"The plan is in {out}. Make it yours, then run `accord study validate {out}`.",
    )


@app.command()
def validate(
    plan_file: PlanArgument,
    folder: Annotated[
        Path | None, typer.Option("--dir", envvar="ACCORD_DIR", help="Also check the validation set in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a plan, and show in plain words what it asks of whom.

    Example: accord study validate plan.toml --dir coordinator
    """
    plan = load_plan(plan_file)
    rows = None
    if folder is not None:
        _, data = open_coordinator(folder).validation(plan.validation.commitment)
        rows = len(read_validation(plan, data).subjects)
    text = explain(plan) + f"\n\nThe plan is valid. Its id will be {plan.study_id}."
    data_out = {"valid": True, "study": plan.study_id, "plan_hash": plan.plan_hash, "validation_subjects": rows}
    emit(data_out, as_json=as_json, text=text)


@app.command(name="publish")
def publish_plan(plan_file: PlanArgument, folder: DirOption, as_json: JsonOption = False) -> None:
    """Sign a plan and open it for agreements. A published plan never changes: another text is another study.

    Example: accord study publish plan.toml --dir coordinator
    """
    opened = open_coordinator(folder)
    plan = load_plan(plan_file)
    for commitment in filter(None, (plan.validation.commitment, plan.aggregation.root)):
        read_validation(plan, opened.validation(commitment)[1])
    publish(opened, plan)
    emit(
        {"study": plan.study_id, "plan_hash": plan.plan_hash, "signer": opened.key.public.did},
        as_json=as_json,
        text=f"Published {plan.study_id}.\n"
        f"Next: invite each institution with `accord study invite SITE --dir {folder}`.",
    )


@app.command()
def invite(
    site: Annotated[str, typer.Argument(help="A short name for the institution, as reports will show it.")],
    folder: DirOption,
    study: StudyOption = None,
    web: Annotated[
        bool, typer.Option("--web", help="For a site whose firewall lets out only the web: name a WebSocket address.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an invitation: one string, for one institution, usable once.

    Example: accord study invite cleveland --dir coordinator
    """
    opened = open_coordinator(folder)
    plan, _ = opened.plan(study)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", site):
        raise OperatorError(
            f"{site!r} is not a site name.", remedy="Use small letters, digits, - and _ (for example va_long_beach)."
        )
    invitation = make_invitation(opened.engine, study=plan.study_id, site=site, address=address_of(opened, web=web))
    emit(
        {"invitation": str(invitation), "study": plan.study_id, "site": site, "address": invitation.address},
        as_json=as_json,
        text=str(invitation),
    )


@app.command()
def status(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Where a study stands, and who is awaited for what.

    Example: accord study status --dir coordinator
    """
    opened = open_coordinator(folder)
    data = study_status(opened, study) | {"running": is_running(opened.files)}
    emit(data, as_json=as_json, text=status_text(data))


@app.command()
def pause(
    folder: DirOption,
    reason: Annotated[str, typer.Option("--reason", help="Why; `status` shows it.", show_default=False)],
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open no further round until the study is resumed; the round in progress ends as it would. Nothing is lost.

    Example: accord study pause --dir coordinator --reason "the ethics board asked for it"
    """
    from federation.coordinator.pausing import pause as note_pause

    opened = open_coordinator(folder)
    plan, _ = opened.plan(study)
    made = note_pause(opened.files.path, plan.study_id, reason, now=datetime.now(UTC))
    emit(
        {"study": plan.study_id, "paused": True, "reason": made.reason, "since": made.since},
        as_json=as_json,
        text=f"{plan.study_id} is {made}.\nIt goes on with `accord study resume --dir {folder}`.",
    )


@app.command()
def abort(
    folder: DirOption,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the log.", show_default=False)],
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a study before its last round, for good; the round in progress ends as it would, and what was earned is paid.

    Example: accord study abort --dir coordinator --reason "the ethics board has withdrawn its approval"
    """
    from federation.coordinator.pausing import abort as note_end

    opened = open_coordinator(folder)
    plan, _ = opened.plan(study)
    state = opened.history(plan.study_id).state
    if not state.weights:
        raise OperatorError(
            f"{plan.study_id} has not started: there is nothing to abort.",
            remedy="Stop the coordinator: an agreement binds nobody to a study that does not run.",
        )
    if state.complete:
        raise OperatorError(
            f"{plan.study_id} has no round to come any more: there is nothing to abort.",
            remedy="Look at `accord study status`.",
        )
    made = note_end(opened.files.path, plan.study_id, reason, now=datetime.now(UTC))
    emit(
        {"study": plan.study_id, "aborted": True, "reason": made.reason, "since": made.since},
        as_json=as_json,
        text=f"{plan.study_id} is {made}.\nThe running coordinator writes it into the log and settles what was earned.",
    )


@app.command()
def resume(folder: DirOption, study: StudyOption = None, as_json: JsonOption = False) -> None:
    """Let a paused study go on with its next round.

    Example: accord study resume --dir coordinator
    """
    from federation.coordinator.pausing import resume as end_pause

    opened = open_coordinator(folder)
    plan, _ = opened.plan(study)
    before = end_pause(opened.files.path, plan.study_id)
    said = f"{plan.study_id} goes on; it was {before}." if before else f"{plan.study_id} was not paused."
    emit({"study": plan.study_id, "paused": False, "was_paused": before is not None}, as_json=as_json, text=said)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    folder: DirOption,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave the study as plain files that anybody can verify offline.

    Example: accord study export heart-export --dir coordinator
    """
    from federation.export.writing import write_export

    opened = open_coordinator(folder)
    plan, envelope = opened.plan(study)
    written = write_export(
        out,
        plan=envelope,
        log=opened.history(plan.study_id).log,
        blobs=opened.blobs,
        key=opened.key,
        validation=opened.validation(plan.validation.commitment),
        root_set=None if plan.aggregation.root is None else opened.validation(plan.aggregation.root),
    )
    emit(
        {"export": str(out), "files": written.files, "log_size": written.log_size, "key": written.coordinator.did},
        as_json=as_json,
        text=f"Exported {written.files} files to {out}.\n"
        f"Verify: accord log verify {out} --key {written.coordinator.did}",
    )


app.command()(propose)
app.command()(vote)
app.command()(votes)


def load_plan(path: Path) -> StudyPlan:
    """Read and validate a plan file.

    Raises:
        OperatorError: unreadable, not TOML, or not a valid plan.
    """
    return plan_from_toml(read_text(path), source=str(path))


def read_text(path: Path) -> str:
    """A text file of bounded size, UTF-8.

    Raises:
        OperatorError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        return read_bytes(path, max_bytes=PLAN_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path} is not UTF-8 text.", remedy="Save the file in UTF-8.") from error


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """A file of bounded size.

    Raises:
        OperatorError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise OperatorError(f"{path} is larger than {max_bytes} bytes.", remedy="Give the right file.")
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"{path} cannot be read: {error.strerror}.", remedy="Check the name and your rights on the file."
        ) from error


def _built_in_template() -> str:
    return resources.files("federation.cli").joinpath("plan_template.toml").read_text("utf-8")


def _anchored(text: str, commitment: str) -> str:
    """Make the rule of aggregation trust-anchored, by the root set of this commitment, which stays sealed."""
    before, header, rest = text.partition("[aggregation]\n")
    section, bracket, after = rest.partition("\n[")
    section = re.sub(r"(?m)^(tolerated|root|root_disclosure) = .*\n?", "", section)
    lines = f'"trust-anchored"\nroot = "{commitment}"\nroot_disclosure = "sealed"'
    return before + header + _fill(section, "rule", lines) + bracket + after


def _fill(text: str, key: str, value: Any) -> str:
    """Replace the value of the one line ``key = ...``."""
    filled, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    if count != 1:
        raise OperatorError(
            f"The template has {count} lines that begin with `{key} =`; one is needed.",
            remedy=f"Write one line `{key} = ...` into the template; its value will be filled in.",
        )
    return filled
