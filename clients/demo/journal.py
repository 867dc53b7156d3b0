"""What a demo was asked for, and which of its steps are done: ``demo.json`` in its folder."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from federation.errors import OperatorError

_JOURNAL: Final = "demo.json"


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose. ``seed`` governs split, consent draws and the first model, never noise or sampling."""

    study: str = "heart"
    rounds: int | None = None
    epsilon: float | None = None
    seed: int = 13


class Journal:
    """Which steps are done, durably.

    Raises:
        OperatorError: the folder holds something else, or a demo with other options.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self._path = folder / _JOURNAL
        wanted = {"study": options.study, "rounds": options.rounds, "epsilon": options.epsilon, "seed": options.seed}
        self.seconds: dict[str, float] = {}
        self._done: list[str] = []
        self._lock = threading.Lock()
        if self._path.exists():
            stored = json.loads(self._path.read_text("utf-8"))
            if stored["options"] != wanted:
                raise OperatorError(
                    f"{folder} holds a demo with other options ({_shown(stored['options'])}).",
                    remedy="Give the same options to resume it, or another --out for a new one.",
                )
            self._done, self.seconds = stored["done"], stored["seconds"]
        elif folder.exists() and any(folder.iterdir()):
            raise OperatorError(
                f"{folder} is not empty, and not a demo's folder.", remedy="Give an empty or a new folder with --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._options = wanted
        self._save()

    def done(self, step: str) -> bool:
        """Whether a step was finished, now or in an earlier run."""
        return step in self._done

    def finish(self, step: str, seconds: float | None = None) -> None:
        """Write down that a step is finished, and how long it took (several threads may)."""
        with self._lock:
            self._done.append(step)
            if seconds is not None:
                self.seconds[step] = round(seconds, 2)
            self._save()

    def _save(self) -> None:
        text = json.dumps(
            {"version": 1, "options": self._options, "done": self._done, "seconds": self.seconds}, indent=1
        )
        temporary = self._path.with_suffix(".new")
        temporary.write_text(text, "utf-8")
        temporary.replace(self._path)


def _shown(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
