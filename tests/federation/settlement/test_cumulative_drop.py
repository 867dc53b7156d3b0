"""The contract on a chain in memory: who is paid what, and every way of being paid more."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evm import Chain, Contract, TransactionFailed

from federation.settlement.addresses import checksummed
from federation.settlement.claim_tree import Claim, ClaimTree, grow

HERE = Path(__file__).parent
DROP = HERE.parents[2] / "federation" / "settlement" / "contract" / "cumulative_drop.json"
FUNDS = 10**12


@dataclass
class World:
    """A chain with a token and a drop that pays in it; accounts 2 to 9 have claims, account 0 owns the drop."""

    chain: Chain
    token: Contract
    drop: Contract

    @property
    def owner(self) -> str:
        return self.chain.accounts[0]

    @property
    def stranger(self) -> str:
        return self.chain.accounts[1]

    def set_root(self, tree: ClaimTree) -> None:
        self.drop.transact("set_root", tree.root, sender=self.owner)

    def claim(self, tree: ClaimTree, index: int, **changes: Any) -> dict[str, Any]:
        claim = tree.claims[index]
        given = {"account": claim.address, "amount": claim.amount, "proof": tree.proof(index), **changes}
        return self.drop.transact("claim", given["account"], given["amount"], given["proof"], sender=self.stranger)

    def balance(self, address: str) -> int:
        held: int = self.token.call("balanceOf", address)
        return held

    def tree(self, *amounts: int) -> ClaimTree:
        return grow(map(Claim, self.chain.accounts[2:], amounts))


@pytest.fixture(scope="module")
def deployed() -> World:
    chain = Chain()
    token = chain.deploy(HERE / "claim_token.json", sender=chain.accounts[0])
    drop = chain.deploy(DROP, token.address, chain.accounts[0], sender=chain.accounts[0])
    token.transact("mint", drop.address, FUNDS, sender=chain.accounts[0])
    return World(chain, token, drop)


@pytest.fixture
def world(deployed: World) -> Iterator[World]:
    """The chain as it was deployed; what a test does to it is undone."""
    before = deployed.chain.tester.take_snapshot()
    yield deployed
    deployed.chain.tester.revert_to_snapshot(before)


def test_a_claim_pays_its_account_whoever_sends_it(world: World) -> None:
    tree = world.tree(5, 700, 11)
    world.set_root(tree)
    receipt = world.claim(tree, 1)
    account = tree.claims[1].address
    assert world.drop.events(receipt) == [("Claimed", account.lower(), 700, 700)]
    assert (world.balance(account), world.balance(world.stranger)) == (700, 0)
    assert (world.drop.call("paid", account), world.balance(world.drop.address)) == (700, FUNDS - 700)


def test_a_replayed_claim_pays_nothing(world: World) -> None:
    tree = world.tree(5, 700, 11)
    world.set_root(tree)
    world.claim(tree, 1)
    for _ in range(2):
        with pytest.raises(TransactionFailed, match="nothing left to claim"):
            world.claim(tree, 1)
    world.set_root(tree)  # the same root once more does not open it again
    with pytest.raises(TransactionFailed, match="nothing left to claim"):
        world.claim(tree, 1)
    assert world.balance(tree.claims[1].address) == 700


def test_a_forged_claim_is_refused(world: World) -> None:
    tree = world.tree(5, 700, 11, 2)
    world.set_root(tree)
    proof = tree.proof(1)
    forged: list[dict[str, Any]] = [
        {"amount": 701},
        {"amount": 699},
        {"amount": 2**256 - 1},
        {"account": world.stranger},  # somebody else's amount and proof for an account without a claim
        {"account": tree.claims[0].address},  # for one that has a claim of its own
        {"proof": tree.proof(0)},
        {"proof": ()},
        {"proof": proof[:-1]},
        {"proof": (*proof, proof[-1])},
        {"proof": tuple(reversed(proof))},
    ]
    for changes in forged:
        with pytest.raises(TransactionFailed, match="not in the tree"):
            world.claim(tree, 1, **changes)
    assert world.balance(world.drop.address) == FUNDS
    world.claim(tree, 1)


def test_a_proof_longer_than_any_tree_needs_is_refused(world: World) -> None:
    tree = world.tree(5)
    world.set_root(tree)
    with pytest.raises(TransactionFailed):
        world.claim(tree, 0, proof=[bytes(32)] * 33)
    world.claim(tree, 0)  # of one claim the root is the leaf, and the proof is empty
    assert world.balance(tree.claims[0].address) == 5


def test_under_a_new_root_the_difference_is_paid(world: World) -> None:
    first, second = world.tree(5, 700, 11), world.tree(5, 1000, 12, 40)
    world.set_root(first)
    world.claim(first, 1)
    receipt = world.drop.transact("set_root", second.root, sender=world.owner)
    assert world.drop.events(receipt) == [("RootSet", second.root)]
    with pytest.raises(TransactionFailed, match="not in the tree"):
        world.claim(first, 2)  # the earlier root is gone
    with pytest.raises(TransactionFailed, match="not in the tree"):
        world.claim(second, 1, amount=300)  # the difference is computed, not claimed
    receipt = world.claim(second, 1)
    assert world.drop.events(receipt) == [("Claimed", second.claims[1].address.lower(), 300, 1000)]
    for index in (0, 2, 3):  # who claimed nothing under the first root loses nothing
        world.claim(second, index)
    assert [world.balance(claim.address) for claim in second.claims] == [5, 1000, 12, 40]


def test_a_root_with_less_takes_nothing_back_and_pays_nothing(world: World) -> None:
    more, less = world.tree(5, 700), world.tree(5, 600)
    world.set_root(more)
    world.claim(more, 1)
    world.set_root(less)
    with pytest.raises(TransactionFailed, match="nothing left to claim"):
        world.claim(less, 1)
    world.set_root(more)
    with pytest.raises(TransactionFailed, match="nothing left to claim"):
        world.claim(more, 1)
    assert world.balance(more.claims[1].address) == 700


def test_only_the_owner_sets_roots(world: World) -> None:
    tree = world.tree(FUNDS)
    with pytest.raises(TransactionFailed, match="only the owner"):
        world.drop.transact("set_root", tree.root, sender=tree.claims[0].address)
    with pytest.raises(TransactionFailed, match="not in the tree"):
        world.claim(tree, 0)
    assert world.drop.call("root") == bytes(32)


def test_a_token_that_refuses_or_is_used_up_leaves_the_claim_open(world: World) -> None:
    tree = world.tree(5, FUNDS + 1)
    world.set_root(tree)
    world.token.transact("refuse", True, sender=world.owner)
    with pytest.raises(TransactionFailed, match="the token did not pay"):
        world.claim(tree, 0)
    world.token.transact("refuse", False, sender=world.owner)
    with pytest.raises(TransactionFailed):
        world.claim(tree, 1)  # the drop holds one too little
    assert [world.drop.call("paid", claim.address) for claim in tree.claims] == [0, 0]
    world.token.transact("mint", world.drop.address, 6, sender=world.owner)
    world.claim(tree, 0)
    world.claim(tree, 1)
    assert world.balance(world.drop.address) == 0


def test_a_token_that_calls_back_is_not_paid_twice(world: World) -> None:
    tree = world.tree(5, 700)
    world.set_root(tree)
    world.token.transact("call_back", 700, tree.proof(1), sender=world.owner)
    world.claim(tree, 1)
    assert world.token.call("calling_back") is False, "it did call"
    assert world.token.call("succeeded") is False
    assert (world.balance(tree.claims[1].address), world.drop.call("paid", tree.claims[1].address)) == (700, 700)


def test_a_token_that_answers_nothing_pays(world: World) -> None:
    token = world.chain.deploy(HERE / "silent_token.json", sender=world.owner)
    drop = world.chain.deploy(DROP, token.address, world.owner, sender=world.owner)
    token.transact("mint", drop.address, 10, sender=world.owner)
    silent, tree = World(world.chain, token, drop), world.tree(4, 6)
    silent.set_root(tree)
    silent.claim(tree, 1)
    assert (silent.balance(tree.claims[1].address), silent.balance(drop.address)) == (6, 4)


def test_a_thousand_claims(world: World) -> None:
    addresses = [checksummed(hashlib.sha256(b"%d" % number).digest()[:20]) for number in range(1000)]
    tree = grow(Claim(address, number + 1) for number, address in enumerate(addresses))
    world.set_root(tree)
    claimed = (*range(0, 1000, 40), 999)
    assert {len(tree.proof(index)) for index in range(1000)} == {9, 10}
    for index in claimed:
        world.claim(tree, index)
    assert [world.balance(addresses[index]) for index in claimed] == [index + 1 for index in claimed]
    assert FUNDS - world.balance(world.drop.address) == sum(index + 1 for index in claimed)
    for index, changes in ((0, {}), (1, {"amount": 3}), (1, {"proof": tree.proof(2)})):
        with pytest.raises(TransactionFailed):
            world.claim(tree, index, **changes)


def test_random_histories_pay_each_account_the_most_that_it_proved(world: World) -> None:
    rng = random.Random(6)
    amounts, proved = [0] * 8, [0] * 8
    tree = world.tree(*amounts)
    refused = 0
    for _ in range(60):
        if rng.random() < 0.2:  # an owner that errs: amounts may also go down
            amounts = [max(0, amount + rng.randint(-40, 100)) for amount in amounts]
            tree = world.tree(*amounts)
            world.set_root(tree)
        index = rng.randrange(8)
        changes = rng.choice([{}, {}, {"amount": amounts[index] + 1}, {"proof": tree.proof((index + 1) % 8)}])
        if not changes and amounts[index] > proved[index]:
            world.claim(tree, index)
            proved[index] = amounts[index]
        else:
            refused += 1
            with pytest.raises(TransactionFailed):
                world.claim(tree, index, **changes)
    assert refused > 20
    assert sum(proved) > 500
    assert [world.balance(claim.address) for claim in tree.claims] == proved
    assert world.balance(world.drop.address) == FUNDS - sum(proved)


@pytest.mark.parametrize("name", ["drop", "claim_token", "silent_token"])
def test_what_is_shipped_was_compiled_from_the_source_beside_it(name: str) -> None:
    """`make chain` compiles again."""
    compiled = DROP if name == "drop" else HERE / f"{name}.json"
    source = compiled.with_suffix(".vy").read_bytes()
    assert json.loads(compiled.read_text())["source_sha256"] == hashlib.sha256(source).hexdigest()
