"""``accord budget``: how much privacy the institution's people have lost, and how much is left."""

from datetime import UTC, datetime
from typing import Any, Final

from clients.privacy.budget import BudgetLedger, Charge
from clients.storage import open_institution
from federation.cli.output import DirOption, JsonOption, emit, group
from federation.rules.wire import plain_decimal

app = group("See how much privacy is spent, and how much is left.")

_BAR_WIDTH: Final = 40


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
