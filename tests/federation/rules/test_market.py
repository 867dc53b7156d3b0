"""The market's promises: against brute force, and against lies."""

from fractions import Fraction
from random import Random

import pytest
from bargaining import best_worth, changed, gain_by_misreport, highest_winning_price, random_market, winners
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.rules.market import AMOUNT_MAX, Offer, Selection, critical_price, ranked, select

seeds = st.integers(0, 2**40)


@given(seeds)
@settings(max_examples=200)
def test_winners_are_those_of_the_definition_whatever_the_order(seed: int) -> None:
    rng = Random(seed)
    offers, budget = random_market(rng)
    selection = select(offers, budget)
    assert set(selection.payments) == winners(offers, budget)
    rng.shuffle(offers)
    assert select(offers, budget) == selection


@given(seeds)
@settings(max_examples=50)
def test_each_is_paid_the_highest_price_with_which_it_would_still_have_won(seed: int) -> None:
    rng = Random(seed)
    offers, budget = random_market(rng)
    budget = min(budget, 150)
    selection = select(offers, budget)
    for offer in offers:
        highest = highest_winning_price(offers, offer.party, budget)
        assert critical_price(offer.party, offers, budget) == highest
        if offer.party in selection.payments:
            assert selection.payments[offer.party] == highest


@given(seeds)
@settings(max_examples=300)
def test_payments_cover_what_was_asked_and_stay_within_the_budget(seed: int) -> None:
    offers, budget = random_market(Random(seed))
    selection = select(offers, budget)
    assert selection.spent <= budget
    for offer in offers:
        if offer.party in selection.payments:
            assert selection.payments[offer.party] >= offer.price
            whole = sum(other.worth for other in offers if other.party in selection.payments)
            assert selection.payments[offer.party] <= Fraction(budget * offer.worth, whole)


@given(seeds)
@settings(max_examples=100)
def test_who_wins_with_two_prices_wins_beside_the_same_others(seed: int) -> None:
    """So a rule about how many must win (a study's quorum) gives nobody a reason to name another price."""
    rng = Random(seed)
    offers, budget = random_market(rng)
    before = set(select(offers, budget).payments)
    for offer in offers:
        after = set(select(changed(offers, offer.party, rng.randint(0, budget)), budget).payments)
        assert offer.party not in before & after or before == after


@given(seeds)
@settings(max_examples=100)
def test_who_wins_also_wins_with_less_and_is_paid_the_same(seed: int) -> None:
    rng = Random(seed)
    offers, budget = random_market(rng)
    before = select(offers, budget).payments
    for offer in offers:
        if offer.party in before:
            lower = select(changed(offers, offer.party, rng.randint(0, offer.price)), budget)
            assert lower.payments[offer.party] == before[offer.party]


@given(seeds)
@settings(max_examples=300)
def test_no_lie_pays(seed: int) -> None:
    rng = Random(seed)
    offers, budget = random_market(rng)
    assert gain_by_misreport(offers, budget, rng) is None


@given(seeds)
@settings(max_examples=100)
def test_what_truthfulness_costs_is_bounded(seed: int) -> None:
    """Twice what was bought and the largest single worth: never less than the best that could be bought."""
    offers, budget = random_market(Random(seed))
    bought = sum(offer.worth for offer in offers if offer.party in select(offers, budget).payments)
    assert best_worth(offers, budget) <= 2 * bought + max(offer.worth for offer in offers)
    if all(offer.worth == 1 for offer in offers):
        assert best_worth(offers, budget) <= 2 * bought + 1


def test_paying_what_was_asked_would_reward_lies() -> None:
    """The same winners paid their own price: the search that finds nothing above finds a lie here at once."""
    offers, budget = [Offer("ash", 10, 1), Offer("birch", 30, 1)], 100
    paid_as_asked = {offer.party: offer.price for offer in offers if offer.party in winners(offers, budget)}
    lying = {offer.party: offer.price for offer in changed(offers, "ash", 40)}
    assert "ash" in winners(changed(offers, "ash", 40), budget)
    assert lying["ash"] - 10 > paid_as_asked["ash"] - 10 == 0
    assert select(offers, budget).payments == {"ash": 50, "birch": 50}


def test_a_market_of_four_by_hand() -> None:
    offers = [Offer("ash", 10, 1), Offer("birch", 20, 2), Offer("cedar", 45, 3), Offer("elm", 90, 3)]
    # Per worth: ash 10, birch 10, cedar 15, elm 30. Parts of 120: 120, 40, 20, 13.3: the first three win.
    selection = select(offers, 120)
    assert selection == Selection({"ash": 20, "birch": 40, "cedar": 60}, 120)
    assert [offer.party for offer in ranked(offers[::-1])] == ["ash", "birch", "cedar", "elm"]
    assert critical_price("elm", offers, 120) == 44, "with 15 per worth it would stand behind cedar: the name decides"
    assert critical_price("ash", [Offer("ash", 5, 1)], 0) == 0
    assert critical_price("birch", [Offer("ash", 0, 1), Offer("birch", 1, 1)], 0) == 0
    assert select([], 10).payments == {}
    assert select([Offer("ash", 11, 1)], 10).payments == {}


@pytest.mark.parametrize(
    ("offers", "budget"),
    [
        ([Offer("a", -1, 1)], 1),
        ([Offer("a", AMOUNT_MAX + 1, 1)], 1),
        ([Offer("a", 1, 0)], 1),
        ([Offer("a", 1, 10**12 + 1)], 1),
        ([Offer("a", 1, 1), Offer("a", 2, 1)], 1),
        ([], -1),
        ([], AMOUNT_MAX + 1),
    ],
)
def test_offers_out_of_range_are_refused(offers: list[Offer], budget: int) -> None:
    with pytest.raises(OperatorError, match="cannot be compared"):
        select(offers, budget)
    with pytest.raises(OperatorError, match="cannot be compared"):
        critical_price("a", offers, budget)


def test_who_made_no_offer_has_no_critical_price() -> None:
    with pytest.raises(OperatorError, match="made no offer"):
        critical_price("z", [Offer("a", 1, 1)], 5)
