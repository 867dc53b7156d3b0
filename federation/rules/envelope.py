"""Signed payloads: one envelope for plans, agreements, log entries, commitments and updates.

The envelope is DSSE (Dead Simple Signing Envelope, protocol v1): the signature covers the payload's type and its exact
bytes, so a verifier checks the received bytes first and parses afterwards, and a signature made for one type of
document never passes for another.
"""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from federation.errors import PeerError
from federation.rules.canonical import SIZE_MAX_BYTES, canonical_bytes, parse_canonical
from federation.rules.keys import SIGNATURE_BYTES, PrivateKey, PublicKey

_FIELDS: Final = frozenset({"payload", "payloadType", "signature", "signer"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload whose signature has been verified (build it with :func:`sign` or :func:`open_envelope` only)."""

    payload_type: str
    payload: bytes
    signer: PublicKey
    signature: bytes

    def to_bytes(self) -> bytes:
        """The envelope's canonical JSON bytes: what is sent, stored, logged and hashed."""
        return canonical_bytes(
            {
                "payload": base64.b64encode(self.payload).decode("ascii"),
                "payloadType": self.payload_type,
                "signature": base64.b64encode(self.signature).decode("ascii"),
                "signer": self.signer.did,
            }
        )


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (DSSE v1, "PAE")."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: PrivateKey) -> Envelope:
    """Sign ``payload`` as a document of ``payload_type``."""
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    return Envelope(payload_type=payload_type, payload=payload, signer=key.public, signature=signature)


def open_envelope(
    data: bytes,
    *,
    payload_type: str,
    signer: PublicKey | None = None,
    signers: Collection[PublicKey] = (),
    max_bytes: int = SIZE_MAX_BYTES,
) -> Envelope:
    """Verify a received envelope; its payload may be parsed afterwards.

    Args:
        data: the bytes as received.
        payload_type: the only type that the caller accepts.
        signer: the only key that the caller accepts; None takes any strong key, and the caller decides about it.
        signers: where several are accepted, all of them.
        max_bytes: the bound on ``data``.

    Raises:
        PeerError: malformed, of another type, by another signer, or with a wrong signature.
    """
    document = parse_canonical(data, max_bytes=max_bytes)
    if not isinstance(document, dict) or set(document) != _FIELDS:
        raise _refused("it does not have exactly the fields payload, payloadType, signature and signer")
    if not all(isinstance(value, str) for value in document.values()):
        raise _refused("a field is not a string")
    if document["payloadType"] != payload_type:
        raise _refused(f"it is of type {document['payloadType'][:80]!r}, not {payload_type!r}")
    try:
        payload = base64.b64decode(document["payload"], validate=True)
        signature = base64.b64decode(document["signature"], validate=True)
    except (binascii.Error, ValueError):
        raise _refused("a field is not base64") from None
    if base64.b64encode(payload).decode() != document["payload"] or len(signature) != SIGNATURE_BYTES:
        raise _refused("a field is not canonical base64")
    key = PublicKey.from_did(document["signer"])
    accepted = signers if signer is None else (signer,)
    if accepted and key not in accepted:
        raise _refused(f"it is signed by {key.did}, not by {' or '.join(each.did for each in accepted)}")
    if not key.verify(signature, pre_authentication_encoding(payload_type, payload)):
        raise _refused("the signature does not match its bytes")
    envelope = Envelope(payload_type=payload_type, payload=payload, signer=key, signature=signature)
    if envelope.to_bytes() != data:
        raise _refused("its encoding is ambiguous")
    return envelope


def _refused(why: str) -> PeerError:
    return PeerError(f"The signed document is refused: {why}.", remedy="Ask its signer to send it again, unchanged.")
