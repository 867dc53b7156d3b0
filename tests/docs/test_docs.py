"""The documents tell the truth: commands exist as written, links lead somewhere, the reference is the program's own."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from federation import errors
from federation.cli.main import root

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted(page for page in (REPOSITORY / "docs").rglob("*.md") if page.name != "cli.md"),
]
SHELL = re.compile(r"^```(sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(accord [^`\n]+)`")


def written_commands(page: Path) -> Iterator[str]:
    """Every ``accord ...`` of a page: whole lines of shell blocks (continuations joined), and inline code.

    In a console block only lines after a prompt are commands; the others are what is printed.
    """
    text = page.read_text(encoding="utf-8")
    for kind, block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "console" and not line.startswith("$ "):
                continue
            found = re.search(r"(?:^|[(`]|&& |\$ |\| )\s*(accord .*)", line)
            if found:
                yield found.group(1)
    yield from INLINE.findall(text)


def test_documents_are_there() -> None:
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_in_a_document_exists_with_its_options(page: Path) -> None:
    wrong = [problem for line in written_commands(page) if (problem := mistake(line))]
    assert wrong == []


def mistake(line: str) -> str:
    """What is wrong with a written command; empty when nothing is. ``...`` and CAPITALS stand for values."""
    words = [word for word in shlex.split(line.partition(" #")[0]) if word not in {"[", "]", "...", "|", "&"}]
    command: click.Command = root
    context = click.Context(root, info_name="accord")
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        child = command.get_command(context, rest[0])
        if child is None:
            return f"{line}: there is no {rest[0]}"
        command, rest = child, rest[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    known = {
        option for parameter in command.get_params(context) for option in (*parameter.opts, *parameter.secondary_opts)
    }
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0].rstrip(")];") not in known]
    return f"{line}: unknown {unknown}" if unknown else ""


def test_the_command_reference_is_current() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/make_cli_reference.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_link_leads_somewhere() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/check_links.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_error_and_exit_code_is_documented() -> None:
    page = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AccordError)]
    assert len(kinds) >= 7
    for kind in kinds:
        assert re.search(rf"^\| {kind.exit_code} \|.*`{kind.__name__}`", page, re.MULTILINE), kind


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = REPOSITORY / "docs" / "adr"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in folder.glob("0*.md") if f"({page.name})" not in listed] == []
