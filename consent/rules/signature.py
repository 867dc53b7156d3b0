"""Reading keys and signatures from strangers, quickly: a hundred thousand records have as many keys.

The accept set of keys is that of :class:`federation.rules.keys.PublicKey`: a key of small order, one that is not
canonical, and one with a part of small order are refused, each with its own reason; one key has one spelling. What has
been found strong is remembered, in a memory of bounded size.

Signatures are checked with libsodium (PyNaCl), which takes half the time of OpenSSL (``cryptography``) for one check of
64 bytes. Both check the equation without the cofactor and refuse an S of L or more, so they accept the same
signatures, but for one kind: an R of small order, which only somebody who gives their key away can make, is refused
here. A differential test holds the two against each other.
"""

import struct
from collections.abc import Container
from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from consent.rules.refusal import refused
from federation.errors import AccordError
from federation.rules.keys import KEY_BYTES, SIGNATURE_BYTES, PublicKey

_DID_HEAD: Final = "did:key:z"
_MULTICODEC_ED25519: Final = b"\xed\x01"
# 34 bytes that begin with 0xed are 47 or 48 base58 digits; 64 bytes are at most 88.
_KEY_CHARACTERS_MAX: Final = 48
_SIGNATURE_CHARACTERS_MAX: Final = 88
_KEYS_REMEMBERED_MAX: Final = 1 << 17
_FIELD: Final = 2**255 - 19
# The y of every point of order 1, 2, 4 and 8, modulo the field.
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
_DIGITS: Final = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE: Final = len(_DIGITS)
# Two digits at a time: the value of each pair of characters, by their 16 bits.
_PAIRS: Final = {
    first << 8 | second: _BASE * high + low for high, first in enumerate(_DIGITS) for low, second in enumerate(_DIGITS)
}

_strong: dict[str, bytes] = {}


def strong_point(did: str, *, known: Container[str] = ()) -> bytes:
    """The 32 bytes of the strong key that a ``did:key`` names.

    Args:
        did: the name.
        known: names whose keys were found strong before, by whoever keeps them; these save the slowest of the checks
            (that the point has no part of small order).

    Raises:
        RefusedRecordError: not the did:key of an Ed25519 key, or a weak one.
    """
    point = _strong.get(did)
    if point is None:
        point = _read_point(did, known=did in known)
        if len(_strong) >= _KEYS_REMEMBERED_MAX:
            _strong.clear()
        _strong[did] = point
    return point


def check_did(did: str) -> str:
    """The text, if it names a strong key (for pydantic).

    Raises:
        ValueError: it does not.
    """
    try:
        strong_point(did)
    except AccordError as error:
        raise ValueError(error.message) from error
    return did


def verify(point: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``message`` is that of the key ``point`` (32 bytes). Never raises."""
    if len(signature) != SIGNATURE_BYTES or len(point) != KEY_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, point)
    except BadSignatureError:
        return False
    return True


def signature_of(value: object) -> bytes | None:
    """The 64 bytes that a proof value spells (multibase, base58); None for anything else."""
    if not isinstance(value, str) or not value.startswith("z") or len(value) > 1 + _SIGNATURE_CHARACTERS_MAX:
        return None
    return base58(value[1:], length=SIGNATURE_BYTES)


def base58(text: str, *, length: int) -> bytes | None:
    """The ``length`` bytes that ``text`` spells in base58 (Bitcoin's alphabet), None if it does not.

    Bytes have one spelling: a leading ``1`` is a zero byte, and the other digits are one number.
    """
    if not text.isascii():
        return None
    odd = len(text) % 2
    spelled = ("1" + text if odd else text).encode("ascii")  # in front of the number, "1" is a zero
    number = 0
    try:
        for pair in struct.unpack(f">{len(spelled) // 2}H", spelled):
            number = number * 3364 + _PAIRS[pair]
        data = number.to_bytes(length, "big")
    except (KeyError, OverflowError):
        return None
    zeros = len(text) - len(text.lstrip("1"))
    return data if len(data) - len(data.lstrip(b"\0")) == zeros else None


def _read_point(did: str, *, known: bool) -> bytes:
    raw = None
    if did.startswith(_DID_HEAD) and len(did) <= len(_DID_HEAD) + _KEY_CHARACTERS_MAX:
        raw = base58(did[len(_DID_HEAD) :], length=len(_MULTICODEC_ED25519) + KEY_BYTES)
    if raw is None or not raw.startswith(_MULTICODEC_ED25519):
        raise refused(f"{did[:80]!r} is not the did:key of an Ed25519 key", reason="not-a-key")
    point = raw[len(_MULTICODEC_ED25519) :]
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)
    if y % _FIELD in _SMALL_ORDER_Y:
        raise refused(f"{did} is not a strong Ed25519 key", reason="small-order-key")
    if y >= _FIELD:
        raise refused(f"{did} is not a strong Ed25519 key", reason="non-canonical-key")
    if not known:
        try:
            PublicKey(point)
        except AccordError as error:
            raise refused(f"{did} is not a strong Ed25519 key", reason="weak-key") from error
    return point
