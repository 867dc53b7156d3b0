"""People are compared before a study: who copies, who declares an owner, who declines; what it costs and leaves."""

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from study_in_memory import InMemoryStudy, Institution

from clients.comparison import Comparison, ComparisonParts
from clients.privacy.noise import NoNoise
from clients.storage import COMPARISON
from consent.rules.record import Action
from federation.coordinator.protocols import OverlapReply, OverlapRequest
from federation.errors import PeerError, UnavailableError
from federation.rules import audit
from federation.rules.accounting import overlap_event, round_event
from federation.rules.canonical import tagged_hash
from federation.rules.documents import OverlapCommitment, OverlapRefusal, open_signed
from federation.rules.overlap import pack_sketch, person_hashes, sketch_hash, sketch_of
from federation.rules.study import read

COPIED = {"birch": "ash", "cedar": "ash"}


def sites(study: InMemoryStudy, groups: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    return [sorted(map(study.state.site, group)) for group in groups]


def worth(study: InMemoryStudy) -> dict[str, Fraction]:
    return {study.state.site(did): value for did, value in audit.values(study.state, study.tables()).items()}


def test_a_full_copy_on_three_ids_earns_what_one_would(tmp_path: Path) -> None:
    terms: dict[str, Any] = {"rounds": {"count": 1}, "overlap": {"noise_multiplier": "2", "buckets": 1024}}
    people = dict.fromkeys(("ash", "birch", "cedar", "dogwood", "elm"), 24)
    alone, several = tmp_path / "alone", tmp_path / "several"
    alone.mkdir()
    several.mkdir()
    with InMemoryStudy(several, sites=5, copies=COPIED, people=people, **terms) as study:
        state = study.run()
        family = ["ash", "birch", "cedar"]
        assert sites(study, state.overlap.clusters) == [family] == sites(study, state.overlap.copies)
        kinds = study.kinds()
        assert kinds.index("clusters-formed") == kinds.index("study-started") - 1
        assert kinds.count("overlap-committed") == kinds.count("overlap-reported") == 5
        assert study.service.status()["clusters"] == [{"sites": family, "copies": [family]}]
        weights = {state.site(did): weight for did, weight in state.weights.items()}
        assert weights == {"ash": 1, "birch": 1, "cedar": 1, "dogwood": 3, "elm": 3}
        together = worth(study)
        assert together["ash"] == together["birch"] == together["cedar"]
        for institution in study.institutions.values():  # every witness replayed it all, and cosigned
            assert institution.node is not None
            assert institution.node.witness.state.overlap == state.overlap
            charge = institution.budget.charge(study.plan.study_id, COMPARISON)
            assert charge is not None
            assert charge.event == overlap_event(study.plan)
    others = {"birch": "dogwood", "cedar": "elm"}  # the same two strangers beside one ash
    with InMemoryStudy(alone, sites=3, copies=others, people=people, **terms) as study:
        assert study.run().overlap.clusters == ()
        single = worth(study)
    assert abs(sum(together[site] for site in family) - single["ash"]) < Fraction(1, 10**6)
    assert abs(together["dogwood"] - single["birch"]) < Fraction(1, 10**6)


class Desk:
    """An institution's comparison, asked as the coordinator asks, without a study that runs."""

    def __init__(self, study: InMemoryStudy, site: str) -> None:
        self.study, self.institution = study, study[site]
        self.comparison = Comparison(parts_of(self.institution))

    def ask(self, step: str, **changes: Any) -> OverlapReply:
        fields = {"study": self.study.plan.study_id, "step": step, **changes}
        payload = OverlapRequest.model_validate(fields).to_payload()
        return read(OverlapReply, self.comparison.handle(self.study.key.public, payload))

    def refusal(self, step: str) -> str:
        reply = self.ask(step)
        assert reply.kind == "declined"
        document, _ = open_signed(OverlapRefusal, (reply.envelope or "").encode(), signer=self.institution.key.public)
        return document.code


def parts_of(institution: Institution, **changes: Any) -> ComparisonParts:
    node = institution.node
    assert node is not None
    fields: dict[str, Any] = {
        "plan": institution.study.plan,
        "key": institution.key,
        "engine": institution.engine,
        "registry": institution.registry,
        "participation": institution.participation(),
        "noise": NoNoise(),
        "clock": institution.study.clock,
        "state": lambda: node.witness.state,
    }
    return ComparisonParts(**{**fields, **changes})


def test_the_sketch_is_of_those_who_agree_and_is_charged_and_kept_once(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, overlap={}) as study:
        ash = study["ash"]
        ash.say(Action.WITHDRAW, ["p03"])
        desk = Desk(study, "ash")
        reply = desk.ask("commit")
        assert reply.kind == "committed"
        assert desk.ask("commit") == reply
        commitment, _ = open_signed(OverlapCommitment, (reply.envelope or "").encode(), signer=ash.key.public)
        agreed = [name for name in ash.refs if name != "p03"]
        assert ash.used(COMPARISON) == tuple(agreed)
        exact = sketch_of(person_hashes(ash.data().batch.select(agreed)), 64, bytes.fromhex(study.plan.plan_hash))
        stored = desk.comparison._stored()
        assert stored is not None
        assert commitment.exact == tagged_hash("overlap-exact", bytes.fromhex(stored["salt"]), pack_sketch(exact)).hex()
        assert commitment.rows == ash.uses()[COMPARISON].rows_commitment
        own = {"study": study.plan.study_id, "did": ash.did}
        assert commitment.sketch == sketch_hash(pack_sketch(exact), **own)  # this node adds no noise
        assert [charge.round for charge in ash.budget.charges()] == [COMPARISON]
        with pytest.raises(UnavailableError, match="not seen that commitments are closed"):
            desk.ask("show")
        with pytest.raises(PeerError, match="another study"):
            desk.ask("commit", study="another")
        with pytest.raises(PeerError, match="another study"):
            desk.comparison.handle(ash.key.public, OverlapRequest(study=study.plan.study_id, step="show").to_payload())


def test_asked_again_while_the_sketch_is_made_it_neither_makes_another_nor_declines(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, overlap={}) as study:
        desk, answers = Desk(study, "ash"), []

        class Slow(NoNoise):
            def discrete_gaussian(self, count: int, std: Fraction) -> Any:
                with ThreadPoolExecutor(1) as pool, pytest.raises(UnavailableError, match="being made"):
                    pool.submit(desk.ask, "commit").result()
                answers.append("again")
                return super().discrete_gaussian(count, std)

        desk.comparison = Comparison(parts_of(study["ash"], noise=Slow()))
        reply = desk.ask("commit")
        assert (reply.kind, answers) == ("committed", ["again"])
        assert desk.ask("commit") == reply


def test_a_node_declines_what_it_cannot_do_and_says_why(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=4, overlap={}) as study:
        plan = study.plan
        ash, birch, cedar, dogwood = (study[site] for site in ("ash", "birch", "cedar", "dogwood"))
        for number in range(1, 7):
            ash.budget.record("an-earlier-study", number, round_event(plan))
        assert Desk(study, "ash").refusal("commit") == "budget"
        assert ash.budget.charge(plan.study_id, COMPARISON) is None
        birch.budget.reserve(plan.study_id, COMPARISON, overlap_event(plan))
        birch.budget.start(plan.study_id, COMPARISON)  # and then the machine stopped
        assert Desk(study, "birch").refusal("commit") == "interrupted"
        cedar.file.write_text("person,age\np00,3\n")
        assert Desk(study, "cedar").refusal("commit") == "not-ready"
        desk = Desk(study, "dogwood")
        desk.comparison = Comparison(parts_of(dogwood, agreed=lambda: False))
        assert desk.refusal("commit") == "revoked"
        assert dogwood.uses() == {}


def test_owners_who_declare_each_other_are_one_and_who_declines_stops_nobody(tmp_path: Path) -> None:
    owners = {"ash": ("birch",), "birch": ("ash",)}
    with InMemoryStudy(tmp_path, sites=4, overlap={}, owners=owners) as study:
        for number in range(1, 7):
            study["dogwood"].budget.record("an-earlier-study", number, round_event(study.plan))
        study.run(between=lambda _closed: study.stop.set())
        overlap = study.state.overlap
        assert sites(study, overlap.clusters) == [["ash", "birch"]]
        assert overlap.copies == ()
        assert set(overlap.declined) == {study["dogwood"].did}
        assert overlap.declined[study["dogwood"].did].startswith("budget: ")
        assert set(study.state.weights.values()) == {1}


def test_a_database_put_back_from_before_the_comparison_is_charged_for_it(tmp_path: Path) -> None:
    with InMemoryStudy(tmp_path, sites=2, overlap={}) as study:
        study.run(between=lambda _closed: study.stop.set())
        ash = study["ash"]
        spent = ash.budget.spent(study.plan.study_id)
        assert spent > 0
        assert json.loads(ash.uses()[COMPARISON].subjects) == list(ash.refs)
    with InMemoryStudy(tmp_path, sites=2, overlap={}) as older:
        for _ in range(2):
            older["ash"].participation().follow(study.state)
            assert older["ash"].budget.spent(older.plan.study_id) == spent
