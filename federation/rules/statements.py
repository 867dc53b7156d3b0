"""What a party earned in a study, and why: the figures, and one paragraph that a person can read.

A statement adds nothing to the log; it is a view of values and payments that anybody can recompute. Values are given in
nats of log loss on the sponsor's validation set, exactly (as a fraction) and as a rounded figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

from federation.errors import OperatorError
from federation.rules.rewards import Payments

MICROCREDITS_PER_CREDIT: Final = 1_000_000

METHOD_WORDS: Final[Mapping[str, str]] = {
    "shapley": "its Shapley value: the mean change over all orders in which the sites could have joined",
    "banzhaf": "its Banzhaf value: the mean change over all groups of other sites",
    "leave-one-out": "what would be missing without it",
    "beta-16-1": "its Beta(16, 1) Shapley value, which looks at what it brings to few others",
    "beta-4-1": "its Beta(4, 1) Shapley value, which looks more at what it brings to few others",
    "beta-1-4": "its Beta(1, 4) Shapley value, which looks more at what it brings to many others",
    "beta-1-16": "its Beta(1, 16) Shapley value, which looks at what it brings to many others",
}
"""What each method of valuation means, for people."""

Outcome: TypeAlias = Literal["paid", "below-minimum", "no-positive-value", "not-taken-part"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One party's statement for one settled study.

    Attributes:
        study: the study's id.
        site: the party's short name.
        account: where the reward is.
        round_values: round -> value in nats; None in rounds in which no update of it was admitted.
        value: the sum over the study, in nats.
        share: of the pool, before the minimum and before rounding.
        reward: micro-credits.
        pool: micro-credits that the study had to give.
        burned: micro-credits of the pool that nobody got.
        fee: micro-credits paid for taking part; None where the plan has no fees.
        outcome: which rule decided.
        sentence: all of this in plain words.
        method: the plan's ``valuation.method``.
    """

    study: str
    site: str
    account: str
    round_values: Mapping[int, Fraction | None]
    value: Fraction
    share: Fraction
    reward: int
    pool: int
    burned: int
    outcome: Outcome
    sentence: str
    method: str = "shapley"
    fee: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: money as integers, values as exact fractions (text) and as floats in nats."""
        return {
            "study": self.study,
            "site": self.site,
            "account": self.account,
            "rounds": [
                {"round": number, "admitted": value is not None, **_value_json(value or Fraction(0))}
                for number, value in sorted(self.round_values.items())
            ],
            **_value_json(self.value),
            "share": float(self.share),
            "reward_microcredits": self.reward,
            "pool_microcredits": self.pool,
            "burned_microcredits": self.burned,
            "outcome": self.outcome,
            "method": self.method,
            "sentence": self.sentence,
            **({} if self.fee is None else {"fee_microcredits": self.fee}),
        }


def statement(
    *,
    study: str,
    site: str,
    account: str,
    round_values: Mapping[int, Mapping[str, Fraction]],
    payments: Payments,
    minimum_share: Decimal,
    method: str = "shapley",
) -> Statement:
    """Write the statement of one site.

    Args:
        study: the study's id.
        site: the site's short name.
        account: the account that is paid.
        round_values: round -> (site -> value in nats), for every round of the study; a site is absent from a
            round in which no update of it was admitted.
        payments: of this study.
        minimum_share: the plan's ``reward.minimum_share``.
        method: the plan's ``valuation.method``.

    Raises:
        OperatorError: the site is not one of the study's.
    """
    if site not in payments.rewards:
        raise OperatorError(
            f"{site} is not a party of the study {study}.",
            remedy=f"The study's parties are: {', '.join(sorted(payments.rewards)) or 'none'}.",
        )
    own = {number: round_values[number].get(site) for number in sorted(round_values)}
    value = sum((each for each in own.values() if each is not None), Fraction(0))
    share, reward = payments.shares[site], payments.rewards[site]
    admitted = sum(each is not None for each in own.values())
    outcome = _outcome(admitted, value, share, minimum_share)
    nats = float(value)
    nothing_gained = "an improvement" if method == "shapley" else "a positive value"
    effect = (
        f"changed the model's log loss on the sponsor's validation set by {0.0 - nats:+.6f} nats in all "
        "(less is better)"
        if method == "shapley"
        else f"are valued at {nats:+.6f} nats of log loss on the sponsor's validation set ({METHOD_WORDS[method]})"
    )
    took_part = f"{site} took part in {admitted} of {len(own)} rounds of {study}, and its updates {effect}."
    whole = whole_of(method)
    reasons: dict[Outcome, str] = {
        "paid": f"That is {float(share):.2%} of {whole}, so it earned {in_credits(reward)} of the pool of "
        f"{in_credits(payments.pool)}.",
        "below-minimum": f"That is {float(share):.2%} of {whole}, below the plan's minimum of "
        f"{float(minimum_share):.2%}, so it earned nothing.",
        "no-positive-value": f"Without {nothing_gained} there is no share: it earned nothing, and owes nothing.",
        "not-taken-part": "Without an admitted update there is no share: it earned nothing.",
    }
    burned = f"Of the pool, {in_credits(payments.burned)} went to nobody and was burned."
    return Statement(
        study=study,
        site=site,
        account=account,
        round_values=own,
        value=value,
        share=share,
        reward=reward,
        pool=payments.pool,
        burned=payments.burned,
        outcome=outcome,
        sentence=f"{took_part} {reasons[outcome]} {burned}",
        method=method,
    )


def with_fee(written: Statement, paid: int, whole: int) -> Statement:
    """The statement with what its site is paid for taking part: ``paid`` of the ``whole`` fee, in micro-credits."""
    sentence = (
        f"{written.sentence} Whatever that is worth, taking part is paid by the rounds that count: {in_credits(paid)} "
        f"of its fee of {in_credits(whole)}."
    )
    return replace(written, sentence=sentence, fee=paid)


def whole_of(method: str) -> str:
    """What shares are parts of: only Shapley values add up to the measured improvement."""
    return "all improvements" if method == "shapley" else "all positive values"


def _outcome(admitted: int, value: Fraction, share: Fraction, minimum_share: Decimal) -> Outcome:
    if admitted == 0:
        return "not-taken-part"
    if value <= 0:
        return "no-positive-value"
    return "paid" if share >= Fraction(minimum_share) else "below-minimum"


def _value_json(value: Fraction) -> dict[str, Any]:
    return {"value_exact": str(value), "value": float(value)}


def in_credits(microcredits: int) -> str:
    """Micro-credits as credits, for people: ``1,234.5 credits``."""
    whole, part = divmod(abs(microcredits), MICROCREDITS_PER_CREDIT)
    decimals = f".{part:06d}".rstrip("0") if part else ""
    sign = "-" if microcredits < 0 else ""
    return f"{sign}{whole:,}{decimals} credit{'' if (whole, part) == (1, 0) else 's'}"
