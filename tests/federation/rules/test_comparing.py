"""The comparison as rules of the log: its order, its deadlines, who tells the truth, who gains nothing by refusing."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from study_in_memory import small_plan

from federation.errors import OperatorError, PeerError
from federation.rules.accounting import (
    count_event,
    derive_noise_multiplier,
    epsilon,
    overlap_event,
    round_event,
    study_event,
)
from federation.rules.comparing import groups_of, waits_for, weights_of
from federation.rules.documents import OverlapCommitment, OverlapRefusal, OverlapReport, PairProduct, Revocation
from federation.rules.entries import (
    AgreementAdmitted,
    AgreementRevoked,
    ClustersFormed,
    OverlapClosed,
    OverlapCommitted,
    OverlapDeclined,
    OverlapReported,
    StudyPublished,
    StudyStarted,
    make_entry,
)
from federation.rules.keys import PrivateKey
from federation.rules.replay import apply, begin
from federation.rules.state import StudyState
from federation.rules.study import Agreement

COORDINATOR = PrivateKey(bytes([9]) * 32)
SITES = ("ash", "birch", "cedar", "dogwood")
KEYS = {site: PrivateKey(bytes([number]) * 32) for number, site in enumerate(SITES, start=1)}
DID = {site: key.public.did for site, key in KEYS.items()}
SITE = {did: site for site, did in DID.items()}
PLAN = small_plan(b"", sites=4, overlap={"noise_multiplier": "1"})
START = datetime(2026, 11, 28, 12, tzinfo=UTC)
HASH = "ab" * 32


class Log:
    """A study's log as far as it has come."""

    def __init__(
        self, plan: Any = PLAN, *, owners: dict[str, tuple[str, ...]] | None = None, nominal: int = 100
    ) -> None:
        self.now = START
        self.state: StudyState = begin(plan, plan_blob=HASH, coordinator=COORDINATOR.public)
        self.add(StudyPublished(plan=HASH, plan_hash=plan.plan_hash, minted=plan.reward.minted))
        for site in SITES:
            self.add(self.agreement(site, nominal=nominal, same_owner_as=(owners or {}).get(site)), site)

    def add(self, body: Any, site: str | None = None, *, seconds: float = 0) -> None:
        self.now += timedelta(seconds=seconds)
        party = KEYS[site].public if site else None
        self.state = apply(self.state, make_entry(body, study=self.state.study, now=self.now, party=party))

    def refuses(self, body: Any, site: str | None = None, *, because: str, seconds: float = 0) -> None:
        before = self.state
        with pytest.raises(PeerError, match=because):
            self.add(body, site, seconds=seconds)
        assert self.state is before

    def agreement(self, by: str, *, nominal: int = 100, **changes: Any) -> AgreementAdmitted:
        plan = self.state.plan
        fields: dict[str, Any] = {
            "study": plan.study_id,
            "plan_hash": plan.plan_hash,
            "site": by,
            "nominal_cohort": nominal,
            "signed_at": "2026-11-28T00:00:00Z",
            "overlap_key": HASH if plan.overlap else None,
        }
        return AgreementAdmitted(envelope=text(Agreement(**{**fields, **changes}), by))

    def commit(self, *sites: str) -> None:
        for site in sites:
            self.add(commitment(site), site)

    def compare(self, same: Any = (), *, lies: dict[str, Any] | None = None, silent: tuple[str, ...] = ()) -> None:
        """All commit, close, and report that exactly the pairs of ``same`` have common people."""
        self.commit(*SITES)
        self.add(OverlapClosed())
        for site in SITES:
            if site not in silent:
                self.add(report(site, (lies or {}).get(site, same)), site)

    def clusters(self) -> list[list[str]]:
        late = 1000 if waits_for(self.state) else 0
        self.add(groups_of(self.state), seconds=late)
        return named(self.state.overlap.clusters)


def text(document: Any, site: str) -> str:
    return str(document.sign(KEYS[site]).to_bytes().decode("utf-8"))


def named(groups: Any) -> list[list[str]]:
    return sorted(sorted(SITE[did] for did in group) for group in groups)


def commitment(site: str, **changes: Any) -> OverlapCommitted:
    fields = {"study": PLAN.study_id, "sketch": HASH, "exact": HASH, "rows": HASH, "event": overlap_event(PLAN)}
    return OverlapCommitted(envelope=text(OverlapCommitment(**{**fields, **changes}), site))


def declined(site: str) -> OverlapDeclined:
    return OverlapDeclined(envelope=text(OverlapRefusal(study=PLAN.study_id, code="budget", message="none left"), site))


def report(site: str, same: Any, *, of: tuple[str, ...] = SITES, square: int = 164, **changes: Any) -> OverlapReported:
    """100 people in 64 places with noise 1: squares of 100 + 64; a copy's product is 100, a stranger's 0."""
    pairs = [
        PairProduct(first=first, second=second, product=100 if {SITE[first], SITE[second]} in map(set, same) else 0)
        for first, second in itertools.combinations(sorted(DID[each] for each in of), 2)
    ]
    fields: dict[str, Any] = {
        "study": PLAN.study_id,
        "squares": {DID[each]: square for each in of},
        "pairs": tuple(pairs),
    }
    return OverlapReported(envelope=text(OverlapReport(**{**fields, **changes}), site))


def test_copies_of_copies_are_one_cluster_before_the_study_starts() -> None:
    log = Log()
    log.compare([("ash", "birch"), ("birch", "cedar")])
    log.refuses(StudyStarted(weights=weights_of(log.state), base_model=HASH), because="not compared yet")
    log.refuses(ClustersFormed(copies=(), clusters=()), because="do not follow")
    assert log.clusters() == [["ash", "birch", "cedar"]] == named(log.state.overlap.copies)
    assert weights_of(log.state) == {DID[site]: 3 if site == "dogwood" else 1 for site in SITES}
    log.refuses(StudyStarted(weights=dict.fromkeys(DID.values(), 1), base_model=HASH), because="weights do not follow")
    log.add(StudyStarted(weights=weights_of(log.state), base_model=HASH))


def test_strangers_stay_apart_and_weigh_what_they_did() -> None:
    log = Log()
    log.compare()
    assert log.clusters() == []
    assert weights_of(log.state) == dict.fromkeys(DID.values(), 100)


def test_one_owner_counts_where_both_say_so_and_its_parts_add_up() -> None:
    log = Log(owners={"ash": ("birch",), "birch": ("ash", "elm"), "cedar": ("dogwood",)})
    log.compare()
    assert log.clusters() == [["ash", "birch"]]
    assert log.state.overlap.copies == ()
    assert weights_of(log.state) == dict.fromkeys(DID.values(), 1)


def test_who_refuses_or_stays_silent_is_one_with_all_who_do() -> None:
    log = Log()
    log.commit("ash", "birch")
    log.add(declined("cedar"), "cedar")
    assert waits_for(log.state) == (DID["dogwood"],)
    log.refuses(OverlapClosed(), because="may still commit", seconds=29)
    log.add(OverlapClosed(), seconds=1)
    log.refuses(commitment("dogwood"), "dogwood", because="any more")
    for site in ("ash", "birch"):
        log.add(report(site, (), of=("ash", "birch")), site)
    assert log.clusters() == [["cedar", "dogwood"]]
    assert weights_of(log.state) == {DID[site]: 1 if site in ("cedar", "dogwood") else 2 for site in SITES}


def test_one_refuser_alone_is_an_institution_like_another() -> None:
    log = Log()
    log.compare(silent=("cedar",))
    log.refuses(groups_of(log.state), because="may still report")
    assert log.clusters() == []


def test_one_liar_neither_hides_a_copy_nor_makes_one() -> None:
    hidden = Log()
    hidden.compare([("ash", "birch")], lies={"ash": ()})
    assert hidden.clusters() == [["ash", "birch"]]
    framed = Log()
    framed.compare((), lies={"birch": [("ash", "birch")]})
    assert framed.clusters() == []


def test_where_no_majority_agrees_two_are_taken_for_one() -> None:
    log = Log()
    log.compare([("ash", "birch")], lies={"ash": (), "birch": ()})
    assert log.clusters() == [["ash", "birch"]]


def test_a_sketch_that_most_cannot_open_is_not_compared() -> None:
    log, others = Log(), ("ash", "birch", "cedar")
    log.commit(*SITES)
    log.add(OverlapClosed())
    log.add(declined("cedar"), "cedar")
    for site in ("ash", "birch"):
        log.add(report(site, (), of=others), site)
    log.add(report("dogwood", ()), "dogwood")
    assert log.clusters() == [["cedar", "dogwood"]]


def test_a_large_nominal_cohort_is_no_way_out() -> None:
    log = Log(nominal=10**6)
    log.compare([("ash", "birch")])
    assert log.clusters() == [["ash", "birch"]]


def test_entries_come_in_order_and_from_those_concerned() -> None:
    log = Log()
    log.refuses(report("ash", ()), "ash", because="after commitments close")
    log.refuses(commitment("ash"), "birch", because="signed by")
    log.refuses(commitment("ash", study="another-study"), "ash", because="another study")
    log.refuses(commitment("ash", event=count_event(PLAN)), "ash", because="privacy event")
    log.commit("ash")
    log.refuses(commitment("ash", rows="cd" * 32), "ash", because="committed already")
    log.refuses(ClustersFormed(copies=(), clusters=()), because="after the comparison")
    log.commit("birch", "cedar")
    log.add(declined("dogwood"), "dogwood")
    log.refuses(declined("dogwood"), "dogwood", because="second time")
    log.add(OverlapClosed())
    log.refuses(report("dogwood", ()), "dogwood", because="has declined")
    log.refuses(report("ash", ()), "ash", because="reports on others")
    log.refuses(report("ash", (), of=("birch", "cedar")), "ash", because="reports on others")
    log.refuses(report("ash", (), of=SITES[:3], pairs=()), "ash", because="all pairs in order")
    log.add(report("ash", (), of=SITES[:3]), "ash")
    log.refuses(declined("ash"), "ash", because="has reported")
    log.refuses(report("ash", (), of=SITES[:2]), "ash", because="no report is due")


def test_once_it_has_begun_who_takes_part_is_fixed() -> None:
    fields: dict[str, Any] = {"study": PLAN.study_id, "plan_hash": PLAN.plan_hash, "signed_at": "2026-11-28T00:00:00Z"}
    revocation = AgreementRevoked(envelope=text(Revocation(site="ash", **fields), "ash"))
    before = Log()
    before.add(revocation, "ash")
    assert DID["ash"] not in before.state.agreements
    before.refuses(commitment("birch"), "birch", because="agreements are missing")
    assert before.state.overlap.since is None
    log = Log()
    log.commit("birch")
    log.add(revocation, "ash")
    assert DID["ash"] in log.state.agreements
    log.refuses(commitment("ash"), "ash", because="no agreement")
    log.refuses(log.agreement("ash", site="elm"), "ash", because="no institution can join")
    assert waits_for(log.state) == tuple(sorted(DID[site] for site in ("cedar", "dogwood")))


def test_an_agreement_and_its_plan_say_the_same_about_comparing() -> None:
    plain = small_plan(b"", sites=4)
    log = Log(plain)
    assert waits_for(log.state) == ()
    log.refuses(commitment("ash"), "ash", because="compares no people")
    log.refuses(OverlapClosed(), because="compares no people")
    log.add(StudyStarted(weights=weights_of(log.state), base_model=HASH))
    for plan, changes, because in (
        (plain, {"overlap_key": HASH}, "differ about comparing"),
        (PLAN, {"overlap_key": None}, "differ about comparing"),
        (plain, {"same_owner_as": ("birch",)}, "no meaning"),
        (PLAN, {"same_owner_as": ("ash",)}, "names itself"),
    ):
        begun = Log.__new__(Log)
        begun.now, begun.state = START, begin(plan, plan_blob=HASH, coordinator=COORDINATOR.public)
        begun.add(StudyPublished(plan=HASH, plan_hash=plan.plan_hash, minted=plan.reward.minted))
        begun.refuses(begun.agreement("ash", **changes), "ash", because=because)


def test_the_sketch_is_part_of_what_a_person_loses_at_most() -> None:
    plain = small_plan(b"", sites=4)
    compared = small_plan(b"", sites=4, overlap={"noise_multiplier": "2"})
    assert derive_noise_multiplier(compared) > derive_noise_multiplier(plain)
    whole = epsilon([study_event(compared)], delta=Decimal("1e-5"), order=8)
    parts = [*([round_event(compared)] * 3), overlap_event(compared)]
    assert whole == pytest.approx(epsilon(parts, delta=Decimal("1e-5"), order=8))
    assert 2.99 < whole <= 3
    in_part = small_plan(b"", sites=4, overlap={}, cohort={"part": "01"})
    assert overlap_event(in_part)["part"] == "01" == study_event(in_part)["part"]
    with pytest.raises(OperatorError, match="compares no people"):
        overlap_event(plain)
