"""Every rule of the log: what may follow what. A refused entry leaves the state as it was."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from federation.errors import PeerError
from federation.rules import audit
from federation.rules.comparing import weights_of
from federation.rules.documents import Commitment, Refusal, Revocation
from federation.rules.entries import (
    AgreementAdmitted,
    AgreementRevoked,
    CommitmentsClosed,
    Entry,
    ParticipationRefused,
    RoundClosed,
    RoundOpened,
    RoundReopened,
    StudyAborted,
    StudyPublished,
    StudyStarted,
    UpdateAdmitted,
    UpdateCommitted,
    UpdateRefused,
    entry_id,
    make_entry,
)
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.replay import apply, begin, replay
from federation.rules.study import Agreement

STRANGER = PrivateKey(bytes([55]) * 32)


class Story:
    """A study at some point, and the entries that its coordinator could try next."""

    def __init__(self, study: Any) -> None:
        self.study = study
        self.keys: dict[str, PrivateKey] = study.institutions
        self.updates: dict[str, Any] = {}

    def entry(self, body: Any, *, number: int | None = None, party: Any = None, seconds: float = 1) -> Entry:
        key = self.keys.get(party, party) if isinstance(party, str) else party
        return make_entry(
            body,
            study=self.study.state.study,
            now=self.study.now + timedelta(seconds=seconds),
            round_number=number,
            party=key.public if key else None,
        )

    def append(self, body: Any, *, number: int | None = None, party: Any = None) -> None:
        self.study.append(body, number, self.keys.get(party, party) if isinstance(party, str) else party)

    def refused(self, entry: Entry, because: str) -> None:
        """The entry is refused with this reason, its place is named, and nothing has moved."""
        state = self.study.state
        before = repr(state)
        with pytest.raises(PeerError) as error:
            apply(state, entry)
        assert because in error.value.message
        assert error.value.message.startswith(f"Log entry {state.size} ({entry.body.kind}) breaks a rule: ")
        assert error.value.remedy
        assert repr(state) == before

    # What the parties sign.

    def agreement(self, site: str, key: PrivateKey | None = None, **changes: Any) -> AgreementAdmitted:
        fields = {
            "study": self.study.plan.study_id,
            "plan_hash": self.study.plan.plan_hash,
            "site": site,
            "nominal_cohort": 100,
            "signed_at": "2026-11-22T00:00:00Z",
        }
        return AgreementAdmitted(
            envelope=Agreement(**{**fields, **changes}).sign(key or self.keys[site]).to_bytes().decode()
        )

    def revocation(self, site: str, key: PrivateKey | None = None, **changes: Any) -> AgreementRevoked:
        fields = {
            "study": self.study.plan.study_id,
            "plan_hash": self.study.plan.plan_hash,
            "site": site,
            "signed_at": "2026-11-22T00:00:00Z",
        }
        document = Revocation(**{**fields, **changes}).sign(key or self.keys[site])
        return AgreementRevoked(envelope=document.to_bytes().decode())

    def commitment(self, site: str, *, number: int = 1, **changes: Any) -> UpdateCommitted:
        update = self.updates.setdefault(site, self.study.update(number, self.keys[site]))
        document = update.commitment(self.keys[site].public).model_copy(update=changes)
        return UpdateCommitted(envelope=Commitment(**dict(document)).sign(self.keys[site]).to_bytes().decode())

    def refusal(self, site: str, *, number: int = 1) -> ParticipationRefused:
        document = Refusal(study=self.study.plan.study_id, round=number, code="budget", message="nothing is left")
        return ParticipationRefused(envelope=document.sign(self.keys[site]).to_bytes().decode())

    def shown(self, site: str) -> UpdateAdmitted:
        return UpdateAdmitted(envelope=self.updates[site].sign(self.keys[site]).to_bytes().decode())

    def opening(self, **changes: Any) -> RoundOpened:
        fields = {
            "base_model": self.study.state.model,
            "participants": self.study.state.active,
            "deadline": format_instant(self.study.now + timedelta(seconds=60)),
        }
        return RoundOpened(**{**fields, **changes})

    def closing(self, **changes: Any) -> RoundClosed:
        current = self.study.state.round
        quorate = len(current.admitted) >= 2
        fields = {
            "outcome": "aggregated" if quorate else "no-quorum",
            "updates": {did: update.update for did, update in current.admitted.items()} if quorate else {},
            "model": ("7" if quorate else "") * 64 or current.base_model,
            "value_table": "8" * 64,
        }
        return RoundClosed(**{**fields, **changes})

    def did(self, site: str) -> str:
        return self.keys[site].public.did


@pytest.fixture
def new(play: Callable[[], Any]) -> Story:
    """A plan, nothing published."""
    return Story(play())


@pytest.fixture
def published(new: Story) -> Story:
    """The plan is published; nobody has agreed."""
    new.study.publish()
    return new


@pytest.fixture
def agreed(published: Story) -> Story:
    """All three institutions have agreed."""
    for site in published.keys:
        published.append(published.agreement(site), party=site)
    return published


@pytest.fixture
def started(new: Story) -> Story:
    """Participants and weights are fixed."""
    new.study.start()
    return new


@pytest.fixture
def opened(started: Story) -> Story:
    """Round 1 is open."""
    started.append(started.opening(), number=1)
    return started


@pytest.fixture
def revealing(opened: Story) -> Story:
    """Ash and birch have committed, cedar has refused; commitments are closed."""
    for site in ("ash", "birch"):
        opened.append(opened.commitment(site), number=1, party=site)
    opened.append(opened.refusal("cedar"), number=1, party="cedar")
    opened.append(CommitmentsClosed(), number=1)
    return opened


@pytest.fixture
def complete(started: Story) -> Story:
    """Both rounds are closed; the settlement is due."""
    started.study.play_round(1)
    started.study.play_round(2)
    return started


# The header of every entry


def test_an_entry_s_id_must_be_the_hash_of_what_it_says(started: Story) -> None:
    entry = started.entry(started.opening(), number=1)
    started.refused(entry.model_copy(update={"id": "0" * 64}), "its id is not the hash of what it says")
    started.refused(entry.model_copy(update={"round": 2}), "its id is not the hash")
    started.refused(entry.model_copy(update={"party": started.did("ash")}), "its id is not the hash")


def test_an_entry_comes_once(opened: Story) -> None:
    commitment = opened.commitment("ash")
    opened.append(commitment, number=1, party="ash")
    opened.refused(opened.entry(commitment, number=1, party="ash"), "it is there a second time")


def test_an_entry_of_another_study_is_refused(started: Story) -> None:
    entry = make_entry(started.opening(), study="other-0", now=started.study.now, round_number=1)
    started.refused(entry, "it belongs to the study other-0")


def test_an_entry_of_an_unknown_term_is_refused(started: Story) -> None:
    body = started.opening()
    name = entry_id(body, study=started.study.state.study, term=1, round_number=1, party=None)
    entry = started.entry(body, number=1).model_copy(update={"term": 1, "id": name})
    started.refused(entry, "its term is unknown")


def test_time_never_runs_backwards_in_a_log(started: Story) -> None:
    started.refused(started.entry(started.opening(), number=1, seconds=-1), "its time is before the previous entry's")
    apply(started.study.state, started.entry(started.opening(), number=1, seconds=0))


def test_a_time_that_is_none_is_refused(started: Story) -> None:
    entry = started.entry(started.opening(), number=1).model_copy(update={"time": "soon"})
    started.refused(entry, "is not an instant")


def test_nothing_comes_before_the_publication(new: Story) -> None:
    new.refused(new.entry(new.agreement("ash"), party="ash"), "the study is not published")


def test_nothing_follows_the_settlement(complete: Story) -> None:
    complete.study.settle()
    assert complete.study.state.settled
    complete.refused(complete.entry(complete.opening(), number=3), "the study is settled already")
    complete.refused(complete.entry(complete.revocation("ash"), party="ash"), "the study is settled already")


# Publication


def publication(story: Story, **changes: Any) -> StudyPublished:
    state = story.study.state
    fields = {"plan": state.plan_blob, "plan_hash": state.plan.plan_hash, "minted": 1_000_000}
    return StudyPublished(**{**fields, **changes})


def test_a_publication_mints_the_pool_into_escrow(new: Story) -> None:
    new.append(publication(new))
    ledger = new.study.state.ledger
    assert (ledger.minted, ledger.escrow, ledger.burned) == (1_000_000, 1_000_000, 0)


def test_a_publication_names_this_plan_and_mints_its_pool(new: Story) -> None:
    new.refused(new.entry(publication(new, plan="0" * 64)), "it names another plan")
    new.refused(new.entry(publication(new, plan_hash="0" * 64)), "it names another plan")
    new.refused(new.entry(publication(new, minted=1_000_001)), "it does not mint the plan's pool")
    new.refused(new.entry(publication(new, minted=0)), "it does not mint the plan's pool")
    new.refused(new.entry(publication(new), number=1), "neither round nor party")
    new.refused(new.entry(publication(new), party="ash"), "neither round nor party")


def test_a_study_is_published_once(published: Story) -> None:
    again = publication(published, minted=2_000_000)
    published.refused(published.entry(again), "the study is published already")


# Agreements


def test_an_agreement_admits_its_signer(published: Story) -> None:
    published.append(published.agreement("ash"), party="ash")
    assert set(published.study.state.agreements) == {published.did("ash")}
    assert published.study.state.site(published.did("ash")) == "ash"
    assert [key.did for key in published.study.state.witnesses] == [published.did("ash")]


def test_an_agreement_must_be_the_party_s_own_and_for_this_plan(published: Story) -> None:
    entry = published.entry
    published.refused(entry(published.agreement("ash"), party="birch"), "the agreement is by another party")
    published.refused(entry(published.agreement("ash")), "the agreement is by another party")
    published.refused(entry(published.agreement("ash"), party="ash", number=1), "the agreement is by another party")
    other_study = published.agreement("ash", study="other-0")
    published.refused(entry(other_study, party="ash"), "the agreement is for another study")
    other_plan = published.agreement("ash", plan_hash="0" * 64)
    published.refused(entry(other_plan, party="ash"), "the agreement is for another plan")


def test_an_agreement_with_a_broken_signature_is_refused(published: Story) -> None:
    text = published.agreement("ash").envelope
    broken = AgreementAdmitted(envelope=text.replace('"signature":"', '"signature":"AAAA', 1))
    published.refused(published.entry(broken, party="ash"), "base64")
    other_type = AgreementAdmitted(envelope=published.refusal("ash").envelope)
    published.refused(published.entry(other_type, party="ash"), "of type")


def test_an_institution_agrees_once_and_a_site_name_belongs_to_one(published: Story) -> None:
    published.append(published.agreement("ash"), party="ash")
    again = published.agreement("ash", nominal_cohort=999)
    published.refused(published.entry(again, party="ash"), "this institution has agreed already")
    taken = published.agreement("ash", key=published.keys["birch"])
    published.refused(published.entry(taken, party="birch"), "the site name ash is taken")


def test_a_plan_has_a_fixed_number_of_places(agreed: Story) -> None:
    fourth = agreed.agreement("dogwood", key=STRANGER)
    agreed.refused(agreed.entry(fourth, party=STRANGER), "the plan has no place for another institution")


def test_nobody_joins_a_study_that_has_started(started: Story) -> None:
    late = started.agreement("dogwood", key=STRANGER)
    started.refused(started.entry(late, party=STRANGER), "no institution can join any more")


def test_an_agreement_revoked_before_the_start_frees_its_place(agreed: Story) -> None:
    agreed.append(agreed.revocation("cedar"), party="cedar")
    assert agreed.did("cedar") not in agreed.study.state.agreements
    agreed.append(agreed.agreement("dogwood", key=STRANGER), party=STRANGER)
    assert len(agreed.study.state.agreements) == 3


def test_an_agreement_revoked_later_takes_its_party_out_of_the_next_round(started: Story) -> None:
    started.append(started.revocation("cedar"), party="cedar")
    state = started.study.state
    assert state.active == tuple(sorted({started.did("ash"), started.did("birch")}))
    assert started.did("cedar") in {key.did for key in state.witnesses}
    everybody = started.opening(participants=tuple(sorted(state.agreements)))
    started.refused(started.entry(everybody, number=1), "the participants are not the active institutions")


def test_a_revocation_must_be_the_party_s_own_for_this_plan_and_only_once(started: Story) -> None:
    entry = started.entry
    started.refused(entry(started.revocation("ash"), party="birch"), "the revocation is by another party")
    started.refused(entry(started.revocation("ash"), party="ash", number=1), "the revocation is by another party")
    stranger = started.revocation("ash", key=STRANGER)
    started.refused(entry(stranger, party=STRANGER), "there is no agreement to revoke")
    for change in ({"study": "other-0"}, {"plan_hash": "0" * 64}):
        started.refused(entry(started.revocation("ash", **change), party="ash"), "the revocation is for another plan")
    started.append(started.revocation("ash"), party="ash")
    again = started.revocation("ash", signed_at="2026-11-23T00:00:00Z")
    started.refused(entry(again, party="ash"), "there is no agreement to revoke")


# The start


def start(story: Story, **changes: Any) -> StudyStarted:
    return StudyStarted(**{"weights": weights_of(story.study.state), "base_model": "6" * 64, **changes})


def test_a_start_needs_every_agreement(published: Story) -> None:
    published.append(published.agreement("ash"), party="ash")
    published.refused(published.entry(start(published)), "agreements are missing")


def test_weights_follow_from_the_agreements(agreed: Story) -> None:
    for weights in (
        {agreed.did(site): 1 + number for number, site in enumerate(agreed.keys)},
        {agreed.did("ash"): 100, agreed.did("birch"): 100},
        {**weights_of(agreed.study.state), STRANGER.public.did: 100},
    ):
        agreed.refused(agreed.entry(start(agreed, weights=weights)), "the weights do not follow from the agreements")
    agreed.refused(agreed.entry(start(agreed), number=1), "neither round nor party")
    agreed.refused(agreed.entry(start(agreed), party="ash"), "neither round nor party")


def test_a_study_starts_once(started: Story) -> None:
    started.refused(started.entry(start(started)), "the study has started already")


# Opening a round


def test_no_round_opens_before_the_start(agreed: Story) -> None:
    body = agreed.opening(base_model="6" * 64, participants=tuple(sorted(agreed.study.state.agreements)))
    agreed.refused(agreed.entry(body, number=1), "the study has not started")


def test_an_opening_follows_from_the_state(started: Story) -> None:
    entry, opening = started.entry, started.opening
    for number in (None, 2):
        started.refused(entry(opening(), number=number), "the round's number is not the next")
    started.refused(entry(opening(), number=1, party="ash"), "a round has no party")
    other_model = opening(base_model="0" * 64)
    started.refused(entry(other_model, number=1), "the base model is not the last round's result")
    for participants in (started.study.state.active[:2], started.study.state.active[::-1]):
        body = opening(participants=participants)
        started.refused(entry(body, number=1), "the participants are not the active institutions")
    past = opening(deadline=format_instant(started.study.now))
    started.refused(entry(past, number=1), "the deadline has passed already")


def test_one_round_at_a_time(opened: Story) -> None:
    opened.refused(opened.entry(opened.opening(), number=2), "the round before is not closed")


def test_a_plan_has_a_fixed_number_of_rounds(complete: Story) -> None:
    complete.refused(complete.entry(complete.opening(), number=3), "the round's number is not the next")


# Reopening


def test_a_reopened_round_gets_more_time(opened: Story) -> None:
    later = opened.study.now + timedelta(seconds=600)
    opened.append(RoundReopened(deadline=format_instant(later)), number=1)
    assert opened.study.state.round.deadline == later


def test_a_deadline_is_never_brought_forward_nor_set_in_the_past(opened: Story) -> None:
    sooner = RoundReopened(deadline=format_instant(opened.study.now + timedelta(seconds=10)))
    opened.refused(opened.entry(sooner, number=1), "a deadline is never brought forward")
    past = RoundReopened(deadline=format_instant(opened.study.now + timedelta(seconds=70)))
    opened.refused(opened.entry(past, number=1, seconds=80), "the deadline has passed already")


def test_what_belongs_to_a_round_needs_that_round_open(started: Story) -> None:
    later = RoundReopened(deadline=format_instant(started.study.now + timedelta(seconds=600)))
    for body in (later, CommitmentsClosed(), started.commitment("ash"), UpdateRefused(code="norm", message="x")):
        started.refused(started.entry(body, number=1, party="ash"), "it belongs to no open round")
    started.append(started.opening(), number=1)
    started.refused(started.entry(CommitmentsClosed(), number=2), "it belongs to no open round")
    started.refused(started.entry(started.commitment("ash"), party="ash"), "it belongs to no open round")


# Commitments and refusals


@pytest.mark.parametrize("answer", [Story.commitment, Story.refusal])
def test_who_may_answer_and_when(opened: Story, answer: Callable[[Story, str], Any]) -> None:
    own = answer(opened, "ash")
    opened.refused(opened.entry(own, number=1), "the party takes no part in this round")
    opened.refused(opened.entry(own, number=1, party=STRANGER), "the party takes no part in this round")
    opened.refused(opened.entry(own, number=1, party="birch"), "it is signed by")
    opened.refused(opened.entry(own, number=1, party="ash", seconds=61), "the deadline has passed")
    opened.append(own, number=1, party="ash")
    for second in (opened.commitment("ash", commitment="0" * 64), opened.refusal("ash")):
        if second != own:
            opened.refused(opened.entry(second, number=1, party="ash"), "the party has answered already")


def test_an_answer_is_for_this_round_and_this_study(opened: Story) -> None:
    for change in ({"round": 2}, {"study": "other-0"}):
        other = opened.commitment("ash", **change)
        opened.refused(opened.entry(other, number=1, party="ash"), "the commitment is for another round")
    other_refusal = opened.refusal("ash", number=2)
    opened.refused(opened.entry(other_refusal, number=1, party="ash"), "the refusal is for another round")


def test_a_refusal_keeps_its_reason(opened: Story) -> None:
    opened.append(opened.refusal("cedar"), number=1, party="cedar")
    assert opened.study.state.round.refusals == {opened.did("cedar"): "budget: nothing is left"}


def test_commitments_close_at_the_deadline_or_when_all_have_answered(opened: Story) -> None:
    opened.refused(opened.entry(CommitmentsClosed(), number=1), "somebody may still answer")
    apply(opened.study.state, opened.entry(CommitmentsClosed(), number=1, seconds=60))
    for site in ("ash", "birch"):
        opened.append(opened.commitment(site), number=1, party=site)
    opened.refused(opened.entry(CommitmentsClosed(), number=1), "somebody may still answer")
    opened.append(opened.refusal("cedar"), number=1, party="cedar")
    opened.append(CommitmentsClosed(), number=1)
    assert opened.study.state.round.phase == "revealing"


def test_after_commitments_close_nobody_commits(opened: Story) -> None:
    opened.study.now += timedelta(seconds=60)
    opened.append(CommitmentsClosed(), number=1)
    opened.study.now -= timedelta(seconds=1)
    opened.refused(opened.entry(opened.commitment("ash"), number=1, party="ash"), "commitments are closed")
    opened.refused(opened.entry(CommitmentsClosed(), number=1), "it is there a second time")


# Updates


def test_updates_are_shown_after_commitments_close(opened: Story) -> None:
    opened.append(opened.commitment("ash"), number=1, party="ash")
    opened.refused(opened.entry(opened.shown("ash"), number=1, party="ash"), "shown after commitments close")
    no = UpdateRefused(code="norm", message="too long")
    opened.refused(opened.entry(no, number=1, party="ash"), "shown after commitments close")


def test_only_who_has_committed_shows_an_update_and_only_once(revealing: Story) -> None:
    revealing.updates["cedar"] = revealing.study.update(1, revealing.keys["cedar"])
    cedar = revealing.entry(revealing.shown("cedar"), number=1, party="cedar")
    revealing.refused(cedar, "the party has not committed")
    revealing.append(revealing.shown("ash"), number=1, party="ash")
    no = UpdateRefused(code="norm", message="too long")
    revealing.refused(revealing.entry(no, number=1, party="ash"), "the party's update is decided already")
    revealing.append(no, number=1, party="birch")
    late = revealing.entry(revealing.shown("birch"), number=1, party="birch")
    revealing.refused(late, "the party's update is decided already")


def test_an_update_passes_every_admission_rule_at_every_reader(revealing: Story) -> None:
    update = revealing.updates["ash"]
    revealing.updates["ash"] = update.model_copy(update={"nonce": "0" * 64})
    tampered = revealing.entry(revealing.shown("ash"), number=1, party="ash")
    revealing.refused(tampered, "not the one that was committed before the deadline")
    stolen = UpdateAdmitted(envelope=update.sign(revealing.keys["birch"]).to_bytes().decode())
    revealing.refused(revealing.entry(stolen, number=1, party="ash"), "it is signed by")


def test_an_admitted_update_moves_the_view_of_its_consent_log(revealing: Story) -> None:
    revealing.append(revealing.shown("ash"), number=1, party="ash")
    view = revealing.study.state.consent_logs[revealing.did("ash")]
    assert view.size == 0


# Closing


def decide(story: Story, *refused: str) -> None:
    for site in ("ash", "birch"):
        body = UpdateRefused(code="norm", message="too long") if site in refused else story.shown(site)
        story.append(body, number=1, party=site)


def test_a_round_closes_when_every_committed_update_is_decided(revealing: Story) -> None:
    revealing.refused(
        revealing.entry(revealing.closing(), number=1), "a committed update is neither admitted nor refused"
    )


def test_a_round_does_not_close_while_commitments_are_open(opened: Story) -> None:
    opened.refused(opened.entry(opened.closing(), number=1), "commitments are not closed")


def test_a_closing_follows_from_the_admitted_updates(revealing: Story) -> None:
    decide(revealing)
    entry, closing = revealing.entry, revealing.closing
    revealing.refused(entry(closing(), number=1, party="ash"), "a closed round has no party")
    revealing.refused(entry(closing(outcome="no-quorum"), number=1), "the outcome does not follow from the quorum")
    updates = closing().updates
    for wrong in (
        {},
        dict(list(updates.items())[:1]),
        dict.fromkeys(updates, "0" * 64),
        {**updates, revealing.did("cedar"): "0" * 64},
    ):
        revealing.refused(entry(closing(updates=wrong), number=1), "the updates are not the admitted ones")
    revealing.append(closing(), number=1)
    done = revealing.study.state.closed[-1]
    assert revealing.study.state.round is None
    assert revealing.study.state.model == done.model == "7" * 64
    assert done.refused == {revealing.did("cedar"): "budget: nothing is left"}


def test_a_round_without_quorum_changes_no_model(revealing: Story) -> None:
    decide(revealing, "birch")
    base = revealing.study.state.model
    entry, closing = revealing.entry, revealing.closing
    revealing.refused(entry(closing(outcome="aggregated"), number=1), "the outcome does not follow from the quorum")
    revealing.refused(entry(closing(model="7" * 64), number=1), "a round without quorum changes no model")
    admitted = {revealing.did("ash"): revealing.updates["ash"].update}
    revealing.refused(entry(closing(updates=admitted), number=1), "the updates are not the admitted ones")
    revealing.append(closing(), number=1)
    state = revealing.study.state
    assert state.model == base
    assert state.closed[-1].admitted == {}
    assert state.closed[-1].refused == {
        revealing.did("ash"): "no-quorum: too few institutions answered",
        revealing.did("birch"): "norm: too long",
        revealing.did("cedar"): "budget: nothing is left",
    }


def test_who_says_nothing_is_named(opened: Story) -> None:
    opened.append(opened.commitment("ash"), number=1, party="ash")
    opened.study.now += timedelta(seconds=60)
    opened.append(CommitmentsClosed(), number=1)
    opened.append(opened.shown("ash"), number=1, party="ash")
    opened.append(opened.closing(), number=1)
    for site in ("birch", "cedar"):
        assert opened.study.state.closed[-1].refused[opened.did(site)].startswith("no-answer")


# The settlement


def settlement(story: Story) -> Any:
    """The true settlement; the conftest's tables are joined as the coordinator joins them."""
    study = story.study
    joined = [
        table.model_copy(update={"utilities": (before.utilities[-1], *table.utilities[1:])})
        for before, table in zip(study.tables, study.tables[1:], strict=False)
    ]
    return audit.settlement(study.state, [*study.tables[:1], *joined])


def test_a_study_settles_after_its_last_round(started: Story) -> None:
    started.study.play_round(1)
    started.refused(started.entry(settlement(started)), "rounds are still to come")
    started.append(started.opening(), number=2)
    started.refused(started.entry(settlement(started)), "rounds are still to come")


def test_a_study_that_too_few_are_left_of_settles_early(started: Story) -> None:
    started.study.play_round(1)
    for site in ("ash", "birch"):
        started.append(started.revocation(site), party=site)
    assert started.study.state.complete
    started.append(settlement(started))
    assert started.study.state.settled


def test_an_aborted_study_has_no_further_round_and_settles(started: Story) -> None:
    started.append(StudyAborted(reason="The board has withdrawn its approval."))
    assert started.study.state.complete
    started.refused(started.entry(started.opening(), number=1), "the study was aborted")
    started.refused(started.entry(StudyAborted(reason="Again.")), "no round is to come any more")


def test_nothing_is_aborted_before_its_start(agreed: Story) -> None:
    agreed.refused(agreed.entry(StudyAborted(reason="Never.")), "the study has not started")


def test_a_study_is_aborted_between_rounds(opened: Story) -> None:
    opened.refused(opened.entry(StudyAborted(reason="Now.")), "a round is under way")


def test_a_settlement_follows_from_the_log(complete: Story) -> None:
    body, entry = settlement(complete), complete.entry
    complete.refused(entry(body, number=2), "a settlement has neither round nor party")
    complete.refused(entry(body, party="ash"), "a settlement has neither round nor party")
    for tables in (body.tables[::-1], body.tables[:1], (*body.tables, "0" * 64)):
        wrong = body.model_copy(update={"tables": tables})
        complete.refused(entry(wrong), "the value tables are not the rounds'")
    first, *others = body.payments
    for payments in ((first, first, *others[1:]), tuple(others), body.payments[::-1], ()):
        wrong = body.model_copy(update={"payments": tuple(payments)})
        complete.refused(entry(wrong), "the payments do not name every institution once, in order")
    renamed = body.model_copy(update={"payments": (first.model_copy(update={"site": "oak"}), *others)})
    complete.refused(entry(renamed), "a payment names another site")
    raised = body.model_copy(update={"payments": (first.model_copy(update={"reward": first.reward + 1}), *others)})
    complete.refused(entry(raised), "payments and burn do not add up to the pool")
    burned = body.model_copy(update={"burned": body.burned + 1})
    complete.refused(entry(burned), "payments and burn do not add up to the pool")


def test_a_settlement_pays_from_escrow_and_conserves(complete: Story) -> None:
    body = settlement(complete)
    complete.append(body)
    ledger = complete.study.state.ledger
    assert sum(ledger.balances.values()) + ledger.escrow + ledger.burned == ledger.minted == 1_000_000
    assert ledger.escrow == 0
    assert ledger.burned == body.burned
    assert {payment.site: payment.reward for payment in body.payments if payment.reward} == {
        account.removeprefix("institution:"): amount for account, amount in ledger.balances.items()
    }


# The whole


def test_a_replay_gives_the_state_that_the_coordinator_had(complete: Story) -> None:
    complete.study.settle()
    study = complete.study
    start_ = begin(study.plan, plan_blob=study.state.plan_blob, coordinator=study.key.public)
    again = replay(start_, study.log.entries())
    assert again == study.state
    assert again.size == study.log.size


def test_a_replay_stops_at_the_first_entry_that_breaks_a_rule(complete: Story) -> None:
    study = complete.study
    entries = study.log.entries()
    start_ = begin(study.plan, plan_blob=study.state.plan_blob, coordinator=study.key.public)
    for place in (0, 4, 5):  # the publication, the start, the opening of round 1
        with pytest.raises(PeerError, match=f"Log entry {place} "):
            replay(start_, [*entries[:place], *entries[place + 1 :]])
    with pytest.raises(PeerError, match="signed by"):
        replay(begin(study.plan, plan_blob=study.state.plan_blob, coordinator=STRANGER.public), entries)


def test_every_reordering_of_two_neighbours_that_matters_is_refused(complete: Story) -> None:
    study = complete.study
    entries = study.log.entries()
    start_ = begin(study.plan, plan_blob=study.state.plan_blob, coordinator=study.key.public)
    for place in range(len(entries) - 1):
        swapped = [*entries]
        swapped[place : place + 2] = swapped[place + 1], swapped[place]
        with pytest.raises(PeerError):
            replay(start_, swapped)
