"""What a party earned in a study, and why: the figures, and one paragraph that a person can read.

A statement adds nothing to the log; it is a view of values and payments that anybody can recompute. Values are given in
nats of log loss on the sponsor's validation set, exactly (as a fraction) and as a rounded figure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias

from federation.errors import OperatorError
from federation.rules.rewards import Payments, lower_bounds
from federation.rules.wire import plain_decimal

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

Outcome: TypeAlias = Literal["paid", "below-minimum", "not-sure", "no-positive-value", "not-taken-part"]


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure one can be of a value, in a study that pays by the lower bound.

    Attributes:
        z: how many standard errors the plan takes off.
        standard_error: of the value, in nats, as committed.
        bound: what is left of the value, in nats.
    """

    z: Decimal
    standard_error: Fraction
    bound: Fraction

    @property
    def sentence(self) -> str:
        """What was taken off, and why."""
        error = float(self.standard_error)
        return (
            f"How sure can one be? With other people in the validation set, and with other noise in its updates, the "
            f"value would have come out higher or lower by about {error:.6f} (its standard error). The plan takes "
            f"{plain_decimal(self.z)} standard errors off, {float(self.z) * error:.6f}, and pays for what is left: "
            f"{float(self.bound):+.6f} nats."
        )

    def to_json(self) -> dict[str, Any]:
        """Exact fractions (text) and floats in nats."""
        return {
            "z": plain_decimal(self.z),
            "standard_error_exact": str(self.standard_error),
            "standard_error": float(self.standard_error),
            "bound_exact": str(self.bound),
            "bound": float(self.bound),
            "sentence": self.sentence,
        }


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
        certainty: what was taken off the value before it was paid; None where values are paid.
        sampled: what is known of the estimates of rounds that were sampled; None where every value is exact.
        panel: what institutions said of the site (``panel_statements.PanelView``), where they score each other; the
            values of rounds are then those on the sponsor's set, which ``value`` is not the sum of.
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
    certainty: Certainty | None = None
    sampled: "Sampled | None" = None
    panel: Mapping[str, Any] | None = None

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
            "lower_bound": None if self.certainty is None else self.certainty.to_json(),
            "sentence": self.sentence,
            **({} if self.sampled is None else {"sampled": self.sampled.to_json()}),
            **({} if self.fee is None else {"fee_microcredits": self.fee}),
            **({} if self.panel is None else {"panel": dict(self.panel)}),
        }


@dataclass(frozen=True, slots=True)
class Sampled:
    """How sure the estimates of one site's values are, in rounds of more sites than a table of all groups can hold.

    Attributes:
        half_widths: round -> half of the interval's width, in nats.
        confidence: that a round's interval holds what all groups of sites would give.
    """

    half_widths: Mapping[int, Fraction]
    confidence: Decimal

    @property
    def together(self) -> float:
        """Half the width of all these rounds together, in nats: samples of rounds are independent, squares add up."""
        return math.sqrt(sum(float(width) ** 2 for width in self.half_widths.values()))

    @property
    def sentence(self) -> str:
        """What was sampled, and how far it may be off."""
        rounds = len(self.half_widths)
        return (
            f"In {rounds} round{'' if rounds == 1 else 's'} there were too many sites to try every group of them: "
            "groups were drawn by a public rule, and its values there are estimates. All groups together would give a "
            f"figure within about {self.together:.6f} nats of it (at {plain_decimal(self.confidence * 100)} %)."
        )

    def to_json(self) -> dict[str, Any]:
        """Floats in nats."""
        return {
            "confidence": plain_decimal(self.confidence),
            "half_width": self.together,
            "rounds": [{"round": number, "half_width": float(width)} for number, width in self.half_widths.items()],
            "sentence": self.sentence,
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
    errors: Mapping[str, Fraction] | None = None,
    z: Decimal | None = None,
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
        errors: site -> standard error of its value in nats, where the plan pays by the lower bound.
        z: the plan's ``reward.z``.

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
    certainty = _certainty(site, value, errors, z)
    outcome = _outcome(admitted, value, share, minimum_share, certainty)
    nothing_gained = "an improvement" if method == "shapley" else "a positive value"
    effect = _effect(float(value), method)
    took_part = f"{site} took part in {admitted} of {len(own)} rounds of {study}, and its updates {effect}."
    sure = f" {certainty.sentence}" if certainty is not None and value > 0 else ""
    whole = whole_of(method, bounded=certainty is not None)
    reasons: dict[Outcome, str] = {
        "paid": f"That is {float(share):.2%} of {whole}, so it earned {in_credits(reward)} of the pool of "
        f"{in_credits(payments.pool)}.",
        "below-minimum": f"That is {float(share):.2%} of {whole}, below the plan's minimum of "
        f"{float(minimum_share):.2%}, so it earned nothing.",
        "not-sure": "That is not more than chance could have brought: it earned nothing, and owes nothing.",
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
        sentence=f"{took_part}{sure} {reasons[outcome]} {burned}",
        method=method,
        certainty=certainty,
    )


def with_sampling(written: Statement, half_widths: Mapping[int, Fraction], confidence: Decimal) -> Statement:
    """The statement with how sure its estimates are: round -> half-width in nats, of the rounds that were sampled."""
    sampled = Sampled(half_widths, confidence)
    return replace(written, sentence=f"{written.sentence} {sampled.sentence}", sampled=sampled)


def with_fee(written: Statement, paid: int, whole: int) -> Statement:
    """The statement with what its site is paid for taking part: ``paid`` of the ``whole`` fee, in micro-credits."""
    sentence = (
        f"{written.sentence} Whatever that is worth, taking part is paid by the rounds that count: {in_credits(paid)} "
        f"of its fee of {in_credits(whole)}."
    )
    return replace(written, sentence=sentence, fee=paid)


def _certainty(
    site: str, value: Fraction, errors: Mapping[str, Fraction] | None, z: Decimal | None
) -> Certainty | None:
    if errors is None or z is None:
        return None
    return Certainty(z, errors[site], lower_bounds({site: value}, errors, z)[site])


def _effect(nats: float, method: str) -> str:
    """What a site's updates did, as the end of a sentence."""
    if method == "shapley":
        return (
            f"changed the model's log loss on the sponsor's validation set by {0.0 - nats:+.6f} nats in all "
            "(less is better)"
        )
    return f"are valued at {nats:+.6f} nats of log loss on the sponsor's validation set ({METHOD_WORDS[method]})"


def whole_of(method: str, *, bounded: bool = False, panel: bool = False) -> str:
    """What shares are parts of: only Shapley values add up to the measured improvement; ``bounded``: lower bounds."""
    if panel:
        return "what the panel found in all"
    if bounded:
        return "what is sure of all together"
    return "all improvements" if method == "shapley" else "all positive values"


def _outcome(
    admitted: int, value: Fraction, share: Fraction, minimum_share: Decimal, certainty: Certainty | None
) -> Outcome:
    if admitted == 0:
        return "not-taken-part"
    if value <= 0:
        return "no-positive-value"
    if certainty is not None and certainty.bound <= 0:
        return "not-sure"
    return "paid" if share >= Fraction(minimum_share) else "below-minimum"


def _value_json(value: Fraction) -> dict[str, Any]:
    return {"value_exact": str(value), "value": float(value)}


def in_credits(microcredits: int) -> str:
    """Micro-credits as credits, for people: ``1,234.5 credits``."""
    whole, part = divmod(abs(microcredits), MICROCREDITS_PER_CREDIT)
    decimals = f".{part:06d}".rstrip("0") if part else ""
    sign = "-" if microcredits < 0 else ""
    return f"{sign}{whole:,}{decimals} credit{'' if (whole, part) == (1, 0) else 's'}"
