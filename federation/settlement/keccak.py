"""Keccak-256 as Ethereum uses it: the submission's padding, so not the SHA3-256 of FIPS 202 in Python's ``hashlib``."""

from typing import Final

from Crypto.Hash import keccak

HASH_BYTES: Final = 32


def keccak256(data: bytes) -> bytes:
    """The hash, 32 bytes."""
    return keccak.new(digest_bits=256, data=data).digest()
