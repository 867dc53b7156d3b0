"""Contracts on a chain in memory: eth-tester over py-evm, with the ABI's encoding by eth-abi."""

import json
from pathlib import Path
from typing import Any

from eth_abi import decode, encode
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed
from eth_utils import function_abi_to_4byte_selector, keccak

__all__ = ["Chain", "Contract", "TransactionFailed"]


class Chain:
    """A chain whose accounts have ether for gas; every transaction is mined at once."""

    def __init__(self) -> None:
        self.tester = EthereumTester(PyEVMBackend())
        self.accounts = tuple(self.tester.get_accounts())

    def deploy(self, compiled: Path, *arguments: Any, sender: str) -> "Contract":
        """A contract from a compiler's output (ABI and bytecode)."""
        artefact = json.loads(compiled.read_text(encoding="utf-8"))
        constructor = [each for each in artefact["abi"] if each["type"] == "constructor"]
        types = [given["type"] for each in constructor for given in each["inputs"]]
        data = artefact["bytecode"] + encode(types, arguments).hex()
        receipt = self.send(sender, data)
        return Contract(self, receipt["contract_address"], artefact["abi"])

    def send(self, sender: str, data: str, to: str = "") -> dict[str, Any]:
        """The receipt of a transaction; raises ``TransactionFailed`` where the contract refuses."""
        sent = self.tester.send_transaction({"from": sender, "to": to, "data": data, "gas": 3_000_000})
        receipt: dict[str, Any] = self.tester.get_transaction_receipt(sent)
        if receipt["status"] != 1:
            # A call in the state before shows the reason that a mined failure does not carry.
            self.tester.call({"from": sender, "to": to, "data": data, "gas": 3_000_000})
            raise AssertionError("a failed transaction succeeds as a call")
        return receipt


class Contract:
    """One deployed contract; functions by their name."""

    def __init__(self, chain: Chain, address: str, abi: list[dict[str, Any]]) -> None:
        self.chain, self.address = chain, address
        self.functions = {each["name"]: each for each in abi if each["type"] == "function"}
        self.event_abis = {self._topic(each): each for each in abi if each["type"] == "event"}

    def call(self, name: str, *arguments: Any) -> Any:
        """What a view answers."""
        request = {"from": self.chain.accounts[0], "to": self.address, "data": self._data(name, arguments)}
        answer = bytes.fromhex(self.chain.tester.call(request)[2:])
        return decode([each["type"] for each in self.functions[name]["outputs"]], answer)[0]

    def transact(self, name: str, *arguments: Any, sender: str) -> dict[str, Any]:
        """Send a transaction; the receipt."""
        return self.chain.send(sender, self._data(name, arguments), self.address)

    def events(self, receipt: dict[str, Any]) -> list[tuple[Any, ...]]:
        """(name, value, ...) of this contract's events in a receipt, values in the order of the ABI."""
        found = []
        for log in receipt["logs"]:
            if log["address"] == self.address:
                event, topics = self.event_abis[log["topics"][0]], list(log["topics"][1:])
                plain = [each["type"] for each in event["inputs"] if not each["indexed"]]
                values = list(decode(plain, bytes.fromhex(log["data"][2:])))
                fields = (
                    decode([each["type"]], bytes.fromhex(topics.pop(0)[2:]))[0] if each["indexed"] else values.pop(0)
                    for each in event["inputs"]
                )
                found.append((event["name"], *fields))
        return found

    def _data(self, name: str, arguments: tuple[Any, ...]) -> str:
        function = self.functions[name]
        types = [each["type"] for each in function["inputs"]]
        return "0x" + (function_abi_to_4byte_selector(function) + encode(types, arguments)).hex()

    @staticmethod
    def _topic(event: dict[str, Any]) -> str:
        return "0x" + keccak(text=f"{event['name']}({','.join(each['type'] for each in event['inputs'])})").hex()
