"""Addresses of accounts on a chain, with the checksum of EIP-55: the case of every letter is one bit of a hash.

An address without a checksum (all letters small, or all large) is refused: a mistyped one would be paid for ever.
"""

import re
from typing import Final

from federation.errors import OperatorError

from .keccak import keccak256

ADDRESS_BYTES: Final = 20
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


def checksummed(address: bytes) -> str:
    """The address (20 bytes) as people write it (EIP-55)."""
    digits = address.hex()
    bits = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(
        digit.upper() if int(bit, 16) >= 8 else digit  # noqa: PLR2004 -- the highest bit of four
        for digit, bit in zip(digits, bits, strict=False)
    )


def address_bytes(text: str) -> bytes:
    """The 20 bytes of an address that carries its checksum.

    Raises:
        OperatorError: not an address, without or with a wrong checksum, or the address zero.
    """
    if _ADDRESS.fullmatch(text) is None:
        raise OperatorError(f"{text[:80]!r} is not an address.", remedy="Write 0x and 40 hexadecimal digits.")
    address = bytes.fromhex(text[2:])
    if not any(address):
        raise OperatorError(
            "Nobody owns the address zero: what is paid to it is lost.", remedy="Give an address of the institution's."
        )
    if text != checksummed(address):
        plain = text[2:] in (text[2:].lower(), text[2:].upper())
        raise OperatorError(
            f"The address {text} {'carries no checksum' if plain else 'is mistyped: its checksum does not fit'}.",
            remedy="Copy it from the institution's wallet again, letters in the case that is shown there (EIP-55).",
        )
    return address
