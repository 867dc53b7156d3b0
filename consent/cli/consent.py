"""``accord consent``: grant, withdraw and verify people's signed consents, and make wallets to sign with.

These commands work beside a node that is running: both use the node's database, one short transaction at a time.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from consent.cli import export, receipt, verify
from consent.cli.instructions import (
    VALID_DAYS_DEFAULT,
    Offer,
    Told,
    conditions,
    decimal,
    instant,
    notice_file,
    of_people,
    read_csv,
    read_decisions,
    sign_all,
    with_times,
    without_terms,
)
from consent.cli.serve import register
from consent.cli.witnesses import witnesses
from consent.registry import LICENCE_REF, TABLES, Registry, open_registry
from consent.rules.receipt import Receipt
from consent.rules.record import Action
from consent.wallet import Wallet
from federation.cli.output import DirOption, JsonOption, emit, group
from federation.errors import ConsentError, OperatorError
from federation.identity import load_key
from federation.rules.keys import PrivateKey
from federation.settings import PartyFolder, load_settings
from federation.storage.database import open_database

app = group("Grant, withdraw and verify people's signed consents.")
app.command(epilog="Example: accord consent witnesses --dir cleveland --add did:key:z6Mk... --quorum 1")(witnesses)
register(app)
export.register(app)
verify.register(app)
receipt.register(app)

WalletOption = Annotated[
    Path,
    typer.Option("--wallet", help="The file with the people's keys (`accord consent wallet`).", show_default=False),
]
SubjectOption = Annotated[
    list[str] | None, typer.Option("--subject", help="The person's name in the data; may be repeated.")
]


@app.command(
    epilog="Example: accord consent wallet --out patients.wallet --from-csv cleveland.csv --subject-column patient_id"
)
def wallet(
    *,
    out: Annotated[Path, typer.Option("--out", help="The wallet's file; keys that it holds stay.", show_default=False)],
    from_csv: Annotated[Path | None, typer.Option("--from-csv", help="A CSV file that names the people.")] = None,
    subject_column: Annotated[str, typer.Option(help="The column of that file with their names.")] = "patient_id",
    subject: SubjectOption = None,
    licence: Annotated[bool, typer.Option("--licence", help="A key for the owner of a whole source.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key for each person: a file to sign with, for trying Accord out."""
    refs = list(subject or ()) + ([LICENCE_REF] if licence else [])
    if from_csv is not None:
        header, rows = read_csv(from_csv)
        if subject_column not in header:
            raise OperatorError(
                f"{from_csv} has no column {subject_column!r} (it has {', '.join(header)}).",
                remedy="Name the column with --subject-column.",
            )
        refs += [row[subject_column] for _, row in rows]
    if not refs:
        raise OperatorError("Nobody is named.", remedy="Add --from-csv, --subject or --licence.")
    keys = Wallet(out)
    fresh = keys.create(refs)
    total = len(keys.refs())
    emit(
        {"wallet": str(out), "created": len(fresh), "keys": total},
        as_json=as_json,
        text=f"{out} holds {total} keys, {len(fresh)} of them new.",
    )


@app.command(
    epilog="Example: accord consent grant --dir cleveland --wallet patients.wallet --all --purpose DUO:0000007"
    " --disease MONDO:0005267 --epsilon-max 3"
)
def grant(
    *,
    folder: DirOption,
    wallet_file: WalletOption,
    subject: SubjectOption = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody in the wallet.")] = False,
    decisions: Annotated[
        Path | None,
        typer.Option(help="A CSV file: subject,action[,valid_until[,valid_from]] (grant, refuse, withdraw)."),
    ] = None,
    purpose: Annotated[list[str] | None, typer.Option(help="A DUO code, such as DUO:0000006; may be repeated.")] = None,
    disease: Annotated[list[str] | None, typer.Option(help="A MONDO code, for DUO:0000007; may be repeated.")] = None,
    epsilon_max: Annotated[str | None, typer.Option(help="The highest epsilon of a study that is allowed.")] = None,
    delta_max: Annotated[str, typer.Option(help="The highest delta of a study that is allowed.")] = "0.00001",
    valid_days: Annotated[int, typer.Option(min=1, max=36500, help="How long it holds.")] = VALID_DAYS_DEFAULT,
    valid_until: Annotated[str | None, typer.Option(help="Until when it holds; wins over --valid-days.")] = None,
    valid_from: Annotated[str | None, typer.Option(help="From when it holds; now, if it is left out.")] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="What a DUO modifier is about, as CODE=VALUE (DUO:0000022=FR); may be repeated."),
    ] = None,
    code_hash: Annotated[
        str | None, typer.Option(help="The only training code that may run (SHA-256); any approved, if left out.")
    ] = None,
    max_rounds: Annotated[int | None, typer.Option(min=1, max=1000, help="Rounds of one study at most.")] = None,
    controller: Annotated[str | None, typer.Option(help="The institution's name in the statement.")] = None,
    contact: Annotated[str | None, typer.Option(help="How to reach it.")] = None,
    jurisdiction: Annotated[str, typer.Option(help="Whose law applies: EU, or a country's code.")] = "EU",
    notice: Annotated[
        Path | None, typer.Option(help="The file with the text that was read; its hash is signed.")
    ] = None,
    notice_version: Annotated[str, typer.Option(help="The version of that text.")] = "1",
    notice_language: Annotated[str, typer.Option(help="Its language.")] = "en",
    licence: Annotated[bool, typer.Option("--licence", help="The owner's licence for the whole source.")] = False,
    refuse: Annotated[bool, typer.Option("--refuse", help="Record a no instead of a yes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign people's decisions with their keys and hand them to the registry: all of them, or none."""
    keys = Wallet(wallet_file)
    refs = list(subject or ()) + ([LICENCE_REF] if licence else [])
    refs += [ref for ref in keys.refs() if ref != LICENCE_REF] if everybody else []
    instructions = of_people(refs, Action.REFUSE if refuse else Action.GRANT)
    instructions += read_decisions(decisions) if decisions is not None else []
    if not instructions:
        raise OperatorError("Nobody is named.", remedy="Add --subject, --all, --decisions or --licence.")
    begin = None if valid_from is None else instant(valid_from, "--valid-from")
    instructions = with_times(instructions, valid_from=begin)
    offer = None
    if purpose and epsilon_max is not None and not without_terms(instructions):
        offer = Offer(
            purposes=tuple(purpose),
            diseases=tuple(disease or ()),
            epsilon_max=decimal(epsilon_max, "--epsilon-max"),
            delta_max=decimal(delta_max, "--delta-max"),
            valid_days=valid_days,
            valid_until=None if valid_until is None else instant(valid_until, "--valid-until"),
            conditions=conditions(condition or ()),
            code_hash=code_hash,
            rounds_max=max_rounds,
            told=Told(
                controller=controller,
                contact=contact,
                jurisdiction=f"loc:{jurisdiction}",
                notice=None if notice is None else notice_file(notice, notice_version, notice_language),
            ),
        )
    registry, _ = _registry(folder)
    receipts = registry.submit_all(sign_all(registry, keys, instructions, offer))
    _report(receipts, as_json=as_json)


@app.command(epilog="Example: accord consent withdraw --dir cleveland --subject cleveland-0017")
def withdraw(
    *,
    folder: DirOption,
    subject: SubjectOption = None,
    wallet_file: Annotated[
        Path | None,
        typer.Option("--wallet", help="Sign with the person's own key; without it the institution attests."),
    ] = None,
    licence: Annotated[bool, typer.Option("--licence", help="Withdraw the licence for the whole source.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Withdraw, for the person who asks: it needs no key and binds from the receipt on."""
    refs = list(dict.fromkeys(list(subject or ()) + ([LICENCE_REF] if licence else [])))
    if not refs:
        raise OperatorError("Nobody is named.", remedy="Add --subject.")
    registry, key = _registry(folder)
    if wallet_file is None:
        receipts = registry.withdraw_all(refs)
    else:
        unknown = sorted(set(refs) - set(registry.heads()))
        if unknown:
            raise ConsentError(f"No consent is known for {', '.join(unknown)[:200]}.", remedy="Check the names.")
        signed = sign_all(registry, Wallet(wallet_file), of_people(refs, Action.WITHDRAW), None)
        receipts = registry.submit_all(signed)
    lines = [f"{receipt.subject_ref}: withdrawn since {receipt.received_at}." for receipt in receipts]
    lines.append("It takes effect in the next round of every study. Rewards that were earned stay.")
    data = {"withdrawn": len(receipts), "receipts": [_receipt(receipt, key) for receipt in receipts]}
    emit(data, as_json=as_json, text="\n".join(lines))


def _registry(path: Path) -> tuple[Registry, PrivateKey]:
    folder = PartyFolder(path)
    settings = load_settings(path)
    if settings.role != "node":
        raise OperatorError(
            f"{path} is a {settings.role}'s folder.", remedy="Consents live in an institution's folder."
        )
    key = load_key(folder.key)
    engine = open_database(folder.consents(settings), *TABLES)
    return open_registry(engine, key, batch_size=settings.consent_batch_size), key


def _report(receipts: list[Receipt], *, as_json: bool) -> None:
    counts = Counter(receipt.action for receipt in receipts)
    granted, refused, withdrawn = (counts[action] for action in (Action.GRANT, Action.REFUSE, Action.WITHDRAW))
    data = {
        "granted": granted,
        "refused": refused,
        "withdrawn": withdrawn,
        "receipts": [receipt.model_dump(mode="json") for receipt in receipts],
    }
    emit(data, as_json=as_json, text=f"Recorded: {granted} granted, {refused} refused, {withdrawn} withdrawn.")


def _receipt(receipt: Receipt, key: PrivateKey) -> dict[str, Any]:
    return {**receipt.model_dump(mode="json"), "signed": json.loads(receipt.sign(key).to_bytes())}
