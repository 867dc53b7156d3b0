"""``accord consent receipt``: what a person keeps of a decision, and what anybody can check of it offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from consent.cli.serve import open_institution
from consent.cli.verify import AuthorityOption, checked, sentence
from consent.registry import LICENCE_REF
from consent.rules.receipt import ReceiptCredential, open_receipt
from federation.cli.output import JsonOption, emit, write_out
from federation.errors import ConsentError, OperatorError
from federation.rules.wire import plain_decimal


def register(app: typer.Typer) -> None:
    """Add the command to ``accord consent``."""
    app.command(epilog="Example: accord consent receipt --dir cleveland --subject cleveland-0017 --out receipt.json")(
        receipt
    )


def receipt(
    *,
    file: Annotated[Path | None, typer.Argument(help="A receipt to check, offline.", show_default=False)] = None,
    folder: Annotated[Path | None, typer.Option("--dir", envvar="ACCORD_DIR", help="The institution's folder.")] = None,
    subject: Annotated[str | None, typer.Option(help="The person whose newest receipt is written.")] = None,
    licence: Annotated[bool, typer.Option("--licence", help="The receipt of the owner's licence.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The file; standard output, if it is left out.")] = None,
    authority: AuthorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a receipt offline (exit code 1 when it is refused), or write the receipt of a person's newest record."""
    ref = LICENCE_REF if licence else subject
    if file is not None and ref is None:
        found = checked(file, authorities=authority or (), as_json=as_json).receipt
        if found is None:
            raise OperatorError(f"{file} is not a receipt.", remedy="Check records with `accord consent verify`.")
        emit(receipt_data(found), as_json=as_json, text="Valid.\n" + "\n".join(_lines(found)))
        return
    if file is not None or folder is None or ref is None:
        raise OperatorError("It is not clear which receipt.", remedy="Name a FILE, or --dir with --subject.")
    _write(folder, ref, out, as_json=as_json)


def _write(folder: Path, ref: str, out: Path | None, *, as_json: bool) -> None:
    registry = open_institution(folder).registry
    head = registry.head(ref)
    if head is None:
        raise ConsentError(f"There is no record under {ref[:80]!r}.", remedy="Check the name.")
    data = registry.receipt_credential(head.digest)
    found = open_receipt(data, trust_guardian=True)
    if out is None:
        emit({**receipt_data(found), "document": data.decode("utf-8")}, as_json=as_json, text=data.decode("utf-8"))
        return
    write_out(out, data.decode("utf-8") + "\n")
    lines = [f"{out} holds the receipt.", *_lines(found)]
    emit({**receipt_data(found), "file": str(out)}, as_json=as_json, text="\n".join(lines))


def receipt_data(found: ReceiptCredential) -> dict[str, Any]:
    """A verified receipt for a program."""
    return {
        "valid": True,
        "receipt": found.receipt.model_dump(mode="json"),
        "logged": None if found.place is None else {"index": found.place.index, "log_size": _size(found)},
        "cosigned_by": [item.witness.did for item in found.cosignatures],
        "rounds_in_flight": [{"study": item.study, "round": item.round} for item in found.rounds_in_flight],
        "models": [
            {
                "study": item.study,
                "round": item.round,
                "model": item.model,
                "epsilon": plain_decimal(item.epsilon),
                "delta": plain_decimal(item.delta),
            }
            for item in found.models
        ],
    }


def _size(found: ReceiptCredential) -> int:
    return 0 if found.place is None else found.place.checkpoint.checkpoint.size


def _lines(found: ReceiptCredential) -> Sequence[str]:
    lines = [f"{sentence(found.record)} Received {found.receipt.received_at}."]
    if found.place is None:
        lines.append("It is not in the log yet; ask again after the next batch.")
    else:
        lines.append(
            f"It is in entry {found.place.index} of the institution's log of {_size(found)} entries,"
            f" cosigned by {len(found.cosignatures)} witnesses."
        )
    lines += [f"Round {item.round} of {item.study} was under way." for item in found.rounds_in_flight]
    lines += [
        f"Model {item.model[:16]} (round {item.round} of {item.study}) contains the contribution,"
        f" protected by epsilon {plain_decimal(item.epsilon)}, delta {plain_decimal(item.delta)}."
        for item in found.models
    ]
    return lines
