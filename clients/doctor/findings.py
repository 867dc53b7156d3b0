"""A finding: what was looked at, what was seen, and what to do about it. Pure.

Thresholds are judged here, apart from measuring, so that they can be read and tested in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from consent.rules.record import SKEW_MAX
from federation.network.probe import Line

GIB: Final = 1 << 30
DISK_LOW_BYTES: Final = GIB
DISK_MIN_BYTES: Final = GIB // 10
MEMORY_LOW_BYTES: Final = 2 * GIB
MEMORY_MIN_BYTES: Final = GIB
"""A node that trains holds torch, Opacus and Flower: about half of this before it reads the first row."""
CLOCK_LOW: Final = timedelta(seconds=30)
SLOW_BYTES_S: Final = 128 * 1024
"""About one megabit per second."""
FAR_S: Final = 1.0
_ONLY_HERE: Final = ("/ip4/127.", "/ip4/0.0.0.0/", "/ip6/::1/", "/ip6/::/")
DEADLINE_SHARE: Final = 0.5
"""A round that is predicted to take more of its deadline than this is a warning."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, a word or two.
        level: how bad it is.
        seen: what was seen, one sentence.
        remedy: what to do about it; empty where nothing needs doing.
        network: whether the cause lies between this machine and the coordinator.
        figures: what was measured, with units in the names.
    """

    check: str
    level: Level
    seen: str
    remedy: str = ""
    network: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The finding as data."""
        return {
            "check": self.check,
            "level": str(self.level),
            "seen": self.seen,
            "remedy": self.remedy,
            "figures": dict(self.figures),
        }


def disk(free_bytes: int, folder: str) -> Finding:
    """Room for databases and blobs."""
    seen = f"{free_bytes / GIB:.1f} GiB are free where {folder} lies."
    figures = {"free_bytes": float(free_bytes)}
    if free_bytes < DISK_MIN_BYTES:
        return Finding("disk", Level.FAILED, seen, "Make room: a node that cannot write stops.", figures=figures)
    if free_bytes < DISK_LOW_BYTES:
        return Finding("disk", Level.WARNING, seen, "Make room before a study with large models.", figures=figures)
    return Finding("disk", Level.OK, seen, figures=figures)


def memory(available_bytes: int) -> Finding:
    """Room for the training engine."""
    seen = f"{available_bytes / GIB:.1f} GiB of memory are available."
    figures = {"available_bytes": float(available_bytes)}
    if available_bytes < MEMORY_MIN_BYTES:
        remedy = "End other programs or use a machine with 2 GiB more: training would be killed."
        return Finding("memory", Level.FAILED, seen, remedy, figures=figures)
    if available_bytes < MEMORY_LOW_BYTES:
        return Finding("memory", Level.WARNING, seen, "Free some: training takes about 1 GiB.", figures=figures)
    return Finding("memory", Level.OK, seen, figures=figures)


def clock(ahead_s: float, round_trip_s: float) -> Finding:
    """The coordinator's clock beside ours; consents are refused from ten minutes on."""
    off_s = max(0.0, abs(ahead_s) - round_trip_s / 2)
    figures = {"coordinator_ahead_s": ahead_s}
    seen = f"This clock and the coordinator's differ by {off_s:.1f} s."
    remedy = "Let the machine set its clock by itself (`timedatectl set-ntp true`)."
    if off_s >= SKEW_MAX.total_seconds():
        return Finding("clock", Level.FAILED, seen, remedy, figures=figures)
    if off_s >= CLOCK_LOW.total_seconds():
        return Finding("clock", Level.WARNING, seen, remedy, figures=figures)
    return Finding("clock", Level.OK, seen, figures=figures)


def passing_on(mode: str, addresses: Sequence[str]) -> Finding | None:
    """Where others find a node that passes models on (``addresses``: of its settings); None for one that does not."""
    if mode != "serve":
        return None
    shown = ", ".join(addresses)
    if all(address.startswith(_ONLY_HERE) for address in addresses):
        remedy = (
            "Set `listen` to an address of this machine's network and, behind a router, `announce` to the outer one."
        )
        return Finding("models", Level.WARNING, f"Models are passed on at {shown}, where no other node comes.", remedy)
    return Finding("models", Level.OK, f"Models are passed on to the study's other nodes at {shown}.")


def line(measured: Line) -> Finding:
    """How fast models and updates travel."""
    seen = (
        f"Models arrive at {_rate(measured.down_bytes_s)}, updates leave at {_rate(measured.up_bytes_s)}; "
        f"an answer takes {measured.round_trip_s * 1000:.0f} ms."
    )
    figures = {
        "round_trip_s": measured.round_trip_s,
        "down_bytes_s": measured.down_bytes_s,
        "up_bytes_s": measured.up_bytes_s,
    }
    if min(measured.down_bytes_s, measured.up_bytes_s) < SLOW_BYTES_S or measured.round_trip_s > FAR_S:
        remedy = "It works, slowly: prefer studies with long deadlines, or ask for a better line to the coordinator."
        return Finding("line", Level.WARNING, seen, remedy, network=True, figures=figures)
    return Finding("line", Level.OK, seen, figures=figures)


def round_time(*, training_s: float, model_bytes: int, measured: Line | None, deadline_s: int) -> Finding:
    """What one round will take of its deadline: model in, training, update out."""
    travel_s = 0.0
    if measured is not None:
        travel_s = model_bytes / measured.down_bytes_s + model_bytes / measured.up_bytes_s + 6 * measured.round_trip_s
    total_s = training_s + travel_s
    without = "" if measured is not None else ", the line not counted"
    seen = (
        f"A round takes about {total_s:.1f} s here (training {training_s:.1f} s, model and update of "
        f"{model_bytes} bytes each {travel_s:.1f} s{without}); the plan allows {deadline_s} s."
    )
    figures = {"round_s": total_s, "training_s": training_s, "travel_s": travel_s, "deadline_s": float(deadline_s)}
    if total_s > deadline_s:
        remedy = "This node would miss every round: use a faster machine or line, or ask for a longer deadline."
        return Finding("round", Level.FAILED, seen, remedy, figures=figures)
    if total_s > DEADLINE_SHARE * deadline_s:
        return Finding("round", Level.WARNING, seen, "It is close: ask for a longer deadline.", figures=figures)
    return Finding("round", Level.OK, seen, figures=figures)


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level of all."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAILED, Level.WARNING) if level in levels), Level.OK)


def _rate(bytes_s: float) -> str:
    return f"{bytes_s / 1e6:.1f} MB/s" if bytes_s >= 1e6 else f"{bytes_s / 1e3:.0f} kB/s"  # noqa: PLR2004 - units
