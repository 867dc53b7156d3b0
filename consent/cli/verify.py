"""``accord consent verify``: a file, offline; or one person's whole chain in an institution's registry.

For a file the exit code is the answer: 0 valid, 1 refused (with ``--json`` the reasons are on standard output), 2 only
if it cannot be read. For a person in a registry it is 6 when the answer is a no, as everywhere.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from consent.cli.serve import open_institution
from consent.registry import LICENCE_REF
from consent.rules.decision import Decision, chain_fault, use_of
from consent.rules.history import FILE_BYTES_MAX, Verified, open_file
from consent.rules.purposes import in_words
from consent.rules.record import Action, ConsentRecord, open_record
from consent.rules.refusal import RefusedRecordError
from federation.cli.output import JsonOption, emit
from federation.errors import ConsentError, OperatorError
from federation.rules.instant import format_instant
from federation.rules.study import PLAN_BYTES_MAX, StudyPlan, open_plan, plan_from_toml
from federation.rules.wire import plain_decimal

REFUSED: Final = 1

AuthorityOption = Annotated[
    list[str] | None,
    typer.Option(
        "--authority", help="A did whose word about guardians counts, beside the institution's; may be repeated."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``accord consent``."""
    app.command(epilog="Example: accord consent verify record.json --json")(verify)


def verify(
    *,
    file: Annotated[
        Path | None, typer.Argument(help="A record, a history or a receipt in a file.", show_default=False)
    ] = None,
    folder: Annotated[Path | None, typer.Option("--dir", envvar="ACCORD_DIR", help="The institution's folder.")] = None,
    subject: Annotated[str | None, typer.Option(help="The person whose records are checked.")] = None,
    licence: Annotated[bool, typer.Option("--licence", help="Check the owner's licence.")] = False,
    plan: Annotated[Path | None, typer.Option(help="Also decide about this study (TOML, or the signed plan).")] = None,
    authority: AuthorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a file offline (exit code 1 when it is refused), or one person's chain here (6 when it is a no)."""
    ref = LICENCE_REF if licence else subject
    if file is not None and ref is None and plan is None:
        verified = checked(file, authorities=authority or (), as_json=as_json)
        emit(_found(verified), as_json=as_json, text="Valid.\n" + "\n".join(map(sentence, verified.records)))
        return
    if file is not None or folder is None or ref is None:
        raise OperatorError("It is not clear what to check.", remedy="Name a FILE, or --dir with --subject.")
    _verify_here(folder, ref, plan, frozenset(authority or ()), as_json=as_json)


def checked(file: Path, *, authorities: list[str] | tuple[str, ...], as_json: bool) -> Verified:
    """A file that verifies; for one that is refused, the command says why and ends with 1.

    Raises:
        OperatorError: the file cannot be read.
    """
    try:
        return open_file(read_file(file, FILE_BYTES_MAX + 1), datetime.now(UTC), authorities=authorities)
    except RefusedRecordError as error:
        data = {"valid": False, "reasons": [error.reason], "message": error.message, "remedy": error.remedy}
        emit(data, as_json=as_json, text=f"Refused ({error.reason}). {error.message}\n{error.remedy}")
        raise typer.Exit(REFUSED) from error


def read_file(path: Path, bytes_max: int) -> bytes:
    """At most ``bytes_max`` bytes of a file.

    Raises:
        OperatorError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(bytes_max)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check the file's name.") from error


def _verify_here(folder: Path, ref: str, plan: Path | None, authorities: frozenset[str], *, as_json: bool) -> None:
    registry = open_institution(folder).registry
    history, head = registry.histories().get(ref, ()), registry.head(ref)
    records = tuple(open_record(data, authorities=authorities) for data in history)
    if not records:
        raise ConsentError(f"There is no record under {ref!r}.", remedy="Check the name; without a record it is a no.")
    fault = chain_fault(records, institution=registry.institution.did, head=head)
    if fault is not None:
        raise ConsentError(
            f"The records of {ref!r} are not one whole chain: {fault.text}.",
            remedy="Restore the database from your backup; until then nothing of theirs is used.",
        )
    lines = [
        f"{len(records)} valid record{'' if len(records) == 1 else 's'}.",
        *(f"  {record.seq}. {sentence(record)}" for record in records),
    ]
    data: dict[str, Any] = {"valid": True, "records": [record_data(record) for record in records]}
    decision: Decision | None = None
    if plan is not None:
        use = use_of(_plan(plan), registry.institution.did)
        decision = registry.decide_all(use, registry.now(), [ref])[ref]
        lines.append(decision.sentence)
        data["decision"] = {
            "permitted": decision.permitted,
            "status": decision.status.value,
            "reasons": [
                {"code": reason.code, "text": reason.text, "values": dict(reason.values)} for reason in decision.reasons
            ],
        }
    emit(data, as_json=as_json, text="\n".join(lines))
    if decision is not None and not decision.permitted:
        raise typer.Exit(ConsentError.exit_code)


def _plan(path: Path) -> StudyPlan:
    data = read_file(path, 2 * PLAN_BYTES_MAX + 1)
    if len(data) > 2 * PLAN_BYTES_MAX:
        raise OperatorError(f"{path} is too large for a plan.", remedy="Check the file's name.")
    if data.startswith(b"{"):
        return open_plan(data.rstrip(b"\n"))[0]
    return plan_from_toml(data.decode("utf-8", errors="replace"), source=str(path))


def _found(verified: Verified) -> dict[str, Any]:
    return {
        "valid": True,
        "as_of": format_instant(verified.as_of),
        "records": [record_data(record) for record in verified.records],
        **({} if verified.receipt is None else {"receipt": verified.receipt.receipt.model_dump(mode="json")}),
    }


def record_data(record: ConsentRecord) -> dict[str, Any]:
    """A verified record for a program."""
    shown: dict[str, Any] = {
        "action": record.action.value,
        "attested": record.attested,
        "digest": record.digest,
        "institution": record.institution,
        "issuer": record.issuer,
        "mechanism": record.mechanism.value,
        "seq": record.seq,
        "signed_at": format_instant(record.signed_at),
        "subject": record.subject,
        "valid_from": format_instant(record.valid_from),
    }
    if record.guardian is not None:
        shown["guardian"] = {
            "did": record.guardian.did,
            "authority": record.guardian.authority,
            "majority": format_instant(record.guardian.majority),
        }
    terms = record.terms
    if terms is not None:
        shown |= {
            "purposes": list(terms.purposes),
            "diseases": list(terms.diseases),
            "conditions": {code: list(values) for code, values in terms.conditions.items()},
            "epsilon_max": plain_decimal(terms.epsilon_max),
            "delta_max": plain_decimal(terms.delta_max),
            "code_hash": terms.code_hash or "any-approved",
            "rounds_max": terms.rounds_max,
            "valid_until": format_instant(terms.valid_until),
        }
    if record.statement is not None:
        shown["statement"] = record.statement.to_document()
    return shown


def sentence(record: ConsentRecord) -> str:
    """A verified record for a person."""
    who = "The person"
    if record.attested:
        who = "The institution, at the person's request,"
    elif record.guardian is not None:
        who = "The person's guardian"
    when = format_instant(record.signed_at)
    terms = record.terms
    if terms is None:
        return f"{who} {'withdrew' if record.action is Action.WITHDRAW else 'said no'} on {when}."
    purposes = " and ".join(in_words(purpose, terms.diseases) for purpose in terms.purposes)
    return (
        f"{who} allowed {purposes}, up to epsilon {plain_decimal(terms.epsilon_max)} a study,"
        f" from {format_instant(record.valid_from)} until {format_instant(terms.valid_until)} (signed {when})."
    )
