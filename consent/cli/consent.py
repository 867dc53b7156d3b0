"""``accord consent``: grant, withdraw and verify people's signed consents, and make wallets to sign with.

These commands work beside a node that is running: both use the node's database, one short transaction at a time.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from consent.cli import approvals, export, receipt, verify
from consent.cli.instructions import (
    VALID_DAYS_DEFAULT,
    Offer,
    Told,
    conditions,
    notice_file,
    of_people,
    people,
    read_csv,
    sign_all,
    with_times,
    without_terms,
)
from consent.cli.mechanisms import TEMPLATES, Elements, Special, guardianship, kind_of, read_elements
from consent.cli.options import (
    CodeHashOption,
    ConditionOption,
    ContactOption,
    ControllerOption,
    DecisionsOption,
    DeltaMaxOption,
    DiseaseOption,
    ElementsOption,
    EpsilonMaxOption,
    EverybodyOption,
    GuardianOption,
    JurisdictionOption,
    KindOption,
    LicenceOption,
    MajorityOption,
    MaxRoundsOption,
    NoticeLanguageOption,
    NoticeOption,
    NoticeVersionOption,
    PurposeOption,
    RefuseOption,
    ValidDaysOption,
    ValidFromOption,
    ValidUntilOption,
)
from consent.cli.serve import register
from consent.cli.texts import decimal, instant
from consent.cli.witnesses import witnesses
from consent.registry import LICENCE_REF, TABLES, Registry, open_registry
from consent.rules.receipt import Receipt
from consent.rules.record import Action, Mechanism
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
approvals.register(app)

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
    everybody: EverybodyOption = False,
    decisions: DecisionsOption = None,
    purpose: PurposeOption = None,
    disease: DiseaseOption = None,
    epsilon_max: EpsilonMaxOption = None,
    delta_max: DeltaMaxOption = "0.00001",
    valid_days: ValidDaysOption = VALID_DAYS_DEFAULT,
    valid_until: ValidUntilOption = None,
    valid_from: ValidFromOption = None,
    condition: ConditionOption = None,
    code_hash: CodeHashOption = None,
    max_rounds: MaxRoundsOption = None,
    controller: ControllerOption = None,
    contact: ContactOption = None,
    jurisdiction: JurisdictionOption = "EU",
    notice: NoticeOption = None,
    notice_version: NoticeVersionOption = "1",
    notice_language: NoticeLanguageOption = "en",
    licence: LicenceOption = False,
    kind: KindOption = None,
    elements: ElementsOption = None,
    guardian: GuardianOption = None,
    majority: MajorityOption = None,
    refuse: RefuseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign people's decisions with their keys and hand them to the registry: all of them, or none."""
    keys = Wallet(wallet_file)
    mechanism = kind_of(kind, licence=licence)
    instructions = people(
        keys.refs() if everybody else (),
        list(subject or ()) + ([LICENCE_REF] if licence else []),
        decisions,
        mechanism=mechanism,
        action=Action.REFUSE if refuse else Action.GRANT,
        guardian=guardian,
    )
    begin = None if valid_from is None else instant(valid_from, "--valid-from")
    instructions = with_times(instructions, valid_from=begin)
    text_read = None if notice is None else notice_file(notice, notice_version, notice_language)
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
            told=Told(controller, contact, f"loc:{jurisdiction}", text_read),
        )
    registry, key = _registry(folder)
    special = Special(
        kind=mechanism,
        elements=Elements() if without_terms(instructions) else read_elements(mechanism, elements),
        guardianship=guardianship(guardian, majority),
        authority=key,
    )
    signed = sign_all(registry, keys, instructions, offer, special)
    _report(registry.submit_all(signed), as_json=as_json)


@app.command("elements", epilog="Example: accord consent elements hipaa-authorization > elements.toml")
def elements_(
    kind: Annotated[str, typer.Argument(help="hipaa-authorization or ehds-permit.")], *, as_json: JsonOption = False
) -> None:
    """Print a template of what such a record says beyond its terms, for `accord consent grant --elements FILE`."""
    template = TEMPLATES.get(kind_of(kind, licence=False) or Mechanism.CONSENT)
    if template is None:
        raise OperatorError(f"A {kind} has no elements of its own.", remedy=f"Name one of: {', '.join(TEMPLATES)}.")
    emit({"kind": kind, "template": template}, as_json=as_json, text=template.rstrip("\n"))


@app.command(epilog="Example: accord consent erase --dir cleveland --subject cleveland-0017 --yes")
def erase(
    *,
    folder: DirOption,
    subject: SubjectOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase: it cannot be undone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget a person: records, salts, every mention. The log stays valid; a node forgets the name at its next step."""
    refs = list(dict.fromkeys(subject or ()))
    registry, _ = _registry(folder)
    unknown = sorted(set(refs) - set(registry.heads()))
    if not refs or unknown:
        raise OperatorError(
            f"Nothing is known of {', '.join(unknown)[:200]}." if unknown else "Nobody is named.",
            remedy="Name people as `accord consent verify --dir DIR` shows them, with --subject.",
        )
    if not yes:
        raise OperatorError(
            f"Everything about {', '.join(refs)[:200]} would be erased for good; nothing was erased yet.",
            remedy="Withdraw instead if the data should only not be used any more; else repeat with --yes.",
        )
    for ref in refs:
        registry.erase(ref)
    emit({"erased": len(refs)}, as_json=as_json, text=f"Erased: {len(refs)}.")


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
