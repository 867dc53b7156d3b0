"""What officers and patients type every day runs without the engines: the real commands, in processes of their own."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

HEAVY = ("torch", "opacus", "flwr", "libp2p", "trio", "sklearn", "matplotlib", "jinja2", "transformers")

RUN = """
import sys
from federation.cli.main import main
heavy, arguments = sys.argv[1].split(","), sys.argv[2:]
code = main(arguments)
found = [name for name in heavy if name in sys.modules]
print(f"imported: {found}" if found else "", file=sys.stderr, end="")
sys.exit(code)
"""


def accord(*arguments: str | Path) -> str:
    """Run one command; it must succeed and import nothing heavy."""
    result = subprocess.run(
        [sys.executable, "-c", RUN, ",".join(HEAVY), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, (arguments, result.stdout, result.stderr)
    assert "imported:" not in result.stderr, (arguments, result.stderr)
    return result.stdout


@pytest.mark.processes
def test_commands_that_neither_train_nor_connect_are_light(tmp_path: Path) -> None:
    rows = Path(str(files("clients.demo") / "data" / "heart" / "cleveland.csv"))
    plan = Path(str(files("clients.demo") / "plans" / "heart.toml"))
    coordinator, node = tmp_path / "coordinator", tmp_path / "node"
    wallet = tmp_path / "patients.wallet"
    subject = rows.read_text(encoding="utf-8").splitlines()[1].partition(",")[0]

    accord("coordinator", "init", "--dir", coordinator)
    mine = tmp_path / "plan.toml"
    accord("study", "new", mine, "--from", plan, "--dir", coordinator, "--validation", rows)
    accord("study", "validate", mine, "--dir", coordinator)
    accord("study", "publish", mine, "--dir", coordinator)
    accord("study", "status", "--dir", coordinator)
    accord("coordinator", "status", "--dir", coordinator)
    accord("node", "init", "--dir", node, "--name", "cleveland")
    accord("data", "add", rows, "--dir", node, "--subject", "patient_id")
    accord("data", "check", "--dir", node, "--plan", mine)
    accord("consent", "wallet", "--out", wallet, "--from-csv", rows, "--subject-column", "patient_id")
    accord(
        "consent", "grant", "--dir", node, "--wallet", wallet, "--all", "--purpose", "DUO:0000006", "--epsilon-max", "3"
    )
    accord("consent", "verify", "--dir", node, "--subject", subject)
    accord("consent", "withdraw", "--dir", node, "--subject", subject)
    assert '"epsilon_remaining": 3' in accord("budget", "show", "--dir", node, "--json")
