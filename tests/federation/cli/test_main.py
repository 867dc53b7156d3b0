"""The root command: lazy, complete, and every way to fail has its exit code."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NoReturn

import click
import pytest

from federation.cli import main as cli
from federation.cli.output import JsonOption, group
from federation.errors import ConsentError


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Make a function the only command, under the name ``try``, as another package would add it."""

    def install(command: Callable[..., object]) -> None:
        class Given(EntryPoint):
            def load(self) -> Callable[..., object]:
                return command

        entry = Given(name="try", value="x:y", group=cli.ENTRY_POINT_GROUP)
        monkeypatch.setattr(cli, "_found", lambda: {"try": entry})

    return install


def test_every_command_that_ships_has_its_line_in_the_help(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["entry-points"][cli.ENTRY_POINT_GROUP]) == set(cli.SUMMARIES)


def test_the_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and summary in text for name, summary in cli.SUMMARIES.items())
    assert all(f"\n    {code}  " in text for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130))


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("accord 0.")


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from federation.cli.main import main; assert main(['--help']) == 0;"
        "found = {name.partition('.')[0] for name in sys.modules};"
        "heavy = {'clients', 'consent', 'numpy', 'pydantic', 'sqlalchemy', 'cryptography', 'torch', 'flwr', 'libp2p'};"
        "sys.exit(','.join(found & heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_command_is_an_input_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "No such command" in err
    assert "what to do: `accord --help`" in err


def test_an_unknown_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nonsense", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "OperatorError"


def test_a_command_may_be_a_function_a_group_or_a_click_command(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    app = group("Noun.")

    @app.command()
    def verb() -> None:
        click.echo("from a group")

    for loaded, arguments in ((lambda: click.echo("from a function"), []), (app, ["verb"])):
        serve(loaded)
        assert cli.main(["try", *arguments]) == 0
    assert capsys.readouterr().out == "from a function\nfrom a group\n"


def test_an_error_of_ours_gives_its_exit_code_and_remedy(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def command(as_json: JsonOption = False) -> NoReturn:
        assert as_json in {True, False}
        raise ConsentError("Nobody agreed.", remedy="Ask them.")

    serve(command)
    assert cli.main(["try"]) == 6
    assert capsys.readouterr().err == "error: Nobody agreed.\nwhat to do: Ask them.\n"
    assert cli.main(["try", "--json"]) == 6
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "Nobody agreed."


def test_a_defect_is_shown_in_full_with_what_to_do(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def command(as_json: JsonOption = False) -> NoReturn:
        raise ZeroDivisionError(f"json {as_json}")

    serve(command)
    assert cli.main(["try"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "this is a defect in Accord (ZeroDivisionError: json False)" in err
    assert cli.main(["try", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "UnexpectedError"


def test_ctrl_c_ends_with_130(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> NoReturn:
        raise KeyboardInterrupt

    serve(command)
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_question_answered_with_no_changes_nothing(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> NoReturn:
        raise click.Abort

    serve(command)
    assert cli.main(["try"]) == 2
    assert "nothing was changed" in capsys.readouterr().err


def test_an_explicit_exit_code_is_kept(serve: Callable[[Callable[..., object]], None]) -> None:
    def command() -> NoReturn:
        raise click.exceptions.Exit(3)

    serve(command)
    assert cli.main(["try"]) == 3


def test_a_missing_role_names_the_extra_that_brings_it(
    serve: Callable[[Callable[..., object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> NoReturn:
        raise ModuleNotFoundError("No module named 'opacus'", name="opacus.grad_sample")

    serve(command)
    assert cli.main(["try"]) == 2
    assert "pip install 'accord-network[node]'" in capsys.readouterr().err
