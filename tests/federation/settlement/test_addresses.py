"""Addresses with the checksum of EIP-55, held against the EIP's own examples and another implementation."""

import pytest
from eth_utils import keccak, to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.settlement.addresses import address_bytes, checksummed
from federation.settlement.keccak import keccak256

# EIP-55, "Test Cases".
PUBLISHED = (
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
)


@pytest.mark.parametrize("address", PUBLISHED)
def test_published_addresses_are_accepted_and_written_the_same(address: str) -> None:
    assert checksummed(address_bytes(address)) == address


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=300))
def test_another_implementation_agrees(address: bytes, data: bytes) -> None:
    assert checksummed(address) == to_checksum_address(address)
    assert keccak256(data) == keccak(data)


def test_one_letter_in_the_other_case_is_refused() -> None:
    address = PUBLISHED[4]
    letters = [place for place, digit in enumerate(address) if place > 1 and digit.isalpha()]
    assert len(letters) == 18
    for place in letters:
        mistyped = address[:place] + address[place].swapcase() + address[place + 1 :]
        with pytest.raises(OperatorError, match="mistyped"):
            address_bytes(mistyped)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PUBLISHED[4].lower(), "carries no checksum"),
        ("0x" + PUBLISHED[4][2:].upper(), "carries no checksum"),
        ("0x" + "0" * 40, "address zero"),
        (PUBLISHED[4][2:], "not an address"),
        (PUBLISHED[4] + "\n", "not an address"),
        (PUBLISHED[4][:-1], "not an address"),
        ("0X" + PUBLISHED[4][2:], "not an address"),
        ("0x" + "٣" * 40, "not an address"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        address_bytes(text)
