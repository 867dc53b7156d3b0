"""The demo as a stranger starts it: the command ``accord``, another process, a folder."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCORD = Path(sys.executable).with_name("accord")


@dataclass(frozen=True, slots=True)
class FinishedDemo:
    """What a demo left behind, and what it said."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "report.json").read_text("utf-8"))
        return document

    def node(self, site: str) -> Path:
        return self.folder / "nodes" / site


@dataclass(frozen=True, slots=True)
class InterruptedDemo:
    """How a demo ended that got SIGINT while it ran, and what was there at that moment."""

    folder: Path
    exit_code: int
    stderr: str
    pids: dict[str, int]
    alive: list[int]
    processes: list[str]


def accord(*arguments: str | Path, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """One command, to its end."""
    line = [str(ACCORD), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes of this machine that name ``folder``."""
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit() or int(path.name) == os.getpid():
            continue
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if any(str(folder).encode() in word for word in words):
            found.append(b" ".join(words).decode("utf-8", "replace"))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs (one that has ended and waits to be collected does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
