"""Merkle trees over an append-only log: hashes, inclusion proofs and consistency proofs.

The tree is that of RFC 6962, section 2.1 (unchanged in RFC 9162, section 2.1): SHA-256, a leaf is prefixed with 0x00
and an inner node with 0x01, and a tree of n leaves splits at the largest power of two below n. Provers work on the list
of leaf hashes (32 bytes each); verifiers need only the proof, and raise when it does not lead to the root they know.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from federation.errors import PeerError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
PROOF_HASHES_MAX: Final = 64


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf, 32 bytes (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node, 32 bytes (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over ``leaf_hashes``, 32 bytes; :data:`EMPTY_ROOT` for an empty tree (RFC 6962, section 2.1).

    Complete subtrees are merged as soon as they are equal in size, so time is linear and memory logarithmic.
    """
    stack: list[bytes] = []
    for count, leaf in enumerate(leaf_hashes, start=1):
        subtree, remaining = leaf, count
        while remaining % 2 == 0:
            subtree, remaining = node_hash(stack.pop(), subtree), remaining // 2
        stack.append(subtree)
    if not stack:
        return EMPTY_ROOT
    result = stack.pop()
    while stack:
        result = node_hash(stack.pop(), result)
    return result


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of leaf ``index`` in the tree over ``leaf_hashes``, leaf to root (RFC 6962, section 2.1.1).

    Raises:
        PeerError: there is no such leaf.
    """
    size = len(leaf_hashes)
    if not 0 <= index < size:
        raise PeerError(f"There is no entry {index} in a tree of {size}.", remedy="Ask for an entry it holds.")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(root(leaf_hashes[middle:stop]))
            stop = middle
        else:
            path.append(root(leaf_hashes[start:middle]))
            start = middle
    return tuple(reversed(path))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash ``leaf`` is entry ``index`` of the tree of ``size`` with ``root``.

    The algorithm of RFC 9162, section 2.1.3.2.

    Raises:
        PeerError: it is not, or the proof is malformed.
    """
    _check_hashes(leaf, root, *proof, what="inclusion", count=len(proof))
    if not 0 <= index < size:
        raise _refused("inclusion", f"entry {index} cannot be in a tree of {size}")
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _refused("inclusion", "it is too long")
        if node % 2 == 1 or node == last:
            result = node_hash(sibling, result)
            while node % 2 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise _refused("inclusion", "it is too short")
    if result != root:
        raise _refused("inclusion", f"entry {index} does not lead to the root of the tree of {size}")


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """Proof that the tree over ``leaf_hashes`` extends its own first ``old_size`` leaves (RFC 6962, section 2.1.2).

    Empty when the old tree is empty or both trees are the same.

    Raises:
        PeerError: ``old_size`` is negative or above the tree's size.
    """
    size = len(leaf_hashes)
    if not 0 <= old_size <= size:
        raise PeerError(f"A tree of {size} has no earlier state of {old_size}.", remedy="Ask for a size it had.")
    if old_size in (0, size):
        return ()
    path: list[bytes] = []
    start, stop, known = 0, size, True  # known: the verifier holds the hash of the whole range [start, old_size)
    while old_size != stop:
        middle = start + _split(stop - start)
        if old_size <= middle:
            path.append(root(leaf_hashes[middle:stop]))
            stop = middle
        else:
            path.append(root(leaf_hashes[start:middle]))
            start, known = middle, False
    if not known:
        path.append(root(leaf_hashes[start:stop]))
    return tuple(reversed(path))


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``new_size`` with ``new_root`` extends the tree of ``old_size`` with ``old_root``.

    The algorithm of RFC 9162, section 2.1.4.2; every tree extends the empty one, by an empty proof.

    Raises:
        PeerError: it does not, or the proof is malformed.
    """
    _check_hashes(old_root, new_root, *proof, what="consistency", count=len(proof))
    if not 0 <= old_size <= new_size:
        raise _refused("consistency", f"a tree of {new_size} cannot extend one of {old_size}")
    if old_size in (0, new_size):
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected or (new_size == 0 and new_root != EMPTY_ROOT):
            raise _refused("consistency", "the two roots differ at one size, or the proof is not empty")
        return
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if _lead(path, old_size - 1, new_size - 1) != (old_root, new_root):
        raise _refused("consistency", f"the tree of {new_size} does not extend the tree of {old_size}")


def _lead(path: Sequence[bytes], node: int, last: int) -> tuple[bytes, bytes]:
    """The old and the new root that a consistency path leads to (RFC 9162, section 2.1.4.2, steps 3 to 6)."""
    if not path:
        raise _refused("consistency", "it is too short")
    while node % 2 == 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _refused("consistency", "it is too long")
        if node % 2 == 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node % 2 == 0 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise _refused("consistency", "it is too short")
    return old, new


def _split(size: int) -> int:
    """The largest power of two below ``size`` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hashes(*hashes: bytes, what: str, count: int) -> None:
    if count > PROOF_HASHES_MAX:
        raise _refused(what, f"it has {count} hashes, more than any tree needs")
    if any(len(item) != HASH_BYTES for item in hashes):
        raise _refused(what, f"a hash does not have {HASH_BYTES} bytes")


def _refused(what: str, why: str) -> PeerError:
    return PeerError(
        f"The {what} proof is refused: {why}.",
        remedy="Keep both checkpoints and this answer: they show that the log's operator changed its history.",
    )
