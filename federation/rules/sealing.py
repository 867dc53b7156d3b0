"""What one institution seals to another for one study, so that the coordinator who carries it cannot read it.

X25519 (RFC 7748, section 6.1) between keys that both made for this study alone and that their signed agreements carry;
HKDF-SHA256 (RFC 5869) over the shared secret, with study, sender and recipient; ChaCha20-Poly1305 (RFC 8439). A key
seals one message in one direction: the nonce is zero, and sealing the same bytes again gives the same bytes.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federation.errors import PeerError
from federation.rules.canonical import tagged_hash

SECRET_BYTES: Final = 32
TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)


def sealing_key(secret: bytes) -> str:
    """The public key of an X25519 secret (32 random bytes): 64 hexadecimal digits, as an agreement carries it."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def seal(message: bytes, *, secret: bytes, to: str, study: str, sender: str, recipient: str) -> bytes:
    """Seal one message; 16 bytes longer than it.

    Args:
        message: for these three names always the same one.
        secret: the sender's, 32 bytes.
        to: the recipient's public key (hexadecimal).
        study: the study's id.
        sender: did.
        recipient: did.

    Raises:
        PeerError: the recipient's key is of small order.
    """
    return _cipher(secret, to, study, sender, recipient).encrypt(_NONCE, message, None)


def open_sealed(data: bytes, *, secret: bytes, by: str, study: str, sender: str, recipient: str) -> bytes:
    """What :func:`seal` sealed.

    Args:
        data: as received; the caller has bounded its size.
        secret: the recipient's, 32 bytes.
        by: the sender's public key (hexadecimal).
        study: the study's id.
        sender: did.
        recipient: did.

    Raises:
        PeerError: altered, or sealed by, to or for anything else.
    """
    try:
        return _cipher(secret, by, study, sender, recipient).decrypt(_NONCE, data, None)
    except InvalidTag:
        raise _refused("it does not open") from None


def _cipher(secret: bytes, public: str, study: str, sender: str, recipient: str) -> ChaCha20Poly1305:
    try:
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(
            X25519PublicKey.from_public_bytes(bytes.fromhex(public))
        )
    except ValueError:
        raise _refused("the other side's key is not an X25519 key") from None
    context = tagged_hash("sealed", *(part.encode("utf-8") for part in (study, sender, recipient)))
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=None, info=context).derive(shared))


def _refused(why: str) -> PeerError:
    return PeerError(f"A sealed message is refused: {why}.", remedy="Ask its sender to seal it again.")
