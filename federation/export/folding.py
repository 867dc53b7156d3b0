"""The entries of a study's log, verified and folded, with what an export needs beside the final state."""

from collections.abc import Iterable
from dataclasses import dataclass

from federation.errors import UnavailableError
from federation.export.layout import PLAN, entry_path, placed
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import SignedCheckpoint, open_checkpoint
from federation.rules.entries import AgreementAdmitted, Entry, StudySettled
from federation.rules.envelope import Envelope
from federation.rules.keys import PublicKey
from federation.rules.merkle import leaf_hash
from federation.rules.replay import apply, begin
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan, open_plan
from federation.rules.succession import open_next


@dataclass(frozen=True, slots=True)
class Settlement:
    """The settlement's entry, and the state that it was appended to."""

    index: int
    before: StudyState
    body: StudySettled


@dataclass(frozen=True, slots=True)
class FoldedLog:
    """A log that keeps every rule.

    Attributes:
        state: what it says in the end.
        entries: all entries, in order.
        leaves: their leaf hashes.
        witnesses: ``witnesses[size]`` could cosign the log of that size.
        agreements: did -> the agreement's envelope as it was logged, for the institutions that are in.
        settlement: None while the study runs.
    """

    state: StudyState
    entries: tuple[Entry, ...]
    leaves: tuple[bytes, ...]
    witnesses: tuple[tuple[PublicKey, ...], ...]
    agreements: dict[str, bytes]
    settlement: Settlement | None


def open_exported_plan(data: bytes, *, signer: PublicKey | None) -> tuple[StudyPlan, Envelope]:
    """The signed plan of an export.

    Raises:
        PeerError: not by ``signer``, or not a valid plan; ``plan.json`` is named.
    """
    with placed(PLAN):
        return open_plan(data, signer=signer)


def fold(plan: StudyPlan, plan_bytes: bytes, signer: PublicKey, entries: Iterable[bytes]) -> FoldedLog:
    """Verify and replay the log of ``plan``, entry by entry.

    Raises:
        PeerError: an entry's signature or form is wrong, or it breaks a rule; its file is named.
    """
    state = begin(plan, plan_blob=sha256_hex(plan_bytes), coordinator=signer)
    opened: list[Entry] = []
    leaves: list[bytes] = []
    agreements = {}
    witnesses = [state.witnesses]
    settlement = None
    for index, data in enumerate(entries):
        with placed(entry_path(index)):
            entry = open_next(state, data, leaves)
            after = apply(state, entry)
        if isinstance(entry.body, AgreementAdmitted) and entry.party is not None:
            agreements[entry.party] = entry.body.envelope.encode("utf-8")
        if isinstance(entry.body, StudySettled):
            settlement = Settlement(index=index, before=state, body=entry.body)
        witnesses.append(witnesses[-1] if after.agreements is state.agreements else after.witnesses)
        opened.append(entry)
        leaves.append(leaf_hash(data))
        state = after
    return FoldedLog(
        state=state,
        entries=tuple(opened),
        leaves=tuple(leaves),
        witnesses=tuple(witnesses),
        agreements={did: agreements[did] for did in sorted(state.agreements)},
        settlement=settlement,
    )


def open_newest(folded: FoldedLog, newest: tuple[int, bytes] | None, index: int) -> SignedCheckpoint:
    """The newest checkpoint of a log, with its cosignatures verified; whether its root is the log's is not checked.

    Args:
        folded: the log.
        newest: the size that the note is kept under, and the note.
        index: an entry that it must cover.

    Raises:
        UnavailableError: there is none that covers it.
        PeerError: it is not of this log, or a signature is wrong.
    """
    if newest is None or newest[0] <= index:
        raise UnavailableError(
            f"No signed checkpoint covers entry {index} of the log here yet.",
            remedy="Let coordinator and node run together for a moment, then ask again.",
        )
    size, note = newest
    state = folded.state
    witnesses = {*folded.witnesses[size], *folded.witnesses[-1]}
    return open_checkpoint(note, origin=state.plan.origin, signer=state.leader_at(size), witnesses=witnesses)
