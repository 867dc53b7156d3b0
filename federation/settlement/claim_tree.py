"""The tree of claims: OpenZeppelin's ``standard-v1`` over (address, uint256), its proofs and its dump.

A leaf is Keccak-256 twice over the ABI encoding of address and amount, so that no inner node (64 bytes, hashed once)
passes for a leaf. A node hashes its two children in the order of their values, so that a proof needs no directions.
The tree is an array: node i has the children 2i + 1 and 2i + 2, the root is the first, and leaves stand at the end,
sorted by their hash from the last place on. Source: ``@openzeppelin/merkle-tree`` 1.0.8, whose ``load`` reads the dump.

An amount is everything that the address ever earned (cumulative), so an address has one leaf. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from federation.errors import AccordError, OperatorError, PeerError

from .addresses import ADDRESS_BYTES, address_bytes
from .keccak import HASH_BYTES, keccak256

FORMAT: Final = "standard-v1"
LEAF_ENCODING: Final = ("address", "uint256")
AMOUNT_MAX: Final = 2**256 - 1
PROOF_HASHES_MAX: Final = 32
"""What the contract takes: enough for 2^32 leaves."""

_AMOUNT: Final = re.compile(r"0|[1-9][0-9]{0,77}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an address may claim.

    Attributes:
        address: with its checksum (EIP-55).
        amount: micro-credits, everything that it ever earned.
    """

    address: str
    amount: int


@dataclass(frozen=True, slots=True)
class ClaimTree:
    """A tree over claims, made by :func:`grow`.

    Attributes:
        claims: as they were given.
        nodes: the array, 2n - 1 hashes of 32 bytes.
        places: ``places[i]`` is where in the array the leaf of ``claims[i]`` stands.
    """

    claims: tuple[Claim, ...]
    nodes: tuple[bytes, ...]
    places: tuple[int, ...]

    @property
    def root(self) -> bytes:
        """What a contract must know, 32 bytes."""
        return self.nodes[0]

    @property
    def total(self) -> int:
        """Micro-credits of all claims together."""
        return sum(claim.amount for claim in self.claims)

    def proof(self, index: int) -> tuple[bytes, ...]:
        """The siblings on the way from ``claims[index]`` to the root."""
        place, path = self.places[index], []
        while place > 0:
            path.append(self.nodes[place + 1 if place % 2 else place - 1])
            place = (place - 1) // 2
        return tuple(path)

    def dump(self) -> dict[str, Any]:
        """The document that OpenZeppelin's library writes and reads; amounts are decimal text."""
        return {
            "format": FORMAT,
            "leafEncoding": list(LEAF_ENCODING),
            "tree": [as_hex(node) for node in self.nodes],
            "values": [
                {"value": [claim.address, str(claim.amount)], "treeIndex": place}
                for claim, place in zip(self.claims, self.places, strict=True)
            ],
        }


def grow(claims: Iterable[Claim]) -> ClaimTree:
    """The tree over ``claims``; it depends on their order only in ``claims`` and ``places``.

    Raises:
        OperatorError: no claim, an address that is none or that is there twice, or an amount outside 0 to 2^256 - 1.
    """
    given = tuple(claims)
    leaves = [leaf_hash(claim) for claim in given]
    if not given or len({claim.address for claim in given}) < len(given):
        raise OperatorError(
            "A tree of claims needs at least one claim, and no address twice.",
            remedy="Give every institution one address of its own.",
        )
    order = sorted(range(len(given)), key=leaves.__getitem__)
    last = 2 * len(given) - 2
    nodes, places = [b""] * (last + 1), [0] * len(given)
    for rank, index in enumerate(order):
        nodes[last - rank], places[index] = leaves[index], last - rank
    for place in reversed(range(len(given) - 1)):
        nodes[place] = node_hash(nodes[2 * place + 1], nodes[2 * place + 2])
    return ClaimTree(claims=given, nodes=tuple(nodes), places=tuple(places))


def load(document: Any) -> ClaimTree:
    """Read a dump, ours or the library's; every hash is computed again. Members that are not the dump's are ignored.

    Raises:
        PeerError: not such a dump, or its hashes are not those of its values.
    """
    try:
        tree = grow(_claims(document))
    except AccordError as error:
        raise _refused(error.message) from error
    if any(document.get(key) != value for key, value in tree.dump().items()):
        raise _refused("its hashes are not those of its values")
    return tree


def verify(*, root: bytes, claim: Claim, proof: Sequence[bytes]) -> None:
    """Check a claim as the contract does.

    Raises:
        PeerError: the proof does not lead from the claim to the root, or is malformed.
        OperatorError: the claim itself is malformed.
    """
    if len(proof) > PROOF_HASHES_MAX or any(len(item) != HASH_BYTES for item in (root, *proof)):
        raise _refused(f"a proof has at most {PROOF_HASHES_MAX} hashes of {HASH_BYTES} bytes")
    node = leaf_hash(claim)
    for sibling in proof:
        node = node_hash(node, sibling)
    if node != root:
        raise _refused(f"{claim.amount} for {claim.address} is not in the tree with the root {as_hex(root)}")


def leaf_hash(claim: Claim) -> bytes:
    """Keccak-256 twice over the ABI encoding: two words of 32 bytes.

    Raises:
        OperatorError: the address is none, or the amount is outside 0 to 2^256 - 1.
    """
    if type(claim.amount) is not int or not 0 <= claim.amount <= AMOUNT_MAX:
        raise OperatorError(
            f"{claim.amount!r} is no amount of micro-credits.", remedy="Use whole numbers from 0 to 2^256 - 1."
        )
    word = bytes(HASH_BYTES - ADDRESS_BYTES) + address_bytes(claim.address)
    return keccak256(keccak256(word + claim.amount.to_bytes(HASH_BYTES, "big")))


def node_hash(one: bytes, other: bytes) -> bytes:
    """The hash of two children, the smaller one first."""
    return keccak256(min(one, other) + max(one, other))


def as_hex(data: bytes) -> str:
    """As chains write bytes: ``0x`` and small digits."""
    return f"0x{data.hex()}"


def _claims(document: Any) -> list[Claim]:
    match document:
        case {"format": "standard-v1", "leafEncoding": ["address", "uint256"], "values": [*values]}:
            return [_claim(value) for value in values]
        case _:
            raise _refused("it is not a standard-v1 dump over (address, uint256)")


def _claim(value: Any) -> Claim:
    match value:
        case {"value": [str(address), str(amount)]} if _AMOUNT.fullmatch(amount):
            return Claim(address=address, amount=int(amount))
        case _:
            raise _refused("a value is not an address and an amount as decimal text")


def _refused(why: str) -> PeerError:
    return PeerError(
        f"The tree of claims is refused: {why}.",
        remedy="Make it again with `accord rewards claim-tree`, or ask for it.",
    )
