from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from federation.learning.evaluation import utility
from federation.learning.reference import LATTICE_STEPS, reference_update, same_reference
from federation.rules.aggregation import norm_within
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import from_fixed, to_fixed

HUGE = Decimal(10**6)


def people() -> SubjectBatch:
    rng = np.random.default_rng(4)
    mask = (np.arange(3)[None, :] < rng.integers(1, 4, 12)[:, None]).astype(np.float64)
    x = rng.uniform(-1, 1, (12, 3, 4)) * mask[:, :, None]
    return SubjectBatch(tuple(f"s{at:02}" for at in range(12)), x, rng.integers(0, 2, mask.shape) * mask, mask)


def plan(play: Any, *, clip: str = "1", rate: str = "0.5", bound: str = "10") -> Any:
    edits = {
        'rule = "weighted-mean"': play.anchored,
        "clip = 1": f"clip = {clip}",
        "learning_rate = 1": f"learning_rate = {rate}\nlocal_steps = 3",
        "norm_bound = 10": f"norm_bound = {bound}",
    }
    return play(edits=edits).plan


def test_a_reference_takes_the_steps_that_lower_the_loss_of_its_people(play: Any) -> None:
    """Against slopes of the utility, measured by differences."""
    current = begin = np.linspace(-0.5, 0.5, 5)
    for _ in range(3):
        steps = np.eye(5) * 2.0**-12
        ahead, behind = (
            np.array([utility(current + sign * step, people(), HUGE) for step in steps]) for sign in (1, -1)
        )
        current = current + 0.5 * (ahead - behind) / 2.0**-11
    found = from_fixed(reference_update(plan(play, clip="100"), to_fixed(begin), people()))
    assert found == pytest.approx(current - begin, abs=1e-6)


def test_each_subject_pulls_no_harder_than_the_clip(play: Any) -> None:
    base = to_fixed(np.linspace(-0.5, 0.5, 5))
    found = from_fixed(reference_update(plan(play, clip="0.01"), base, people()))
    assert 0 < np.linalg.norm(found) <= 3 * 0.5 * 0.01 + 1e-7


def test_a_reference_keeps_the_norm_bound(play: Any) -> None:
    base = to_fixed(np.linspace(-0.5, 0.5, 5))
    assert norm_within(reference_update(plan(play, bound="0.01"), base, people()), Decimal("0.01"))


def test_references_of_two_machines_may_differ_in_the_last_bits_only() -> None:
    one = to_fixed(np.linspace(-1, 1, 5))
    assert same_reference(one, one + LATTICE_STEPS)
    assert not same_reference(one, one + LATTICE_STEPS + 1)
