"""``accord market``, the coordinator's part and what anybody may look at: calls, lists, outcomes.

The group itself is put together in ``clients.cli.market``, which adds the institution's part.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.output import DirOption, JsonOption, emit, emit_and_raise, public_key, read_shown, write_out
from federation.errors import OperatorError, UnprovenSignerError
from federation.rules.statements import in_credits

if TYPE_CHECKING:
    from federation.coordinator.market import MarketState
    from federation.rules.offers import Decision, OpenedCall

CallOption = Annotated[str | None, typer.Option("--call", help="The call's id; default: the newest.")]
Out = typer.Option("--out", help="The file to write.")


def call(
    call_file: Annotated[Path, typer.Argument(help="The call, a TOML file.")],
    folder: DirOption,
    plan: Annotated[
        Path,
        typer.Option("--plan", help="The draft plan (TOML) that institutions name a price for.", show_default=False),
    ],
    out: Annotated[Path, Out] = Path("call.json"),
    as_json: JsonOption = False,
) -> None:
    """Sign a call for offers: a draft plan, a budget, who may offer, until when.

    Example: accord market call call.toml --plan plan.toml --dir coordinator
    """
    from federation.cli.study import load_plan, read_text
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.market import announce, call_from_toml, document_of

    opened = open_coordinator(folder)
    document = call_from_toml(read_text(call_file), load_plan(plan), source=str(call_file))
    made = announce(opened, document, now=datetime.now(UTC))
    write_document(out, document_of(opened, made.hash, "call"))
    emit(
        call_data(made) | {"file": str(out)},
        as_json=as_json,
        text=f"{call_text(made)}\n\nSend {out} to each of them, and tell them this coordinator's key by another way:\n"
        f"  accord market offer {out} --price CREDITS --key {made.signer.did} --dir DIR",
    )


def take(
    files: Annotated[list[Path], typer.Argument(help="Sealed prices or openings, as institutions sent them.")],
    folder: DirOption,
    as_json: JsonOption = False,
) -> None:
    """Take what institutions send: their sealed prices and, once these are listed, their openings.

    In order: at the first that is refused it stops, and those before stay taken.

    Example: accord market take offer-ash.json offer-birch.json --dir coordinator
    """
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.market import take as take_one

    opened = open_coordinator(folder)
    taken = []
    for file in files:
        kind, of, did = take_one(opened, read_document(file), now=datetime.now(UTC))
        taken.append({"file": str(file), "kind": kind, "call": of.id, "site": of.candidates[did].site, "did": did})
    words = {"sealed": "sealed price", "opened": "opening"}
    lines = [f"{each['file']}: the {words[each['kind']]} of {each['site']} for {each['call']}" for each in taken]
    emit({"taken": taken}, as_json=as_json, text="\n".join(lines))


def close(
    folder: DirOption,
    name: CallOption = None,
    out: Annotated[Path, Out] = Path("sealed.json"),
    as_json: JsonOption = False,
) -> None:
    """Sign the list of all sealed prices: from here on none is taken, and institutions may open theirs.

    Example: accord market close --dir coordinator
    """
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.market import close as close_market
    from federation.rules.offers import open_list

    of, data = close_market(open_coordinator(folder), name, now=datetime.now(UTC))
    write_document(out, data)
    sites = [of.candidates[did].site for did in open_list(data, of).commitments]
    emit(
        {"call": of.id, "sealed": sites, "open_until": of.document.open_until, "file": str(out)},
        as_json=as_json,
        text=f"{len(sites)} sealed prices for {of.id}: {', '.join(sites)}.\nSend {out} to each of them. Until "
        f"{of.document.open_until} they open theirs:\n  accord market open {out} --dir DIR",
    )


def select(
    folder: DirOption,
    name: CallOption = None,
    out: Annotated[Path, Out] = Path("outcome.json"),
    as_json: JsonOption = False,
) -> None:
    """Decide who takes part and at which fee, and sign the outcome with everything that it follows from.

    Example: accord market select --dir coordinator
    """
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.market import decide

    decision, data = decide(open_coordinator(folder), name, now=datetime.now(UTC))
    write_document(out, data)
    emit(
        outcome_data(decision) | {"file": str(out)},
        as_json=as_json,
        text=f"{outcome_text(decision)}\n\nSend {out} to everybody who offered; then `accord market publish`.",
    )


def publish(folder: DirOption, name: CallOption = None, as_json: JsonOption = False) -> None:
    """Publish the study that the outcome leads to: the draft plan with its winners and their fees.

    Example: accord market publish --dir coordinator
    """
    from federation.coordinator.folder import open_coordinator
    from federation.coordinator.market import publish_outcome

    plan, sites = publish_outcome(open_coordinator(folder), name)
    emit(
        {"study": plan.study_id, "plan_hash": plan.plan_hash, "sites": sites},
        as_json=as_json,
        text="\n".join(
            [
                f"Published {plan.study_id}.",
                "Next: invite the winners, each under its name.",
                *(f"  accord study invite {site} --study {plan.study_id} --dir {folder}" for site in sites),
            ]
        ),
    )


def verify(
    file: Annotated[Path, typer.Argument(help="A market's outcome.")],
    key: Annotated[
        str | None, typer.Option("--key", help="The coordinator's key (did:key:... or peer id), obtained elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a market's outcome offline: every signature, every sealed price, who won, what each is paid.

    Without --key all is checked as well, but who signed it stays unproven (exit code 3).

    Example: accord market verify outcome.json --key did:key:z6Mk...
    """
    from federation.rules.offers import open_outcome

    decision = open_outcome(read_document(file), signer=None if key is None else public_key(key))
    data = {"verified": True, "signer_proven": key is not None} | outcome_data(decision)
    text = f"Verified: the fees follow from the prices, and nobody is paid less than asked.\n\n{outcome_text(decision)}"
    if key is None:
        error = UnprovenSignerError(
            f"All of it is consistent, and signed by {decision.call.signer.did}; whose key that is was not checked.",
            remedy="Give --key with the key that the coordinator told you by another way.",
        )
        emit_and_raise(data, error, as_json=as_json, text=text)
    emit(data, as_json=as_json, text=text)


def read_document(path: Path) -> bytes:
    """A market's document from a file; white space around it, as mail programs leave it, does not count.

    Raises:
        OperatorError: it cannot be read.
        PeerError: it is too large.
    """
    from federation.rules.offers import MARKET_BYTES_MAX

    return read_shown(path, max_bytes=MARKET_BYTES_MAX, what="document of a market").strip()


def write_document(path: Path, data: bytes) -> None:
    """Write a signed document and a newline."""
    write_out(path, data.decode("utf-8") + "\n")


def told(data: bytes) -> tuple[dict[str, Any], str]:
    """What a market's document says, verified as far as it can be by itself, as data and in words.

    Raises:
        PeerError: it does not verify.
        OperatorError: it says nothing without the call.
    """
    from federation.rules.offers import kind_of, open_call, open_outcome

    match kind_of(data):
        case "MarketCall":
            opened = open_call(data)
            return call_data(opened), call_text(opened, whole=True)
        case "MarketOutcome":
            decision = open_outcome(data)
            return outcome_data(decision), outcome_text(decision)
        case kind:
            raise OperatorError(
                f"A {kind} is a hash and a signature: there is nothing to read in it alone.",
                remedy="Show the call, the outcome, or with --dir where the market stands.",
            )


def call_data(of: "OpenedCall") -> dict[str, Any]:
    """A call for ``--json``."""
    document = of.document
    return {
        "call": of.id,
        "hash": of.hash,
        "coordinator": of.signer.did,
        "budget_microcredits": document.budget_microcredits,
        "seal_until": document.seal_until,
        "open_until": document.open_until,
        "worth": document.worth,
        "candidates": [each.model_dump(mode="json") for each in document.candidates],
        "draft_plan_hash": of.plan.plan_hash,
    }


def call_text(of: "OpenedCall", *, whole: bool = False) -> str:
    """A call in words; ``whole`` with the draft plan."""
    from federation.rules.explain import explain

    document = of.document
    width = max(len(each.site) for each in document.candidates)
    lines = [
        f"Call for offers {of.id}: at which price would you take part in {of.plan.title!r}?",
        f"  budget      {in_credits(document.budget_microcredits)} for all fees",
        f"  seal until  {document.seal_until}",
        f"  open until  {document.open_until}",
        f"  worth       {document.worth}",
        *(f"    {each.site:<{width}}  {each.worth:>12,}  {each.did}" for each in document.candidates),
        f"  signed by   {of.signer.did}",
    ]
    if whole:
        lines += [
            "",
            "The draft plan; the number of institutions and their fees follow from the market:",
            "",
            explain(of.plan),
        ]
    return "\n".join(lines)


def outcome_data(decision: "Decision") -> dict[str, Any]:
    """An outcome for ``--json``: everybody who was called, in the order of price per worth."""
    from federation.rules.market import critical_price, ranked
    from federation.rules.offers import offers_of, plan_of

    of, selection = decision.call, decision.selection
    offers, budget = offers_of(of, decision.prices), selection.budget
    rows: list[dict[str, Any]] = []
    for each in of.document.candidates:
        price = decision.prices.get(each.did)
        result = "did not open" if each.did in decision.sealed.commitments else "did not offer"
        if price is not None:
            result = "won" if each.site in selection.payments else "lost"
        rows.append(
            {
                "site": each.site,
                "did": each.did,
                "worth": each.worth,
                "result": result,
                "price_microcredits": price,
                "fee_microcredits": selection.payments.get(each.site),
                "highest_winning_microcredits": None if price is None else critical_price(each.site, offers, budget),
            }
        )
    order = [offer.party for offer in ranked(offers)]
    rows.sort(key=lambda row: order.index(row["site"]) if row["site"] in order else len(order))
    try:
        study, no_study = plan_of(decision).study_id, ""
    except OperatorError as error:
        study, no_study = None, error.message
    return {
        "call": of.id,
        "outcome": decision.hash,
        "coordinator": of.signer.did,
        "decided_at": decision.document.decided_at,
        "budget_microcredits": budget,
        "spent_microcredits": selection.spent,
        "institutions": rows,
        "study": study,
        "no_study": no_study,
    }


def outcome_text(decision: "Decision") -> str:
    """Who won, at what fee, and why."""
    data = outcome_data(decision)
    width = max(len(row["site"]) for row in data["institutions"])
    spent, budget = in_credits(data["spent_microcredits"]), in_credits(data["budget_microcredits"])
    return "\n".join(
        [
            f"Outcome of {data['call']}, by price per worth:",
            *(f"  {row['site']:<{width}}  {_why(row)}" for row in data["institutions"]),
            f"Fees together {spent}, of a budget of {budget}.",
            f"Decided {data['decided_at']}, signed by {data['coordinator']}.",
            f"The study that follows: {data['study']}." if data["study"] else data["no_study"],
        ]
    )


def state_text(state: "MarketState") -> tuple[dict[str, Any], str]:
    """Where a coordinator's market stands, and what comes next."""
    of, received = state.call, state.received
    sites = {kind: sorted(of.candidates[did].site for did in received[kind]) for kind in ("sealed", "opened")}
    if state.decision is not None:
        step, text = "decided", outcome_text(state.decision)
    elif state.sealed is not None:
        step = "opening"
        text = f"Next: openings, until {of.document.open_until}; then `accord market select`."
    else:
        step = "sealing"
        text = f"Next: sealed prices, until {of.document.seal_until}; then `accord market close`."
    heading = [
        f"{of.id}: {step}",
        f"  sealed  {', '.join(sites['sealed']) or 'nobody yet'}",
        f"  opened  {', '.join(sites['opened']) or 'nobody yet'}",
    ]
    data = call_data(of) | {"step": step} | sites
    data |= {"outcome": None if state.decision is None else outcome_data(state.decision)}
    return data, "\n".join([*heading, text])


def _why(row: Mapping[str, Any]) -> str:
    if row["price_microcredits"] is None:
        return f"{row['result']}: it is out"
    asked, highest = in_credits(row["price_microcredits"]), row["highest_winning_microcredits"]
    if row["result"] == "won":
        return f"wins. It asked {asked} and gets {in_credits(highest)}, the most with which it would have won"
    limit = (
        "with no price would it have won"
        if highest is None
        else f"with at most {in_credits(highest)} it would have won"
    )
    return f"does not win. It asked {asked}; {limit}"
