"""One Ed25519 key, three names; and the weak keys that must never be one."""

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add

from federation.errors import PeerError
from federation.rules.keys import PrivateKey, PublicKey

FIELD = 2**255 - 19
SIGN = 1 << 255
# All points of order 1, 2, 4 and 8, in their canonical encodings.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
# A y of p or more (there are 19 of them, with either sign), and x = 0 with the sign bit set.
NON_CANONICAL = [(y + sign).to_bytes(32, "little").hex() for y in range(FIELD, 2**255) for sign in (0, SIGN)] + [
    (y + SIGN).to_bytes(32, "little").hex() for y in (1, FIELD - 1)
]
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_small_order_key_is_refused_under_each_of_its_names(point: str) -> None:
    raw = bytes.fromhex(point)
    did = "did:key:z" + base58.b58encode(b"\xed\x01" + raw).decode()
    peer_id = base58.b58encode(bytes.fromhex("002408011220") + raw).decode()
    for read in (lambda: PublicKey(raw), lambda: PublicKey.from_did(did), lambda: PublicKey.from_peer_id(peer_id)):
        with pytest.raises(PeerError, match="not a strong Ed25519 key"):
            read()


def test_why_small_order_keys_are_refused_one_signature_fits_every_message() -> None:
    identity = bytes.fromhex(SMALL_ORDER[0])
    forged = identity + bytes(32)
    for message in (b"I owe you nothing.", b"I owe you a million."):
        Ed25519PublicKey.from_public_bytes(identity).verify(forged, message)  # the library accepts it


@pytest.mark.parametrize("point", NON_CANONICAL)
def test_a_non_canonical_point_is_refused(point: str) -> None:
    with pytest.raises(PeerError, match="not a strong Ed25519 key"):
        PublicKey(bytes.fromhex(point))


@given(seeds, st.sampled_from([point for point in SMALL_ORDER if point != SMALL_ORDER[0]]))
def test_a_key_with_a_small_order_part_is_refused(seed: bytes, part: str) -> None:
    mixed = crypto_core_ed25519_add(PrivateKey(seed).public.raw, bytes.fromhex(part))
    with pytest.raises(PeerError, match="not a strong Ed25519 key"):
        PublicKey(mixed)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    with pytest.raises(PeerError, match="not a strong"):
        PublicKey(bytes(range(length)))
    with pytest.raises(PeerError, match="32 bytes"):
        PrivateKey(bytes(length))


@given(seeds)
def test_all_names_lead_back_to_the_key(seed: bytes) -> None:
    key = PrivateKey(seed).public
    assert PublicKey.from_did(key.did) == PublicKey.from_peer_id(key.peer_id) == PublicKey(key.raw) == key
    assert key.did.startswith("did:key:z6Mk")
    assert key.peer_id.startswith("12D3KooW")
    assert key.did == "did:key:" + key.multibase


def test_names_of_a_known_key() -> None:
    # RFC 8032, section 7.1, test 1; the did is the W3C did:key method's own form of it.
    key = PrivateKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")).public
    assert key.raw.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.did == "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"
    assert base58.b58decode(key.peer_id).hex() == "002408011220" + key.raw.hex()


def test_signature_of_the_standard() -> None:
    # RFC 8032, section 7.1, test 3.
    key = PrivateKey(bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
    signature = key.sign(bytes.fromhex("af82"))
    assert signature.hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert key.public.verify(signature, bytes.fromhex("af82"))


@given(seeds, st.binary(max_size=50), st.integers(0, 511))
def test_a_signature_holds_for_its_message_and_no_other(seed: bytes, message: bytes, bit: int) -> None:
    key = PrivateKey(seed)
    signature = key.sign(message)
    assert key.public.verify(signature, message)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not key.public.verify(bytes(flipped), message)
    assert not key.public.verify(signature, message + b".")
    assert not key.public.verify(signature[:-1], message)
    assert not key.public.verify(signature + b"\0", message)


@given(st.text(max_size=80))
def test_other_texts_are_not_names(text: str) -> None:
    for read in (PublicKey.from_did, PublicKey.from_peer_id):
        with pytest.raises(PeerError):
            read(text)


def test_names_of_other_kinds_of_keys_are_refused() -> None:
    key = PrivateKey(bytes(32)).public
    secp256k1 = "did:key:z" + base58.b58encode(b"\xe7\x01" + b"\x02" + key.raw).decode()
    short = "did:key:z" + base58.b58encode(b"\xed\x01" + key.raw[:31]).decode()
    for did in (secp256k1, short, key.did + "1", key.did.upper(), key.multibase, "did:key:" + "z" * 500, key.did + " "):
        with pytest.raises(PeerError):
            PublicKey.from_did(did)
    rsa = base58.b58encode(bytes.fromhex("1220") + key.raw).decode()
    for peer_id in (rsa, key.peer_id[:-1], key.peer_id + "1", "1" * 500):
        with pytest.raises(PeerError):
            PublicKey.from_peer_id(peer_id)


def test_a_private_key_does_not_show_its_secret() -> None:
    key = PrivateKey(bytes(range(32)))
    assert bytes(range(32)).hex() not in f"{key!r} {key}"
    assert key.public.did in repr(key)
