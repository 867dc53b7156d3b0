"""A study that pauses, or is to end early: no round is opened; one that is open ends as it would.

A pause is kept in the coordinator's folder, not in the log: like a coordinator that does not run, it changes nothing
that anybody could verify, and binds nobody. The end of a study is noted in the same place until the running
coordinator has written it into the log, which nothing takes back.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from federation.errors import OperatorError
from federation.rules.instant import format_instant

REASON_CHARACTERS_MAX: Final = 500
_FILE: Final = "paused.json"
_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when a study pauses, and why; ``for_good``: it is to be aborted."""

    reason: str
    since: str
    for_good: bool = False

    def __str__(self) -> str:
        return f"{'aborted' if self.for_good else 'paused'} since {self.since}: {self.reason}"


def paused(folder: Path, study: str) -> Pause | None:
    """Whether a study pauses.

    Raises:
        OperatorError: the folder's note about it is damaged: nobody knows, so the study does not go on.
    """
    found = _notes(folder).get(study)
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in ("reason", "since")):
        raise _damaged(folder)
    return Pause(found["reason"], found["since"], for_good=found.get("for_good") is True)


def pause(folder: Path, study: str, reason: str, *, now: datetime) -> Pause:
    """Note that a study pauses from now on; a study that pauses keeps its first note.

    Raises:
        OperatorError: there is no reason, or it is too long.
    """
    return paused(folder, study) or _note(folder, study, reason, now=now, for_good=False)


def abort(folder: Path, study: str, reason: str, *, now: datetime) -> Pause:
    """Note that a study is to end; a pause ends in it, and the first such note stays.

    Raises:
        OperatorError: there is no reason, or it is too long.
    """
    before = paused(folder, study)
    if before is not None and before.for_good:
        return before
    return _note(folder, study, reason, now=now, for_good=True)


def _note(folder: Path, study: str, reason: str, *, now: datetime, for_good: bool) -> Pause:
    if not 1 <= len(reason.strip()) <= REASON_CHARACTERS_MAX:
        raise OperatorError(
            "Others need a reason that they can read.",
            remedy=f"Say why with --reason, in 1 to {REASON_CHARACTERS_MAX} characters.",
        )
    made = Pause(reason.strip(), format_instant(now), for_good)
    _write(folder, {**_notes(folder), study: asdict(made)})
    return made


def resume(folder: Path, study: str) -> Pause | None:
    """Let a study go on; the pause that ended, None if there was none.

    Raises:
        OperatorError: the study was aborted.
    """
    before = paused(folder, study)
    if before is not None and before.for_good:
        raise OperatorError(
            f"{study} was {before}. Nothing takes that back.",
            remedy="Publish a new study; what people lost in this one stays charged.",
        )
    if before is not None:
        _write(folder, {name: note for name, note in _notes(folder).items() if name != study})
    return before


def _notes(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise _damaged(folder)
        notes = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error
    if not isinstance(notes, dict):
        raise _damaged(folder)
    return notes


def _write(folder: Path, notes: dict[str, Any]) -> None:
    """Old or new is there after a crash, nothing in between."""
    temporary = folder / f"{_FILE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(notes, ensure_ascii=False, indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)


def _damaged(folder: Path) -> OperatorError:
    return OperatorError(
        f"{folder / _FILE} is damaged: nobody knows which studies pause, so none goes on.",
        remedy="Restore the file, or remove it if no study is to pause.",
    )
