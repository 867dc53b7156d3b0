"""Who may take over, once, with whose promises: every way in which a ``term-began`` is refused."""

from typing import Any

import pytest
from pydantic import ValidationError
from standby_in_memory import FAILOVER, KEY
from study_in_memory import key_of, small_plan
from terms_by_hand import COORDINATOR, EMPTY, PLAN, SITES, TermLog, ordered

from federation.errors import PeerError
from federation.rules.entries import RoundReopened
from federation.rules.failover import TermBegan
from federation.rules.merkle import EMPTY_ROOT
from federation.rules.replay import replay
from federation.rules.succession import open_promise, proves_takeover


@pytest.fixture
def log() -> TermLog:
    return TermLog().start().go_on(2)


def refused(log: TermLog, because: str, body: Any, **fields: Any) -> None:
    """The entry breaks a rule, and the log that ends with it is refused."""
    data = log.signed(body, **{"key": KEY, "term": 1, **fields})
    with pytest.raises(PeerError, match=because):
        replay(EMPTY, [*log.entries, data])


def test_with_a_quorum_of_promises_the_standby_leads_from_there_on(log: TermLog) -> None:
    size = len(log.entries)
    state = log.take_over().go_on(2).state
    assert (state.term, state.began) == (1, size)
    assert [state.leader_at(each) for each in (size, size + 1)] == [COORDINATOR.public, KEY.public]
    assert replay(EMPTY, log.entries) == state


def test_promises_may_name_shorter_trees_and_none(log: TermLog) -> None:
    made = ordered([log.promise("ash", 7), log.promise("birch", 4), log.promise("cedar", 0, root=EMPTY_ROOT.hex())])
    assert log.take_over(made).state.term == 1


def test_two_promises_of_four_witnesses_are_too_few(log: TermLog) -> None:
    refused(
        log, "2 promises where 3 are needed", TermBegan(promises=ordered([log.promise("ash"), log.promise("birch")]))
    )


def test_one_witness_counts_once(log: TermLog) -> None:
    made = [log.promise("ash"), log.promise("ash", 3), log.promise("birch")]
    refused(log, "not by different witnesses", TermBegan(promises=ordered(made)))


def test_a_stranger_s_promise_does_not_count(log: TermLog) -> None:
    own, _ = open_promise(log.promise("ash").encode(), study=PLAN.study_id, standby=KEY.public.did)
    forged = own.sign(key_of("stranger")).to_bytes().decode()
    made = [forged, log.promise("birch"), log.promise("cedar")]
    refused(log, "no witness", TermBegan(promises=ordered(made)))


@pytest.mark.parametrize("changes", [{"study": "another-000000000000"}, {"standby": COORDINATOR.public.did}])
def test_a_promise_for_another_study_or_standby_is_refused(log: TermLog, changes: dict[str, Any]) -> None:
    made = [log.promise("ash", **changes), log.promise("birch"), log.promise("cedar")]
    refused(log, "another study or standby", TermBegan(promises=ordered(made)))


def test_the_log_before_it_must_extend_every_tree_that_was_promised(log: TermLog) -> None:
    other = log.fork(6, branch=1).go_on(2)
    made = [other.promise("ash"), log.promise("birch"), log.promise("cedar")]
    refused(log, "does not extend the tree of 8 entries", TermBegan(promises=ordered(made)))
    longer = log.fork(8, branch=0).go_on(1)
    made = [longer.promise("ash"), log.promise("birch"), log.promise("cedar")]
    refused(log, "does not extend the tree of 9 entries", TermBegan(promises=ordered(made)))


def test_only_the_standby_of_the_plan_takes_over(log: TermLog) -> None:
    body = TermBegan(promises=ordered(log.promise(site) for site in SITES[:3]))
    refused(log, "signed by", body, key=COORDINATOR)
    refused(log, "signed by", body, key=key_of("stranger"))
    refused(log, "its term is 2, not 1", body, term=2)
    refused(log, "neither round nor party", body, round_number=1)


def test_before_the_start_nobody_takes_over() -> None:
    log = TermLog().start()
    early = log.fork(5, branch=0)
    refused(early, "has not started", TermBegan(promises=ordered(early.promise(site) for site in SITES[:3])))


def test_it_takes_over_once(log: TermLog) -> None:
    log.take_over()
    refused(log, "taken over already", TermBegan(promises=ordered(log.promise(site) for site in SITES[1:])))


def test_from_there_on_the_coordinator_signs_nothing_and_neither_does_the_standby_before(log: TermLog) -> None:
    body = RoundReopened(deadline="2026-11-29T00:00:00Z")
    refused(log, "signed by", body, key=KEY, round_number=1)
    log.take_over()
    refused(log, "signed by", body, key=COORDINATOR, term=0, round_number=1)
    refused(log, "its term is unknown", body, term=0, round_number=1)


def test_the_proof_of_a_takeover_needs_no_log(log: TermLog) -> None:
    """What ends a coordinator that comes back: its own log may have gone on otherwise."""
    taken = log.fork(8, branch=0).take_over()
    own = log.fork(7, branch=1).go_on(3)
    assert proves_takeover(own.state, taken.entries[8])
    with pytest.raises(PeerError):
        proves_takeover(own.state, taken.entries[7])
    weak = own.signed(TermBegan(promises=ordered([log.promise("ash")])), key=KEY, term=1)
    with pytest.raises(PeerError, match="1 promises where 3 are needed"):
        proves_takeover(own.state, weak)


def test_a_plan_with_a_standby_has_nothing_that_the_standby_does_not_take_over() -> None:
    with pytest.raises(ValidationError, match="failover cannot go with overlap yet"):
        small_plan(b"", sites=4, failover=FAILOVER, overlap={})
