"""Whether the reference updates of a trust-anchored study are what the sponsor's root set gives.

That each round's model follows from its reference is checked with the model; here it is the reference itself, where
the plan discloses the root set. With a sealed one nobody but its holder can: the report says so.
"""

from federation.errors import PeerError
from federation.export.layout import ROOT_ROWS, ROOT_SALT, ExportFolder, blob_path, disclosed_rows, placed
from federation.learning.reference import reference_update, same_reference
from federation.rules import audit
from federation.rules.admission import parameter_count
from federation.rules.state import StudyState
from federation.rules.validation import read_validation
from federation.rules.vectors import unpack_vector


def shows_root(state: StudyState) -> bool:
    """Whether an export of the study holds the root set: the study is settled and its plan discloses it."""
    return state.settled and state.plan.aggregation.root_disclosure == "public"


def check_references(files: ExportFolder, state: StudyState, blobs: audit.Blobs) -> int | None:
    """Recompute every round's reference update; how many, None where the plan has none or the set is sealed.

    Raises:
        PeerError: other rows than were committed, or a reference that they do not give.
    """
    plan = state.plan
    if plan.aggregation.root is None or not shows_root(state):
        return None
    _, rows = disclosed_rows(files, plan.aggregation.root, rows=ROOT_ROWS, salt=ROOT_SALT)
    with placed(ROOT_ROWS):
        root = read_validation(plan, rows)
    for done in state.closed:
        name = done.reference or ""
        committed, base = (
            unpack_vector(blobs(each), plan.aggregation.encoding, length=parameter_count(plan))
            for each in (name, done.base_model)
        )
        if not same_reference(committed, reference_update(plan, base, root)):
            raise PeerError(
                f"{blob_path(name)}: the root set does not give this reference update of round {done.number}.",
                remedy="Keep the export as evidence: the sponsor steered the round by a false reference.",
            )
    return len(state.closed)
