"""Challenges: whether one utility of a committed value table is what it must be; where not, a proof for anybody.

A round's closing entry commits to its value table by hash. One challenge holds all that one of the table's utilities
follows from: the signed plan, four entries of the log with their inclusion under one signed checkpoint, the opened
table and validation rows, the round's base model, and the updates of the coalition. Whoever has the coordinator's key
recomputes the utility from these bytes alone, offline, with no trust in whoever shows them: each is signed by the
coordinator, or has a hash that it signed.

Left out: faults that replaying the log finds (weights, payments, the next model), and tables that are no table of their
round. What a false entry costs is decided elsewhere (``stakes``).
"""

import base64
import binascii
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field

from federation.errors import OperatorError, PeerError
from federation.rules.admission import parameter_count
from federation.rules.aggregation import aggregate, rule_of
from federation.rules.audit import UTILITY_UNIT, read_table, same_utility
from federation.rules.canonical import sha256_hex
from federation.rules.checkpoint import SIZE_MAX, Checkpoint, SignedCheckpoint, open_checkpoint
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import Entry, RoundClosed, RoundOpened, StudyPublished, StudyStarted, open_signed_entry
from federation.rules.families import Model
from federation.rules.fixedpoint import Floats, from_fixed
from federation.rules.keys import PublicKey
from federation.rules.merkle import PROOF_HASHES_MAX, inclusion_proof, leaf_hash, verify_inclusion
from federation.rules.study import StudyPlan, open_plan, read
from federation.rules.succession import signers_of
from federation.rules.terms import PARTICIPANTS_MAX
from federation.rules.validation import read_validation, validation_commitment
from federation.rules.value_sample import place_of
from federation.rules.vectors import unpack_update, unpack_vector
from federation.rules.wire import Did, Sha256Hex, Wire

CHALLENGE_BYTES_MAX: Final = 256 << 20
"""Room for 14 updates and a base model of the longest that a plan may name (or more updates that are shorter), and 90
MiB of rows."""

NOBODY: Final = "-"
"""How people write the coalition of no site, whose model is the round's base model."""

DRAWN: Final = "drawn:{}"
"""How people write a coalition of a sampled table: by its place in it, from 0."""

Utility = Callable[[Floats, SubjectBatch, Decimal, Model], int]
"""(parameters float64 [P], validation set, loss bound, model) -> utility times 2^40: ``learning.committed_utility``."""

B = TypeVar("B", StudyPublished, StudyStarted, RoundOpened, RoundClosed)


class Logged(Wire):
    """A signed entry, its place in the log, and its inclusion proof under the challenge's checkpoint."""

    index: Annotated[int, Field(ge=0, le=SIZE_MAX)]
    entry: str
    proof: Annotated[tuple[Sha256Hex, ...], Field(max_length=PROOF_HASHES_MAX)]


class Challenge(Wire):
    """All that one utility follows from.

    ``plan``, ``checkpoint`` (with the coordinator's line alone), ``table`` and ``rows`` are the texts as they were
    signed or hashed; ``base``, ``updates`` and, under a trust-anchored rule, ``reference`` packed vectors in base64.
    The parties in ``updates`` are the coalition.
    """

    version: Literal[1] = 1
    plan: str
    checkpoint: str
    published: Logged
    started: Logged
    opened: Logged
    closed: Logged
    table: str
    salt: Sha256Hex
    rows: str
    base: str
    updates: Annotated[dict[Did, str], Field(max_length=PARTICIPANTS_MAX)]
    reference: str | None = None

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a newline."""
        return self.to_payload() + b"\n"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a verified challenge shows: the utility that was logged, and the one that follows from the blobs.

    Attributes:
        coordinator: who signed all of it.
        study: the study's id.
        round: the round's number.
        coalition: the did of each member, sorted.
        entry_index: the log's entry that committed to the table.
        table: the table's hash.
        logged: utility times 2^40, as the table says.
        recomputed: the same, recomputed.
    """

    coordinator: PublicKey
    study: str
    round: int
    coalition: tuple[str, ...]
    entry_index: int
    table: str
    logged: int
    recomputed: int

    @property
    def verdict(self) -> Literal["holds", "false-entry"]:
        """``holds`` where both are within ``audit.UTILITY_TOLERANCE`` of each other."""
        return "holds" if same_utility(self.logged, self.recomputed) else "false-entry"

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: utilities as the integers that were committed, and as floats in nats."""
        return {
            "verdict": self.verdict,
            "study": self.study,
            "round": self.round,
            "coalition": list(self.coalition),
            "logged": self.logged,
            "recomputed": self.recomputed,
            "logged_nats": self.logged / UTILITY_UNIT,
            "recomputed_nats": self.recomputed / UTILITY_UNIT,
            "entry_index": self.entry_index,
            "table": self.table,
            "coordinator": self.coordinator.did,
        }


def make_challenge(
    *,
    plan: bytes,
    signed: SignedCheckpoint,
    entries: Sequence[bytes],
    places: tuple[int, int, int, int],
    table: bytes,
    validation: tuple[bytes, bytes],
    base: bytes,
    updates: Mapping[str, bytes],
    reference: bytes | None = None,
) -> Challenge:
    """Put a challenge together; nothing is checked before :func:`verify_challenge`.

    Args:
        plan: the signed plan.
        signed: a checkpoint that covers the round's end.
        entries: the log's entries, as many as the checkpoint covers or more.
        places: where publication, start, the round's opening and its closing are in the log.
        table: the round's opened value table.
        validation: salt and rows (CSV, UTF-8).
        base: the round's base model, packed.
        updates: did -> packed update, for the members of the coalition.
        reference: the round's packed reference update, where its opening names one.

    Raises:
        PeerError: a document is not UTF-8, or an entry is not under the checkpoint.
    """
    leaves = [leaf_hash(entry) for entry in entries[: signed.checkpoint.size]]
    published, started, opened, closed = (
        Logged(
            index=index,
            entry=_text(entries[index]),
            proof=tuple(part.hex() for part in inclusion_proof(leaves, index)),
        )
        for index in places
    )
    salt, rows = validation
    return Challenge(
        plan=_text(plan),
        checkpoint=replace(signed, cosignatures=()).to_bytes().decode("utf-8"),
        published=published,
        started=started,
        opened=opened,
        closed=closed,
        table=_text(table),
        salt=salt.hex(),
        rows=_text(rows),
        base=_encoded(base),
        updates={did: _encoded(packed) for did, packed in updates.items()},
        reference=None if reference is None else _encoded(reference),
    )


def verify_challenge(data: bytes, *, coordinator: PublicKey, utility: Utility) -> Finding:
    """Check every byte of a challenge, and recompute the utility.

    Args:
        data: the file's bytes.
        coordinator: whose log it must be.
        utility: how a model is scored.

    Raises:
        PeerError: too large, malformed, not by this coordinator, or not of one round of one study.
    """
    if not data.endswith(b"\n"):
        raise _refused("it does not end as such a file does")
    shown = read(Challenge, data[:-1], max_bytes=CHALLENGE_BYTES_MAX)
    plan, _ = open_plan(_bytes(shown.plan), signer=coordinator)
    signers = signers_of(plan, coordinator)
    head = _head(_bytes(shown.checkpoint), plan, signers)
    _, published, _ = _open(shown.published, StudyPublished, plan, head, signers)
    _, started, _ = _open(shown.started, StudyStarted, plan, head, signers)
    opening, opened, _ = _open(shown.opened, RoundOpened, plan, head, signers)
    closing, closed, accused = _open(shown.closed, RoundClosed, plan, head, signers)
    if published.plan != sha256_hex(_bytes(shown.plan)):
        raise _refused("its plan is not the one that the log's study has")
    if closing.round is None or opening.round != closing.round:
        raise _refused("its entries are not of one round")
    if not set(shown.updates) <= set(closed.updates):
        raise _refused(f"not everybody in it is in the model of round {closing.round}")
    table = read_table(
        _bytes(shown.table),
        name=closed.value_table,
        study=plan.study_id,
        number=closing.round,
        players=closed.updates,
        valuation=plan.valuation,
    )
    batch = _rows(shown, plan)
    length, form = parameter_count(plan), plan.aggregation
    base = unpack_vector(_blob(shown.base, opened.base_model), form.encoding, length=length)
    updates = {
        did: unpack_update(_blob(text, closed.updates[did]), form, length=length) for did, text in shown.updates.items()
    }
    if (shown.reference is None) != (opened.reference is None):
        raise _refused("the round's reference update is missing, or there is one that the log does not name")
    anchor = None
    if opened.reference:
        anchor = unpack_vector(_blob(shown.reference or "", opened.reference), form.encoding, length=length)
    model = aggregate(base, updates, started.weights, rule_of(plan, anchor))
    mask = sum(1 << place for place, did in enumerate(table.players) if did in updates)
    place = place_of(table, plan.valuation, mask)
    if place is None:
        raise _refused("its coalition was not drawn for this round's sampled table")
    return Finding(
        coordinator=accused,
        study=plan.study_id,
        round=closing.round,
        coalition=tuple(sorted(updates)),
        entry_index=shown.closed.index,
        table=closed.value_table,
        logged=table.utilities[place],
        recomputed=utility(from_fixed(model), batch, plan.valuation.loss_bound, plan.model),
    )


def _head(note: bytes, plan: StudyPlan, signers: tuple[PublicKey, ...]) -> Checkpoint:
    """The checkpoint, by the coordinator or by the standby that took over from it."""
    for signer in signers[:-1]:
        with contextlib.suppress(PeerError):
            return open_checkpoint(note, origin=plan.origin, signer=signer, witnesses=()).checkpoint
    return open_checkpoint(note, origin=plan.origin, signer=signers[-1], witnesses=()).checkpoint


def _open(
    logged: Logged, kind: type[B], plan: StudyPlan, head: Checkpoint, signers: tuple[PublicKey, ...]
) -> tuple[Entry, B, PublicKey]:
    """The entry and who signed it, once its place in the tree and its signature are proven."""
    data = _bytes(logged.entry)
    verify_inclusion(
        leaf=leaf_hash(data),
        index=logged.index,
        size=head.size,
        proof=[bytes.fromhex(part) for part in logged.proof],
        root=head.root,
    )
    entry, signer = open_signed_entry(data, signers=signers)
    if not isinstance(entry.body, kind) or entry.study != plan.study_id:
        raise _refused(f"entry {logged.index} ({entry.body.kind}) of {entry.study} stands where another one belongs")
    return entry, entry.body, signer


def _rows(shown: Challenge, plan: StudyPlan) -> SubjectBatch:
    rows = _bytes(shown.rows)
    if validation_commitment(bytes.fromhex(shown.salt), rows) != plan.validation.commitment:
        raise _refused("its validation rows are not those that the plan committed to")
    try:
        return read_validation(plan, rows)
    except OperatorError as error:
        raise _refused(error.message) from error


def _blob(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("a vector is not base64") from None
    if _encoded(data) != text or sha256_hex(data) != name:
        raise _refused(f"a vector is not {name[:12]}, which the log names")
    return data


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("a document in it is not UTF-8") from None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8")


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The challenge is refused: {why}.", remedy="Ask whoever showed it for the file as it was written."
    )
