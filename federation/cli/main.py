"""The root command ``accord``: finds the command groups, loads the one that is named, and turns errors into exit codes.

Groups are entry points of the group ``accord.commands``, so that the packages above this one, and other people's, add
commands without being imported here. ``accord --help`` imports none of them: starting must stay quick, and the engines
behind training and the network take seconds to load.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, Final

import click
import typer
from typer.models import ArgumentInfo

from federation.cli.output import fail, group, note
from federation.errors import AccordError, OperatorError

DISTRIBUTION: Final = "accord-network"
ENTRY_POINT_GROUP: Final = "accord.commands"
INTERRUPTED: Final = 130
UNEXPECTED: Final = 1

# One line for each command that ships with Accord, in the order in which a newcomer meets them.
SUMMARIES: Final = {
    "demo": "Watch a whole study of four hospitals in a few minutes.",
    "coordinator": "Run the coordinator: rounds, aggregates, values, payments.",
    "study": "Write, check, publish, follow and export a study.",
    "node": "Run an institution's node, which trains where the data is.",
    "data": "Register an institution's file; check it against a study.",
    "agreement": "Review a study in plain language; sign or revoke.",
    "app": "Run a Flower app of your own on data licensed for it.",
    "consent": "Grant, withdraw and verify people's signed consents.",
    "budget": "See how much privacy is spent, and how much is left.",
    "privacy": "Audit the node's own privacy; see what attacks could learn.",
    "rewards": "Read what a party earned, and why.",
    "value": "See why a site earned what it earned; challenge a utility.",
    "stake": "Stand in with a stake; show a case against one.",
    "market": "Let institutions name their price for taking part.",
    "log": "Verify an exported study offline; look into its log.",
}

# Which extra brings a package that the base installation does without.
_EXTRAS: Final = {
    "Crypto": "chain",
    "flwr": "coordinator",
    "libp2p": "coordinator",
    "multiaddr": "coordinator",
    "trio": "coordinator",
    "prometheus_client": "coordinator",
    "opacus": "node",
    "torch": "node",
    "jinja2": "demo",
    "matplotlib": "demo",
    "psutil": "node",
    "sklearn": "demo",
}


class PlainFormatter(click.HelpFormatter):
    """Help as plain text: examples stay on one line, to be copied, and brackets are brackets.

    (Typer escapes brackets for rich's markup whenever rich is installed, also where the help is not markup.)
    """

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """A list of options or commands."""
        super().write_dl([(term, text.replace("\\[", "[")) for term, text in rows], col_max, col_spacing)

    def write_text(self, text: str) -> None:
        """Prose, wrapped; a paragraph that begins with "Example" is left as it is (click's own mark for that)."""
        paragraphs = text.split("\n\n")
        super().write_text("\n\n".join(f"\b\n{part}" if part.startswith("Example") else part for part in paragraphs))


class PlainContext(click.Context):
    """The context of every command here."""

    formatter_class = PlainFormatter


class RootGroup(click.Group):
    """The commands found in the installed packages; one is imported when it is named, none for the list."""

    context_class = PlainContext

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Ours first, in the order of ``SUMMARIES``; then other packages', by name."""
        found = _found()
        ours = [name for name in SUMMARIES if name in found]
        return ours + sorted(set(found) - set(ours))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        """Import the group that is named, and nothing else."""
        entry = _found().get(cmd_name)
        return None if entry is None else _as_command(cmd_name, entry.load())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with one line each, without importing them."""
        found = _found()
        rows = []
        for name in self.list_commands(ctx):
            provider = found[name].dist
            rows.append((name, SUMMARIES.get(name) or f"From the package {provider.name if provider else 'unknown'}."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"accord {version(DISTRIBUTION)}")
        ctx.exit()


root = RootGroup(
    name="accord",
    help=(
        "Accord: train models on data that stays where it is, under consent, with a privacy budget, and pay for it by"
        " measured value.\n\n\b\nExamples:\n  accord demo\n  accord consent grant --help\n"
        "  accord log verify DIR/export --key KEY"
    ),
    epilog=(
        "\b\nExit codes:\n  0  done\n  1  a defect in Accord\n  2  change an input"
        "\n  3  consistent, but the signer is unproven"
        "\n  4  another party's data does not verify\n  5  refused for privacy\n  6  consent does not allow it"
        "\n  7  something is not there now\n  8  a standby has taken over\n  130  interrupted"
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        )
    ],
)


def run() -> None:
    """The console script: run the command line of this process and exit."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code (docs/reference/exit-codes.md lists them).

    Args:
        arguments: the command line without the program's name.
    """
    as_json = "--json" in arguments
    try:
        result = root.main(args=list(arguments), prog_name="accord", standalone_mode=False)
    except AccordError as error:
        return fail(error, as_json=as_json)
    except click.ClickException as error:
        return _usage(error, as_json=as_json)
    except click.Abort as error:
        return _aborted(error)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        return _unexpected(error, as_json=as_json) if extra is None else fail(_missing(error, extra), as_json=as_json)
    except Exception as error:  # noqa: BLE001 -- the process's boundary: reported in full, never swallowed
        return _unexpected(error, as_json=as_json)
    # click hands an explicit exit code through as the result; a command's own result is None.
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _as_command(name: str, loaded: Any) -> click.Command:
    """What an entry point may name: a Typer app, a click command, or a plain function (a command of its own)."""
    command: click.Command
    if isinstance(loaded, click.Command):
        command = loaded
    elif isinstance(loaded, typer.Typer):
        command = typer.main.get_group(loaded)  # a group even when it has one command: `accord rewards statement`
    else:
        app = group("")
        app.command(name, no_args_is_help=False)(loaded)
        command = typer.main.get_command(app)
    return _plain(command)


def _plain(command: click.Command) -> click.Command:
    """Give a command and all below it the house's help; lists of commands show a whole sentence of each."""
    command.context_class = PlainContext
    sentence = (command.help or "").partition("\n\n")[0].replace("\n", " ").partition(". ")[0]
    command.short_help = sentence.rstrip(".") + "."
    annotations = getattr(command.callback, "__annotations__", {})
    for parameter in command.params:
        if isinstance(parameter, typer.core.TyperArgument) and parameter.help is None:
            # Typer tells an argument's help before click 8.5 forgets it again: take it from the function once more.
            told = getattr(annotations.get(parameter.name), "__metadata__", ())
            parameter.help = next((item.help for item in told if isinstance(item, ArgumentInfo)), None)
            setattr(command, "format_arguments", _listed_by_typer)  # noqa: B010 -- click has it since 8.5 only
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _plain(child)
    return command


def _listed_by_typer(_context: click.Context, _formatter: click.HelpFormatter) -> None:
    """In place of click's own list of arguments: Typer writes one above the options."""


def _usage(error: click.ClickException, *, as_json: bool) -> int:
    """A command line that does not parse: exit code 2, like every input that its author must change."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "accord"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        note(error.format_message())
        return OperatorError.exit_code
    refused = OperatorError(error.format_message(), remedy=f"`{command} --help` shows the options and an example.")
    return fail(refused, as_json=as_json)


def _aborted(error: click.Abort) -> int:
    """Ctrl-C, or a question that was answered with no."""
    causes = (error.__cause__, error.__context__)
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        note("interrupted")
        return INTERRUPTED
    note("stopped: nothing was changed")
    return OperatorError.exit_code


def _missing(error: ModuleNotFoundError, extra: str) -> OperatorError:
    return OperatorError(
        f"This command needs the package {error.name}, which is not installed.",
        remedy=f"Install the role that brings it: pip install '{DISTRIBUTION}[{extra}]'.",
    )


def _unexpected(error: Exception, *, as_json: bool) -> int:
    """A defect of ours: the whole trace for the report, and a line that says what to do with it."""
    traceback.print_exception(error, file=sys.stderr)
    sentence = f"{type(error).__name__}: {error}"
    remedy = "Please report the lines above, with the command and `accord --version`; read them first."
    if as_json:
        document = {"error": {"code": "UnexpectedError", "message": sentence, "remedy": remedy}}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + os.linesep)
    else:
        note(f"error: this is a defect in Accord ({sentence}).\nwhat to do: {remedy}")
    return UNEXPECTED
