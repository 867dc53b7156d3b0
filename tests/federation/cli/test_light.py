"""Light commands stay light: only what trains or connects imports the engines, which take seconds to load.

Judged by what is imported, not by the clock, so that a busy machine cannot fail it.
"""

import subprocess
import sys

import pytest

from federation.cli.main import SUMMARIES

HEAVY = ("torch", "opacus", "flwr", "libp2p", "trio", "sklearn", "matplotlib", "jinja2")

PROBE = """
import click, sys
from federation.cli.main import PlainContext, root

def visit(command, context, path):
    command.get_help(context)
    if "xample" not in (command.help or "") + (command.epilog or ""):
        if not isinstance(command, click.Group):
            print("no example:", path)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            visit(child, PlainContext(child, info_name=name, parent=context), path + " " + name)
    elif not any("--json" in parameter.opts for parameter in command.params):
        print("no --json:", path)

name = sys.argv[1]
context = PlainContext(root, info_name="accord")
command = root.get_command(context, name)
visit(command, PlainContext(command, info_name=name, parent=context), "accord " + name)
for module in sys.argv[2:]:
    if module in sys.modules:
        print("imported:", module)
"""


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_every_command_is_light_and_has_an_example_and_json(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, name, *HEAVY], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
