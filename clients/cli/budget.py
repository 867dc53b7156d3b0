"""``accord budget``: how much privacy the institution's people have lost, how much is left, what a study would cost."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from clients.privacy.budget import BudgetLedger, Charge, Terms
from clients.privacy.forecast import forecast, steps
from clients.storage import open_institution
from federation.cli.output import DirOption, JsonOption, emit, group, write_out
from federation.errors import OperatorError, PrivacyError
from federation.rules.events import EventJson
from federation.rules.instant import format_instant
from federation.rules.study import StudyPlan, open_plan, plan_from_toml
from federation.rules.wire import plain_decimal
from federation.settings import PartySettings

app = group("See how much privacy is spent, and how much is left.")

_BAR_WIDTH: Final = 40
_LINES_MAX: Final = 12
_USUAL: Final = PartySettings(role="node", name="node")
_FRESH: Final = Terms(epsilon=_USUAL.lifetime_epsilon, delta=_USUAL.lifetime_delta, order=_USUAL.renyi_order)
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Write a page with a picture to this file.", show_default=False)
]


@app.callback()
def budget() -> None:
    """See how much privacy is spent, and how much is left."""


@app.command("show")
def show(directory: DirOption, as_json: JsonOption = False) -> None:
    """Show the lifetime budget, what each study took of it, and what is left.

    "Spent" is the filter's figure, which holds even where later studies build on earlier results. The figure by privacy
    loss distributions stands beside it: it is tighter, and valid only if all rounds had been fixed beforehand.

    Example: accord budget show --dir ./cleveland
    """
    ledger = BudgetLedger(open_institution(directory), clock=lambda: datetime.now(UTC))
    data = report(ledger)
    emit(data, as_json=as_json, text=_text(data))


@app.command("history")
def history(directory: DirOption, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Show every row of the ledger, verified, and what everything together cost after it.

    Example: accord budget history --dir ./cleveland --out history.html
    """
    ledger = BudgetLedger(open_institution(directory), clock=lambda: datetime.now(UTC))
    found = steps(ledger.history(), ledger.terms)
    if out is not None:
        from clients.privacy.budget_pages import history_page

        write_out(out, history_page(found, ledger.terms, made_at=format_instant(datetime.now(UTC))))
    lines = [
        f"{step.row.seq:>5}  {step.row.at}  {step.row.state:<9}  {step.epsilon:8.4f}  "
        + (f"{step.row.study} round {step.row.round}" if step.row.study else "the terms")
        for step in found
    ]
    data = {"epsilon_lifetime": plain_decimal(ledger.terms.epsilon), "rows": [step.to_json() for step in found]}
    text = "\n".join(["  row  at                    state       epsilon  what", *lines, *_named(out)])
    emit(data | _page(out), as_json=as_json, text=text)


@app.command("simulate")
def simulate(
    plan_file: Annotated[Path, typer.Argument(help="The plan: the TOML file, or the signed plan.", show_default=False)],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", envvar="ACCORD_DIR", help="The node's folder; without it a fresh budget.", show_default=False
        ),
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a study would cost these people, round by round, before anybody agrees to it.

    Nothing is charged. Ends with 0 where the whole study fits and with 5 where the node would refuse a round.

    Example: accord budget simulate plan.toml --dir ./cleveland --out forecast.html
    """
    plan, terms = _plan(plan_file), _FRESH
    spent: tuple[EventJson, ...] = ()
    if directory is not None:
        ledger = BudgetLedger(open_institution(directory), clock=lambda: datetime.now(UTC))
        terms, spent = ledger.terms, ledger.events()
    found = forecast(plan, terms, spent)
    if out is not None:
        from clients.privacy.budget_pages import forecast_page

        write_out(out, forecast_page(found, made_at=format_instant(datetime.now(UTC))))
    data = found.to_json()
    emit(data | _page(out), as_json=as_json, text="\n".join([_forecast_text(data), *_named(out)]))
    return 0 if data["fits"] else PrivacyError.exit_code


def _plan(path: Path) -> StudyPlan:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check the plan's file.") from error
    if data.lstrip().startswith(b"{"):
        return open_plan(data)[0]
    return plan_from_toml(data.decode("utf-8", "replace"), source=str(path))


def _page(out: Path | None) -> dict[str, str]:
    return {} if out is None else {"page": str(out)}


def _named(out: Path | None) -> list[str]:
    return [] if out is None else ["", f"Page: {out}"]


def _forecast_text(data: dict[str, Any]) -> str:
    lifetime, curve = float(data["epsilon_lifetime"]), data["epsilon_after_each_round"]
    every = -(-len(curve) // _LINES_MAX)
    shown = sorted({*range(every, len(curve) + 1, every), len(curve)} | {data["first_refused_round"] or len(curve)})
    lines = [
        (
            f"{data['study']}: {data['rounds']} rounds with noise multiplier {data['noise_multiplier']}, "
            f"epsilon {data['plan_epsilon']} at delta {data['plan_delta']} by its own account."
        ),
        (
            f"Lifetime of each person here: epsilon {data['epsilon_lifetime']}; spent before: "
            f"{data['epsilon_spent_before']:.4f}."
        ),
        "",
    ]
    for number in shown:
        spent = curve[number - 1]
        filled = min(_BAR_WIDTH, round(_BAR_WIDTH * spent / lifetime))
        mark = "  does not fit" if spent > lifetime else ""
        lines.append(f"  round {number:>4}  [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {spent:8.4f}{mark}")
    lines += [
        "",
        f"This study by itself: {data['study_alone_after_each_round'][-1]:.4f} (by the filter: this one binds)",
    ]
    lines.append(f"                      {data['study_alone_pld_non_adaptive']:.4f} (by privacy loss distributions)")
    if data["fits"]:
        return "\n".join([*lines, "", "The whole study fits."])
    smaller = data["smaller_epsilon_that_fits"]
    lines += ["", f"Round {data['first_refused_round']} would be refused; {data['rounds_that_fit']} rounds fit."]
    lines.append(
        f"With epsilon {smaller} for the study, all rounds would fit."
        if smaller
        else "No smaller epsilon that was tried would fit: these people's budget is nearly spent."
    )
    return "\n".join(lines)


def report(ledger: BudgetLedger) -> dict[str, Any]:
    """The ledger as data: terms, totals, and each study with its rounds."""
    charges = ledger.charges()
    studies = {study: [charge for charge in charges if charge.study == study] for study in _studies(charges)}
    return {
        "unit": "subject",
        "order": ledger.terms.order,
        "delta": plain_decimal(ledger.terms.delta),
        "epsilon_lifetime": plain_decimal(ledger.terms.epsilon),
        "epsilon_spent": ledger.spent(),
        "epsilon_remaining": ledger.remaining(),
        "epsilon_spent_pld_non_adaptive": ledger.spent_pld(),
        "epsilon_spent_by_part": ledger.spent_by_part(),
        "studies": [
            {
                "study": study,
                "epsilon": ledger.spent(study),
                "epsilon_pld_non_adaptive": ledger.spent_pld(study),
                "rounds": {charge.round: str(charge.state) for charge in rounds},
                "events": list(ledger.events(study)),
            }
            for study, rounds in studies.items()
        ],
    }


def _studies(charges: tuple[Charge, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(charge.study for charge in charges))


def _text(data: dict[str, Any]) -> str:
    lifetime, spent = float(data["epsilon_lifetime"]), data["epsilon_spent"]
    filled = min(_BAR_WIDTH, round(_BAR_WIDTH * spent / lifetime))
    lines = [
        f"Each person's lifetime budget here: epsilon {data['epsilon_lifetime']}, delta {data['delta']}.",
        "",
        f"  [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}]  {spent / lifetime:.0%} spent",
        "",
        f"  spent      {spent:.4f}   (by the filter, Renyi order {data['order']}: this one binds)",
        f"             {data['epsilon_spent_pld_non_adaptive']:.4f}   (by privacy loss distributions: non-adaptive)",
        f"  remaining  {data['epsilon_remaining']:.4f}",
    ]
    parts = data["epsilon_spent_by_part"]
    if len(parts) > 1:
        told = ", ".join(f"{part} {figure:.4f}" for part, figure in parts.items())
        lines += ["", f"Studies used parts of the people; the figures are of whoever lost most. By part: {told}."]
    if not data["studies"]:
        return "\n".join([*lines, "", "No study has used these people's data yet."])
    lines += ["", "By study, each taken by itself (epsilons of several studies do not simply add up):"]
    for entry in data["studies"]:
        states = list(entry["rounds"].values())
        told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines.append(
            f"  {entry['study']}: epsilon {entry['epsilon']:.4f} "
            f"(non-adaptive {entry['epsilon_pld_non_adaptive']:.4f}); rounds: {told}"
        )
    return "\n".join(lines)
