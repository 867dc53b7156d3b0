"""What an audit finds, as data: one check at a time, each with its question and what was measured.

A check that fails may make others meaningless (where nothing is clipped, nothing can be said of neighbours); these are
then not judged, so that a finding names the fault and not its consequences.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: a short, stable name.
        question: what it asks, in words.
        verdict: the answer.
        measured: the figures behind the answer, in one sentence.
        p_value: of a statistical test; None where the check is exact.
        needs: names of checks without which this one means nothing.
    """

    name: str
    question: str
    verdict: Verdict
    measured: str
    p_value: float | None = None
    needs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The check as data for ``--json``."""
        return {
            "name": self.name,
            "question": self.question,
            "verdict": str(self.verdict),
            "measured": self.measured,
            "p_value": self.p_value,
        }


def exact(name: str, question: str, *, holds: bool, measured: str, needs: tuple[str, ...] = ()) -> Check:
    """A check without chance in it."""
    return Check(name, question, Verdict.PASSED if holds else Verdict.FAILED, measured, needs=needs)


def statistical(
    name: str, question: str, *, p_value: float, level: float, measured: str, needs: tuple[str, ...] = ()
) -> Check:
    """A test that fails where what was seen is rarer, on an honest path, than ``level``."""
    verdict = Verdict.PASSED if p_value >= level else Verdict.FAILED
    return Check(name, question, verdict, measured, p_value=p_value, needs=needs)


def judged(checks: Collection[Check]) -> tuple[Check, ...]:
    """The checks in order; those whose needs failed, or were not judged themselves, are not judged."""
    unsound: dict[str, str] = {}
    result = []
    for check in checks:
        broken = next((name for name in check.needs if name in unsound), None)
        if broken is not None:
            cause = unsound[broken]
            measured = f"says nothing while {cause} fails"
            result.append(Check(check.name, check.question, Verdict.NOT_JUDGED, measured, needs=check.needs))
            unsound[check.name] = cause
        else:
            result.append(check)
            if check.verdict is Verdict.FAILED:
                unsound[check.name] = check.name
    return tuple(result)
