"""A market's documents: what each must be, in which order, and that nothing in an outcome can be altered."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bargaining import winners
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed_market import COORDINATOR, DIDS, KEYS, NAMES, OPEN_UNTIL, SEAL_UNTIL, Played, draft, make_call, nonce

from federation.errors import OperatorError, PeerError
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.ledger import AMOUNT_MAX
from federation.rules.market import Offer
from federation.rules.offers import (
    MarketCall,
    SealedPrice,
    commitment,
    kind_of,
    open_call,
    open_list,
    open_offer,
    open_outcome,
    open_price,
    plan_of,
)
from federation.rules.study import StudyPlan

PLAN = draft()
WORTHS = {"ash": 100, "birch": 200, "cedar": 100}
PRICES = {"ash": 100, "birch": 300, "cedar": 900}
STRANGER = PrivateKey(bytes([77]) * 32)
SECOND = timedelta(seconds=1)


def played(**changes: Any) -> Played:
    fields: dict[str, Any] = {"plan": PLAN, "worths": WORTHS, "prices": PRICES}
    return Played(**{**fields, **changes})


def refused(because: str) -> Any:
    return pytest.raises(PeerError, match=because)


# Sealed prices


@pytest.mark.parametrize(("amount", "drawn"), [(-1, bytes(32)), (AMOUNT_MAX + 1, bytes(32)), (1, bytes(31))])
def test_what_cannot_be_sealed_is_refused(amount: int, drawn: bytes) -> None:
    with pytest.raises(OperatorError, match="cannot be sealed"):
        commitment(call="ab" * 32, party=DIDS["ash"], price=amount, nonce=drawn)


@given(st.integers(0, AMOUNT_MAX), st.binary(min_size=32, max_size=32))
def test_a_sealed_price_is_as_long_whatever_it_hides(price: int, drawn: bytes) -> None:
    value = commitment(call="ab" * 32, party=DIDS["ash"], price=price, nonce=drawn)
    sealed = SealedPrice(call="ab" * 32, commitment=value).sign(KEYS["ash"]).to_bytes()
    assert len(sealed) == len(SealedPrice(call="ab" * 32, commitment="00" * 32).sign(KEYS["ash"]).to_bytes())


def test_a_commitment_binds_call_party_price_and_nonce() -> None:
    fields: dict[str, Any] = {"call": "ab" * 32, "party": DIDS["ash"], "price": 12, "nonce": bytes(32)}
    changes: list[dict[str, Any]] = [
        {},
        {"call": "ac" * 32},
        {"party": DIDS["birch"]},
        {"price": 13},
        {"nonce": bytes(31) + b"\1"},
    ]
    assert len({commitment(**{**fields, **change}) for change in changes}) == len(changes)


def test_another_s_commitment_opens_nothing() -> None:
    """A copied commitment binds nobody: it names the party that made it."""
    market = played(prices={"ash": 100, "birch": 100})
    copied = open_offer(market.offers[DIDS["ash"]], market.call)[1].commitment
    market.offers[DIDS["birch"]] = market.offer("birch", commitment=copied)
    market.list_bytes = market.listed(market.offers).sign(COORDINATOR).to_bytes()
    with refused("birch shows another price"):
        open_price(market.opening("birch", nonce=nonce("ash").hex()), market.call, market.sealed)


# A whole market


def test_a_market_from_the_call_to_the_plan() -> None:
    decision = open_outcome(played().signed(), signer=COORDINATOR.public)
    assert decision.prices == {DIDS[name]: price for name, price in PRICES.items()}
    assert decision.selection.payments == {"ash": 333, "birch": 666}
    plan = plan_of(decision)
    assert plan.reward.fees == {DIDS["ash"]: 333, DIDS["birch"]: 666}
    assert plan.reward.outcome == decision.hash
    assert plan.reward.minted == PLAN.reward.pool_microcredits + 999
    restored = plan.model_dump() | {"reward": PLAN.reward.model_dump(), "rounds": PLAN.rounds.model_dump()}
    assert StudyPlan.model_validate(restored) == PLAN, "nothing else of the draft has changed"


def test_who_does_not_open_is_out() -> None:
    decision = open_outcome(played(silent=("ash",)).signed())
    assert decision.selection.payments == {"birch": 1000}, "cedar asks more than 333, its part behind birch"
    assert open_outcome(played(silent=tuple(PRICES)).signed()).selection.payments == {}


@given(st.data())
@settings(max_examples=40)
def test_an_outcome_is_the_selection_among_those_who_opened(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    worths = {name: data.draw(st.integers(1, 9)) for name in NAMES}
    prices = {name: data.draw(st.integers(0, 40)) for name in names}
    silent = data.draw(st.sets(st.sampled_from(names)))
    budget = data.draw(st.integers(0, 60))
    decision = open_outcome(played(worths=worths, prices=prices, silent=tuple(silent), budget=budget).signed())
    offers = [Offer(name, price, worths[name]) for name, price in prices.items() if name not in silent]
    assert set(decision.selection.payments) == winners(offers, budget)
    assert sum(decision.document.payments.values()) <= budget
    assert all(decision.document.payments[DIDS[name]] >= prices[name] for name in decision.selection.payments)


def test_too_few_winners_make_no_plan() -> None:
    plan = draft(rounds={"quorum": 3, "participants": 3})
    decision = open_outcome(played(plan=plan).signed())
    with pytest.raises(OperatorError, match="2 institutions won, and a round needs 3"):
        plan_of(decision)
    robust = draft(rounds={"participants": 4}, aggregation={"rule": "trimmed-mean", "tolerated": "0.3"})
    with pytest.raises(OperatorError, match="tolerated"):
        plan_of(open_outcome(played(plan=robust).signed()))


# Calls


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"open_until": format_instant(SEAL_UNTIL)}, "after seal_until"),
        ({"seal_until": "2026-12-01"}, "not an instant"),
        ({"candidates": ()}, "at least 1"),
        ({"budget_microcredits": 10**15 + 1}, "budget"),
        ({"plan": "x" * (64 * 1024 + 1)}, "plan"),
    ],
)
def test_a_call_out_of_form_cannot_be_made(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make_call(PLAN, WORTHS, **changes)


def test_a_candidate_is_called_once() -> None:
    first, second, third = make_call(PLAN, WORTHS).candidates
    for twice, what in (
        (second.model_copy(update={"site": "ash"}), "site"),
        (third.model_copy(update={"did": first.did}), "did"),
    ):
        with pytest.raises(ValueError, match=f"a {what} is there twice"):
            make_call(PLAN, WORTHS, candidates=(first, twice))


def test_a_call_from_which_no_study_could_follow_is_refused() -> None:
    paid = draft(reward={"fees": {DIDS["ash"]: 1, DIDS["birch"]: 1}})
    rich = draft(reward={"pool_microcredits": 10**15})
    large = draft(rounds={"quorum": 4, "participants": 4})
    for plan, why in ((paid, "names fees already"), (rich, "above"), (large, "more than may offer")):
        with refused(why):
            open_call(make_call(plan, WORTHS).sign(COORDINATOR).to_bytes())
    broken = make_call(PLAN, WORTHS, plan=make_call(PLAN, WORTHS).plan.replace('"heart-disease"', '"HEART"', 1))
    with refused("StudyPlan is refused"):
        open_call(broken.sign(COORDINATOR).to_bytes())
    with refused("not by"):
        open_call(make_call(PLAN, WORTHS).sign(STRANGER).to_bytes(), signer=COORDINATOR.public)


# Offers, lists, openings


def test_an_offer_is_for_this_call_and_by_a_candidate() -> None:
    market = played()
    for data, why in (
        (market.offer("ash", call="ab" * 32), "for another call"),
        (SealedPrice(call=market.call.hash, commitment="ab" * 32).sign(STRANGER).to_bytes(), "not among those"),
        (market.opening("ash"), "of type"),
    ):
        with refused(why):
            open_offer(data, market.call)


def test_a_list_holds_every_offer_once_in_order_and_in_time() -> None:
    market = played()
    ordered = [market.offers[did].decode() for did in sorted(market.offers)]
    late, early = format_instant(OPEN_UNTIL), format_instant(SEAL_UNTIL - SECOND)
    strange = SealedPrice(call=market.call.hash, commitment="ab" * 32).sign(STRANGER).to_bytes().decode()
    for changes, why in (
        ({"call": "ab" * 32}, "for another call"),
        ({"offers": tuple(reversed(ordered))}, "not in order"),
        ({"offers": (ordered[0], ordered[0])}, "there twice"),
        ({"offers": (strange,)}, "not among those"),
        ({"offers": (market.offer("ash", call="ab" * 32).decode(),)}, "for another call"),
        ({"offers": tuple(ordered[:2]), "closed_at": early}, "could still offer"),
        ({"closed_at": late}, "the time to open had passed"),
    ):
        with refused(why):
            open_list(market.listed(market.offers, **changes).sign(COORDINATOR).to_bytes(), market.call)
    with refused("not by"):
        open_list(market.listed(market.offers).sign(STRANGER).to_bytes(), market.call)
    assert open_list(market.listed(market.offers, closed_at=early).sign(COORDINATOR).to_bytes(), market.call), (
        "once everybody has offered, nobody is waited for"
    )


def test_an_opening_shows_what_was_sealed_for_this_list() -> None:
    market = played(prices={"ash": 100, "birch": 300})
    assert open_price(market.opening("ash"), market.call, market.sealed) == (DIDS["ash"], 100)
    for changes, why in (
        ({"price": 99}, "ash shows another price"),
        ({"nonce": "cd" * 32}, "ash shows another price"),
        ({"call": "ab" * 32}, "for another call"),
        ({"sealed_list": "ab" * 32}, "for another list"),
    ):
        with refused(why):
            open_price(market.opening("ash", **changes), market.call, market.sealed)
    without = open_list(
        market.listed({DIDS["ash"]: market.offers[DIDS["ash"]]}).sign(COORDINATOR).to_bytes(), market.call
    )
    with refused("has no sealed price"):
        open_price(market.opening("birch", sealed_list=without.hash), market.call, without)


def test_the_kind_of_a_file_is_read_from_it() -> None:
    market = played()
    files = (market.call_bytes, market.offers[DIDS["ash"]], market.list_bytes, market.opening("ash"), market.signed())
    kinds = ["MarketCall", "SealedPrice", "SealedList", "RevealedPrice", "MarketOutcome"]
    assert [kind_of(data) for data in files] == kinds
    for data in (PLAN.sign(COORDINATOR).to_bytes(), b"[]", b"{}", b"nothing"):
        with pytest.raises(PeerError):
            kind_of(data)


# Outcomes

OUTCOME = played().signed()
EARLY = played(decided_at=OPEN_UNTIL - SECOND)  # everybody has opened: nobody was waited for


@given(st.integers(0, len(OUTCOME) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_no_byte_of_an_outcome_can_be_altered(at: int, change: int) -> None:
    altered = bytearray(OUTCOME)
    altered[at] ^= change
    with pytest.raises(PeerError):
        open_outcome(bytes(altered), signer=COORDINATOR.public)


def _altered_call(_: Played, data: st.DataObject) -> dict[str, Any]:
    changes: dict[str, Callable[[MarketCall], Any]] = {
        "budget_microcredits": lambda call: call.budget_microcredits + data.draw(st.integers(1, 1000)),
        "worth": lambda call: call.worth + " Or so.",
        "open_until": lambda _call: format_instant(OPEN_UNTIL - SECOND),
        "seal_until": lambda _call: format_instant(SEAL_UNTIL - SECOND),
        "plan": lambda _call: draft(rounds={"participants": 3}).to_payload().decode(),
        "candidates": lambda call: tuple(
            each.model_copy(update={"worth": each.worth + data.draw(st.integers(0, 9)) + (at == 0)})
            for at, each in enumerate(call.candidates)
        ),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    call = make_call(PLAN, WORTHS, **{name: changes[name](make_call(PLAN, WORTHS))})
    return {"call": call.sign(COORDINATOR).to_bytes().decode()}


def _altered_list(market: Played, data: st.DataObject) -> dict[str, Any]:
    kept = data.draw(st.sets(st.sampled_from(sorted(market.offers)), min_size=1, max_size=2))
    document = market.listed({did: market.offers[did] for did in kept})
    later = market.listed(market.offers, closed_at=format_instant(SEAL_UNTIL + SECOND))
    return {"sealed_list": data.draw(st.sampled_from([document, later])).sign(COORDINATOR).to_bytes().decode()}


def _altered_openings(market: Played, data: st.DataObject) -> dict[str, Any]:
    openings = list(market.outcome().openings)
    at = data.draw(st.integers(0, len(openings) - 1))
    name = next(name for name in PRICES if market.openings[DIDS[name]].decode() == openings[at])
    other = market.opening(name, price=data.draw(st.integers(0, 2000).filter(lambda price: price != PRICES[name])))
    shuffled = [openings[1], openings[0], openings[2]]
    doubled = [*openings, openings[at]]
    changed = [*openings[:at], other.decode(), *openings[at + 1 :]]
    dropped = [*openings[:at], *openings[at + 1 :]]
    return {"openings": tuple(data.draw(st.sampled_from([shuffled, doubled, changed, dropped])))}


def _altered_payments(market: Played, data: st.DataObject) -> dict[str, Any]:
    before = market.outcome().payments
    party = data.draw(st.sampled_from([DIDS[name] for name in NAMES]))
    amount = data.draw(st.integers(0, 2000).filter(lambda amount: amount != before.get(party)))
    without = {did: paid for did, paid in before.items() if did != DIDS["ash"]}
    return {"payments": data.draw(st.sampled_from([{**before, party: amount}, without]))}


def _altered_time(_: Played, data: st.DataObject) -> dict[str, Any]:
    seconds = data.draw(st.integers(1, 10**6))
    return {"decided_at": format_instant(SEAL_UNTIL - seconds * SECOND)}


@given(st.data())
@settings(max_examples=60)
def test_a_coordinator_cannot_sign_another_outcome_of_the_same_market(data: st.DataObject) -> None:
    """It holds the key and may sign anything anew; but what institutions signed names the call and the list."""
    market = EARLY
    alter = data.draw(
        st.sampled_from([_altered_call, _altered_list, _altered_openings, _altered_payments, _altered_time])
    )
    with pytest.raises(PeerError):
        open_outcome(market.signed(**alter(market, data)))


def test_an_outcome_is_decided_as_soon_as_everybody_has_opened() -> None:
    assert open_outcome(EARLY.signed()).selection == open_outcome(OUTCOME).selection


def test_an_outcome_is_not_decided_while_somebody_may_still_open() -> None:
    with refused("could still open"):
        open_outcome(played(silent=("ash",), decided_at=OPEN_UNTIL - SECOND).signed())


def test_an_outcome_is_its_own_coordinator_s() -> None:
    market = played()
    with refused("not by"):
        open_outcome(market.outcome().sign(STRANGER).to_bytes())
