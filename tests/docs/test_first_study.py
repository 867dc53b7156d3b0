"""The guide "The first study, by hand", executed line by line: every command, every output that it shows."""

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "first-study.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND_S_MAX = 90.0
PROMPT = "\x02done "
GAP = "..."


@dataclass
class Step:
    """A command of the guide and the lines shown under it."""

    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def expected(self) -> re.Pattern[str]:
        """The whole output: a line ``...`` stands for any lines, ``...`` in a line for any characters."""
        parts = [
            "(?:.*\n)*" if line == GAP else ".*".join(re.escape(part) for part in line.split(GAP)) + "\n"
            for line in self.shown
        ]
        return re.compile("".join(parts))


class Shell:
    """One bash for the whole guide, in a process group of its own, so that nothing it started outlives it."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0 if number == signal.SIGKILL else 1)
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def run(self, command: str) -> tuple[str, int]:
        """The output of one line, both streams as in a terminal, and its exit code."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f'eval {shlex.quote(command)} </dev/null; echo "{PROMPT}$?"\n'.encode())
        stdin.flush()
        data, deadline = b"", time.monotonic() + COMMAND_S_MAX
        while (end := re.search(PROMPT + r"(\d+)\n", data.decode("utf-8", "replace"))) is None:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(stdout.fileno(), 65536) if ready else b""
            assert piece, f"no end of: {command}\n{data.decode('utf-8', 'replace')}"
            data += piece
        return data.decode("utf-8", "replace")[: end.start()], int(end.group(1))


def steps() -> Iterator[Step]:
    """The guide's commands, in order."""
    for block in CONSOLE.findall(GUIDE.read_text(encoding="utf-8")):
        step: Step | None = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if step:
                    yield step
                step = Step(line.removeprefix("$ "))
            else:
                assert step is not None, f"output without a command: {line}"
                step.shown.append(line)
        if step:
            yield step


@pytest.mark.processes
def test_every_line_of_the_guide_does_what_the_guide_shows(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        for step in steps():
            output, code = shell.run(step.command)
            assert step.expected.fullmatch(output), f"$ {step.command}\n{output}\nthe guide shows:\n{step.shown}"
            assert code == 0, f"$ {step.command}\n{output}"
    first = tmp_path / "first-study"
    for party in ("registry", "cleveland", "hungary"):
        assert not (first / party / "run" / "pid").exists(), party
    assert (first / "export" / "manifest.json").is_file()


def test_the_guide_shows_every_command_of_the_hand_made_study() -> None:
    """The commands that the release promises are all in the guide's own lines."""
    text = "\n".join(step.command for step in steps())
    promised = """coordinator init|coordinator run|coordinator status|study new|study validate|study publish
        |study invite|study status|study export|node init|node join|node run|node start|data add|data check
        |agreement review|agreement sign|consent wallet|consent grant|consent withdraw|consent verify|budget show
        |rewards statement|log verify|log show"""
    assert [name for name in promised.split("|") if f"accord {name.strip()} " not in text] == []
