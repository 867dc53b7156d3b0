import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules import merkle

VECTORS = Path(__file__).parents[2] / "vectors" / "merkle.json"


def tree(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"leaf %d" % index) for index in range(size)]


def reference_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(reference_root(leaves[:split]), reference_root(leaves[split:]))


def check_roots(vectors: dict[str, object]) -> None:
    leaves, roots = vectors["leaves"], vectors["roots"]
    assert isinstance(leaves, list)
    assert isinstance(roots, dict)
    hashes = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in leaves]
    for size, root in roots.items():
        assert merkle.root(hashes[: int(size)]).hex() == root


def test_roots_of_the_standard_leaves() -> None:
    check_roots(json.loads(VECTORS.read_text()))


@pytest.mark.shared
def test_published_roots(shared_dir: Path) -> None:
    check_roots(json.loads((shared_dir / "vectors/merkle/rfc6962.json").read_text()))


@given(st.integers(0, 70))
def test_root_is_the_recursive_definition(size: int) -> None:
    assert merkle.root(tree(size)) == reference_root(tree(size))


@given(st.data())
def test_every_leaf_has_a_proof_that_verifies_there_and_nowhere_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    leaves = tree(size)
    proof = merkle.inclusion_proof(leaves, index)
    root = merkle.root(leaves)
    merkle.verify_inclusion(leaf=leaves[index], index=index, size=size, proof=proof, root=root)
    other = data.draw(st.integers(0, size - 1).filter(lambda value: value != index)) if size > 1 else size
    with pytest.raises(PeerError):
        merkle.verify_inclusion(leaf=leaves[index], index=other, size=size, proof=proof, root=root)


@given(st.data())
def test_a_changed_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    index = data.draw(st.integers(0, size - 1))
    leaves = tree(size)
    proof = list(merkle.inclusion_proof(leaves, index))
    place = data.draw(st.integers(0, len(proof) - 1))
    changed = proof.copy()
    changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
    bad = data.draw(st.sampled_from([changed, proof[:place] + proof[place + 1 :], [*proof, proof[0]], proof * 80]))
    with pytest.raises(PeerError):
        merkle.verify_inclusion(leaf=leaves[index], index=index, size=size, proof=bad, root=merkle.root(leaves))


@given(st.data())
def test_every_earlier_tree_is_consistent(data: st.DataObject) -> None:
    new = data.draw(st.integers(0, 70))
    old = data.draw(st.integers(0, new))
    leaves = tree(new)
    merkle.verify_consistency(
        old_size=old,
        old_root=merkle.root(leaves[:old]),
        new_size=new,
        new_root=merkle.root(leaves),
        proof=merkle.consistency_proof(leaves, old),
    )


@given(st.data())
def test_a_rewritten_entry_breaks_consistency(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 40))
    old = data.draw(st.integers(1, new))
    leaves = tree(new)
    rewritten = leaves.copy()
    rewritten[data.draw(st.integers(0, old - 1))] = merkle.leaf_hash(b"another history")
    with pytest.raises(PeerError):
        merkle.verify_consistency(
            old_size=old,
            old_root=merkle.root(leaves[:old]),
            new_size=new,
            new_root=merkle.root(rewritten),
            proof=merkle.consistency_proof(rewritten, old),
        )


@given(st.data())
def test_a_changed_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 40))
    old = data.draw(st.integers(1, new - 1))
    leaves = tree(new)
    proof = list(merkle.consistency_proof(leaves, old))
    place = data.draw(st.integers(0, len(proof) - 1))
    changed = proof.copy()
    changed[place] = bytes(32)
    bad = data.draw(st.sampled_from([changed, proof[:place] + proof[place + 1 :], [*proof, proof[0]], [], proof * 80]))
    with pytest.raises(PeerError):
        merkle.verify_consistency(
            old_size=old,
            old_root=merkle.root(leaves[:old]),
            new_size=new,
            new_root=merkle.root(leaves),
            proof=bad,
        )


@pytest.mark.parametrize(("old", "new"), [(5, 4), (-1, 4)])
def test_impossible_sizes_are_refused(old: int, new: int) -> None:
    leaves = tree(4)
    with pytest.raises(PeerError):
        merkle.consistency_proof(leaves, old)
    with pytest.raises(PeerError):
        merkle.verify_consistency(
            old_size=old, old_root=merkle.root(leaves), new_size=new, new_root=merkle.root(leaves), proof=()
        )


@pytest.mark.parametrize("index", [-1, 4])
def test_a_proof_for_an_entry_outside_the_tree_is_refused(index: int) -> None:
    with pytest.raises(PeerError):
        merkle.inclusion_proof(tree(4), index)
    with pytest.raises(PeerError):
        merkle.verify_inclusion(leaf=tree(4)[0], index=index, size=4, proof=(), root=merkle.root(tree(4)))


def test_same_size_with_another_root_is_a_fork() -> None:
    with pytest.raises(PeerError):
        merkle.verify_consistency(old_size=3, old_root=bytes(32), new_size=3, new_root=merkle.root(tree(3)), proof=())


def test_an_empty_tree_with_another_root_is_refused() -> None:
    with pytest.raises(PeerError):
        merkle.verify_consistency(old_size=0, old_root=bytes(32), new_size=2, new_root=merkle.root(tree(2)), proof=())


def test_a_short_hash_is_refused() -> None:
    with pytest.raises(PeerError, match="32 bytes"):
        merkle.verify_inclusion(leaf=b"short", index=0, size=1, proof=(), root=b"short")
