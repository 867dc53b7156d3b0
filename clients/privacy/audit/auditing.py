"""The whole audit: every check, the canaries, the two demonstrations.

All statistical tests share one level: an honest node is accused, by all of them together, in at most one audit of a
hundred (Bonferroni). An audit can only falsify. That nothing was found does not prove that there is nothing to find.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clients.privacy.audit import noise_checks, sampler_checks
from clients.privacy.audit.accounting_check import accounting_check
from clients.privacy.audit.canary_attack import CanaryResult, attack
from clients.privacy.audit.findings import Check, Verdict, judged
from clients.privacy.audit.inversion import Inversion, inversion
from clients.privacy.audit.membership import Membership, membership
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.payload_check import payload_check
from clients.privacy.audit.sensitivity_checks import sensitivity_checks

LEVEL: Final = 0.01
TESTS: Final = noise_checks.TESTS + sampler_checks.TESTS + 1
"""Statistical tests of an audit: those of the noise and of the sampler, and the canaries' bounds."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried; more finds smaller faults."""

    noise_rounds: int
    sampler_steps: int
    neighbours: int
    canary_runs: int
    membership_models: int


QUICK: Final = Effort(noise_rounds=40, sampler_steps=80, neighbours=15, canary_runs=6, membership_models=24)
FULL: Final = Effort(noise_rounds=400, sampler_steps=640, neighbours=120, canary_runs=60, membership_models=128)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found.

    Attributes:
        checks: every contract check, in order.
        canaries: the empirical lower bound beside the claim.
        memberships: the attack without and with privacy; empty where demonstrations were left out.
        inversion: as drawn; None where demonstrations were left out.
        level: the chance that an honest node is accused.
        seconds: how long it took.
    """

    checks: tuple[Check, ...]
    canaries: CanaryResult
    memberships: tuple[Membership, ...]
    inversion: Inversion | None
    level: float
    seconds: float

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the contract checks that failed."""
        return tuple(check.name for check in self.checks if check.verdict is Verdict.FAILED)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and not self.canaries.falsified

    def to_json(self) -> dict[str, Any]:
        """The report as data."""
        return {
            "passed": self.passed,
            "findings": list(self.findings),
            "level": self.level,
            "checks": [check.to_json() for check in self.checks],
            "canaries": self.canaries.to_json(),
            "membership": [found.to_json() for found in self.memberships],
            "inversion": None if self.inversion is None else self.inversion.to_json(),
            "seconds": round(self.seconds, 2),
        }


def audit(
    path: AuditedPath,
    effort: Effort = QUICK,
    *,
    level: float = LEVEL,
    demonstrations: bool = True,
    coins: np.random.Generator | None = None,
    on_step: Callable[[str], None] = lambda _what: None,
) -> AuditReport:
    """Audit a path.

    Args:
        path: the components; by default those of this node.
        effort: how much is tried.
        level: the chance that an honest path is accused, over all tests together.
        demonstrations: whether to run the two attacks that illustrate and decide nothing.
        coins: which canaries take part; by default from the operating system's generator.
        on_step: told what begins.
    """
    started = time.monotonic()
    each = level / TESTS
    checks = judged(list(_checks(path, effort, each, on_step)))
    on_step("canaries")
    canaries = attack(path, runs=effort.canary_runs, level=each, coins=coins or np.random.default_rng())
    memberships: tuple[Membership, ...] = ()
    drawn = None
    if demonstrations:
        on_step("membership inference")
        memberships = membership(path, models=effort.membership_models)
        on_step("gradient inversion")
        drawn = inversion(path)
    return AuditReport(checks, canaries, memberships, drawn, level, time.monotonic() - started)


def _checks(path: AuditedPath, effort: Effort, level: float, on_step: Callable[[str], None]) -> Iterator[Check]:
    on_step("payload and accounting")
    yield payload_check(path)
    yield accounting_check(path)
    on_step("sensitivity")
    yield from sensitivity_checks(path, neighbours=effort.neighbours)
    on_step("noise")
    yield from noise_checks.noise_checks(path, rounds=effort.noise_rounds, level=level)
    on_step("sampler")
    yield sampler_checks.sampler_check(path, steps=effort.sampler_steps, level=level)
