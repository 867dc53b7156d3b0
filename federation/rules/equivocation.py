"""Split views: the proof, for anybody and offline, that one key signed two histories of one log.

A log's operator may sign as many checkpoints as it likes, but they must all be of one growing tree. Two things cannot
both be true of such a tree, and each is evidence by itself, whatever else is said:

- ``two-roots``: two checkpoints of one size with different roots;
- ``two-leaves``: two checkpoints, and in each tree another entry at the same index (an inclusion proof for each).

Evidence names no witness and needs no trust in whoever shows it: both checkpoints carry the operator's own signature.
It holds hashes of entries, never the entries. One pair of views has one encoding, so a file's hash names the case.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from federation.errors import PeerError
from federation.rules.checkpoint import SIZE_MAX, SignedCheckpoint, open_checkpoint
from federation.rules.keys import PublicKey
from federation.rules.merkle import PROOF_HASHES_MAX, inclusion_proof, root, verify_inclusion
from federation.rules.study import read
from federation.rules.wire import Did, Sha256Hex, Wire

EVIDENCE_BYTES_MAX: Final = 32 * 1024
_NOTE_CHARACTERS_MAX: Final = 1024

Kind = Literal["two-roots", "two-leaves"]


class View(Wire):
    """One of the two histories: the operator's checkpoint and, where entries are compared, an entry's place in it.

    ``checkpoint`` is the signed note with the operator's line alone; ``leaf`` the entry's leaf hash (RFC 6962) and
    ``proof`` its inclusion proof.
    """

    checkpoint: Annotated[str, StringConstraints(min_length=1, max_length=_NOTE_CHARACTERS_MAX)]
    leaf: Sha256Hex | None = None
    proof: Annotated[tuple[Sha256Hex, ...], Field(max_length=PROOF_HASHES_MAX)] = ()


class Evidence(Wire):
    """What an operator cannot explain. ``index`` is the entry's place, for ``two-leaves``."""

    version: Literal[1] = 1
    kind: Kind
    signer: Did
    index: Annotated[int, Field(ge=0, le=SIZE_MAX)] | None = None
    first: View
    second: View

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a newline."""
        return self.to_payload() + b"\n"


@dataclass(frozen=True, slots=True)
class Equivocation:
    """What verified evidence proves: ``signer`` signed two trees of the log ``origin`` that do not fit.

    ``sizes`` are those of the two checkpoints; ``index`` is the first entry in which the trees are shown to differ,
    None where only their roots are compared.
    """

    signer: PublicKey
    origin: str
    kind: Kind
    sizes: tuple[int, int]
    index: int | None

    @property
    def sentence(self) -> str:
        """The finding, for people."""
        if self.index is None:
            what = f"two different trees of {self.sizes[0]} entries"
        else:
            what = f"two trees (of {self.sizes[0]} and {self.sizes[1]} entries) that differ in entry {self.index}"
        return f"{self.signer.did} signed {what} of the log {self.origin}."


def two_roots(one: SignedCheckpoint, other: SignedCheckpoint) -> Evidence | None:
    """Evidence from two verified checkpoints; None unless one key signed two roots of one size of one log."""
    if not _comparable(one, other) or one.checkpoint.size != other.checkpoint.size:
        return None
    if one.checkpoint.root == other.checkpoint.root:
        return None
    first, second = sorted((View(checkpoint=_note(one)), View(checkpoint=_note(other))), key=_order)
    return Evidence(kind="two-roots", signer=one.signer.did, first=first, second=second)


def two_leaves(
    one: SignedCheckpoint, one_leaves: Sequence[bytes], other: SignedCheckpoint, other_leaves: Sequence[bytes]
) -> Evidence | None:
    """Evidence from two verified checkpoints and the leaf hashes (32 bytes each) that each of them is the root of.

    None unless one key signed both, the leaves are theirs, and the trees differ in an entry that both have.
    """
    if not _comparable(one, other):
        return None
    for signed, leaves in ((one, one_leaves), (other, other_leaves)):
        if len(leaves) != signed.checkpoint.size or root(leaves) != signed.checkpoint.root:
            return None
    pairs = enumerate(zip(one_leaves, other_leaves, strict=False))
    index = next((place for place, (mine, theirs) in pairs if mine != theirs), None)
    if index is None:
        return None
    first, second = sorted((_view(one, one_leaves, index), _view(other, other_leaves, index)), key=_order)
    return Evidence(kind="two-leaves", signer=one.signer.did, index=index, first=first, second=second)


def verify_evidence(data: bytes, *, signer: PublicKey | None = None) -> Equivocation:
    """Check evidence, offline.

    Args:
        data: the file's bytes.
        signer: the key that is accused; None takes the one that the evidence names, and the caller decides about it.

    Raises:
        PeerError: malformed, by another key, or it does not prove what it says.
    """
    if not data.endswith(b"\n"):
        raise _refused("it does not end as such a file does")
    evidence = read(Evidence, data[:-1], max_bytes=EVIDENCE_BYTES_MAX)
    key = PublicKey.from_did(evidence.signer)
    if signer is not None and key != signer:
        raise _refused(f"it is about {key.did}, not about {signer.did}")
    origin = evidence.first.checkpoint.partition("\n")[0]
    opened = [_open(view, origin, key) for view in (evidence.first, evidence.second)]
    if _order(evidence.first) >= _order(evidence.second):
        raise _refused("its two views are the same, or out of order")
    one, other = (signed.checkpoint for signed in opened)
    if evidence.kind == "two-roots":
        _check_roots(evidence, one.size == other.size and one.root != other.root)
    else:
        _check_leaves(evidence, opened)
    return Equivocation(
        signer=key, origin=origin, kind=evidence.kind, sizes=(one.size, other.size), index=evidence.index
    )


def _check_roots(evidence: Evidence, differ: bool) -> None:
    views = (evidence.first, evidence.second)
    if evidence.index is not None or any(view.leaf is not None or view.proof for view in views):
        raise _refused("two roots need no entries")
    if not differ:
        raise _refused("its checkpoints are not of one size with different roots")


def _check_leaves(evidence: Evidence, opened: Sequence[SignedCheckpoint]) -> None:
    first, second = evidence.first, evidence.second
    if evidence.index is None or first.leaf is None or second.leaf is None:
        raise _refused("an entry, or its index, is missing")
    if first.leaf == second.leaf:
        raise _refused("both trees have the same entry there")
    for view, signed in zip((first, second), opened, strict=True):
        verify_inclusion(
            leaf=bytes.fromhex(view.leaf or ""),
            index=evidence.index,
            size=signed.checkpoint.size,
            proof=tuple(bytes.fromhex(part) for part in view.proof),
            root=signed.checkpoint.root,
        )


def _comparable(one: SignedCheckpoint, other: SignedCheckpoint) -> bool:
    return one.signer == other.signer and one.checkpoint.origin == other.checkpoint.origin


def _view(signed: SignedCheckpoint, leaves: Sequence[bytes], index: int) -> View:
    proof = tuple(part.hex() for part in inclusion_proof(leaves, index))
    return View(checkpoint=_note(signed), leaf=leaves[index].hex(), proof=proof)


def _order(view: View) -> bytes:
    return view.to_payload()


def _note(signed: SignedCheckpoint) -> str:
    """The operator's own words: cosignatures prove nothing here."""
    return replace(signed, cosignatures=()).to_bytes().decode("utf-8")


def _open(view: View, origin: str, key: PublicKey) -> SignedCheckpoint:
    return open_checkpoint(view.checkpoint.encode("utf-8"), origin=origin, signer=key, witnesses=())


def _refused(why: str) -> PeerError:
    return PeerError(
        f"This is no evidence of a split view: {why}.", remedy="Ask whoever showed it for the file as it was kept."
    )
