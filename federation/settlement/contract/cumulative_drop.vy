# pragma version 0.4.3
# pragma evm-version paris
"""
@title Cumulative Merkle drop
@license Apache-2.0
@notice Pays in a token what institutions earned. The root commits to one amount for each account: everything that it ever
        earned. A claim pays the difference to what the account was paid before, so that nothing is paid twice, under
        whatever root. Leaves and proofs are those of OpenZeppelin's standard-v1 trees over (address, uint256).
@dev One micro-credit is one smallest unit of the token: a token with six decimals shows credits as the books do.
     Whoever owns the drop decides who is paid. Let that be an account which several institutions sign for.
"""
from ethereum.ercs import IERC20

event RootSet:
    root: indexed(bytes32)

event Claimed:
    account: indexed(address)
    amount: uint256
    cumulative: uint256

token: public(immutable(IERC20))
owner: public(immutable(address))
root: public(bytes32)
paid: public(HashMap[address, uint256])


@deploy
def __init__(token_: IERC20, owner_: address):
    """
    @param token_ What is paid out; the drop pays from what it was sent of it.
    @param owner_ Who sets roots.
    """
    token = token_
    owner = owner_


@external
def set_root(root: bytes32):
    """
    @notice Replace the root by that of a newer tree.
    """
    assert msg.sender == owner, "only the owner sets roots"
    self.root = root
    log RootSet(root=root)


@external
def claim(account: address, cumulative: uint256, proof: DynArray[bytes32, 32]):
    """
    @notice Pay an account what it earned and was not paid yet. Anybody may call; the account alone is paid.
    @param account Who is paid.
    @param cumulative Everything it ever earned, as the tree says.
    @param proof From its leaf to the root.
    """
    assert self._leads_to_root(keccak256(keccak256(abi_encode(account, cumulative))), proof), "not in the tree"
    before: uint256 = self.paid[account]
    assert cumulative > before, "nothing left to claim"
    self.paid[account] = cumulative  # before the transfer: a token that calls back finds it paid
    amount: uint256 = cumulative - before
    log Claimed(account=account, amount=amount, cumulative=cumulative)
    assert extcall token.transfer(account, amount, default_return_value=True), "the token did not pay"


@view
def _leads_to_root(leaf: bytes32, proof: DynArray[bytes32, 32]) -> bool:
    node: bytes32 = leaf
    for sibling: bytes32 in proof:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    return node == self.root
