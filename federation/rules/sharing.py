"""Which blobs a study's parties may have from each other, and who these parties are: as the log says."""

from federation.rules.state import StudyState


def shared_models(state: StudyState) -> frozenset[str]:
    """The models that the log names: what every party of the study trains on, and holds already."""
    closed = {name for done in state.closed for name in (done.base_model, done.model)}
    current = {state.round.base_model} if state.round else set()
    latest = {name for name in (state.first_model, state.model) if name is not None}
    return frozenset(closed | current | latest)


def may_share(state: StudyState, did: str) -> bool:
    """Whether a party's agreement is in the log and has not been revoked."""
    return did in state.agreements and did not in state.revoked
