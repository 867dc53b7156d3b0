# pragma version 0.4.3
# pragma evm-version paris
"""
@notice A token for tests whose transfer answers nothing, as some in wide use do.
"""
balanceOf: public(HashMap[address, uint256])


@external
def mint(account: address, amount: uint256):
    self.balanceOf[account] += amount


@external
def transfer(account: address, amount: uint256):
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[account] += amount
