"""Who takes part at which price, when institutions name theirs: a selection within the budget.

How prices are sealed, shown and signed is the business of ``offers``. The selection is Singer's proportional share
rule for additive worth (Singer 2010, "Budget feasible mechanisms", FOCS, section 3; Chen, Gravin and Lu 2011, SODA):
institutions in order of price per worth, for as long as each asks no more than its part of the budget among those so
far. Each winner is paid its critical price, the highest with which it would still have won. So

- whoever wins with a price also wins with a lower one (monotone);
- nobody is paid less than asked (individually rational), and all payments together are within the budget;
- naming one's true cost is best, whatever the others do: a price decides whether one wins, not what one is paid.

What an institution is worth to the sponsor (its nominal cohort, say) is an argument and must not depend on its price.
Whoever does not reveal is out. The rule costs: it may take institutions worth a little less than half of what the
sponsor could buy if it knew every cost (at least ``(best - largest worth) / 2``).

All amounts are integers of micro-credits; ties go to the name that comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from federation.errors import OperatorError
from federation.rules.ledger import AMOUNT_MAX

WORTH_MAX: Final = 10**12


@dataclass(frozen=True, slots=True)
class Offer:
    """What one institution asks and what it is worth to the sponsor.

    Attributes:
        party: its did, or any unique name.
        price: micro-credits that it asks for taking part.
        worth: a positive integer; only proportions matter.
    """

    party: str
    price: int
    worth: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Who takes part and gets what.

    Attributes:
        payments: winner -> micro-credits, at least what it asked; sorted by name.
        budget: what there was to spend.
    """

    payments: Mapping[str, int]
    budget: int

    @property
    def spent(self) -> int:
        """All payments; never above the budget."""
        return sum(self.payments.values())


def select(offers: Sequence[Offer], budget: int) -> Selection:
    """Choose institutions and set their payments.

    Args:
        offers: one for each institution, in any order.
        budget: micro-credits, not negative.

    Raises:
        OperatorError: a price, worth or budget out of range, or an institution with two offers.
    """
    _check(offers, budget)
    order = ranked(offers)
    winners: list[Offer] = []
    worth = 0
    for offer in order:
        worth += offer.worth
        if offer.price * worth > budget * offer.worth:
            break
        winners.append(offer)
    payments = {offer.party: _critical_price(offer, order, budget) for offer in winners}
    result = Selection(payments=MappingProxyType(dict(sorted(payments.items()))), budget=budget)
    if result.spent > budget or any(payments[offer.party] < offer.price for offer in winners):
        raise OperatorError(
            f"The selection would spend {result.spent} of {budget} micro-credits, or pay less than was asked.",
            remedy="Nothing was decided. This is a defect of the program: please report the offers.",
        )
    return result


def critical_price(party: str, offers: Sequence[Offer], budget: int) -> int | None:
    """The highest price with which ``party`` wins against the other offers; None where no price would do.

    Raises:
        OperatorError: as :func:`select`, or ``party`` made no offer.
    """
    _check(offers, budget)
    own = next((offer for offer in offers if offer.party == party), None)
    if own is None:
        raise OperatorError(f"{party} made no offer.", remedy="Ask for one of those who did.")
    highest = _critical_price(own, ranked(offers), budget)
    return None if highest < 0 else highest


def ranked(offers: Sequence[Offer]) -> list[Offer]:
    """In the order in which they are taken: by price per worth, then by name."""
    return sorted(offers, key=lambda offer: (Fraction(offer.price, offer.worth), offer.party))


def _critical_price(own: Offer, order: Sequence[Offer], budget: int) -> int:
    """-1 where no price wins.

    Behind the first m others, ``own`` wins with a price b if ``b <= budget * worth / (W_m + worth)``, and it stands
    there, or further ahead, if it ranks before the next one. Standing further ahead only helps: the best of all m.
    """
    others = [offer for offer in order if offer.party != own.party]
    best, before = -1, 0
    for follower in (*others, None):
        highest = budget * own.worth // (before + own.worth)
        if follower is not None:
            level = follower.price * own.worth
            ahead = level // follower.worth
            if ahead * follower.worth == level and own.party > follower.party:
                ahead -= 1  # an equal rank goes to the name that comes first
            highest = min(highest, ahead)
            before += follower.worth
        best = max(best, highest)
    return best


def _check(offers: Sequence[Offer], budget: int) -> None:
    wrong = [offer.party for offer in offers if not 0 <= offer.price <= AMOUNT_MAX or not 1 <= offer.worth <= WORTH_MAX]
    if wrong or len({offer.party for offer in offers}) != len(offers) or not 0 <= budget <= AMOUNT_MAX:
        raise OperatorError(
            f"These offers cannot be compared: a budget of {budget}, {len(offers)} offers, "
            f"out of range: {', '.join(wrong) or 'none'}.",
            remedy=f"Each institution makes one offer of 0 to {AMOUNT_MAX} and has a worth of 1 to {WORTH_MAX}.",
        )
