"""``accord market``: institutions name their price for taking part; the coordinator selects within a budget.

Here is the institution's part, and the group itself; the coordinator's part is ``federation.cli.market``.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from federation.cli import market
from federation.cli.market import CallOption, Out, read_document, write_document
from federation.cli.output import DirOption, JsonOption, emit, group, public_key
from federation.errors import OperatorError
from federation.rules.statements import MICROCREDITS_PER_CREDIT, in_credits

app = group("Let institutions name their price for taking part, sealed; select within a budget.")

_CREDITS_MAX: Final = 10**9

app.command()(market.call)


@app.command()
def offer(
    call_file: Annotated[Path, typer.Argument(help="The call, as the coordinator sent it.")],
    folder: DirOption,
    price: Annotated[
        str,
        typer.Option("--price", help="What taking part costs you, in credits (such as 250 or 12.5): the true cost."),
    ],
    key: Annotated[
        str, typer.Option("--key", help="The coordinator's key (did:key:... or peer id), obtained elsewhere.")
    ],
    out: Annotated[Path, Out] = Path("offer.json"),
    as_json: JsonOption = False,
) -> None:
    """Seal a price for taking part: nobody can read it before you open it, and you cannot change it.

    Naming what it truly costs you is best, whatever others do: the price decides whether you win, not what you get.

    Example: accord market offer call.json --price 250 --key did:key:z6Mk... --dir node
    """
    from clients.folder import open_node_folder
    from clients.offering import seal

    opened = open_node_folder(folder)
    amount = microcredits(price)
    data = read_document(call_file)
    of, sealed = seal(opened.engine, opened.key, data, price=amount, coordinator=public_key(key), now=datetime.now(UTC))
    write_document(out, sealed)
    emit(
        {"call": of.id, "price_microcredits": amount, "open_until": of.document.open_until, "file": str(out)},
        as_json=as_json,
        text=f"Sealed {in_credits(amount)} for {of.id}. Send {out} to the coordinator before "
        f"{of.document.seal_until}.\n"
        f"It will send the list of all sealed prices; open yours before {of.document.open_until}, or you are out:\n"
        f"  accord market open sealed.json --dir {folder}",
    )


app.command()(market.take)
app.command()(market.close)


@app.command(name="open")
def open_sealed(
    sealed_file: Annotated[Path, typer.Argument(help="The list of all sealed prices, as the coordinator sent it.")],
    folder: DirOption,
    out: Annotated[Path, Out] = Path("opening.json"),
    as_json: JsonOption = False,
) -> None:
    """Open your sealed price, once the signed list of all sealed prices holds it: from then on nobody can add one.

    Example: accord market open sealed.json --dir node
    """
    from clients.folder import open_node_folder
    from clients.offering import reveal

    opened = open_node_folder(folder)
    of, price, opening = reveal(opened.engine, opened.key, read_document(sealed_file), now=datetime.now(UTC))
    write_document(out, opening)
    emit(
        {"call": of.id, "price_microcredits": price, "file": str(out)},
        as_json=as_json,
        text=f"Opened {in_credits(price)} for {of.id}. Send {out} to the coordinator before {of.document.open_until}.",
    )


app.command()(market.select)
app.command()(market.publish)


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A call or an outcome.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", envvar="ACCORD_DIR", help="Instead: a coordinator's or a node's folder.")
    ] = None,
    name: CallOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a call or an outcome in words: who won at what fee, and why; or where the markets of a folder stand.

    Example: accord market show outcome.json
    """
    if file is not None:
        data, text = market.told(read_document(file))
    elif folder is not None:
        data, text = _standing(folder, name)
    else:
        raise OperatorError("There is nothing to show.", remedy="Name a file, or a folder with --dir.")
    emit(data, as_json=as_json, text=text)


app.command()(market.verify)


def microcredits(text: str) -> int:
    """A price that a person typed, in credits.

    Raises:
        OperatorError: not a number, negative, too large, or finer than a micro-credit.
    """
    try:
        credits_ = Decimal(text)
        amount = credits_ * MICROCREDITS_PER_CREDIT
        if not 0 <= credits_ <= _CREDITS_MAX or amount != int(amount):
            raise ValueError(text)
    except (InvalidOperation, ValueError) as error:
        raise OperatorError(
            f"{text!r} is not a price.",
            remedy=f"Name 0 to {_CREDITS_MAX} credits with at most 6 decimals, such as 250 or 12.5.",
        ) from error
    return int(amount)


def _standing(folder: Path, name: str | None) -> tuple[dict[str, Any], str]:
    from federation.settings import load_settings

    if load_settings(folder).role == "coordinator":
        from federation.coordinator.folder import open_coordinator
        from federation.coordinator.market import state

        return market.state_text(state(open_coordinator(folder), name))
    from clients.folder import open_node_folder
    from clients.offering import own_offers
    from federation.rules.offers import open_call

    rows, lines = [], []
    for own in own_offers(open_node_folder(folder).engine):
        of = open_call(own.document)
        step = "opened" if own.opened else "sealed"
        rows.append({"call": of.id, "step": step, "price_microcredits": own.price, "made_at": own.made_at})
        until = "" if own.opened else f"; to be opened until {of.document.open_until}"
        lines.append(f"{of.id}: {in_credits(own.price)}, {step} (made {own.made_at}{until})")
    return {"offers": rows}, "\n".join(lines) or "Nothing was offered from here."
