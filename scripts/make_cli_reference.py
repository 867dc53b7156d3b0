"""Write docs/reference/cli.md from the program itself; ``--check`` only says whether the page is current.

The page is the ``--help`` of every command, so that it cannot tell another story than the program.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from federation.cli.main import root

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
HEAD = """# Commands

Written by `make docs` from the program's own `--help`. Every command takes `--json`; data goes to standard
output, everything else to standard error; [exit codes](exit-codes.md) are the same everywhere.
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Each command's path ("accord study new") and its help, depth first."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, context_of(child, name, context))


def context_of(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    """A context of fixed width, so that the page does not depend on a terminal."""
    return command.context_class(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    for path, text in commands(root, context_of(root, "accord", None)):
        level = "#" * min(path.count(" ") + 2, 4)
        parts.append(f"{level} {path}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check the page; the exit code is 1 when the check finds an old one."""
    text = page()
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv:
        if current != text:
            print("docs/reference/cli.md is not current: run make docs")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote docs/reference/cli.md ({len(text.splitlines())} lines)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
