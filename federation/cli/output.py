"""How every command speaks: data on standard output, everything else on standard error.

``--json`` changes the form of the data, never its content. An error is a sentence and what to do about it. Progress is
shown only while a person is looking at a terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from federation.errors import AccordError, OperatorError, PeerError

if TYPE_CHECKING:
    from federation.rules.keys import PublicKey

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
        emit(_as_document(error), as_json=True, text="")
    else:
        note(f"error: {error.message}\nwhat to do: {error.remedy}")
    return error.exit_code


def emit_and_raise(data: Mapping[str, Any], error: AccordError, *, as_json: bool, text: str) -> NoReturn:
    """Print a result that is an error as well, in one document for programs, and end with the error's exit code.

    Raises:
        AccordError: for people, who see ``text`` first.
        typer.Exit: with ``--json``.
    """
    if not as_json:
        emit({}, as_json=False, text=text)
        raise error
    emit({**data, **_as_document(error)}, as_json=True, text="")
    raise typer.Exit(error.exit_code) from error


def _as_document(error: AccordError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "remedy": error.remedy}}


def read_shown(path: Path, *, max_bytes: int, what: str) -> bytes:
    """The bytes of a file that somebody shows, never more than ``max_bytes``.

    Raises:
        OperatorError: it cannot be read.
        PeerError: it is larger.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(max_bytes + 1)
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check the file's name.") from error
    if len(data) > max_bytes:
        raise PeerError(f"{path} is no {what}: it is too large.", remedy="Ask for the file as it was kept.")
    return data


def public_key(text: str) -> "PublicKey":
    """The key that ``--key`` names: ``did:key:...`` or a peer id.

    Raises:
        OperatorError: it names none.
    """
    from federation.rules.keys import PublicKey

    try:
        return PublicKey.from_did(text) if text.startswith("did:") else PublicKey.from_peer_id(text)
    except PeerError as error:
        raise OperatorError(f"--key: {error.message}", remedy=error.remedy) from error


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
