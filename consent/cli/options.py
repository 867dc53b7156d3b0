"""The options of ``accord consent grant``, each with its help."""

from pathlib import Path
from typing import Annotated

import typer

EverybodyOption = Annotated[bool, typer.Option("--all", help="Everybody in the wallet.")]
DecisionsOption = Annotated[
    Path | None,
    typer.Option(help="A CSV file: subject,action[,valid_until[,valid_from]] (grant, refuse, withdraw)."),
]
PurposeOption = Annotated[list[str] | None, typer.Option(help="A DUO code, such as DUO:0000006; may be repeated.")]
DiseaseOption = Annotated[list[str] | None, typer.Option(help="A MONDO code, for DUO:0000007; may be repeated.")]
EpsilonMaxOption = Annotated[str | None, typer.Option(help="The highest epsilon of a study that is allowed.")]
DeltaMaxOption = Annotated[str, typer.Option(help="The highest delta of a study that is allowed.")]
ValidDaysOption = Annotated[int, typer.Option(min=1, max=36500, help="How long it holds.")]
ValidUntilOption = Annotated[str | None, typer.Option(help="Until when it holds; wins over --valid-days.")]
ValidFromOption = Annotated[str | None, typer.Option(help="From when it holds; now, if it is left out.")]
ConditionOption = Annotated[
    list[str] | None,
    typer.Option(help="What a DUO modifier is about, as CODE=VALUE (DUO:0000022=FR); may be repeated."),
]
CodeHashOption = Annotated[
    str | None, typer.Option(help="The only training code that may run (SHA-256); any approved, if left out.")
]
MaxRoundsOption = Annotated[int | None, typer.Option(min=1, max=1000, help="Rounds of one study at most.")]
ControllerOption = Annotated[str | None, typer.Option(help="The institution's name in the statement.")]
ContactOption = Annotated[str | None, typer.Option(help="How to reach it.")]
JurisdictionOption = Annotated[str, typer.Option(help="Whose law applies: EU, or a country's code.")]
NoticeOption = Annotated[Path | None, typer.Option(help="The file with the text that was read; its hash is signed.")]
NoticeVersionOption = Annotated[str, typer.Option(help="The version of that text.")]
NoticeLanguageOption = Annotated[str, typer.Option(help="Its language.")]
LicenceOption = Annotated[bool, typer.Option("--licence", help="The owner's licence for the whole source.")]
KindOption = Annotated[
    str | None,
    typer.Option(
        help="Who speaks for the data: consent, dpa, licence, hipaa-authorization, ehds-permit or ehds-optout."
    ),
]
ElementsOption = Annotated[
    Path | None,
    typer.Option(help="The elements of a HIPAA authorization or an EHDS permit (`accord consent elements KIND`)."),
]
GuardianOption = Annotated[
    str | None, typer.Option(help="Whose key in the wallet signs for minors; the institution lends its word.")
]
MajorityOption = Annotated[str | None, typer.Option(help="The day on which the minor comes of age.")]
RefuseOption = Annotated[bool, typer.Option("--refuse", help="Record a no instead of a yes.")]
