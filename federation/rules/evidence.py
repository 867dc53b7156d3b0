"""Cases against a stake that need a blob: a challenge that proves a utility false.

What a log says about such a case is only which blob it rests on. Whoever has the blob checks it here: the coordinator
before it logs a case, every witness before it cosigns, and whoever verifies an export. Logistic models are judged by
exact arithmetic, so that all agree to the last bit also about a lie at the edge of the tolerance; others by floating
point, as they were scored. Cases that need no blob are checked by the log's rules (``stakes``).
"""

from collections.abc import Mapping
from typing import Final

from federation.errors import PeerError
from federation.rules.admission import parameter_count
from federation.rules.audit import Blobs
from federation.rules.canonical import sha256_hex
from federation.rules.challenge import Finding, Utility, verify_challenge
from federation.rules.entries import Entry, StakeSlashed
from federation.rules.exact_utility import exact_utility
from federation.rules.families import LogisticModel
from federation.rules.pledges import FalseUtility
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan
from federation.rules.vectors import vector_bytes_max

_DOCUMENTS_BYTES_MAX: Final = 96 << 20


def proof_bytes_max(plan: StudyPlan, case: FalseUtility) -> int:
    """How long a challenge of this case can be: its vectors in base64, and room for rows and documents."""
    longest = vector_bytes_max(parameter_count(plan), plan.aggregation.encoding)
    return 4 * -(-longest // 3) * (len(case.coalition) + 1) + _DOCUMENTS_BYTES_MAX


def check_evidence(state: StudyState, entry: Entry, proofs: Blobs, utility: Utility) -> None:
    """Check a slash as far as it rests on a blob; other entries pass.

    Args:
        state: the study, before or after the entry.
        entry: an entry that keeps the log's rules.
        proofs: a challenge's bytes by their hash.
        utility: as for :func:`check_false_utility`.

    Raises:
        PeerError: the blob does not prove what the entry says.
    """
    if isinstance(entry.body, StakeSlashed) and isinstance(entry.body.case, FalseUtility):
        check_false_utility(state, entry.body.case, proofs(entry.body.case.proof), utility)


def check_false_utility(state: StudyState, case: FalseUtility, proof: bytes, utility: Utility) -> Finding:
    """What a case's blob shows: an entry of this log's value table that does not hold.

    Args:
        state: the study, settled.
        case: which entry.
        proof: the blob.
        utility: how a model is scored (``learning.evaluation.committed_utility``), unless the plan's model is logistic.

    Raises:
        PeerError: it shows something else.
    """
    if sha256_hex(proof) != case.proof:
        raise _refused("the blob does not have the bytes of its name")
    judge = exact_utility if isinstance(state.plan.model, LogisticModel) else utility
    found = verify_challenge(proof, coordinator=state.coordinator, utility=judge)
    done = state.closed[case.round - 1]
    shown = (found.study, found.round, found.coalition, found.entry_index, found.table)
    if shown != (state.study, case.round, case.coalition, done.entry_index, done.value_table):
        raise _refused("its proof is about another entry")
    if found.verdict == "holds":
        raise _refused("the logged utility holds")
    return found


def proofs_of(state: StudyState) -> Mapping[str, FalseUtility]:
    """The blobs that the log's cases rest on, by name."""
    return {each.case.proof: each.case for each in state.slashes.values() if isinstance(each.case, FalseUtility)}


def _refused(why: str) -> PeerError:
    return PeerError(f"The case against a stake is refused: {why}.", remedy="Show a proof that holds for this log.")
