"""How every command speaks: data on standard output, everything else on standard error.

``--json`` changes the form of the data, never its content. An error is a sentence and what to do about it. Progress is
shown only while a person is looking at a terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.errors import AccordError, OperatorError

DirOption = Annotated[
    Path,
    typer.Option(
        "--dir", envvar="ACCORD_DIR", help="The party's folder: settings, key, database, blobs.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def group(summary: str) -> typer.Typer:
    """An empty command group in the house's form: plain help, no completion commands, help when nothing is named."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def emit(data: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a command's result: ``data`` as one JSON document, or ``text`` for people."""
    sys.stdout.write((json.dumps(data, indent=2, ensure_ascii=False, default=str) if as_json else text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_out(path: Path, text: str) -> None:
    """Write what ``--out`` asks for: UTF-8, line ends as they are.

    Raises:
        OperatorError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}.", remedy="Choose another --out.") from error


def fail(error: AccordError, *, as_json: bool) -> int:
    """Show ``error`` and return the exit code that it asks for.

    For people on standard error; with ``--json`` as one document on standard output, so that a program that reads the
    result finds the reason where it looks.
    """
    if as_json:
        document = {"error": {"code": error.code, "message": error.message, "remedy": error.remedy}}
        emit(document, as_json=True, text="")
    else:
        note(f"error: {error.message}\nwhat to do: {error.remedy}")
    return error.exit_code


def interactive() -> bool:
    """Whether a person is looking: standard error is a terminal."""
    return sys.stderr.isatty()


@contextmanager
def progress(title: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error while the block runs; silent when nobody is looking.

    Yields:
        a function that moves the bar on by a number of steps.
    """
    if not interactive():
        yield lambda _steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)
