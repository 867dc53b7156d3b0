"""Values -> integer micro-credits: who gets which part of the pool, and what is burned.

Rules: a share is proportional to ``max(0, value)``, or to ``max(0, value - z * standard error)`` where the plan pays by
the lower bound; whoever's share of the pool is below the plan's minimum gets
nothing; what is not paid is burned, never returned to the sponsor (who could otherwise tailor the validation set) and
never handed to the others. Rewards and burned credits add up to the pool exactly. No float takes part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from federation.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Payments:
    """The outcome for one pool.

    Attributes:
        rewards: name -> micro-credits, every name that had a value, sorted by name.
        burned: micro-credits that nobody gets.
        shares: name -> exact share of the pool before the minimum and before rounding.
    """

    rewards: dict[str, int]
    burned: int
    shares: dict[str, Fraction]

    @property
    def pool(self) -> int:
        """All rewards and the burned credits."""
        return sum(self.rewards.values()) + self.burned


def pay(values: Mapping[str, Fraction], pool: int, minimum_share: Decimal) -> Payments:
    """Share out a pool.

    The pool is first divided among all positive values by largest remainder (Hamilton's method; equal remainders in
    order of name); then the part of everybody whose exact share is below ``minimum_share`` is burned. Without any
    positive value all is burned.

    Args:
        values: name -> value over the study, any unit, may be negative; every party of the study, also those with none.
        pool: micro-credits, not negative.
        minimum_share: the smallest share of the pool that is paid, 0 to 1.

    Raises:
        OperatorError: a negative pool, or a minimum outside 0 to 1.
    """
    if pool < 0 or not 0 <= minimum_share <= 1:
        raise OperatorError(
            f"A pool of {pool} micro-credits with a minimum share of {minimum_share} cannot be paid.",
            remedy="Use a pool of zero or more and a minimum share between 0 and 1.",
        )
    names = sorted(values)
    positive = {name: max(Fraction(0), Fraction(values[name])) for name in names}
    total = sum(positive.values(), Fraction(0))
    if total == 0:
        return Payments(rewards=dict.fromkeys(names, 0), burned=pool, shares=dict.fromkeys(names, Fraction(0)))
    shares = {name: positive[name] / total for name in names}
    portions = _largest_remainder(shares, pool)
    minimum = Fraction(minimum_share)
    rewards = {name: portions[name] if shares[name] >= minimum else 0 for name in names}
    return Payments(rewards=rewards, burned=pool - sum(rewards.values()), shares=shares)


def lower_bounds(values: Mapping[str, Fraction], errors: Mapping[str, Fraction], z: Decimal) -> dict[str, Fraction]:
    """What each is worth as far as one can be sure: its value less ``z`` standard errors, exact.

    Args:
        values: name -> value, any unit.
        errors: name -> standard error of the value in the same unit, zero or more; every name of ``values``.
        z: how many standard errors are taken off, zero or more.
    """
    return {name: value - Fraction(z) * errors[name] for name, value in values.items()}


def _largest_remainder(shares: Mapping[str, Fraction], pool: int) -> dict[str, int]:
    """Integers that add up to ``pool``; each is its exact share rounded down or up. Shares add up to 1."""
    exact = {name: share * pool for name, share in shares.items()}
    result = {name: amount.numerator // amount.denominator for name, amount in exact.items()}
    left = pool - sum(result.values())
    by_remainder = sorted(exact, key=lambda name: (result[name] - exact[name], name))
    for name in by_remainder[:left]:
        result[name] += 1
    return result
