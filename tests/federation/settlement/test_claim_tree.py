"""The tree of claims against OpenZeppelin's library (its answers are vectors), and against forgers."""

import copy
import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError
from federation.settlement.addresses import checksummed
from federation.settlement.claim_tree import Claim, ClaimTree, as_hex, grow, leaf_hash, load, node_hash, verify

REPOSITORY = Path(__file__).parents[3]
VECTORS = json.loads((REPOSITORY / "tests" / "vectors" / "claim_trees.json").read_text(encoding="utf-8"))

amounts = st.integers(0, 2**256 - 1)
claim_lists = st.dictionaries(st.binary(min_size=20, max_size=20).filter(any), amounts, min_size=1, max_size=20).map(
    lambda drawn: [Claim(checksummed(address), amount) for address, amount in drawn.items()]
)


def made_up(size: int) -> list[Claim]:
    """The claims that the vectors were made from."""
    path = REPOSITORY / "scripts" / "make_claim_assets.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return [Claim(address, int(amount)) for address, amount in script.values_of(size)]


def compact_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture(scope="module")
def tree() -> ClaimTree:
    return grow(made_up(33))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["size"]))
def test_dump_and_proofs_are_those_of_openzeppelin_s_library(vector: dict[str, Any]) -> None:
    tree = grow(made_up(vector["size"]))
    dump = tree.dump()
    proofs = [[as_hex(item) for item in tree.proof(index)] for index in range(vector["size"])]
    if "dump" in vector:
        assert (dump, proofs) == (vector["dump"], vector["proofs"])
    assert as_hex(tree.root) == vector["root"]
    assert compact_sha256(dump) == vector["dump_sha256"]
    assert compact_sha256(proofs) == vector["proofs_sha256"]


def test_the_vectors_reach_a_thousand_claims() -> None:
    assert {1, 2, 3, 1000} <= {vector["size"] for vector in VECTORS}


@given(claim_lists, st.randoms())
def test_every_claim_is_proved_and_the_root_does_not_depend_on_the_order(claims: list[Claim], random: Any) -> None:
    tree = grow(claims)
    for index, claim in enumerate(claims):
        verify(root=tree.root, claim=claim, proof=tree.proof(index))
    shuffled = random.sample(claims, len(claims))
    assert grow(shuffled).root == tree.root
    assert load(json.loads(json.dumps(tree.dump()))) == tree
    assert tree.total == sum(claim.amount for claim in claims)


@given(claim_lists, st.data())
def test_a_forged_claim_is_refused(claims: list[Claim], data: st.DataObject) -> None:
    tree = grow(claims)
    index = data.draw(st.integers(0, len(claims) - 1))
    claim, proof = claims[index], tree.proof(index)
    other = data.draw(amounts.filter(lambda amount: amount != claim.amount))
    address = data.draw(st.binary(min_size=20, max_size=20).map(checksummed).filter(lambda made: made != claim.address))
    wrong = data.draw(st.sampled_from([replace(claim, amount=other), replace(claim, address=address)]))
    with pytest.raises((PeerError, OperatorError)):  # the second where the address zero was drawn
        verify(root=tree.root, claim=wrong, proof=proof)


def test_a_proof_that_was_changed_is_refused(tree: ClaimTree) -> None:
    claim, proof = tree.claims[0], tree.proof(0)
    wrong = [
        proof[:-1],
        proof[1:],
        (*proof, proof[-1]),
        tuple(reversed(proof)),
        tree.proof(1),
        (bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]),
        (proof[0][:-1], *proof[1:]),
        (*proof, *[bytes(32)] * 32),
    ]
    for each in wrong:
        with pytest.raises(PeerError, match="refused"):
            verify(root=tree.root, claim=claim, proof=each)


def test_no_inner_node_is_the_leaf_of_a_claim(tree: ClaimTree) -> None:
    """A leaf is hashed twice: the pair of words behind an inner node, read as a claim, leads elsewhere."""
    left, right = min(tree.nodes[1:3]), max(tree.nodes[1:3])
    assert node_hash(right, left) == tree.root
    claim = Claim(checksummed(left[12:]), int.from_bytes(right, "big"))
    assert leaf_hash(claim) != tree.root
    with pytest.raises(PeerError):
        verify(root=tree.root, claim=claim, proof=())


@pytest.mark.parametrize("member", ["format", "leafEncoding", "tree", "values"])
def test_a_dump_without_a_member_is_refused(tree: ClaimTree, member: str) -> None:
    dump = tree.dump()
    del dump[member]
    with pytest.raises(PeerError, match="refused"):
        load(dump)


@given(st.data())
def test_a_dump_with_anything_exchanged_is_refused(tree: ClaimTree, data: st.DataObject) -> None:
    dump = copy.deepcopy(tree.dump())
    index = data.draw(st.integers(0, len(tree.claims) - 1))
    other = (index + 1) % len(tree.claims)
    value = dump["values"][index]
    match data.draw(st.sampled_from(["amount", "address", "place", "hash", "lost", "copied", "float", "sign"])):
        case "amount":
            value["value"][1] = str(tree.claims[index].amount ^ 1)
        case "address":
            value["value"][0] = dump["values"][other]["value"][0]
        case "place":
            value["treeIndex"] = dump["values"][other]["treeIndex"]
        case "hash":
            place = data.draw(st.integers(0, len(tree.nodes) - 1))
            dump["tree"][place] = as_hex(bytes(byte ^ 1 for byte in tree.nodes[place]))
        case "lost":
            del dump["values"][index]
        case "copied":
            dump["values"].append(value)
        case "float":
            value["value"][1] = 1.0
        case "sign":
            value["value"][1] = f"+{value['value'][1]}"
    with pytest.raises(PeerError, match="refused"):
        load(dump)


@pytest.mark.parametrize("document", [None, [], {}, "standard-v1", {"format": "simple-v1"}])
def test_something_else_is_no_tree(document: Any) -> None:
    with pytest.raises(PeerError, match="not a standard-v1 dump"):
        load(document)


@pytest.mark.parametrize("amount", [-1, 2**256, True, 1.0])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    with pytest.raises(OperatorError, match="no amount"):
        grow([Claim("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", amount)])


def test_an_address_has_one_leaf_and_a_tree_has_at_least_one() -> None:
    claim = Claim("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", 1)
    for claims in ([], [claim, replace(claim, amount=2)]):
        with pytest.raises(OperatorError, match="no address twice"):
            grow(claims)
