"""A market by the clock: what comes too late is refused on both sides, and who is silent is not waited for."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hand_made import rows
from sealed_market import DIDS, KEYS, OPEN_UNTIL, SEAL_UNTIL, draft, make_call
from sqlalchemy import Engine

from clients.offering import own_offers, reveal, seal
from clients.storage import memory_node
from federation.cli.market import outcome_text
from federation.coordinator.folder import CoordinatorFolder, commit_validation, create_coordinator
from federation.coordinator.market import announce, close, decide, document_of, publish_outcome, state, take
from federation.errors import OperatorError, PeerError
from federation.rules.offers import OpenedCall, open_outcome
from federation.settings import PartySettings

SECOND = timedelta(seconds=1)
BEFORE = SEAL_UNTIL - SECOND
BETWEEN = OPEN_UNTIL - SECOND
WORTHS = {"ash": 100, "birch": 200, "cedar": 100}


class Round:
    """One call to three institutions, each with a database of its own."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self.folder = folder
        commitment = commit_validation(folder, rows("validation").encode())
        document = make_call(draft(validation={"commitment": commitment}), WORTHS)
        self.call: OpenedCall = announce(folder, document, now=BEFORE)
        self.document = document_of(folder, self.call.hash, "call")
        self.nodes: Mapping[str, Engine] = {name: memory_node() for name in WORTHS}

    def seal(self, name: str, price: int, now: datetime = BEFORE) -> bytes:
        key = self.folder.key.public
        return seal(self.nodes[name], KEYS[name], self.document, price=price, coordinator=key, now=now)[1]

    def reveal(self, name: str, listed: bytes, now: datetime = BETWEEN) -> bytes:
        return reveal(self.nodes[name], KEYS[name], listed, now=now)[2]

    def take(self, data: bytes, now: datetime) -> str:
        return take(self.folder, data, now=now)[0]


@pytest.fixture
def market(tmp_path: Path) -> Round:
    return Round(create_coordinator(tmp_path / "c", PartySettings(role="coordinator", name="coordinator")))


def test_a_sealed_price_comes_in_time_or_not_at_all(market: Round) -> None:
    assert market.take(market.seal("ash", 100), BEFORE) == "sealed"
    birch = market.seal("birch", 100)
    with pytest.raises(PeerError, match="sealed price comes too late: they were taken until 2026-12-01T12:00:00Z"):
        market.take(birch, SEAL_UNTIL)
    with pytest.raises(OperatorError, match="were taken until"):
        market.seal("cedar", 100, SEAL_UNTIL)
    assert own_offers(market.nodes["cedar"]) == []
    assert market.seal("birch", 100, SEAL_UNTIL) == birch, "what was sealed in time is given again"
    _, listed = close(market.folder, None, now=SEAL_UNTIL)
    with pytest.raises(PeerError, match="does not hold"):
        market.reveal("birch", listed)


def test_no_price_is_taken_once_the_list_is_signed(market: Round) -> None:
    for name in WORTHS:
        market.take(market.seal(name, 100), BEFORE)
    close(market.folder, None, now=BEFORE)  # everybody has offered: nobody is waited for
    assert market.take(market.seal("ash", 100), BEFORE) == "sealed", "the same again is acknowledged"


def test_an_opening_comes_in_time_or_not_at_all(market: Round) -> None:
    for name in WORTHS:
        market.take(market.seal(name, 100), BEFORE)
    with pytest.raises(OperatorError, match="not signed yet"):
        decide(market.folder, None, now=BETWEEN)
    _, listed = close(market.folder, None, now=SEAL_UNTIL)
    assert market.take(market.reveal("ash", listed), BETWEEN) == "opened"
    birch = market.reveal("birch", listed)
    with pytest.raises(PeerError, match="opening comes too late: they were taken until 2026-12-04T12:00:00Z"):
        market.take(birch, OPEN_UNTIL)
    with pytest.raises(OperatorError, match="could be opened until"):
        market.reveal("cedar", listed, OPEN_UNTIL)
    with pytest.raises(OperatorError, match="may be opened until"):
        decide(market.folder, None, now=BETWEEN)
    decision, _ = decide(market.folder, None, now=OPEN_UNTIL)
    assert decision.selection.payments == {"ash": 1000}, "who is silent is out, and nobody waits for it"


def test_no_opening_is_taken_once_the_market_is_decided(market: Round) -> None:
    for name in ("ash", "birch"):
        market.take(market.seal(name, 100), BEFORE)
    _, listed = close(market.folder, None, now=SEAL_UNTIL)
    market.take(market.reveal("ash", listed), BETWEEN)
    birch = market.reveal("birch", listed)
    first, data = decide(market.folder, None, now=OPEN_UNTIL)
    with pytest.raises(PeerError, match="too late"):
        market.take(birch, OPEN_UNTIL)
    assert decide(market.folder, None, now=OPEN_UNTIL + SECOND)[1] == data, "an outcome is signed once"
    assert list(open_outcome(data).prices) == [DIDS["ash"]]
    text = outcome_text(first)
    assert "ash    wins. It asked 0.0001 credits and gets 0.001 credits" in text
    assert "birch  did not open: it is out" in text
    assert "cedar  did not offer: it is out" in text
    plan, sites = publish_outcome(market.folder, market.call.id)
    assert (sites, plan.reward.outcome) == (["ash"], first.hash)
    assert market.folder.studies() == [plan.study_id]


def test_an_opening_before_the_list_is_refused(market: Round, tmp_path: Path) -> None:
    """It cannot be made by the program; the coordinator takes none all the same."""
    market.take(market.seal("ash", 100), BEFORE)
    _, listed = close(market.folder, None, now=SEAL_UNTIL)
    opening = market.reveal("ash", listed)
    other = Round(create_coordinator(tmp_path / "other", PartySettings(role="coordinator", name="other")))
    with pytest.raises(OperatorError, match="There is no call"):
        other.take(opening, BETWEEN)


def test_a_list_is_not_signed_when_nobody_could_open_any_more(market: Round) -> None:
    market.take(market.seal("ash", 100), BEFORE)
    with pytest.raises(OperatorError, match="The time to open"):
        close(market.folder, None, now=OPEN_UNTIL)
    assert state(market.folder, None).sealed is None


def test_the_same_call_is_announced_once(market: Round) -> None:
    assert announce(market.folder, market.call.document, now=OPEN_UNTIL) == market.call
    other = make_call(market.call.plan, WORTHS, 2000)
    with pytest.raises(OperatorError, match="has passed"):
        announce(market.folder, other, now=SEAL_UNTIL)


def test_a_call_needs_the_validation_set_of_its_draft(market: Round) -> None:
    with pytest.raises(OperatorError, match="is not in this folder"):
        announce(market.folder, make_call(draft(), WORTHS), now=BEFORE)


def test_what_one_has_sealed_cannot_be_opened_by_another(market: Round) -> None:
    market.take(market.seal("ash", 100), BEFORE)
    _, listed = close(market.folder, None, now=SEAL_UNTIL)
    with pytest.raises(OperatorError, match="has sealed no price"):
        market.reveal("birch", listed)
    with pytest.raises(PeerError, match="does not hold"):
        reveal(market.nodes["ash"], KEYS["birch"], listed, now=BETWEEN)


@pytest.mark.parametrize("price", [-1, 10**15 + 1])
def test_what_is_no_amount_is_not_sealed(market: Round, price: int) -> None:
    with pytest.raises(OperatorError, match="cannot be sealed"):
        market.seal("ash", price)
    assert own_offers(market.nodes["ash"]) == []
