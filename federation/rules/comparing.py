"""The comparison of people before a study starts, as rules of its log: commit, close, show, report, form clusters.

Everybody who agreed commits to a noised sketch before any is shown: else whoever came late could commit to another's
and share its value. Then each institution opens all sketches and reports all products, so that two who are one owner's
cannot report for themselves: a product counts where more than half of the reports agree. Where they do not, the two
count as copies of each other. Who has not taken part, or whose sketch most others could not open, is one copy together
with all others of whom that is true: nobody gains by refusing under several names.

Nothing here needs a sketch: clusters follow from signed reports alone, and every replay checks that they do. That a
sketch is of the people whose rows are used is the institution's signed word, for whoever audits on site.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final, TypeVar, cast

from federation.rules.accounting import overlap_event
from federation.rules.canonical import canonical_bytes
from federation.rules.clusters import Groups, Pair, cluster_weights, connected
from federation.rules.documents import OverlapCommitment, OverlapRefusal, OverlapReport, open_signed
from federation.rules.entries import (
    ClustersFormed,
    Entry,
    OverlapClosed,
    OverlapCommitted,
    OverlapDeclined,
    OverlapReported,
)
from federation.rules.keys import PublicKey
from federation.rules.overlap import beyond_chance, measured_size
from federation.rules.state import OverlapState, StudyState, require
from federation.rules.terms import Overlap

T = TypeVar("T")


def overlap_of(state: StudyState) -> Overlap:
    """The plan's section.

    Raises:
        PeerError: the plan compares nothing.
    """
    require(state.plan.overlap is not None, "the plan compares no people")
    return cast("Overlap", state.plan.overlap)


def waits_for(state: StudyState) -> tuple[str, ...]:
    """Who has still to commit, or after that to report, sorted; nobody before all agreed, or once that is over."""
    overlap = state.overlap
    if state.plan.overlap is None or overlap.formed or overlap.since is None:
        return ()
    asked = overlap.commitments if overlap.closed else state.agreements
    answered = overlap.reports if overlap.closed else overlap.commitments
    gone = {*answered, *overlap.declined, *state.revoked}
    return tuple(sorted(did for did in asked if did not in gone))


def weights_of(state: StudyState) -> dict[str, int]:
    """The integer weight of every party, from the agreements' nominal cohorts, the plan's cap and the clusters."""
    nominal = {did: agreement.nominal_cohort for did, agreement in state.agreements.items()}
    overlap = state.overlap
    return cluster_weights(nominal, state.plan.aggregation.weight_cap, clusters=overlap.clusters, copies=overlap.copies)


def groups_of(state: StudyState) -> ClustersFormed:
    """Who counts as one, as it follows from the agreements and the reports."""
    squares, products = _agreed(state.overlap)
    parties = sorted(state.agreements)
    apart = [did for did in parties if did not in squares]
    copies = [*itertools.pairwise(apart)]
    for pair in itertools.combinations(sorted(squares), 2):
        product = products.get(pair)
        if product is None or _same(state, pair, product, squares):
            copies.append(pair)
    return ClustersFormed(copies=connected(parties, copies), clusters=connected(parties, [*copies, *_declared(state)]))


def _agreed(overlap: OverlapState) -> tuple[dict[str, int], dict[Pair, int]]:
    """Squares of those who reported and whose sketch most could open, and products: what most reports say."""
    reports = overlap.reports.values()
    squares = _most((each.squares for each in reports), len(reports))
    named = ({(pair.first, pair.second): pair.product for pair in each.pairs} for each in reports)
    products = _most(named, len(reports))
    return {did: square for did, square in squares.items() if did in overlap.reports}, products


def _most(said: Iterable[Mapping[T, int]], voices: int) -> dict[T, int]:
    """For each key the number that more than half of all voices give."""
    counted = Counter(item for each in said for item in each.items())
    return {key: number for (key, number), count in counted.items() if 2 * count > voices}


def _same(state: StudyState, pair: Pair, product: int, squares: Mapping[str, int]) -> bool:
    """Whether one is a copy of the other: common people beyond chance, and enough of the smaller cohort.

    A cohort is the nominal one or the measured one, whichever is smaller: nobody escapes by naming a large one.
    """
    terms = overlap_of(state)
    sizes = [
        min(
            Fraction(state.agreements[did].nominal_cohort),
            max(Fraction(1), measured_size(squares[did], terms.buckets, terms.noise_multiplier)),
        )
        for did in pair
    ]
    beyond = beyond_chance(product, (squares[pair[0]], squares[pair[1]]), terms.buckets, terms.z)
    return beyond and product >= Fraction(terms.threshold) * min(sizes)


def _declared(state: StudyState) -> list[Pair]:
    """Pairs that name each other as of one owner."""
    sites = {agreement.site: did for did, agreement in state.agreements.items()}
    named = {
        (did, sites[site])
        for did, agreement in state.agreements.items()
        for site in agreement.same_owner_as or ()
        if site in sites
    }
    return sorted((first, second) for first, second in named if first < second and (second, first) in named)


def _of(state: StudyState, entry: Entry) -> str:
    did = entry.party or ""
    require(entry.round is None, "a comparison has no round")
    require(not state.overlap.formed and not state.weights, "the comparison is over")
    require(did in state.agreements and did not in state.revoked, "the party has no agreement")
    require(did not in state.overlap.declined, "the party has declined")
    overlap_of(state)
    require(len(state.agreements) == state.plan.rounds.participants, "agreements are missing")
    return did


def _committed(state: StudyState, entry: Entry, body: OverlapCommitted) -> StudyState:
    did, overlap = _of(state, entry), state.overlap
    require(not overlap.closed, "nobody commits to a sketch any more")
    require(did not in overlap.commitments, "the party has committed already")
    commitment, _ = open_signed(OverlapCommitment, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(commitment.study == state.study, "the commitment is for another study")
    event = canonical_bytes(commitment.event)
    require(event == canonical_bytes(overlap_event(state.plan)), "the privacy event is not the plan's")
    return replace(state, overlap=replace(overlap, commitments={**overlap.commitments, did: commitment}))


def _declined(state: StudyState, entry: Entry, body: OverlapDeclined) -> StudyState:
    did, overlap = _of(state, entry), state.overlap
    require(did not in overlap.reports, "the party has reported")
    refusal, _ = open_signed(OverlapRefusal, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(refusal.study == state.study, "the refusal is for another study")
    reason = f"{refusal.code}: {refusal.message}"
    return replace(state, overlap=replace(overlap, declined={**overlap.declined, did: reason}))


def _overdue(state: StudyState, entry: Entry, deadlines: int) -> bool:
    since = state.overlap.since
    return since is not None and entry.at >= since + deadlines * timedelta(seconds=state.plan.rounds.deadline_s)


def _closed(state: StudyState, entry: Entry, _: OverlapClosed) -> StudyState:
    overlap_of(state)
    require(entry.party is None and entry.round is None, "this has neither round nor party")
    require(not state.overlap.closed and not state.weights, "commitments are closed already")
    require(state.overlap.since is not None, "agreements are missing")
    require(not waits_for(state) or _overdue(state, entry, 1), "somebody may still commit")
    return replace(state, overlap=replace(state.overlap, closed=True))


def _reported(state: StudyState, entry: Entry, body: OverlapReported) -> StudyState:
    did, overlap = _of(state, entry), state.overlap
    require(overlap.closed, "sketches are compared after commitments close")
    require(did in overlap.commitments and did not in overlap.reports, "no report is due from this party")
    report, _ = open_signed(OverlapReport, body.envelope.encode("utf-8"), signer=PublicKey.from_did(did))
    require(report.study == state.study, "the report is for another study")
    require(did in report.squares and set(report.squares) <= set(overlap.commitments), "it reports on others")
    pairs = tuple((pair.first, pair.second) for pair in report.pairs)
    require(pairs == tuple(itertools.combinations(sorted(report.squares), 2)), "it does not report all pairs in order")
    return replace(state, overlap=replace(overlap, reports={**overlap.reports, did: report}))


def _formed(state: StudyState, entry: Entry, body: ClustersFormed) -> StudyState:
    overlap_of(state)
    require(entry.party is None and entry.round is None, "this has neither round nor party")
    require(state.overlap.closed and not state.overlap.formed, "clusters are formed once, after the comparison")
    require(not waits_for(state) or _overdue(state, entry, 2), "somebody may still report")
    require(body == groups_of(state), "the clusters do not follow from the reports")
    return replace(state, overlap=replace(state.overlap, formed=True, copies=body.copies, clusters=body.clusters))


_Rule = Callable[[StudyState, Entry, Any], StudyState]
RULES: Final[Mapping[str, _Rule]] = cast(
    "Mapping[str, _Rule]",
    {
        "overlap-committed": _committed,
        "overlap-declined": _declined,
        "overlap-closed": _closed,
        "overlap-reported": _reported,
        "clusters-formed": _formed,
    },
)
"""What ``replay`` applies to the entries of a comparison."""

__all__ = ["RULES", "Groups", "groups_of", "overlap_of", "waits_for", "weights_of"]
