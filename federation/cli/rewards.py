"""``accord rewards``: what a party earned, and why; what every account holds; the books as files."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from federation.cli.output import JsonOption, emit, group, write_out

app = group("Read what a party earned, and why; balances; the books as files.")

FolderOption = Annotated[
    Path,
    typer.Option("--dir", envvar="ACCORD_DIR", help="A coordinator's or a node's folder, or an exported study."),
]
StudyOption = Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest.")]


class Form(StrEnum):
    """What the books can be written as."""

    beancount = "beancount"
    csv = "csv"


@app.callback()
def rewards() -> None:
    """Read what a party earned, and why; balances; the books as files."""


@app.command()
def statement(
    site: Annotated[str, typer.Argument(help="The institution's short name, as reports show it.")],
    folder: FolderOption,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one institution's statement: value by round, share, reward, and where the log proves it.

    Example: accord rewards statement cleveland --dir heart-export
    """
    from federation.coordinator.statement import statement_of

    result = statement_of(folder, site=site, study=study)
    emit(result.data, as_json=as_json, text=result.text)


@app.command()
def balance(
    folder: FolderOption,
    account: Annotated[
        str | None, typer.Argument(help="An account (institution:ash) or an institution's short name; default: all.")
    ] = None,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what accounts hold, from the verified log: parties, pools, what was burned.

    Example: accord rewards balance cleveland --dir heart-export
    """
    from federation.coordinator.books import books_of

    data, text = books_of(folder, study=study).balance(account)
    emit(data, as_json=as_json, text=text)


@app.command()
def export(
    folder: FolderOption,
    form: Annotated[Form, typer.Option("--format", help="beancount (plain-text accounting) or csv.")] = Form.beancount,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; default: standard output.")] = None,
    study: StudyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study's books: every transfer with the log's entry that it follows from, and the balances.

    Example: accord rewards export --dir heart-export --format csv --out heart.csv
    """
    from federation.coordinator.books import books_of

    books = books_of(folder, study=study)
    text = books.export(form.value)
    if out is None:
        emit(books.export_json(), as_json=as_json, text=text.rstrip("\n"))
        return
    write_out(out, text)
    emit(
        {"written": str(out), "format": form.value, "transfers": len(books.lines)},
        as_json=as_json,
        text=f"Wrote {out}.",
    )


@app.command(name="claim-tree")
def claim_tree(
    folder: Annotated[
        Path,
        typer.Option(
            "--dir",
            envvar="ACCORD_DIR",
            help="A coordinator's folder, an exported study, or a folder of exported studies.",
        ),
    ],
    accounts: Annotated[
        Path, typer.Option("--accounts", help="Addresses: JSON, or CSV with the columns account,address.")
    ],
    previous: Annotated[
        Path | None, typer.Option("--previous", help="The tree before; no amount may be less than there.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the tree with all proofs to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the tree from which a contract on a chain pays: who earned how much in all settled studies, with proofs.

    Nothing is sent. Needs the extra "chain". The file is read by OpenZeppelin's merkle-tree library (standard-v1).

    Example: accord rewards claim-tree --dir exports --accounts accounts.json --previous tree-1.json --out tree-2.json
    """
    from federation.settlement.accounts import read_accounts
    from federation.settlement.drop import make_drop, read_tree
    from federation.settlement.earnings import earnings_in

    addresses = read_accounts(accounts)
    before = None if previous is None else read_tree(previous)
    drop = make_drop(earnings_in(folder), addresses, before)
    document = drop.to_json()
    if out is not None:
        write_out(out, json.dumps(document, indent=1) + "\n")
    written = "" if out is None else f"\nWrote {out}."
    emit(document, as_json=as_json, text=drop.text() + written)
