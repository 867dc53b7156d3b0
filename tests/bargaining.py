"""Random markets, and the selection rule written down a second time, in the slowest way.

``tests/federation/rules/test_market.py`` plays some; ``make fuzz`` plays a hundred thousand.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from random import Random

from federation.rules.market import Offer, select


def random_market(rng: Random, players_max: int = 8) -> tuple[list[Offer], int]:
    """Few or many, equal or unequal, cheap or dear; small numbers, so that ties are frequent."""
    count = rng.randint(1, players_max)
    largest = rng.choice([3, 20, 1000])
    worths = [1] * count if rng.random() < 0.3 else [rng.randint(1, rng.choice([3, 50])) for _ in range(count)]
    names = rng.sample("abcdefghijklmnop", count)
    offers = [Offer(name, rng.randint(0, largest), worth) for name, worth in zip(names, worths, strict=True)]
    return offers, rng.randint(0, largest * count)


def winners(offers: Sequence[Offer], budget: int) -> set[str]:
    """The definition: the longest prefix in which each asks at most its part of the budget among those up to it."""
    ranked = sorted(offers, key=lambda offer: (Fraction(offer.price, offer.worth), offer.party))
    best: set[str] = set()
    for length in range(1, len(ranked) + 1):
        prefix = ranked[:length]
        if all(
            Fraction(each.price, each.worth) <= Fraction(budget, sum(other.worth for other in prefix[: at + 1]))
            for at, each in enumerate(prefix)
        ):
            best = {each.party for each in prefix}
    return best


def changed(offers: Sequence[Offer], party: str, price: int) -> list[Offer]:
    return [replace(offer, price=price) if offer.party == party else offer for offer in offers]


def highest_winning_price(offers: Sequence[Offer], party: str, budget: int) -> int | None:
    """By trying every price up to the budget: nobody wins with more."""
    winning = [price for price in range(budget + 2) if party in winners(changed(offers, party, price), budget)]
    assert winning == list(range(len(winning))), "who wins with a price wins with every lower one"
    return winning[-1] if winning else None


def best_worth(offers: Sequence[Offer], budget: int) -> int:
    """The most that could be bought if every cost were known and paid exactly: all subsets."""
    return max(
        sum(offer.worth for offer in chosen)
        for size in range(len(offers) + 1)
        for chosen in combinations(offers, size)
        if sum(offer.price for offer in chosen) <= budget
    )


def gain_by_misreport(offers: Sequence[Offer], budget: int, rng: Random) -> tuple[Offer, int, int] | None:
    """An offer, a false price and what it would gain by it; None where nothing that was tried pays.

    The offers' prices are the true costs. Tried for everybody: prices about one's own, about one's payment, about the
    others', nothing, and anything.
    """
    honest = select(offers, budget)
    rivals = [offer.price for offer in offers]
    for offer in offers:
        paid = honest.payments.get(offer.party)
        utility = 0 if paid is None else paid - offer.price
        about = [offer.price, paid or 0, rng.choice(rivals), budget]
        for price in {0, rng.randint(0, budget + 1), *(max(0, near + step) for near in about for step in (-1, 0, 1))}:
            lying = select(changed(offers, offer.party, price), budget).payments.get(offer.party)
            gained = (0 if lying is None else lying - offer.price) - utility
            if gained > 0:
                return offer, price, gained
    return None
