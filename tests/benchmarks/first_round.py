"""From ``pip install`` to a new hospital's first round: how many commands, how many seconds.

    python tests/benchmarks/first_round.py [--installed]

A study of two hospitals is set up on loopback as in docs/guide/first-study.md: the registry and one hospital run
already, from this environment, and wait. Then the second hospital comes: everything that it types is counted and
timed, beginning with a fresh virtual environment, until the log of the study holds its first closed round. Only public
commands are used. pip may take what it downloaded before from its cache, and packages from wherever it is configured
to; versions are those of constraints.txt. Nobody types, reads or thinks: the seconds are the machine's.

``--installed`` leaves the installation out and uses this environment, to try the script.
"""

import argparse
import csv
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
COLUMNS: Final = (0, 1, 2, 3, 4, 5, 8, 9, 10, 14)
"""As in the guide."""
COMMAND_S_MAX: Final = 1800.0
ROUND_S_MAX: Final = 300.0
TERMS: Final = "--purpose DUO:0000007 --disease MONDO:0005010 --epsilon-max 3"


@dataclass(frozen=True)
class Typed:
    """One command of the new hospital's, and what it took."""

    command: str
    seconds: float
    whose: str


class Shell:
    """Runs commands in ``folder`` with the programs of ``bin_folder`` first; notes what is counted.

    ``code`` is where Python looks for Accord before it looks at what is installed; None: nowhere.
    """

    def __init__(self, folder: Path, bin_folder: Path, code: Path | None = None) -> None:
        self.folder, self.typed = folder, list[Typed]()
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        kept |= {} if code is None else {"PYTHONPATH": str(code)}
        self._environment = {**kept, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}

    def run(self, command: str, whose: str = "") -> str:
        """Run one line; its output. ``whose`` says for whom it is counted.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        began = time.monotonic()
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"$ {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        if whose:
            self.typed.append(Typed(command, time.monotonic() - began, whose))
        return done.stdout.strip()

    @contextmanager
    def staying(self, command: str) -> Iterator[None]:
        """Run one line that stays; ask it to stop afterwards."""
        with (self.folder / f"{shlex.split(command)[-1]}.out").open("wb") as file:
            process = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self._environment, stdout=file, stderr=file
            )
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def write_data(folder: Path) -> None:
    """Each hospital's rows, and every fifth for validation, as the guide cuts them."""
    source = Path(str(files("clients.demo") / "data" / "heart"))
    held: list[list[str]] = []
    for site in ("cleveland", "hungary"):
        with (source / f"{site}.csv").open(newline="", encoding="utf-8") as file:
            rows = [[row[at] for at in COLUMNS] for row in csv.reader(file)]
        header, people = rows[0], rows[1:]
        held = held or [header]
        held += people[3::5]
        kept = [row for at, row in enumerate(people) if at % 5 != 3]
        write_rows(folder / f"{site}.csv", [header, *kept])
    write_rows(folder / "decisions.csv", [["subject", "action"], *([row[0], "grant"] for row in kept)])
    write_rows(folder / "validation.csv", held)


def write_rows(path: Path, rows: list[list[str]]) -> None:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def wait_for(what: str, there: Callable[[], bool], seconds: float) -> None:
    """Look once a second until ``there``.

    Raises:
        RuntimeError: not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        time.sleep(1)


def consents(shell: Shell, site: str) -> None:
    """The patients' part, played by a wallet."""
    shell.run(f"accord consent wallet --out {site}.wallet --from-csv {site}.csv --subject-column patient_id")
    shell.run(f"accord consent grant --dir {site} --wallet {site}.wallet --all {TERMS}")


def prepare(shell: Shell, stack: ExitStack) -> str:
    """The registry and the first hospital, running; the second one's invitation."""
    write_data(shell.folder)
    shell.run("accord coordinator init --dir registry --name registry")
    shell.run("accord study new plan.toml --dir registry --validation validation.csv")
    shell.run("accord study publish plan.toml --dir registry")
    stack.enter_context(shell.staying("accord coordinator run --dir registry"))
    address = shell.folder / "registry" / "run" / "address"
    wait_for("the registry", lambda: address.exists() and bool(address.read_text()), ROUND_S_MAX)
    invitation = shell.run("accord study invite cleveland --dir registry")
    shell.run("accord node init --dir cleveland --name cleveland")
    shell.run(f"accord node join {invitation} --dir cleveland")
    shell.run("accord data add cleveland.csv --dir cleveland --subject patient_id")
    consents(shell, "cleveland")
    shell.run("accord agreement sign --nominal-cohort 240 --yes --dir cleveland")
    stack.enter_context(shell.staying("accord node run --dir cleveland"))
    return shell.run("accord study invite hungary --dir registry")


def come(shell: Shell, registry: Shell, invitation: str, *, installing: Path | None) -> float:
    """The new hospital's way; returns the seconds in all."""
    began = time.monotonic()
    if installing is not None:
        shell.run(f"{sys.executable} -m venv {installing}", "installing")
        pip = f"{installing}/bin/pip install --quiet --constraint {REPOSITORY}/constraints.txt"
        shell.run(f"{pip} {REPOSITORY}[node]", "installing")
    started = time.monotonic()
    line = (
        f"accord node start {invitation} --data hungary.csv --subject patient_id --nominal-cohort 230"
        f" --decisions decisions.csv {TERMS} --yes --dir hungary"
    )
    with shell.staying(line):
        wait_for("the first round", lambda: closed_rounds(registry) > 0, ROUND_S_MAX)
        done = time.monotonic()
        shell.typed.append(Typed(line, done - started, "all the rest"))
    return done - began


def closed_rounds(registry: Shell) -> int:
    """How many rounds the study's log holds."""
    return registry.run("accord log show --dir registry").count("round closed: ")


def print_typed(typed: list[Typed], whole: float, names: dict[str, str]) -> None:
    """The table; ``names`` shortens what differs from run to run."""
    print("| command | for | seconds |\n| --- | --- | ---: |")
    for each in typed:
        shown = each.command.replace(sys.executable, "python3")
        for long, short in names.items():
            shown = shown.replace(long, short)
        print(f"| `{shown}` | {each.whose} | {each.seconds:.1f} |")
    print(f"| **{len(typed)} commands** | | **{whole:.0f}** |")
    now, load = datetime.now(UTC), os.getloadavg()[0]
    print(f"\nMeasured {now:%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}.")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--installed", action="store_true")
    given = options.parse_args()
    own = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        environment = None if given.installed else folder / "environment"
        registry = Shell(folder, own, REPOSITORY)
        invitation = prepare(registry, stack)
        hospital = registry if environment is None else Shell(folder, environment / "bin")
        whole = come(hospital, registry, invitation, installing=environment)
        print_typed(hospital.typed, whole, {invitation: "INVITATION", str(folder): "~", str(REPOSITORY): "."})


if __name__ == "__main__":
    main()
