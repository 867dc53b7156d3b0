"""What a party earned in a study whose institutions scored each other, and why, for people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from federation.rules.rewards import Payments
from federation.rules.statements import Outcome, Statement, in_credits


@dataclass(frozen=True, slots=True)
class PanelView:
    """What the panel said of one site.

    Attributes:
        scores: scoring site -> its number for this site, nats; the site itself is not among them.
        absent: members that showed no scores.
        quorum: how many tables are needed.
        counted: whether there were as many.
        value: what follows from the numbers, nats.
        whole: what it is a part of, nats.
        set_value: the site's value on the sponsor's set, nats: beside it, and not paid by.
    """

    scores: Mapping[str, Fraction]
    absent: tuple[str, ...]
    quorum: int
    counted: bool
    value: Fraction
    whole: Fraction
    set_value: Fraction

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the value came about, one sentence or two each."""
        missing = f" Absent: {', '.join(self.absent)}." if self.absent else ""
        if not self.counted:
            return (f"Fewer than {self.quorum} institutions showed scores, so that nothing is paid by value.{missing}",)
        named = ", ".join(f"{site} {float(number):+.6f}" for site, number in sorted(self.scores.items()))
        how = "Institutions scored each other on people whom each had held back, with noise; own scores do not count."
        worth = f"For this site, in nats: {named}. By their weighted median it is worth {float(self.value):+.6f}"
        beside = f"(on the sponsor's set, which nobody is paid by here, {float(self.set_value):+.6f})."
        whole = f"All together brought {float(self.whole):.6f} nats as the others saw it; what is nobody's is burned."
        return f"{how}{missing}", f"{worth} {beside}", whole

    def to_json(self) -> dict[str, Any]:
        """Exact fractions (text) and floats in nats."""
        return {
            "scores": {site: _number(number) for site, number in sorted(self.scores.items())},
            "absent": list(self.absent),
            "quorum": self.quorum,
            "counted": self.counted,
            "value": _number(self.value),
            "whole": _number(self.whole),
            "value_on_the_sponsors_set": _number(self.set_value),
            "sentences": list(self.sentences),
        }


def by_panel(written: Statement, view: PanelView, payments: Payments, minimum_share: Decimal) -> Statement:
    """The statement of a site with what the panel found in place of its value on the sponsor's set."""
    share, reward = payments.shares[written.site], payments.rewards[written.site]
    took_part = any(each is not None for each in written.round_values.values())
    outcome: Outcome = "paid" if share >= Fraction(minimum_share) else "below-minimum"
    if not took_part:
        outcome = "not-taken-part"
    elif view.value <= 0:
        outcome = "no-positive-value"
    part = f"That is {float(share):.2%} of what the panel found in all"
    reasons: dict[Outcome, str] = {
        "paid": f"{part}, so it earned {in_credits(reward)} of the pool of {in_credits(payments.pool)}.",
        "below-minimum": f"{part}, below the plan's minimum of {float(minimum_share):.2%}, so it earned nothing.",
        "no-positive-value": "Without a positive value there is no share: it earned nothing, and owes nothing.",
        "not-taken-part": "Without an admitted update there is no share: it earned nothing.",
    }
    burned = f"Of the pool, {in_credits(payments.burned)} went to nobody and was burned."
    return replace(
        written,
        value=view.value,
        share=share,
        reward=reward,
        burned=payments.burned,
        outcome=outcome,
        sentence=" ".join([*view.sentences, reasons[outcome], burned]),
        panel=view.to_json(),
    )


def _number(value: Fraction) -> dict[str, Any]:
    return {"exact": str(value), "nats": float(value)}
