"""Reading keys and signatures from strangers, quickly: a hundred thousand records have as many keys.

The accept set is that of :class:`federation.rules.keys.PublicKey`: a key of small order, one that is not canonical, and
one with a part of small order are refused, each with its own reason; one key has one spelling. What has been found
strong is remembered, in a cache of bounded size.
"""

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.rules.refusal import refused
from federation.errors import AccordError
from federation.rules.keys import KEY_BYTES, SIGNATURE_BYTES, PublicKey

_DID_HEAD: Final = "did:key:z"
_MULTICODEC_ED25519: Final = b"\xed\x01"
# 34 bytes that begin with 0xed are 47 or 48 base58 digits; 64 bytes are at most 88.
_KEY_CHARACTERS_MAX: Final = 48
_SIGNATURE_CHARACTERS_MAX: Final = 88
_KEYS_REMEMBERED: Final = 1 << 16
_FIELD: Final = 2**255 - 19
# The y of every point of order 1, 2, 4 and 8 (RFC 7748, section 7, and Bernstein's list of weak points).
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
    }
)
_DIGITS: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_PAIRS: Final = {first + second: 58 * high + low for first, high in _VALUES.items() for second, low in _VALUES.items()}


@lru_cache(maxsize=_KEYS_REMEMBERED)
def key_of(did: str) -> PublicKey:
    """The strong key that a ``did:key`` names.

    Raises:
        RefusedRecordError: not the did:key of an Ed25519 key, or a weak one.
    """
    raw = None
    if did.startswith(_DID_HEAD) and len(did) <= len(_DID_HEAD) + _KEY_CHARACTERS_MAX:
        raw = base58(did[len(_DID_HEAD) :], length=len(_MULTICODEC_ED25519) + KEY_BYTES)
    if raw is None or not raw.startswith(_MULTICODEC_ED25519):
        raise refused(f"{did[:80]!r} is not the did:key of an Ed25519 key", reason="not-a-key")
    point = raw[len(_MULTICODEC_ED25519) :]
    weakness = _weakness(point)
    if weakness is not None:
        raise refused(f"{did} is not a strong Ed25519 key", reason=weakness)
    try:
        return PublicKey(point)
    except AccordError as error:
        raise refused(f"{did} is not a strong Ed25519 key", reason="weak-key") from error


def check_did(did: str) -> str:
    """The text, if it names a strong key (for pydantic).

    Raises:
        ValueError: it does not.
    """
    try:
        key_of(did)
    except AccordError as error:
        raise ValueError(error.message) from error
    return did


def verify(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is this key's over ``message``. Never raises."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
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
    number = 0
    start = len(text) % 2
    try:
        if start:
            number = _VALUES[text[0]]
        for place in range(start, len(text), 2):
            number = number * 3364 + _PAIRS[text[place : place + 2]]
        data = number.to_bytes(length, "big")
    except (KeyError, OverflowError):
        return None
    zeros = len(text) - len(text.lstrip("1"))
    return data if len(data) - len(data.lstrip(b"\0")) == zeros else None


def _weakness(point: bytes) -> str | None:
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)
    if y % _FIELD in _SMALL_ORDER_Y:
        return "small-order-key"
    return "non-canonical-key" if y >= _FIELD else None
