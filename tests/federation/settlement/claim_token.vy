# pragma version 0.4.3
# pragma evm-version paris
"""
@notice A token for tests. It can refuse to pay, and it can call the drop back in the middle of a payment.
"""
interface Drop:
    def claim(account: address, cumulative: uint256, proof: DynArray[bytes32, 32]): nonpayable

balanceOf: public(HashMap[address, uint256])
refusing: public(bool)
calling_back: public(bool)
succeeded: public(bool)
cumulative: uint256
proof: DynArray[bytes32, 32]


@external
def mint(account: address, amount: uint256):
    self.balanceOf[account] += amount


@external
def refuse(refusing: bool):
    self.refusing = refusing


@external
def call_back(cumulative: uint256, proof: DynArray[bytes32, 32]):
    self.calling_back = True
    self.cumulative = cumulative
    self.proof = proof


@external
def transfer(account: address, amount: uint256) -> bool:
    if self.refusing:
        return False
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[account] += amount
    if self.calling_back:
        self.calling_back = False
        self.succeeded = raw_call(
            msg.sender,
            abi_encode(
                account, self.cumulative, self.proof, method_id=method_id("claim(address,uint256,bytes32[])")
            ),
            revert_on_failure=False,
        )
    return True
