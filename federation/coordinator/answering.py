"""What an honest coordinator can say against a case against itself, from what lies in its folder.

A split view may be two studies whose plans call their logs alike: both trees are then logs of this folder, and their
first entries tell them apart.
"""

from collections.abc import Callable, Sequence

from federation.rules.checkpoint import open_checkpoint
from federation.rules.entries import open_entry
from federation.rules.equivocation import EVIDENCE_BYTES_MAX, Evidence, View
from federation.rules.merkle import inclusion_proof
from federation.rules.pledges import Opening, SplitView, TwoStudies
from federation.rules.state import Slash, StudyState
from federation.rules.study import read
from federation.storage.log import MerkleLog

Logs = Callable[[], Sequence[MerkleLog]]


def answer_to(state: StudyState, slash: Slash, *, logs: Logs) -> TwoStudies | None:
    """The answer to a logged case against the coordinator; None where there is none.

    Args:
        state: the study.
        slash: the case.
        logs: every study's log that this coordinator keeps.
    """
    return _two_studies(state, slash.case, logs()) if isinstance(slash.case, SplitView) else None


def _two_studies(state: StudyState, case: SplitView, logs: Sequence[MerkleLog]) -> TwoStudies | None:
    evidence = read(Evidence, case.evidence.encode("utf-8")[:-1], max_bytes=EVIDENCE_BYTES_MAX)
    first, second = (_opening(state, view, logs) for view in (evidence.first, evidence.second))
    if first is None or second is None:
        return None
    studies = {open_entry(each.entry.encode("utf-8"), signer=state.coordinator).study for each in (first, second)}
    return TwoStudies(first=first, second=second) if len(studies) > 1 else None


def _opening(state: StudyState, view: View, logs: Sequence[MerkleLog]) -> Opening | None:
    head = open_checkpoint(
        view.checkpoint.encode("utf-8"), origin=state.plan.origin, signer=state.coordinator, witnesses=()
    ).checkpoint
    for log in logs:
        if log.size >= head.size and log.root(head.size) == head.root:
            proof = inclusion_proof(list(log.leaf_hashes(head.size)), 0)
            return Opening(entry=log.entry(0).decode("utf-8"), proof=tuple(part.hex() for part in proof))
    return None
