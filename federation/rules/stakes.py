"""Stakes in the log: deposited on a pledge, slashed on a case, answered or burned, released when nobody can be heard.

    deposit -> released
    deposit -> slash -> answered -> released
    deposit -> slash -> burned

Rules: a study whose plan asks for stakes starts once everybody's is there. A slash carries its case and takes the whole
stake out of its party's hands at once; nothing is burned before the appeal window has ended, and an answer, which must
be as checkable as the case, gives it back. No case counts twice. Others may be brought meanwhile, so that a harmless
one shields nobody; they take no more, and the stake stays held until all are answered. Evidence is heard until the
challenge window after the settlement has ended, a release waits for the (longer) unbonding time. A settled log takes
these entries and no others.

Checked here: all that follows from the log and the entry. That a challenge's blob proves a utility false needs the blob
(``evidence``): witnesses check that before they cosign.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, cast

from federation.rules.admission import consent_origin
from federation.rules.checkpoint import open_checkpoint
from federation.rules.documents import open_signed
from federation.rules.entries import (
    Entry,
    SlashAppealed,
    StakeBurned,
    StakeDeposited,
    StakeReleased,
    StakeSlashed,
    StudyPublished,
    open_entry,
)
from federation.rules.equivocation import Evidence, View, verify_evidence
from federation.rules.keys import PublicKey
from federation.rules.ledger import Transfer
from federation.rules.merkle import leaf_hash, verify_inclusion
from federation.rules.pledges import FalseUtility, Opening, Pledge, SplitView, TwoStudies
from federation.rules.state import Slash, StudyState, require
from federation.rules.study import read
from federation.rules.terms import Stake

AFTER_SETTLEMENT: Final = frozenset({"stake-slashed", "slash-appealed", "stake-burned", "stake-released"})
"""The kinds of entries that may follow a settlement, where the plan has stakes."""
SLASHED: Final = "burned:slashed"


def terms_of(state: StudyState) -> Stake:
    """The plan's section.

    Raises:
        PeerError: it has none.
    """
    require(state.plan.stake is not None, "the plan asks for no stakes")
    return cast("Stake", state.plan.stake)


def stakes_due(state: StudyState) -> dict[str, int]:
    """Did -> micro-credits that it must hold before the study starts; nobody where the plan asks for no stakes."""
    terms = state.plan.stake
    if terms is None:
        return {}
    due = dict.fromkeys(sorted(state.agreements), terms.institution_microcredits)
    due[state.coordinator.did] = terms.coordinator_microcredits
    return {did: amount for did, amount in due.items() if amount}


def party_name(state: StudyState, did: str) -> str:
    """A party's name in its accounts: an institution's short name, or ``coordinator/SPONSOR`` (no short name has /)."""
    return f"coordinator/{state.plan.sponsor}" if did == state.coordinator.did else state.site(did)


def stake_account(state: StudyState, did: str) -> str:
    """The account that a party stands in with."""
    return f"stake:{party_name(state, did)}"


def pledge_account(state: StudyState, did: str) -> str:
    """The account of what a party owes on its pledge, below zero."""
    return f"pledge:{party_name(state, did)}"


def require_stakes(state: StudyState) -> None:
    """Refuse a start before everybody's stake is there.

    Raises:
        PeerError: a stake is missing.
    """
    missing = [party_name(state, did) for did in stakes_due(state) if did not in state.stakes]
    require(not missing, f"stakes are missing: {', '.join(missing)}")


def returned(state: StudyState, entry: Entry, did: str) -> StudyState:
    """The state once an institution that left before the start has its stake back (if it held one)."""
    if did not in state.stakes:
        return state
    rest = {party: amount for party, amount in state.stakes.items() if party != did}
    return replace(_back(state, entry, did), stakes=rest)


def pending_slash(state: StudyState, did: str) -> str | None:
    """The id of the slash that a party has not answered and that is not burned yet."""
    return next((name for name, each in state.slashes.items() if each.party == did and each.status == "pending"), None)


def burnt(state: StudyState, did: str) -> bool:
    """Whether a party's stake is gone for good."""
    return any(each.party == did and each.status == "burned" for each in state.slashes.values())


def heard_until(state: StudyState) -> datetime:
    """When the challenge window of a settled study ends.

    Raises:
        PeerError: the study is not settled, or its plan asks for no stakes.
    """
    terms = terms_of(state)
    require(state.settled_at is not None, "the study is not settled")
    return cast("datetime", state.settled_at) + timedelta(seconds=terms.challenge_s)


def releasable(state: StudyState) -> list[str]:
    """Whose stake (did) is given back once the unbonding time has ended, as things stand; none before settlement."""
    if not state.settled:
        return []
    return [
        did
        for did in sorted(state.stakes)
        if did not in state.released and pending_slash(state, did) is None and not burnt(state, did)
    ]


def free_at(state: StudyState) -> datetime:
    """When the unbonding time ends.

    Raises:
        PeerError: the study is not settled, or its plan asks for no stakes.
    """
    terms = terms_of(state)
    require(state.settled_at is not None, "the study is not settled")
    return cast("datetime", state.settled_at) + timedelta(seconds=terms.unbonding_s)


def _deposited(state: StudyState, entry: Entry, body: StakeDeposited) -> StudyState:
    terms_of(state)
    pledge, envelope = open_signed(Pledge, body.envelope.encode("utf-8"))
    did = envelope.signer.did
    require(entry.party == did and entry.round is None, "the pledge is by another party")
    require(pledge.study == state.study and pledge.plan_hash == state.plan.plan_hash, "the pledge is for another plan")
    require(not state.weights, "the study has started: no stake is taken any more")
    due = stakes_due(state)
    require(did in due, "the plan asks this party for no stake, or its agreement is missing")
    require(did not in state.stakes, "this party's stake is there already")
    require(pledge.amount_microcredits == due[did], f"the plan asks for a stake of {due[did]} micro-credits")
    transfer = Transfer(entry.id, pledge_account(state, did), stake_account(state, did), due[did])
    return replace(state, stakes={**state.stakes, did: due[did]}, ledger=state.ledger.post([transfer]))


def _slashed(state: StudyState, entry: Entry, body: StakeSlashed) -> StudyState:
    terms_of(state)
    did = entry.party or ""
    require(entry.round is None and did in state.stakes, "the party holds no stake")
    require(bool(state.weights), "the study has not started")
    require(did not in state.released, "the stake is released already")
    require(not burnt(state, did), "the stake is burned already")
    require(not state.settled or entry.at <= heard_until(state), "the challenge window has ended")
    if isinstance(body.case, SplitView):
        key = PublicKey.from_did(did)
        origin = state.plan.origin if key == state.coordinator else consent_origin(key)
        found = verify_evidence(body.case.evidence.encode("utf-8"), signer=key)
        require(found.origin == origin, "the evidence is about another log")
    else:
        _check_round(state, did, body.case)
    slashes = {**state.slashes, entry.id: Slash(party=did, case=body.case, at=entry.at)}
    if did in state.holds:
        return replace(state, slashes=slashes)
    held = Transfer(entry.id, stake_account(state, did), SLASHED, state.stakes[did], step="pending")
    return replace(state, slashes=slashes, holds={**state.holds, did: entry.id}, ledger=state.ledger.post([held]))


def _check_round(state: StudyState, did: str, case: FalseUtility) -> None:
    require(did == state.coordinator.did, "only the coordinator signs value tables")
    require(state.settled, "the value tables are still closed")
    require(state.plan.validation.disclosure == "public", "the plan keeps the validation rows sealed")
    require(case.round <= len(state.closed), "there is no such round")
    done = state.closed[case.round - 1]
    require(set(case.coalition) <= set(done.admitted), "not everybody in the coalition is in that round's model")


def _appealed(state: StudyState, entry: Entry, body: SlashAppealed) -> StudyState:
    slash = _pending(state, entry, body.slash)
    require(entry.at <= appeal_ends(state, slash), "the appeal window has ended")
    require(isinstance(slash.case, SplitView), "the answer is to another kind of case")
    _check_two_studies(state, slash, body.answer)
    after = replace(state, slashes={**state.slashes, body.slash: replace(slash, status="answered")})
    if pending_slash(after, slash.party) is not None:
        return after
    return _let_go(after, slash.party, Transfer(entry.id, *_way(state, slash.party), 0, step="voided"))


def _check_two_studies(state: StudyState, slash: Slash, answer: TwoStudies) -> None:
    require(slash.party == state.coordinator.did, "a log of consents belongs to no study")
    case = cast("SplitView", slash.case)
    evidence = read(Evidence, case.evidence.encode("utf-8")[:-1])
    pairs = ((evidence.first, answer.first), (evidence.second, answer.second))
    studies = [_opened(state, view, opening) for view, opening in pairs]
    require(studies[0] != studies[1], f"both trees are of the study {studies[0]}")


def _opened(state: StudyState, view: View, opening: Opening) -> str:
    """The study whose publication a view's tree begins with."""
    data = opening.entry.encode("utf-8")
    first = open_entry(data, signer=state.coordinator)
    require(isinstance(first.body, StudyPublished), "a tree of the answer does not begin with a publication")
    head = open_checkpoint(
        view.checkpoint.encode("utf-8"), origin=state.plan.origin, signer=state.coordinator, witnesses=()
    ).checkpoint
    proof = [bytes.fromhex(part) for part in opening.proof]
    verify_inclusion(leaf=leaf_hash(data), index=0, size=head.size, proof=proof, root=head.root)
    return first.study


def _burned(state: StudyState, entry: Entry, body: StakeBurned) -> StudyState:
    slash = _pending(state, entry, body.slash)
    require(entry.at > appeal_ends(state, slash), "the appeal window has not ended")
    after = replace(state, slashes={**state.slashes, body.slash: replace(slash, status="burned")})
    burn = Transfer(entry.id, *_way(state, slash.party), state.stakes[slash.party], step="resolved")
    return _let_go(after, slash.party, burn)


def _released(state: StudyState, entry: Entry, body: StakeReleased) -> StudyState:  # noqa: ARG001 -- a rule's signature
    did = entry.party or ""
    require(entry.round is None and did in state.stakes, "the party holds no stake")
    require(did not in state.released, "the stake is released already")
    require(pending_slash(state, did) is None and not burnt(state, did), "the stake is slashed")
    require(entry.at > free_at(state), "the unbonding time has not ended")
    return replace(_back(state, entry, did), released=state.released | {did})


def appeal_ends(state: StudyState, slash: Slash) -> datetime:
    """Until when a slash can be answered."""
    return slash.at + timedelta(seconds=terms_of(state).appeal_s)


def _pending(state: StudyState, entry: Entry, name: str) -> Slash:
    known = name in state.slashes and state.slashes[name].party == entry.party
    require(known and entry.round is None, "there is no such slash of this party")
    slash = state.slashes[name]
    require(slash.status == "pending", f"the slash is {slash.status} already")
    require(not burnt(state, slash.party), "the stake is burned already")
    return slash


def _way(state: StudyState, did: str) -> tuple[str, str]:
    """From where to where a slashed stake goes."""
    return stake_account(state, did), SLASHED


def _let_go(state: StudyState, did: str, transfer: Transfer) -> StudyState:
    """The state once a held stake is burned or free again."""
    rest = {party: name for party, name in state.holds.items() if party != did}
    return replace(state, holds=rest, ledger=state.ledger.post([replace(transfer, of=state.holds[did])]))


def _back(state: StudyState, entry: Entry, did: str) -> StudyState:
    transfer = Transfer(entry.id, stake_account(state, did), pledge_account(state, did), state.stakes[did])
    return replace(state, ledger=state.ledger.post([transfer]))


_Rule = Callable[[StudyState, Entry, Any], StudyState]
STAKE_RULES: Final[Mapping[str, _Rule]] = cast(
    "Mapping[str, _Rule]",
    {
        "stake-deposited": _deposited,
        "stake-slashed": _slashed,
        "slash-appealed": _appealed,
        "stake-burned": _burned,
        "stake-released": _released,
    },
)
