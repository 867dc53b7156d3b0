"""Ed25519 keys, and the three names of one key: raw bytes, did:key, libp2p peer id.

A party has one key. ``did:key`` (W3C did:key method, section "Ed25519") and the libp2p peer id (libp2p peer-id
specification, identity multihash of the protobuf-encoded key) are both derived from it, so that a signature and a
connection prove the same identity. Weak keys (small order, non-canonical) are refused with libsodium's check, as the
``cryptography`` package accepts them.
"""

from dataclasses import dataclass
from typing import Final

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.bindings import crypto_core_ed25519_is_valid_point

from federation.errors import PeerError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_MULTICODEC_ED25519: Final = b"\xed\x01"
# Identity multihash (0x00, length 0x24) of the protobuf PublicKey {Type: Ed25519 = 1, Data: 32 bytes}.
_PEER_ID_PREFIX: Final = bytes.fromhex("002408011220")
_NAME_CHARACTERS_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A strong Ed25519 public key (RFC 8032), 32 bytes.

    Raises:
        PeerError: on construction, for a wrong length, a small-order or a non-canonical point.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES or not crypto_core_ed25519_is_valid_point(self.raw):
            raise PeerError(
                "The public key is not a strong Ed25519 key.",
                remedy="Make a new key; this one would accept signatures that nobody made.",
            )

    @classmethod
    def from_did(cls, did: str) -> "PublicKey":
        """Read a ``did:key:z...`` of an Ed25519 key.

        Raises:
            PeerError: any other text.
        """
        head, tail = "did:key:z", did[len("did:key:z") :]
        if not did.startswith(head) or len(did) > _NAME_CHARACTERS_MAX:
            raise _unreadable(did, "did:key")
        raw = _base58(tail, did, "did:key")
        if not raw.startswith(_MULTICODEC_ED25519) or len(raw) != len(_MULTICODEC_ED25519) + KEY_BYTES:
            raise _unreadable(did, "did:key")
        return cls(raw[len(_MULTICODEC_ED25519) :])

    @classmethod
    def from_peer_id(cls, peer_id: str) -> "PublicKey":
        """Read a libp2p peer id (base58btc) of an Ed25519 key.

        Raises:
            PeerError: any other text.
        """
        if len(peer_id) > _NAME_CHARACTERS_MAX:
            raise _unreadable(peer_id, "peer id")
        raw = _base58(peer_id, peer_id, "peer id")
        if not raw.startswith(_PEER_ID_PREFIX) or len(raw) != len(_PEER_ID_PREFIX) + KEY_BYTES:
            raise _unreadable(peer_id, "peer id")
        return cls(raw[len(_PEER_ID_PREFIX) :])

    @property
    def did(self) -> str:
        """``did:key:z6Mk...``."""
        return "did:key:" + self.multibase

    @property
    def multibase(self) -> str:
        """The key as a multibase string, as in a did:key and in a proof's ``verificationMethod``."""
        return "z" + str(base58.b58encode(_MULTICODEC_ED25519 + self.raw).decode("ascii"))

    @property
    def peer_id(self) -> str:
        """``12D3KooW...``."""
        return str(base58.b58encode(_PEER_ID_PREFIX + self.raw).decode("ascii"))

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) is this key's over ``message``. Never raises."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """An Ed25519 private key, given as its 32-byte seed (RFC 8032, section 5.1.5). Its ``repr`` shows no secret."""

    seed: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise PeerError(
                f"An Ed25519 seed has {KEY_BYTES} bytes, this one {len(self.seed)}.",
                remedy="Make a new key.",
            )

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature over ``message``, 64 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.did})"


def _base58(text: str, shown: str, kind: str) -> bytes:
    """The bytes that ``text`` spells; one key has one spelling (the library would forgive white space at the end)."""
    try:
        raw = bytes(base58.b58decode(text))
    except ValueError as error:
        raise _unreadable(shown, kind) from error
    if base58.b58encode(raw).decode("ascii") != text:
        raise _unreadable(shown, kind)
    return raw


def _unreadable(text: str, kind: str) -> PeerError:
    return PeerError(
        f"{text[:80]!r} is not the {kind} of an Ed25519 key.",
        remedy="Copy the whole name from the party's own `status` command.",
    )
