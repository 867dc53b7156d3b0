"""Which updates enter a model: every rule, each with its reason code.

An update that is refused is logged with the reason; nothing is dropped in silence. The rules run at the coordinator
when an update is shown, and again at every witness and auditor that replays the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from federation.errors import PeerError
from federation.rules.accounting import round_event
from federation.rules.aggregation import norm_within
from federation.rules.canonical import canonical_bytes, sha256_hex
from federation.rules.checkpoint import Checkpoint, open_checkpoint
from federation.rules.documents import CHUNK_BYTES_MAX, Update, open_signed
from federation.rules.families import size
from federation.rules.keys import PublicKey
from federation.rules.merkle import verify_consistency
from federation.rules.study import StudyPlan
from federation.rules.vectors import unpack_update, update_sizes

REASONS: Final[Mapping[str, str]] = {
    "malformed": "the update or its arrays are not readable, or not what its signature covers",
    "replay": "the update belongs to another round or study",
    "no-commitment": "the update is not the one that was committed before the deadline",
    "not-revealed": "a committed update was not shown in time",
    "wrong-base": "the update was trained on another model",
    "wrong-code": "the update was made by code that the plan does not approve",
    "event": "the privacy event is not the plan's",
    "stale-consent": "the consent checkpoint is older than one shown before",
    "forked-consent": "the consent log was rewritten since the checkpoint shown before",
    "norm": "the update is longer than the plan's bound",
}


class AdmissionError(PeerError):
    """An update is refused; ``reason`` is one of :data:`REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(
            f"{REASONS[reason]} ({detail})", remedy="Nothing is charged again; the next round is open to you."
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConsentLogView:
    """The last checkpoint of an institution's consent log that this study saw."""

    size: int
    root: bytes


def consent_origin(institution: PublicKey) -> str:
    """The origin line of an institution's consent log."""
    return f"consent/{institution.did}"


def parameter_count(plan: StudyPlan) -> int:
    """P, the length of the flat parameter vector of the plan's model."""
    return size(plan.model, plan.schema_contract.inputs)


def check_update(
    data: bytes,
    *,
    plan: StudyPlan,
    party: PublicKey,
    round_number: int,
    base_model: str,
    commitment: str,
    consent_log: ConsentLogView | None,
) -> tuple[Update, ConsentLogView]:
    """Every admission rule that needs no arrays.

    Args:
        data: the signed update as received.
        plan: the study's plan.
        party: who must have signed.
        round_number: the open round.
        base_model: SHA-256 of the model that the round started from.
        commitment: what the party committed to before the deadline.
        consent_log: the party's consent log as seen before in this study.

    Returns:
        The update, and the consent log as seen now.

    Raises:
        AdmissionError: the first rule that the update breaks.
    """
    try:
        update, _ = open_signed(Update, data, signer=party)
    except PeerError as error:
        raise AdmissionError("malformed", error.message) from error
    sizes = update_sizes(parameter_count(plan), plan.aggregation)
    if update.update_bytes not in sizes:  # before anybody fetches that much
        raise AdmissionError("malformed", f"{update.update_bytes} bytes are not this plan's model")
    if len(update.chunks) != -(-update.update_bytes // CHUNK_BYTES_MAX):
        raise AdmissionError("malformed", f"{len(update.chunks)} chunks are not the update's")
    if update.study != plan.study_id or update.round != round_number:
        raise AdmissionError("replay", f"it says study {update.study}, round {update.round}")
    if update.commitment(party).commitment != commitment:
        raise AdmissionError("no-commitment", "hashes differ")
    if update.base_model != base_model:
        raise AdmissionError("wrong-base", f"{update.base_model[:12]} instead of {base_model[:12]}")
    if update.code_hash not in plan.code_approved:
        raise AdmissionError("wrong-code", f"code {update.code_hash[:12]}")
    if canonical_bytes(update.event) != canonical_bytes(round_event(plan)):
        raise AdmissionError("event", "the noise, the sampling or the number of steps differ")
    return update, _check_consent(update, party, consent_log)


def check_arrays(update: Update, packed: bytes, plan: StudyPlan) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The update's vector, once its bytes are there.

    Returns:
        int64 ``[P]`` on the lattice 2^-24.

    Raises:
        AdmissionError: other bytes than were signed, another length, or a norm above the plan's bound.
    """
    if len(packed) != update.update_bytes or sha256_hex(packed) != update.update:
        raise AdmissionError("malformed", "the arrays are not the ones that were signed")
    try:
        vector = unpack_update(packed, plan.aggregation, length=parameter_count(plan))
    except PeerError as error:
        raise AdmissionError("malformed", error.message) from error
    if not norm_within(vector, plan.aggregation.norm_bound):
        raise AdmissionError("norm", f"bound {plan.aggregation.norm_bound}")
    return vector


def _check_consent(update: Update, party: PublicKey, before: ConsentLogView | None) -> ConsentLogView:
    try:
        shown = open_checkpoint(
            update.consent_checkpoint.encode("utf-8"), origin=consent_origin(party), signer=party, witnesses=()
        ).checkpoint
    except PeerError as error:
        raise AdmissionError("malformed", error.message) from error
    if before is not None:
        _check_extends(update, before, shown)
    return ConsentLogView(size=shown.size, root=shown.root)


def _check_extends(update: Update, before: ConsentLogView, shown: Checkpoint) -> None:
    if shown.size < before.size:
        raise AdmissionError("stale-consent", f"size {shown.size} after {before.size}")
    if update.consent_consistency.old_size != before.size:
        raise AdmissionError("stale-consent", f"consistency is proven from {update.consent_consistency.old_size}")
    try:
        verify_consistency(
            old_size=before.size,
            old_root=before.root,
            new_size=shown.size,
            new_root=shown.root,
            proof=tuple(bytes.fromhex(part) for part in update.consent_consistency.proof),
        )
    except PeerError as error:
        raise AdmissionError("forked-consent", error.message) from error
