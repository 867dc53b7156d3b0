"""``accord rewards``: what a party earned, and why."""

from pathlib import Path
from typing import Annotated

import typer

from federation.cli.output import JsonOption, emit, group

app = group("Read what a party earned, and why.")


@app.callback()
def rewards() -> None:
    """Read what a party earned, and why."""


@app.command()
def statement(
    site: Annotated[str, typer.Argument(help="The institution's short name, as reports show it.")],
    folder: Annotated[
        Path,
        typer.Option("--dir", envvar="ACCORD_DIR", help="A coordinator's or a node's folder, or an exported study."),
    ],
    study: Annotated[str | None, typer.Option("--study", help="The study's id; default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one institution's statement: value by round, share, reward, and where the log proves it.

    Example: accord rewards statement cleveland --dir heart-export
    """
    from federation.coordinator.statement import statement_of

    result = statement_of(folder, site=site, study=study)
    emit(result.data, as_json=as_json, text=result.text)
