"""Two libraries, one accept set: what PyNaCl verifies and what cryptography verifies."""

import hashlib

import pytest
from consent_people import ANNA, BEN
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp

from consent.rules import signature
from consent.rules.refusal import RefusedRecordError
from consent.rules.signature import strong_point, verify
from federation.rules.keys import PrivateKey, PublicKey

ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = b"\x01" + bytes(31)
TORSION = [
    bytes.fromhex(point)
    for point in (
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
]
messages = st.binary(min_size=0, max_size=80)
scalars = st.integers(0, ORDER - 1)


def by_openssl(point: bytes, given_signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(point).verify(given_signature, message)
    except InvalidSignature:
        return False
    return True


def crafted(secret: int, nonce: int, part: bytes | None, message: bytes, lift: int = 0) -> tuple[bytes, bytes]:
    """A key and a signature by somebody who knows the secret and may add a point of small order to R, or lift S."""
    point = crypto_scalarmult_ed25519_base_noclamp(secret.to_bytes(32, "little")) if secret else IDENTITY
    r = crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little")) if nonce else IDENTITY
    if part is not None:
        r = crypto_core_ed25519_add(r, part)
    challenge = int.from_bytes(hashlib.sha512(r + point + message).digest(), "little") % ORDER
    s = (nonce + challenge * secret) % ORDER + lift * ORDER
    return point, r + s.to_bytes(32, "little")


@given(
    st.integers(1, ORDER - 1),
    st.integers(1, ORDER - 1),
    st.none() | st.sampled_from(TORSION),
    messages,
    st.integers(0, 7),
)
def test_honest_or_crafted_both_libraries_say_the_same(
    secret: int, nonce: int, part: bytes | None, message: bytes, lift: int
) -> None:
    point, made = crafted(secret, nonce, part, message, lift)
    assert verify(point, made, message) is by_openssl(point, made, message)
    assert verify(point, made, message) is (part is None and lift == 0)


@given(st.integers(1, ORDER - 1), messages)
def test_an_r_of_small_order_is_refused(secret: int, message: bytes) -> None:
    point, made = crafted(secret, 0, None, message)
    assert by_openssl(point, made, message)  # whoever publishes it gives their secret away
    assert not verify(point, made, message)
    for part in TORSION:
        point, made = crafted(secret, 0, part, message)
        assert not verify(point, made, message)


@given(st.binary(min_size=64, max_size=64), messages)
def test_random_bytes_are_no_signature(made: bytes, message: bytes) -> None:
    assert verify(ANNA.public.raw, made, message) is by_openssl(ANNA.public.raw, made, message) is False


@given(st.integers(0, 511), messages)
def test_a_flipped_bit_is_refused_by_both(bit: int, message: bytes) -> None:
    made = bytearray(ANNA.sign(message))
    made[bit // 8] ^= 1 << bit % 8
    assert verify(ANNA.public.raw, bytes(made), message) is by_openssl(ANNA.public.raw, bytes(made), message) is False


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_64_bytes(length: int) -> None:
    assert not verify(ANNA.public.raw, bytes(length), b"")
    assert not verify(b"", ANNA.sign(b""), b"")


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_accepted_exactly_if_it_is_strong(point: bytes) -> None:
    import base58

    did = "did:key:z" + base58.b58encode(b"\xed\x01" + point).decode()
    try:
        strong = PublicKey(point)
    except Exception:  # noqa: BLE001 -- whatever the reason, the answer must be the same
        with pytest.raises(RefusedRecordError):
            strong_point(did)
        return
    assert strong_point(did) == strong.raw


def test_known_keys_are_spared_only_the_slowest_check() -> None:
    mixed = crypto_core_ed25519_add(BEN.public.raw, TORSION[3])
    import base58

    def name(point: bytes) -> str:
        return "did:key:z" + base58.b58encode(b"\xed\x01" + point).decode()

    for point in (*TORSION, IDENTITY, (2**255 - 19 + 3).to_bytes(32, "little")):
        with pytest.raises(RefusedRecordError):
            strong_point(name(point), known={name(point)})
    with pytest.raises(RefusedRecordError):
        strong_point(name(mixed))
    fresh = PrivateKey(hashlib.sha256(b"not seen before").digest()).public
    assert strong_point(fresh.did, known={fresh.did}) == fresh.raw


def test_the_memory_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "_KEYS_REMEMBERED_MAX", 3)
    monkeypatch.setattr(signature, "_strong", {})
    for number in range(10):
        strong_point(PrivateKey(bytes([number]) * 32).public.did)
        assert len(signature._strong) <= 3
