"""Stakes in the log: what may follow what, who loses one on which evidence, and that an honest party never does."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from federation.errors import PeerError
from federation.learning.evaluation import committed_utility
from federation.rules.admission import consent_origin
from federation.rules.audit import UTILITY_UNIT
from federation.rules.canonical import sha256_hex
from federation.rules.challenge import make_challenge, verify_challenge
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.documents import Revocation
from federation.rules.entries import (
    AgreementAdmitted,
    AgreementRevoked,
    SlashAppealed,
    StakeBurned,
    StakeReleased,
    StakeSlashed,
    StudyStarted,
    make_entry,
    open_entry,
)
from federation.rules.equivocation import two_roots
from federation.rules.evidence import check_evidence, check_false_utility
from federation.rules.exact_utility import exact_utility
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.merkle import inclusion_proof
from federation.rules.pledges import FalseUtility, Opening, SplitView, TwoStudies
from federation.rules.replay import apply, replay, weights_of
from federation.rules.study import Agreement

MASK = 5
STRANGER = PrivateKey(bytes([55]) * 32)
COORDINATOR = "stake:coordinator/sponsor"
Staked = Callable[..., Any]


def lying(utilities: list[int]) -> list[int]:
    return [value + UTILITY_UNIT // 16 * (at == MASK) for at, value in enumerate(utilities)]


def proof_of(study: Any, number: int = 1, mask: int = MASK) -> tuple[FalseUtility, bytes]:
    """A challenge of one entry of a table, false or not, and the case that it would make."""
    bodies = [open_entry(data, signer=study.key.public) for data in study.log.entries()]
    places = [next(at for at, entry in enumerate(bodies) if entry.body.kind == kind) for kind in FIRST]
    done = study.state.closed[number - 1]
    opened = next(at for at, each in enumerate(bodies) if (each.body.kind, each.round) == ("round-opened", number))
    players = study.tables[number - 1].players
    members = sorted(did for at, did in enumerate(players) if mask >> at & 1)
    checkpoint = Checkpoint(study.plan.origin, study.log.size, study.log.root())
    data = make_challenge(
        plan=study.plan_bytes,
        signed=sign_checkpoint(checkpoint, study.key),
        entries=study.log.entries(),
        places=(places[0], places[1], opened, done.entry_index),
        table=study.blobs.get(done.value_table),
        validation=(study.salt, study.rows),
        base=study.blobs.get(done.base_model),
        updates={did: b"".join(study.blobs.get(name) for name in done.admitted[did].chunks) for did in members},
    ).to_bytes()
    study.blobs.put(data)
    return FalseUtility(round=number, coalition=tuple(members), proof=sha256_hex(data)), data


FIRST = ("study-published", "study-started")


def split(key: PrivateKey, origin: str, *, size: int = 7, roots: tuple[bytes, bytes] = (bytes(32), b"\1" * 32)) -> Any:
    """A case of one key that signed two roots of one size."""
    signed = [sign_checkpoint(Checkpoint(origin, size, root), key) for root in roots]
    evidence = two_roots(*signed)
    assert evidence is not None
    return SplitView(evidence=evidence.to_bytes().decode())


def append(study: Any, body: Any, party: PrivateKey) -> str:
    """What a coordinator logs and every witness checks; the entry's id."""
    entry = make_entry(body, study=study.state.study, now=study.now + timedelta(seconds=1), party=party.public)
    check_evidence(apply(study.state, entry), entry, study.blobs.get, committed_utility)
    study.append(body, party=party)
    return entry.id


def refused(study: Any, body: Any, party: PrivateKey | None, because: str) -> None:
    before = study.state
    entry = make_entry(
        body, study=before.study, now=study.now + timedelta(seconds=1), party=party.public if party else None
    )
    with pytest.raises(PeerError, match=because):
        check_evidence(apply(before, entry), entry, study.blobs.get, committed_utility)
    assert study.state is before


def sums(study: Any) -> None:
    ledger = study.state.ledger
    assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted


@pytest.fixture(scope="module")
def false_study(staked: Staked) -> Any:
    """A settled study whose coordinator committed to one false utility."""
    return staked(changes={"utilities-1": lying}).played()


@pytest.fixture(scope="module")
def honest_study(staked: Staked) -> Any:
    """A settled study whose coordinator is honest."""
    return staked().played()


@pytest.fixture
def again(staked: Staked) -> Callable[[Any], Any]:
    """A copy of a played study that a test may go on with."""

    def copied(study: Any) -> Any:
        copy = staked(changes=study.changes)
        copy.state, copy.now, copy.tables, copy.blobs = study.state, study.now, study.tables, study.blobs
        for index, data in enumerate(study.log.entries()):
            copy.log.append(str(index), data)
        return copy

    return copied


@pytest.fixture
def false(false_study: Any, again: Callable[[Any], Any]) -> Any:
    return again(false_study)


@pytest.fixture
def honest(honest_study: Any, again: Callable[[Any], Any]) -> Any:
    return again(honest_study)


# Deposits


def agreed(study: Any) -> Any:
    study.publish()
    for site, key in study.institutions.items():
        agreement = Agreement(
            study=study.plan.study_id,
            plan_hash=study.plan.plan_hash,
            site=site,
            nominal_cohort=100,
            signed_at=format_instant(study.now),
        )
        study.append(AgreementAdmitted(envelope=agreement.sign(key).to_bytes().decode()), party=key)
    return study


def test_a_study_starts_once_everybody_s_stake_is_there(staked: Staked) -> None:
    study = agreed(staked())
    start = StudyStarted(weights=weights_of(study.state), base_model="0" * 64)
    for key in (study.key, *study.institutions.values()):
        refused(study, start, None, "stakes are missing")
        study.append(study.pledge(key), party=key)
        sums(study)
    study.append(start)
    ledger = study.state.ledger
    assert (ledger.stakes, ledger.pledged, ledger.minted) == (1400, 1400, 1_001_400)
    assert ledger.balance(COORDINATOR) == -ledger.balance("pledge:coordinator/sponsor") == 500
    refused(study, study.pledge(study.institutions["ash"], signed_at="x"), study.institutions["ash"], "has started")


def test_a_pledge_is_the_party_s_own_and_of_this_plan(staked: Staked) -> None:
    study = agreed(staked())
    ash, birch = study.institutions["ash"], study.institutions["birch"]
    refused(study, study.pledge(ash), birch, "by another party")
    refused(study, study.pledge(ash, plan_hash="0" * 64), ash, "for another plan")
    refused(study, study.pledge(ash, amount_microcredits=299), ash, "a stake of 300 micro-credits")
    refused(study, study.pledge(STRANGER), STRANGER, "no stake, or its agreement is missing")
    study.append(study.pledge(ash), party=ash)
    refused(study, study.pledge(ash, signed_at="later"), ash, "there already")


def test_whoever_leaves_before_the_start_has_its_stake_back(staked: Staked) -> None:
    study = agreed(staked())
    ash = study.institutions["ash"]
    study.append(study.pledge(ash), party=ash)
    revocation = Revocation(study=study.plan.study_id, plan_hash=study.plan.plan_hash, site="ash", signed_at="x")
    study.append(AgreementRevoked(envelope=revocation.sign(ash).to_bytes().decode()), party=ash)
    assert study.state.stakes == {}
    birch = study.institutions["birch"]
    study.append(study.pledge(birch), party=birch)
    case = split(birch, consent_origin(birch.public))
    refused(study, StakeSlashed(case=case), birch, "the study has not started")
    birch_left = Revocation(study=study.plan.study_id, plan_hash=study.plan.plan_hash, site="birch", signed_at="x")
    study.append(AgreementRevoked(envelope=birch_left.sign(birch).to_bytes().decode()), party=birch)
    assert study.state.ledger.balance("pledge:ash") == study.state.ledger.balance("stake:ash") == 0
    sums(study)


def test_a_plan_without_stakes_takes_none_of_this(play: Callable[[], Any]) -> None:
    study = play().played()
    for body in (study.pledge(study.key), StakeReleased(), StakeSlashed(case=split(study.key, study.plan.origin))):
        refused(study, body, study.key, "settled already")


# A false utility


def test_a_false_utility_costs_the_scorer_its_stake(false: Any) -> None:
    case, _ = proof_of(false)
    name = append(false, StakeSlashed(case=case), false.key)
    ledger = false.state.ledger
    assert (ledger.balance(COORDINATOR), ledger.available(COORDINATOR), ledger.burned) == (500, 0, false.state.burned)
    sums(false)
    refused(false, StakeBurned(slash=name), false.key, "the appeal window has not ended")
    false.now += timedelta(seconds=101)
    append(false, StakeBurned(slash=name), false.key)
    ledger = false.state.ledger
    assert (ledger.balance(COORDINATOR), ledger.balance("burned:slashed")) == (0, 500)
    assert ledger.balance("pledge:coordinator/sponsor") == -500, "what was burned is owed"
    sums(false)
    false.now += timedelta(seconds=3000)
    refused(false, StakeReleased(), false.key, "the stake is slashed")
    refused(false, StakeBurned(slash=name), false.key, "a second time")
    for key in false.institutions.values():
        append(false, StakeReleased(), key)
    assert false.state.ledger.pledged == 500
    sums(false)
    start = staked_start(false)
    assert replay(start, false.log.entries()).ledger == false.state.ledger


def staked_start(study: Any) -> Any:
    return type(study)(edits=study.edits).state


def test_no_stake_is_taken_twice(false: Any) -> None:
    case, _ = proof_of(false)
    body, other = StakeSlashed(case=case), StakeSlashed(case=split(false.key, false.plan.origin))
    first = append(false, body, false.key)
    refused(false, body, false.key, "a second time")
    second = append(false, other, false.key)
    assert false.state.ledger.held == {COORDINATOR: 500}
    false.now += timedelta(seconds=110)
    append(false, StakeBurned(slash=second), false.key)
    assert false.state.ledger.balance("burned:slashed") == 500
    refused(false, StakeBurned(slash=first), false.key, "burned already")
    later = split(false.key, false.plan.origin, size=8)
    refused(false, StakeSlashed(case=later), false.key, "burned already")


def test_a_harmless_case_shields_nobody_from_another(false: Any, staked: Staked) -> None:
    other = staked(edits={'name = "small"': 'name = "other"'})
    other.start()
    view, answer = two_logs(false, other, 6)
    decoy = append(false, StakeSlashed(case=view), false.key)
    case, _ = proof_of(false)
    real = append(false, StakeSlashed(case=case), false.key)
    append(false, SlashAppealed(slash=decoy, answer=answer), false.key)
    assert false.state.ledger.held == {COORDINATOR: 500}, "one case is left"
    false.now += timedelta(seconds=110)
    append(false, StakeBurned(slash=real), false.key)
    assert false.state.ledger.balance("burned:slashed") == 500
    sums(false)


def test_an_entry_that_holds_slashes_nobody(honest: Any) -> None:
    for number, table in enumerate(honest.tables, start=1):
        for mask in range(len(table.utilities)):
            case, _ = proof_of(honest, number, mask)
            refused(honest, StakeSlashed(case=case), honest.key, "the logged utility holds")


def test_a_proof_counts_for_its_own_entry_and_the_scorer_alone(false: Any) -> None:
    case, _ = proof_of(false)
    ash = false.institutions["ash"]
    refused(false, StakeSlashed(case=case), ash, "only the coordinator signs value tables")
    other = case.model_copy(update={"coalition": case.coalition[:1]})
    refused(false, StakeSlashed(case=other), false.key, "about another entry")
    refused(false, StakeSlashed(case=case.model_copy(update={"round": 3})), false.key, "no such round")
    stranger = case.model_copy(update={"coalition": (STRANGER.public.did,)})
    refused(false, StakeSlashed(case=stranger), false.key, "not everybody in the coalition")
    false.blobs = type(false.blobs)()
    other_blob = false.blobs.put(b"no challenge")
    refused(false, StakeSlashed(case=case.model_copy(update={"proof": other_blob})), false.key, "does not end as")


def test_tables_that_are_closed_or_sealed_make_no_case(staked: Staked) -> None:
    case = FalseUtility(round=1, coalition=(), proof="0" * 64)
    running = staked()
    running.start()
    refused(running, StakeSlashed(case=case), running.key, "still closed")
    sealed = staked(disclosure="sealed").played()
    refused(sealed, StakeSlashed(case=case), sealed.key, "rows sealed")


def test_evidence_is_heard_until_the_challenge_window_ends(false: Any) -> None:
    case, _ = proof_of(false)
    settled = false.state.settled_at
    false.now = settled + timedelta(seconds=1000)
    refused(false, StakeSlashed(case=case), false.key, "the challenge window has ended")
    false.now = settled + timedelta(seconds=999)
    append(false, StakeSlashed(case=case), false.key)


# Split views


def test_two_histories_of_one_log_cost_their_signer_its_stake(honest: Any) -> None:
    ash = honest.institutions["ash"]
    append(honest, StakeSlashed(case=split(ash, consent_origin(ash.public))), ash)
    append(honest, StakeSlashed(case=split(honest.key, honest.plan.origin)), honest.key)
    assert honest.state.ledger.held == {"stake:ash": 300, COORDINATOR: 500}
    sums(honest)


def test_a_split_view_of_another_log_or_key_costs_nothing(honest: Any) -> None:
    ash = honest.institutions["ash"]
    origin = consent_origin(ash.public)
    refused(honest, StakeSlashed(case=split(ash, "elsewhere")), ash, "about another log")
    refused(honest, StakeSlashed(case=split(honest.key, origin)), ash, "it is about")
    refused(honest, StakeSlashed(case=split(STRANGER, origin)), STRANGER, "holds no stake")


def test_before_the_settlement_a_split_view_counts_as_well(staked: Staked) -> None:
    study = staked()
    study.start()
    append(study, StakeSlashed(case=split(study.key, study.plan.origin)), study.key)
    study.play_round(1)
    assert study.state.ledger.held == {COORDINATOR: 500}


# Answers


def opening(study: Any, size: int) -> Opening:
    proof = inclusion_proof(list(study.log.leaf_hashes(size)), 0)
    return Opening(entry=study.log.entry(0).decode(), proof=tuple(part.hex() for part in proof))


def two_logs(study: Any, other: Any, size: int) -> tuple[SplitView, TwoStudies]:
    """Two trees of one size, in the order of the evidence, and what they begin with."""
    case = split(study.key, study.plan.origin, size=size, roots=(study.log.root(size), other.log.root(size)))
    openings = [opening(study, size), opening(other, size)]
    if case.evidence.index(_root_text(study, size)) > case.evidence.index(_root_text(other, size)):
        openings.reverse()
    return case, TwoStudies(first=openings[0], second=openings[1])


def _root_text(study: Any, size: int) -> str:
    checkpoint = Checkpoint(study.plan.origin, size, study.log.root(size))
    return sign_checkpoint(checkpoint, study.key).to_bytes().decode().split("\n")[2]


def test_two_studies_with_logs_of_one_name_are_no_split_view(honest: Any, staked: Staked) -> None:
    other = staked(edits={'name = "small"': 'name = "other"'})
    other.start()
    case, answer = two_logs(honest, other, 6)
    name = append(honest, StakeSlashed(case=case), honest.key)
    swapped = TwoStudies(first=answer.second, second=answer.first)
    refused(honest, SlashAppealed(slash=name, answer=swapped), honest.key, "does not lead|inclusion|proof")
    refused(honest, SlashAppealed(slash=name, answer=answer), honest.institutions["ash"], "no such slash")
    append(honest, SlashAppealed(slash=name, answer=answer), honest.key)
    assert honest.state.ledger.held == {}
    assert honest.state.slashes[name].status == "answered"
    refused(honest, StakeSlashed(case=case), honest.key, "a second time")
    refused(honest, StakeBurned(slash=name), honest.key, "is answered already")
    honest.now += timedelta(seconds=2001)
    append(honest, StakeReleased(), honest.key)
    sums(honest)


def test_two_histories_of_one_study_have_no_answer(honest: Any, staked: Staked) -> None:
    fork = staked(seed=8)
    fork.start()
    fork.play_round(1)
    case, answer = two_logs(honest, fork, fork.log.size)
    name = append(honest, StakeSlashed(case=case), honest.key)
    refused(honest, SlashAppealed(slash=name, answer=answer), honest.key, "both trees are of the study small-")


def test_an_answer_comes_within_the_appeal_window(honest: Any, staked: Staked) -> None:
    other = staked(edits={'name = "small"': 'name = "other"'})
    other.start()
    case, answer = two_logs(honest, other, 6)
    name = append(honest, StakeSlashed(case=case), honest.key)
    honest.now += timedelta(seconds=100)
    refused(honest, SlashAppealed(slash=name, answer=answer), honest.key, "the appeal window has ended")


def test_a_false_utility_has_no_answer(false: Any, staked: Staked) -> None:
    other = staked(edits={'name = "small"': 'name = "other"'})
    other.start()
    _, answer = two_logs(false, other, 6)
    case, _ = proof_of(false)
    name = append(false, StakeSlashed(case=case), false.key)
    refused(false, SlashAppealed(slash=name, answer=answer), false.key, "another kind of case")


@pytest.mark.parametrize(("by", "held"), [(4096, 0), (4097, 500), (-4096, 0), (-4097, 500)])
def test_a_lie_at_the_edge_is_judged_by_exact_arithmetic(staked: Staked, by: int, held: int) -> None:
    """Whatever a verifier's floating point says: here it says that nothing was ever true, or false."""
    probe = staked().played()
    exact = verify_challenge(proof_of(probe)[1], coordinator=probe.key.public, utility=exact_utility).recomputed
    edge = staked(changes={"utilities-1": lambda all_: [*all_[:MASK], exact + by, *all_[MASK + 1 :]]}).played()
    case, proof = proof_of(edge)
    for wrong in (lambda *_: 0, lambda *_: exact + by):
        if held:
            assert check_false_utility(edge.state, case, proof, wrong).recomputed == exact
            continue
        with pytest.raises(PeerError, match="the logged utility holds"):
            check_false_utility(edge.state, case, proof, wrong)


# Release


def test_nothing_is_released_before_the_unbonding_time_has_ended(honest: Any, staked: Staked) -> None:
    refused(honest, StakeReleased(), honest.key, "the unbonding time has not ended")
    honest.now = honest.state.settled_at + timedelta(seconds=1999)
    refused(honest, StakeReleased(), honest.key, "the unbonding time has not ended")
    honest.now += timedelta(seconds=1)
    refused(honest, StakeReleased(), STRANGER, "holds no stake")
    append(honest, StakeReleased(), honest.key)
    refused(honest, StakeReleased(), honest.key, "a second time")
    running = staked()
    running.start()
    refused(running, StakeReleased(), running.key, "not settled")


class Windows(RuleBasedStateMachine):
    """Any order of cases, answers, burns, releases and time, beside a few words about each stake."""

    study: Any

    @initialize()
    def begin(self) -> None:
        self.state, self.now = self.study.state, self.study.now
        self.keys = [self.study.key, *self.study.institutions.values()]
        self.told = dict.fromkeys((key.public.did for key in self.keys), "held")
        self.open: dict[str, list[tuple[str, Any]]] = {key.public.did: [] for key in self.keys}
        self.seen: set[str] = set()
        self.count = 0

    def attempt(self, body: Any, key: PrivateKey, legal: bool) -> str:
        self.now += timedelta(seconds=1)
        entry = make_entry(body, study=self.state.study, now=self.now, party=key.public)
        if not legal:
            with pytest.raises(PeerError):
                apply(self.state, entry)
            return ""
        self.state = apply(self.state, entry)
        return entry.id

    def since(self) -> float:
        return float((self.now + timedelta(seconds=1) - self.state.settled_at).total_seconds())

    @rule(seconds=st.sampled_from([1, 60, 99, 100, 500, 900]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(which=st.integers(0, 3), new=st.booleans())
    def slash(self, which: int, new: bool) -> None:
        key = self.keys[which]
        did = key.public.did
        self.count += new
        origin = self.study.plan.origin if which == 0 else consent_origin(key.public)
        body = StakeSlashed(case=split(key, origin, size=1 + self.count))
        standing = self.told[did] in ("held", "slashed")
        legal = standing and self.since() <= 1000 and f"{did}{self.count}" not in self.seen
        name = self.attempt(body, key, legal)
        if legal:
            self.seen.add(f"{did}{self.count}")
            self.told[did] = "slashed"
            self.open[did].append((name, self.now))

    @rule(which=st.integers(0, 3), last=st.booleans())
    def burn(self, which: int, last: bool) -> None:
        key = self.keys[which]
        cases = self.open[key.public.did] or [("0" * 64, self.now)]
        name, at = cases[-1 if last else 0]
        waited = (self.now + timedelta(seconds=1) - at).total_seconds()
        legal = self.told[key.public.did] == "slashed" and waited > 100
        self.attempt(StakeBurned(slash=name), key, legal)
        if legal:
            self.told[key.public.did] = "burned"

    @rule(which=st.integers(0, 3))
    def release(self, which: int) -> None:
        key = self.keys[which]
        legal = self.told[key.public.did] == "held" and self.since() > 2000
        self.attempt(StakeReleased(), key, legal)
        if legal:
            self.told[key.public.did] = "released"

    @invariant()
    def every_stake_is_where_it_should_be(self) -> None:
        ledger = self.state.ledger
        assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted
        for which, key in enumerate(self.keys):
            told, due = self.told[key.public.did], 300 if which else 500
            name = ("ash", "birch", "cedar")[which - 1] if which else "coordinator/sponsor"
            assert ledger.balance(f"stake:{name}") == (due if told in ("held", "slashed") else 0)
            assert ledger.available(f"stake:{name}") == (due if told == "held" else 0)
            assert ledger.balance(f"pledge:{name}") == (0 if told == "released" else -due)
        burned = sum(
            300 if which else 500 for which, key in enumerate(self.keys) if self.told[key.public.did] == "burned"
        )
        assert ledger.balance("burned:slashed") == burned


def test_in_any_order_every_stake_is_where_it_should_be(honest_study: Any) -> None:
    machine = type("Played", (Windows,), {"study": honest_study})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))
