"""``accord consent export``: one person's newest record in the form that another system, or paper, reads."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from consent.cli.serve import open_institution
from consent.exports import printed, to_duo, to_fhir, to_kantara, to_odrl
from consent.language import LANGUAGES
from consent.registry import LICENCE_REF
from consent.rules.receipt import ReceiptCredential, open_receipt
from consent.rules.record import ConsentRecord
from federation.cli.output import DirOption, JsonOption, emit, write_out
from federation.errors import ConsentError, OperatorError
from federation.rules.canonical import sha256_hex


class Form(StrEnum):
    """What the record is written as."""

    FHIR = "fhir"
    ODRL = "odrl"
    DUO = "duo"
    KANTARA = "kantara"
    PRINT = "print"
    VC = "vc"


_DOCUMENTS: Final[dict[Form, Callable[[ConsentRecord, str], dict[str, Any]]]] = {
    Form.FHIR: lambda record, _language: to_fhir(record),
    Form.ODRL: lambda record, _language: to_odrl(record),
    Form.DUO: to_duo,
    Form.KANTARA: to_kantara,
}


def register(app: typer.Typer) -> None:
    """Add the command to ``accord consent``."""
    app.command(epilog="Example: accord consent export --dir cleveland --subject cleveland-0017 --format print")(export)


def export(
    *,
    folder: DirOption,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="fhir (R5), odrl (2.2), duo (codes), kantara (receipt 1.1), print (a page), vc (as it was signed).",
            show_default=False,
        ),
    ],
    subject: Annotated[str | None, typer.Option(help="The person whose newest record it is.")] = None,
    licence: Annotated[bool, typer.Option("--licence", help="The owner's record for the whole source.")] = False,
    language: Annotated[str, typer.Option(help=f"For people: {', '.join(LANGUAGES)}.")] = "en",
    out: Annotated[Path | None, typer.Option("--out", help="The file; standard output, if it is left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a person's newest record in a form that others read."""
    ref = LICENCE_REF if licence else subject
    if ref is None:
        raise OperatorError("Nobody is named.", remedy="Add --subject or --licence.")
    if language not in LANGUAGES:
        raise OperatorError(f"There is no language {language!r}.", remedy=f"Use one of {', '.join(LANGUAGES)}.")
    record, receipt = _newest(folder, ref)
    text = _write(record, form, language, receipt)
    if out is None:
        emit({"format": form.value, "record": record.digest, "document": text}, as_json=as_json, text=text)
        return
    write_out(out, text + "\n")
    data = {"format": form.value, "record": record.digest, "file": str(out)}
    emit(data, as_json=as_json, text=f"{out} holds record {record.digest[:16]} as {form.value}.")


def _write(record: ConsentRecord, form: Form, language: str, receipt: ReceiptCredential) -> str:
    if form is Form.VC:
        return record.canonical.decode("utf-8")
    if form is Form.PRINT:
        return printed(record, language, receipt=receipt)
    return json.dumps(_DOCUMENTS[form](record, language), indent=2, ensure_ascii=False)


def _newest(path: Path, ref: str) -> tuple[ConsentRecord, ReceiptCredential]:
    registry = open_institution(path).registry
    history = registry.histories().get(ref, ())
    if not history:
        raise ConsentError(f"There is no record under {ref[:80]!r}.", remedy="Check the name.")
    receipt = open_receipt(registry.receipt_credential(sha256_hex(history[-1])), trust_guardian=True)
    return receipt.record, receipt
