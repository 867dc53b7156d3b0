"""Data Integrity proofs with the cryptosuite ``eddsa-jcs-2022``: one signature inside a JSON document.

Source: W3C "Data Integrity EdDSA Cryptosuites v1.0", section 3.3. What is signed is
SHA-256(JCS(proof configuration)) || SHA-256(JCS(document without its proof)), 64 bytes, with Ed25519.

We are stricter than the recommendation in three places: the document's ``@context`` must equal the proof's (a prefix is
not enough), the verification method must be a ``did:key`` whose fragment is the same key, and there is exactly one
proof with exactly the fields that the suite names. What the document means is not decided here.
"""

import hashlib
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any, Final

import base58

from consent.rules.refusal import refused
from consent.rules.signature import signature_of, strong_point, verify
from federation.errors import AccordError
from federation.rules.canonical import canonical_bytes
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import PrivateKey, PublicKey

CRYPTOSUITE: Final = "eddsa-jcs-2022"
PURPOSE: Final = "assertionMethod"
_FIELDS: Final = frozenset(
    {"@context", "created", "cryptosuite", "proofPurpose", "proofValue", "type", "verificationMethod"}
)


def proof_hash(document: Mapping[str, Any], config: Mapping[str, Any]) -> bytes:
    """The 64 bytes that are signed (section 3.3.4).

    Args:
        document: the document without ``proof``.
        config: the proof without ``proofValue``.

    Raises:
        PeerError: a value that has no canonical form (a float, an integer beyond 2^53 - 1, a lone surrogate).
    """
    return _hash(canonical_bytes(document), canonical_bytes(config))


def unsigned_proof(document: Mapping[str, Any], key: PublicKey, *, created: datetime) -> dict[str, Any]:
    """The proof without its ``proofValue``, for a signer elsewhere: a browser signs :func:`proof_hash` of both.

    Raises:
        ValueError: the document already has a proof, or no ``@context``.
    """
    if "proof" in document or "@context" not in document:
        raise ValueError("a document to be signed has a context and no proof")
    return {
        "@context": document["@context"],
        "created": format_instant(created),
        "cryptosuite": CRYPTOSUITE,
        "proofPurpose": PURPOSE,
        "type": "DataIntegrityProof",
        "verificationMethod": verification_method(key),
    }


def add_proof(document: Mapping[str, Any], key: PrivateKey, *, created: datetime) -> dict[str, Any]:
    """The document with its proof, signed by ``key``.

    Raises:
        PeerError: the document has no canonical form.
        ValueError: it already has a proof, or no ``@context``.
    """
    config = unsigned_proof(document, key.public, created=created)
    value = "z" + base58.b58encode(key.sign(proof_hash(document, config))).decode("ascii")
    return {**document, "proof": {**config, "proofValue": value}}


def verify_proof(document: Mapping[str, Any]) -> tuple[PublicKey, datetime]:
    """Verify a document's proof; returns who signed, and when they say they did.

    Whether that key may sign this document is for the caller to decide.

    Raises:
        ConsentError: whatever is wrong with the proof.
    """
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    proof = document.get("proof")
    try:
        content = canonical_bytes(unsecured)
        members = proof if isinstance(proof, Mapping) else {}
        config = {name: value for name, value in members.items() if name != "proofValue"}
        signer, created = verify_detached(proof, unsecured.get("@context"), content, canonical_bytes(config))
    except AccordError as error:
        raise refused(error.message.rstrip("."), reason=getattr(error, "reason", "malformed")) from error
    return PublicKey.from_did(signer), created


def verify_detached(
    proof: Any, context: Any, content: bytes, config: bytes, *, known: Container[str] = ()
) -> tuple[str, datetime]:
    """As :func:`verify_proof`, for a document that is canonical already; returns the signer's did.

    Args:
        proof: the document's ``proof``, as parsed.
        context: the document's ``@context``.
        content: the canonical bytes of the document without its proof.
        config: the canonical bytes of the proof without its ``proofValue``.
        known: see :func:`consent.rules.signature.strong_point`.

    Raises:
        ConsentError: whatever is wrong with the proof.
    """
    if isinstance(proof, list):
        raise refused("it does not carry exactly one complete proof", reason="several-proofs" if proof else "no-proof")
    if not isinstance(proof, Mapping):
        raise refused("it does not carry exactly one complete proof", reason="no-proof")
    if not _is_whole(proof):
        raise refused("it does not carry exactly one complete proof", reason="malformed-proof")
    if proof["proofPurpose"] != PURPOSE:
        raise refused(f"its proof was not made for {PURPOSE}", reason="wrong-proof-purpose")
    if (proof["type"], proof["cryptosuite"]) != ("DataIntegrityProof", CRYPTOSUITE):
        raise refused(f"its proof is not a {CRYPTOSUITE} proof", reason="wrong-cryptosuite")
    if context is None or context != proof["@context"]:
        raise refused("its context differs from the context that was signed", reason="context-mismatch")
    signer = _signer(proof["verificationMethod"])
    point = strong_point(signer, known=known)
    if not isinstance(proof["created"], str):
        raise refused("its proof has no time", reason="malformed-proof")
    try:
        created = parse_instant(proof["created"])
    except AccordError as error:
        raise refused(error.message.rstrip("."), reason="malformed-proof") from error
    signature = signature_of(proof["proofValue"])
    if signature is None:
        raise refused("its proof value is not one Ed25519 signature in base58", reason="malformed-proof")
    if not verify(point, signature, _hash(content, config)):
        raise refused("the signature does not match its content", reason="wrong-signature")
    return signer, created


def verification_method(key: PublicKey) -> str:
    """The DID URL of a did:key's only key: the DID, ``#``, the multibase key again."""
    return f"{key.did}#{key.multibase}"


def _hash(content: bytes, config: bytes) -> bytes:
    return hashlib.sha256(config).digest() + hashlib.sha256(content).digest()


def _is_whole(proof: Any) -> bool:
    return isinstance(proof, Mapping) and proof.keys() == _FIELDS


def _signer(method: Any) -> str:
    did, separator, fragment = method.partition("#") if isinstance(method, str) else ("", "", "")
    if not separator:
        raise refused("its verification method is not a did:key", reason="malformed-proof")
    if did != "did:key:" + fragment:
        raise refused("its verification method names two different keys", reason="malformed-proof")
    return did
