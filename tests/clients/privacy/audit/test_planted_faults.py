"""The audit finds each planted fault, names it and no other; and it leaves honest paths alone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from faulty_training import FAULTS, PlainTraining, Seeded
from sqlalchemy.engine import Engine

from clients.privacy.audit.auditing import QUICK, AuditReport, Effort, audit
from clients.privacy.audit.findings import Verdict
from clients.privacy.audit.noise_checks import noise_checks
from clients.privacy.audit.path import AuditedPath
from clients.privacy.audit.sampler_checks import sampler_check
from clients.privacy.budget import BudgetLedger
from clients.privacy.noise import SecureNoise
from clients.privacy.release import release
from federation.rules.encoding import Rows, SubjectBatch, by_subject
from federation.rules.fixedpoint import Floats, Integers, to_fixed
from federation.rules.schema import SchemaContract
from federation.rules.study import StudyPlan

SMALL = Effort(noise_rounds=24, sampler_steps=60, neighbours=10, canary_runs=3, membership_models=2)
Change = Callable[[AuditedPath], AuditedPath]


def seeded(seed: int = 1) -> AuditedPath:
    """The shipped path on noise that a test can repeat: one stream for the whole audit."""
    source = Seeded(np.random.default_rng(seed))
    return AuditedPath(noise=lambda: source)


def run(path: AuditedPath, effort: Effort = SMALL, *, level: float = 0.01) -> AuditReport:
    return audit(path, effort, level=level, demonstrations=False, coins=np.random.default_rng(2))


def records_as_persons(schema: SchemaContract, rows: Rows) -> SubjectBatch:
    """The wrong unit: each record becomes a person of its own."""
    names = tuple(f"{name}#{number}" for number, name in enumerate(rows.subjects))
    return by_subject(schema, Rows(names, rows.features, rows.labels))


def with_a_buffer(delta: Floats, plan: StudyPlan) -> Integers:
    """A running statistic leaves beside the parameters."""
    return np.concatenate([release(delta, plan), to_fixed(np.array([0.125]))])


def in_place_of_the_bias(delta: Floats, plan: StudyPlan) -> Integers:
    """As many numbers as there should be, but one of them is something else."""
    released = release(delta, plan).copy()
    released[-1] = to_fixed(np.array([0.125]))[0]
    return released


class ForgetfulLedger(BudgetLedger):
    """An accountant that is made anew for each message: it knows of no other round."""

    def spent(self, study: str | None = None) -> float:
        return self._epsilon(self.events(study)[-1:])

    def spent_pld(self, study: str | None = None) -> float:
        return super().spent_pld(study) / 4


def forgetful(engine: Engine) -> BudgetLedger:
    BudgetLedger.create(engine, epsilon=Decimal(8), delta=Decimal("1e-5"), clock=lambda: datetime.now(UTC))
    return ForgetfulLedger(engine, clock=lambda: datetime.now(UTC))


def reseeded() -> Seeded:
    """The same numbers in every round."""
    return Seeded(np.random.default_rng(123))


def trained(fault: str) -> Change:
    return lambda path: replace(path, train=PlainTraining(fault))


EXPECTED: dict[str, tuple[Change, tuple[str, ...], bool]] = {
    # fault: how it is planted, which checks must fail (no others), whether the canaries prove more than was claimed
    "no noise": (trained("no-noise"), ("noise-variance",), True),
    "noise / B": (trained("noise-over-batch"), ("noise-variance",), True),
    "no clipping": (trained("no-clipping"), ("clip-alone",), True),
    "batch clipping": (trained("batch-clipping"), ("clip-neighbours",), True),
    "seed reset": (lambda path: replace(path, noise=reseeded), ("noise-fresh",), False),
    "accountant reset": (lambda path: replace(path, ledger=forgetful), ("accounting",), True),
    "shuffled instead of Poisson": (trained("shuffled"), ("sampler",), False),
    "forward leak": (trained("forward-leak"), ("separation",), False),
    "NaN record": (trained("nan-record"), ("finite",), False),
    "extra buffer": (lambda path: replace(path, release=with_a_buffer), ("payload",), False),
    "buffer in a parameter's place": (lambda path: replace(path, release=in_place_of_the_bias), ("payload",), False),
    "records instead of persons": (lambda path: replace(path, group=records_as_persons), ("unit",), False),
}


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_planted_fault_is_found_and_no_other(fault: str) -> None:
    plant, findings, falsified = EXPECTED[fault]
    report = run(plant(seeded()))
    assert report.findings == findings
    assert not report.passed
    assert report.canaries.falsified is falsified


def test_every_planted_fault_of_training_is_expected_to_be_found() -> None:
    planted = [plant(AuditedPath()).train for plant, _, _ in EXPECTED.values()]
    assert {train.fault for train in planted if isinstance(train, PlainTraining)} == set(FAULTS)


def test_the_shipped_path_passes_and_its_bound_is_below_the_claim() -> None:
    report = run(seeded(), QUICK)
    assert report.passed, report.to_json()
    assert all(check.verdict is Verdict.PASSED for check in report.checks)
    canaries = report.canaries
    assert 1.5 < canaries.lower_gaussian < canaries.claimed_pld < canaries.claimed <= 3
    assert 0.2 < canaries.lower < canaries.claimed_pld


def test_the_shipped_path_with_the_system_s_noise_passes() -> None:
    """Real noise accuses an honest node now and then: here once in a million runs."""
    path = AuditedPath()
    assert path.noise is SecureNoise
    assert run(path, level=1e-6).passed


def test_a_second_honest_implementation_passes_as_well() -> None:
    report = run(replace(seeded(), train=PlainTraining()))
    assert report.passed, report.to_json()


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_noise_that_is_a_tenth_off_is_found(factor: float) -> None:
    class Scaled(Seeded):
        def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
            return super().discrete_gaussian(count, std * Fraction(factor))

    source = Scaled(np.random.default_rng(3))
    assert run(AuditedPath(noise=lambda: source)).findings == ("noise-variance",)


def test_noise_of_the_right_variance_and_the_wrong_shape_is_found() -> None:
    class Uniform(Seeded):
        def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
            uniform = np.random.default_rng(self.coins(64, Fraction(1, 2)).astype(np.int64)).uniform(-1, 1, count)
            return np.rint(uniform * float(std) * 3**0.5).astype(np.int64)

    source = Uniform(np.random.default_rng(3))
    assert run(AuditedPath(noise=lambda: source)).findings == ("noise-shape",)


def test_a_generator_that_a_global_seed_reaches_is_found() -> None:
    class Global(Seeded):
        def discrete_gaussian(self, count: int, std: Fraction) -> Integers:
            found = np.random.normal(0.0, float(std), count)  # noqa: NPY002 - the fault itself
            return np.rint(found).astype(np.int64)

    source = Global(np.random.default_rng(3))
    assert run(AuditedPath(noise=lambda: source)).findings == ("noise-fresh",)


def test_honest_paths_are_accused_as_seldom_as_stated() -> None:
    """100 audits of the noise and 100 of the sampler, at 5 % each test: not more alarms than chance allows."""
    path, level, trials = seeded(11), 0.05, 100
    noise = sum(
        any(check.verdict is Verdict.FAILED for check in noise_checks(path, rounds=4, level=level / 3))
        for _ in range(trials)
    )
    sampler = sum(
        sampler_check(replace(path, train=PlainTraining()), steps=12, level=level / 4).verdict is Verdict.FAILED
        for _ in range(trials)
    )
    assert noise <= 14  # more than 14 of 100 at 5 %: once in 10,000 seeds
    assert sampler <= 14
