"""The study as a fold over its log: every rule about what may follow what.

``apply(state, entry)`` returns the next state or raises :class:`PeerError` and leaves the state as it was. The
coordinator restarts with it, every node checks with it before it cosigns, and ``accord log verify`` replays with it
offline: one set of rules for all three. What needs the blobs (aggregates, value tables) is in ``audit``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from federation.errors import PeerError
from federation.rules import admission, cohorts, panel_log
from federation.rules.comparing import RULES as COMPARING
from federation.rules.comparing import weights_of
from federation.rules.documents import Commitment, Refusal, Revocation, open_signed
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
    StudySettled,
    StudyStarted,
    UpdateAdmitted,
    UpdateCommitted,
    UpdateRefused,
    entry_id,
)
from federation.rules.failover import TermBegan
from federation.rules.instant import parse_instant
from federation.rules.keys import PublicKey
from federation.rules.merkle import leaf_hash
from federation.rules.payouts import fees_due, transfers
from federation.rules.stakes import AFTER_SETTLEMENT, STAKE_RULES, require_stakes, returned
from federation.rules.state import ClosedRound, OverlapState, RoundState, StudyState, require
from federation.rules.study import Agreement, StudyPlan, open_agreement
from federation.rules.succession import open_next, term_began
from federation.rules.votes import VOTE_RULES


def begin(plan: StudyPlan, *, plan_blob: str, coordinator: PublicKey) -> StudyState:
    """The empty history of a plan. ``plan_blob`` is the SHA-256 name of the signed plan's bytes."""
    return StudyState(plan=plan, plan_blob=plan_blob, coordinator=coordinator)


def replay(state: StudyState, entries: Iterable[bytes], *, before: Sequence[bytes] = ()) -> StudyState:
    """Fold received entries.

    Args:
        state: what the log says before them.
        entries: their bytes.
        before: the leaf hashes of the ``state.size`` entries that are folded already.

    Raises:
        PeerError: at the first entry that breaks a rule, named by its index.
    """
    leaves = list(before)
    for data in entries:
        state = apply(state, open_next(state, data, leaves))
        leaves.append(leaf_hash(data))
    return state


def apply(state: StudyState, entry: Entry) -> StudyState:
    """The state after ``entry``.

    Raises:
        PeerError: the entry breaks a rule; the message names the entry's index and the rule.
    """
    try:
        _check_header(state, entry)
        rule = _RULES[entry.body.kind]
        state = rule(state, entry, entry.body)
    except PeerError as error:
        raise PeerError(
            f"Log entry {state.size} ({entry.body.kind}) breaks a rule: {error.message}", remedy=error.remedy
        ) from error
    return replace(state, size=state.size + 1, last_time=entry.at, entry_ids=state.entry_ids | {entry.id})


def _check_header(state: StudyState, entry: Entry) -> None:
    expected = entry_id(entry.body, study=entry.study, term=entry.term, round_number=entry.round, party=entry.party)
    require(entry.id == expected, "its id is not the hash of what it says")
    require(entry.id not in state.entry_ids, "it is there a second time")
    require(entry.study == state.study, f"it belongs to the study {entry.study}, not {state.study}")
    begins = isinstance(entry.body, TermBegan)
    require(begins or entry.term == state.term, f"its term is unknown: {entry.term} where the log has {state.term}")
    require(state.last_time is None or entry.at >= state.last_time, "its time is before the previous entry's")
    late = state.plan.stake is not None and entry.body.kind in AFTER_SETTLEMENT
    require(begins or late or not state.settled, "the study is settled already")
    require(state.published or isinstance(entry.body, StudyPublished), "the study is not published")


def _published(state: StudyState, entry: Entry, body: StudyPublished) -> StudyState:
    require(not state.published, "the study is published already")
    require(entry.round is None and entry.party is None, "a publication has neither round nor party")
    require(body.plan == state.plan_blob and body.plan_hash == state.plan.plan_hash, "it names another plan")
    require(body.minted == state.plan.reward.minted, "it does not mint the plan's pool and fees")
    ledger = state.ledger.mint(entry.id, f"escrow:{state.study}", body.minted)
    return replace(state, published=True, ledger=ledger)


def _agreement_admitted(state: StudyState, entry: Entry, body: AgreementAdmitted) -> StudyState:
    agreement, envelope = open_agreement(body.envelope.encode("utf-8"))
    did = envelope.signer.did
    require(entry.party == did and entry.round is None, "the agreement is by another party")
    require(agreement.study == state.study, "the agreement is for another study")
    require(agreement.plan_hash == state.plan.plan_hash, "the agreement is for another plan")
    require(not state.weights, "the study has started: no institution can join any more")
    require(not state.overlap.begun, "people are being compared: no institution can join any more")
    require(did not in state.agreements, "this institution has agreed already")
    require(did in (state.plan.reward.fees or {did}), "the plan names other institutions")
    taken = {other.site for other in state.agreements.values()}
    require(agreement.site not in taken, f"the site name {agreement.site} is taken")
    require(len(state.agreements) < state.plan.rounds.participants, "the plan has no place for another institution")
    _check_overlap_terms(state, agreement)
    agreements = {**state.agreements, did: agreement}
    since = entry.at if len(agreements) == state.plan.rounds.participants else None
    return replace(state, agreements=agreements, overlap=replace(state.overlap, since=since))


def _check_overlap_terms(state: StudyState, agreement: Agreement) -> None:
    """An agreement brings a key to seal to exactly where the plan compares people; only there owners are named."""
    asked = state.plan.overlap is not None
    require((agreement.overlap_key is not None) == asked, "the agreement and the plan differ about comparing people")
    require(agreement.same_owner_as is None or asked, "a common owner has no meaning in this plan")
    require(agreement.site not in (agreement.same_owner_as or ()), "an institution names itself as of one owner")


def _agreement_revoked(state: StudyState, entry: Entry, body: AgreementRevoked) -> StudyState:
    revocation, envelope = open_signed(Revocation, body.envelope.encode("utf-8"))
    did = envelope.signer.did
    require(entry.party == did and entry.round is None, "the revocation is by another party")
    require(did in state.agreements and did not in state.revoked, "there is no agreement to revoke")
    require(
        revocation.study == state.study and revocation.plan_hash == state.plan.plan_hash,
        "the revocation is for another plan",
    )
    if not state.weights and not state.overlap.begun:
        rest = {key: value for key, value in state.agreements.items() if key != did}
        return replace(returned(state, entry, did), agreements=rest, overlap=OverlapState())
    return replace(state, revoked=state.revoked | {did})


def _started(state: StudyState, entry: Entry, body: StudyStarted) -> StudyState:
    require(not state.weights, "the study has started already")
    require(entry.round is None and entry.party is None, "a start has neither round nor party")
    require(len(state.agreements) == state.plan.rounds.participants, "agreements are missing")
    require(state.overlap.formed == (state.plan.overlap is not None), "people are not compared yet")
    require(dict(body.weights) == weights_of(state), "the weights do not follow from the agreements")
    require_stakes(state)
    return replace(state, weights=dict(body.weights), model=body.base_model, first_model=body.base_model)


def _opened(state: StudyState, entry: Entry, body: RoundOpened) -> StudyState:
    require(bool(state.weights), "the study has not started")
    require(state.round is None, "the round before is not closed")
    require(not state.aborted, "the study was aborted")
    require(state.panel is None, "the panel is open: no round follows")
    number = len(state.closed) + 1
    require(entry.round == number and number <= state.rounds.count, "the round's number is not the next")
    require(entry.party is None, "a round has no party")
    require(body.base_model == state.model, "the base model is not the last round's result")
    cohorts.check_opening(state, body)
    deadline = parse_instant(body.deadline)
    require(deadline > entry.at, "the deadline has passed already")
    anchored = state.plan.aggregation.anchored
    require((body.reference is not None) == anchored, "the plan's rule and a reference update do not go together")
    current = RoundState(
        number=number,
        base_model=body.base_model,
        participants=body.participants,
        deadline=deadline,
        opened_at=entry.at,
        reference=body.reference,
        quorum=state.rounds.quorum,
    )
    measured = {note.party: note for note in body.measured or ()}
    return replace(state, round=current, measured={**state.measured, **measured})


def _current(state: StudyState, entry: Entry) -> RoundState:
    if state.round is None or entry.round != state.round.number:
        raise PeerError("it belongs to no open round.", remedy="Keep the log as evidence.")
    return state.round


def _reopened(state: StudyState, entry: Entry, body: RoundReopened) -> StudyState:
    current = _current(state, entry)
    deadline = parse_instant(body.deadline)
    require(deadline >= current.deadline, "a deadline is never brought forward")
    require(deadline > entry.at, "the deadline has passed already")
    return replace(state, round=replace(current, deadline=deadline, opened_at=entry.at))


def _answering(state: StudyState, entry: Entry) -> tuple[RoundState, str]:
    """The open round and the party that may still answer it, in time."""
    current = _current(state, entry)
    did = entry.party or ""
    require(current.phase == "open", "commitments are closed")
    require(did in current.participants, "the party takes no part in this round")
    require(did not in current.commitments and did not in current.refusals, "the party has answered already")
    require(entry.at <= current.deadline, "the deadline has passed")
    return current, did


def _committed(state: StudyState, entry: Entry, body: UpdateCommitted) -> StudyState:
    current, did = _answering(state, entry)
    commitment, _ = open_signed(Commitment, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(
        commitment.study == state.study and commitment.round == current.number, "the commitment is for another round"
    )
    took = int((entry.at - current.opened_at).total_seconds())
    committed = {**current.commitments, did: commitment.commitment}
    return replace(state, round=replace(current, commitments=committed), answer_s={**state.answer_s, did: took})


def _declined(state: StudyState, entry: Entry, body: ParticipationRefused) -> StudyState:
    current, did = _answering(state, entry)
    refusal, _ = open_signed(Refusal, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(refusal.study == state.study and refusal.round == current.number, "the refusal is for another round")
    reason = f"{refusal.code}: {refusal.message}"
    return replace(state, round=replace(current, refusals={**current.refusals, did: reason}))


def _commitments_closed(state: StudyState, entry: Entry, _: CommitmentsClosed) -> StudyState:
    current = _current(state, entry)
    require(current.phase == "open", "commitments are closed already")
    require(
        cohorts.may_close(state.plan, current, entry.at), "the deadline has not passed and somebody may still answer"
    )
    return replace(state, round=replace(current, phase="revealing"))


def _revealed(state: StudyState, entry: Entry) -> tuple[RoundState, str]:
    current = _current(state, entry)
    did = entry.party or ""
    require(current.phase == "revealing", "updates are shown after commitments close")
    require(did in current.commitments, "the party has not committed")
    require(did not in current.admitted and did not in current.rejected, "the party's update is decided already")
    return current, did


def _admitted(state: StudyState, entry: Entry, body: UpdateAdmitted) -> StudyState:
    current, did = _revealed(state, entry)
    update, view = admission.check_update(
        body.envelope.encode("utf-8"),
        plan=state.plan,
        party=PublicKey.from_did(did),
        round_number=current.number,
        base_model=current.base_model,
        commitment=current.commitments[did],
        consent_log=state.consent_logs.get(did),
    )
    return replace(
        state,
        round=replace(current, admitted={**current.admitted, did: update}),
        consent_logs={**state.consent_logs, did: view},
    )


def _update_refused(state: StudyState, entry: Entry, body: UpdateRefused) -> StudyState:
    current, did = _revealed(state, entry)
    reason = f"{body.code}: {body.message}"
    return replace(state, round=replace(current, rejected={**current.rejected, did: reason}))


def _closed(state: StudyState, entry: Entry, body: RoundClosed) -> StudyState:
    current = _current(state, entry)
    require(entry.party is None, "a closed round has no party")
    require(current.phase == "revealing", "commitments are not closed")
    decided = len(current.admitted) + len(current.rejected)
    require(decided == len(current.commitments), "a committed update is neither admitted nor refused")
    quorate = len(current.admitted) >= current.quorum
    require((body.outcome == "aggregated") == quorate, "the outcome does not follow from the quorum")
    counted = current.admitted if quorate else {}
    require(
        dict(body.updates) == {did: update.update for did, update in counted.items()},
        "the updates are not the admitted ones",
    )
    require(quorate or body.model == current.base_model, "a round without quorum changes no model")
    silent = cohorts.unanswered(state.plan, current)
    uncounted = {} if quorate else dict.fromkeys(current.admitted, "no-quorum: too few institutions answered")
    done = ClosedRound(
        number=current.number,
        base_model=current.base_model,
        model=body.model,
        value_table=body.value_table,
        outcome=body.outcome,
        participants=current.participants,
        admitted=counted,
        refused={**current.refusals, **current.rejected, **silent, **uncounted},
        entry_index=state.size,
        reference=current.reference,
        commitments=current.commitments,
    )
    return replace(state, round=None, model=body.model, closed=(*state.closed, done))


def _aborted(state: StudyState, entry: Entry, body: StudyAborted) -> StudyState:
    require(entry.round is None and entry.party is None, "the end of a study has neither round nor party")
    require(bool(state.weights), "the study has not started")
    require(state.round is None, "a round is under way")
    require(not state.complete, "no round is to come any more")
    return replace(state, aborted=body.reason)


def _settled(state: StudyState, entry: Entry, body: StudySettled) -> StudyState:
    require(entry.round is None and entry.party is None, "a settlement has neither round nor party")
    require(state.complete, "rounds are still to come")
    panel_log.require_over(state, entry)
    require(body.tables == tuple(done.value_table for done in state.closed), "the value tables are not the rounds'")
    require(
        [payment.party for payment in body.payments] == sorted(state.weights),
        "the payments do not name every institution once, in order",
    )
    require(all(payment.site == state.site(payment.party) for payment in body.payments), "a payment names another site")
    fees = fees_due(state.plan.reward.fees, state.closed)
    require(all(each.fee == fees.get(each.party) for each in body.payments), "a fee does not follow from the rounds")
    paid = sum(payment.total for payment in body.payments)
    require(paid + body.burned == state.plan.reward.minted, "payments and burn do not add up to the pool and the fees")
    return replace(
        state,
        settled=True,
        settled_at=entry.at,
        payments=body.payments,
        tables=body.tables,
        burned=body.burned,
        ledger=state.ledger.post(transfers(entry.id, f"escrow:{state.study}", body)),
    )


_Rule = Callable[[StudyState, Entry, Any], StudyState]
_RULES: Final[Mapping[str, _Rule]] = cast(
    "Mapping[str, _Rule]",
    {
        "study-published": _published,
        "agreement-admitted": _agreement_admitted,
        "agreement-revoked": _agreement_revoked,
        **COMPARING,
        "study-started": _started,
        "round-opened": _opened,
        "round-reopened": _reopened,
        "update-committed": _committed,
        "participation-refused": _declined,
        "commitments-closed": _commitments_closed,
        "commitment-late": cohorts.late,
        "update-admitted": _admitted,
        "update-refused": _update_refused,
        "round-closed": _closed,
        "study-aborted": _aborted,
        **panel_log.RULES,
        "study-settled": _settled,
        "term-began": term_began,
        **STAKE_RULES,
        **VOTE_RULES,
    },
)
