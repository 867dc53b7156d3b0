"""The market's promises: against brute force, against lies, and in the order of its steps."""

from fractions import Fraction
from random import Random

import pytest
from bargaining import best_worth, changed, gain_by_misreport, highest_winning_price, random_market, winners
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError
from federation.rules.documents import open_signed
from federation.rules.keys import PrivateKey
from federation.rules.market import (
    AMOUNT_MAX,
    Market,
    Offer,
    RevealedPrice,
    SealedPrice,
    Selection,
    commitment,
    critical_price,
    select,
)

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


# Commit, then reveal

STUDY, NONCE = "heart-1", "ab" * 32
KEYS = {name: PrivateKey(bytes([at + 1]) * 32) for at, name in enumerate(("ash", "birch", "cedar"))}
DIDS = {name: key.public.did for name, key in KEYS.items()}
WORTHS = dict(zip(DIDS.values(), (100, 200, 100), strict=True))


def price(amount: int, nonce: str = NONCE, study: str = STUDY) -> RevealedPrice:
    return RevealedPrice(study=study, price=amount, nonce=nonce)


def sealed(**prices: int) -> Market:
    market = Market(study=STUDY, budget=1000, worths=WORTHS)
    for name, amount in prices.items():
        market = market.seal(DIDS[name], price(amount).sealed(DIDS[name]))
    return market


def test_a_market_from_commitment_to_payment() -> None:
    market = sealed(ash=100, birch=300, cedar=900).close()
    for name, amount in (("cedar", 900), ("ash", 100), ("birch", 300)):
        market = market.reveal(DIDS[name], price(amount))
    market = market.decide()
    assert market.phase == "decided"
    assert market.selection is not None
    assert market.selection.payments == dict(sorted({DIDS["ash"]: 333, DIDS["birch"]: 666}.items()))


def test_who_does_not_reveal_is_out() -> None:
    market = sealed(ash=100, birch=300).close().reveal(DIDS["birch"], price(300)).decide()
    assert market.selection is not None
    assert market.selection.payments == {DIDS["birch"]: 1000}


def test_steps_out_of_order_are_refused_and_change_nothing() -> None:
    ash = DIDS["ash"]
    first = sealed(ash=100)
    second = first.close()
    third = second.reveal(ash, price(100))
    last = third.decide()
    commits = price(5).sealed(ash)
    for market, step, why in [
        (first, lambda at: at.seal(ash, commits), "committed already"),
        (first, lambda at: at.seal("did:key:stranger", commits), "not invited"),
        (first, lambda at: at.seal(DIDS["birch"], price(5, study="other").sealed(DIDS["birch"])), "a price for other"),
        (first, lambda at: at.reveal(ash, price(100)), "while prices are sealing"),
        (first, lambda at: at.decide(), "while prices are sealing"),
        (second, lambda at: at.seal(DIDS["birch"], commits), "after sealing ended"),
        (second, lambda at: at.close(), "ended already"),
        (second, lambda at: at.reveal(ash, price(99)), "another price"),
        (second, lambda at: at.reveal(ash, price(100, nonce="cd" * 32)), "another price"),
        (second, lambda at: at.reveal(ash, price(100, study="other")), "a price for other"),
        (second, lambda at: at.reveal(DIDS["birch"], price(100)), "has not committed"),
        (third, lambda at: at.reveal(ash, price(100)), "shown its price already"),
        (last, lambda at: at.decide(), "while prices are decided"),
        (last, lambda at: at.close(), "ended already"),
    ]:
        copy = Market(**{name: getattr(market, name) for name in Market.__dataclass_fields__})
        with pytest.raises(PeerError, match=why):
            step(market)
        assert market == copy


def test_another_s_commitment_opens_nothing() -> None:
    """A copied commitment binds nobody: it names the party that made it."""
    market = Market(study=STUDY, budget=1000, worths=WORTHS)
    copied = price(100).sealed(DIDS["ash"])
    market = market.seal(DIDS["ash"], copied).seal(DIDS["birch"], copied).close()
    with pytest.raises(PeerError, match="another price"):
        market.reveal(DIDS["birch"], price(100))


def test_documents_are_signed_and_travel() -> None:
    key = KEYS["ash"]
    for kind, document in ((RevealedPrice, price(100)), (SealedPrice, price(100).sealed(DIDS["ash"]))):
        found, envelope = open_signed(kind, document.sign(key).to_bytes(), signer=key.public)
        assert found == document
        assert envelope.signer == key.public
        with pytest.raises(PeerError):
            open_signed(kind, document.sign(key).to_bytes(), signer=KEYS["birch"].public)
    for amount in (-1, AMOUNT_MAX + 1):
        document = RevealedPrice.model_construct(version=1, study=STUDY, price=amount, nonce=NONCE)
        with pytest.raises(PeerError, match="price"):
            open_signed(RevealedPrice, document.sign(key).to_bytes())


@pytest.mark.parametrize(("amount", "nonce"), [(-1, bytes(32)), (AMOUNT_MAX + 1, bytes(32)), (1, bytes(31))])
def test_what_cannot_be_sealed_is_refused(amount: int, nonce: bytes) -> None:
    with pytest.raises(OperatorError, match="cannot be sealed"):
        commitment(study=STUDY, party="ash", price=amount, nonce=nonce)
